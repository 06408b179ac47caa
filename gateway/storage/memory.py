"""Counters in the memory of one process: for tests, for embedding, and as the model that other stores are held to."""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from gateway.core import windows
from gateway.core.windows import LONGEST_LEASE_S, Claim, Standing, Window
from gateway.storage.counters import (
    SETTLED_KEEP_S,
    Admission,
    Reservation,
    by_counter,
    checked_amounts,
    checked_key,
    with_room,
)

_TIDY_EVERY = 1000


@dataclass
class _Held:
    """A reservation: for each counter its window, the slot where it was counted, and how much."""

    ends_ms: int
    counted: list[tuple[str, Window, int, int]]


@dataclass
class _Counter:
    ends_ms: int = 0
    slots: dict[int, int] = field(default_factory=dict)


class MemoryCounters:
    """`Counters` of one process. What has ended goes with the next thousand verbs at the latest.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counters: dict[str, _Counter] = {}
        self._held: dict[str, _Held] = {}
        self._settled: dict[str, int] = {}
        self._numbers: dict[str, tuple[int, int]] = {}
        self._texts: dict[str, tuple[str, int]] = {}
        self._until_tidy = _TIDY_EVERY

    def start(self) -> None:
        """Nothing has to be."""

    def close(self) -> None:
        """Nothing is open."""

    def check(self) -> None:
        """It is there."""

    def reserve(self, claims: Sequence[Claim], lease_s: float) -> Admission:
        """See `Counters.reserve`."""
        windows.distinct(claims)
        lease_ms = windows.lease_ms(lease_s)
        with self._lock:
            now_ms = self._now_ms()
            slots = [self._live(claim, now_ms) for claim in claims]
            admitted = all(windows.fits(claim, held) for claim, held in zip(claims, slots, strict=True))
            standings = [
                windows.standing(claim, held, now_ms, admitted=admitted)
                for claim, held in zip(claims, slots, strict=True)
            ]
            answer = with_room(admitted, uuid.uuid4().hex, claims, standings)
            if answer.reservation is not None:
                counted = [
                    (claim.counter, claim.window, self._count(claim, claim.amount, now_ms), claim.amount)
                    for claim in claims
                ]
                self._held[answer.reservation.id] = _Held(now_ms + lease_ms, counted)
            return answer

    def open(self, claim: Claim, amount: int) -> bool:
        """See `Counters.open`."""
        windows.openable(claim, amount)
        with self._lock:
            now_ms = self._now_ms()
            if self._live(claim, now_ms):
                return False
            held = (one for each in self._held.values() for one in each.counted)
            reserved = sum(amount for counter, _, _, amount in held if counter == claim.counter)
            self._count(claim, amount + reserved, now_ms)
            return True

    def settle(self, reservation: Reservation, amounts: Sequence[int]) -> bool:
        """See `Counters.settle`."""
        real = by_counter(reservation, checked_amounts(reservation, amounts))
        with self._lock:
            now_ms = self._now_ms()
            if self._settled.get(reservation.id, 0) > now_ms:
                return False
            held = self._held.pop(reservation.id, None)
            counted = {counter: (slot, amount) for counter, _, slot, amount in held.counted} if held else {}
            for counter, (claim, amount) in real.items():
                slot, before = counted.get(counter, (0, 0))
                if amount < before:
                    self._take_back(counter, claim.window, slot, before - amount, now_ms)
                elif amount > before and not (claim.opened and not self._live(claim, now_ms)):
                    self._count(claim, amount - before, now_ms)
            self._settled[reservation.id] = now_ms + int(SETTLED_KEEP_S * 1000)
            return True

    def renew(self, ids: Collection[str], lease_s: float) -> set[str]:
        """See `Counters.renew`."""
        lease_ms = windows.lease_ms(lease_s)
        with self._lock:
            now_ms = self._now_ms()
            renewed = {id for id in ids if id in self._held}
            for id in renewed:
                self._held[id].ends_ms = now_ms + lease_ms
            return renewed

    def look(self, claims: Sequence[Claim]) -> tuple[Standing, ...]:
        """See `Counters.look`."""
        windows.distinct(claims)
        with self._lock:
            now_ms = self._now_ms()
            return tuple(windows.standing(claim, self._live(claim, now_ms), now_ms, admitted=False) for claim in claims)

    def add(self, key: str, amount: int, ttl_s: float) -> int:
        """See `Counters.add`."""
        checked_key(key, ttl_s, amount)
        with self._lock:
            now_ms = self._now_ms()
            longest_ms = now_ms + math.ceil(ttl_s * 1000)
            number, ends_ms = self._numbers.get(key, (0, 0))
            if ends_ms <= now_ms:
                number, ends_ms = 0, longest_ms
            self._numbers[key] = (number + amount, min(ends_ms, longest_ms))
            return number + amount

    def get(self, key: str) -> int:
        """See `Counters.get`."""
        checked_key(key)
        with self._lock:
            number, ends_ms = self._numbers.get(key, (0, 0))
            return number if ends_ms > self._now_ms() else 0

    def fetch(self, keys: Collection[str]) -> dict[str, str]:
        """See `Counters.fetch`."""
        with self._lock:
            now_ms = self._now_ms()
            found = {checked_key(key): self._texts.get(key, ("", 0)) for key in keys}
            return {key: text for key, (text, ends_ms) in found.items() if ends_ms > now_ms}

    def swap(self, key: str, old: str | None, new: str | None, ttl_s: float) -> bool:
        """See `Counters.swap`."""
        checked_key(key, ttl_s, values=(old, new))
        with self._lock:
            now_ms = self._now_ms()
            text, ends_ms = self._texts.get(key, ("", 0))
            if (text if ends_ms > now_ms else None) != old:
                return False
            if new is None:
                self._texts.pop(key, None)
            else:
                self._texts[key] = (new, now_ms + math.ceil(ttl_s * 1000))
            return True

    def _now_ms(self) -> int:
        now_ms = int(self._clock() * 1000)
        longest_ms = now_ms + int(LONGEST_LEASE_S * 1000)
        for id, held in list(self._held.items()):
            held.ends_ms = min(held.ends_ms, longest_ms)
            if held.ends_ms <= now_ms:
                del self._held[id]
                for counter, window, slot, amount in held.counted:
                    self._take_back(counter, window, slot, amount, now_ms)
        self._until_tidy -= 1
        if self._until_tidy <= 0:
            self._tidy(now_ms)
        return now_ms

    def _tidy(self, now_ms: int) -> None:
        self._until_tidy = _TIDY_EVERY
        self._counters = {name: one for name, one in self._counters.items() if one.slots and one.ends_ms > now_ms}
        self._settled = {id: ends_ms for id, ends_ms in self._settled.items() if ends_ms > now_ms}
        self._numbers = {key: kept for key, kept in self._numbers.items() if kept[1] > now_ms}
        self._texts = {key: kept for key, kept in self._texts.items() if kept[1] > now_ms}

    def _live(self, claim: Claim, now_ms: int) -> dict[int, int]:
        counter = self._counters.get(claim.counter)
        if counter is None or (not claim.window.slot_ms and counter.ends_ms <= now_ms):
            return {}
        counter.slots = windows.live(claim.window, counter.slots, now_ms)
        return counter.slots

    def _count(self, claim: Claim, amount: int, now_ms: int) -> int:
        """Count it in the slot that is now, and return that slot."""
        slots = windows.counted(claim.window, self._live(claim, now_ms), amount, now_ms)
        self._counters[claim.counter] = _Counter(now_ms + claim.window.keep_ms, slots)
        return claim.window.slot_at(now_ms)

    def _take_back(self, counter: str, window: Window, slot: int, amount: int, now_ms: int) -> None:
        if (found := self._counters.get(counter)) is not None:
            found.slots = windows.taken_back(window, found.slots, slot, amount, now_ms)
