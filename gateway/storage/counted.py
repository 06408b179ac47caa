"""Counters in tables, within one transaction: read together, changed here, written back together."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.core import windows
from gateway.core.windows import LONGEST_LEASE_S, Claim, Standing, Window
from gateway.storage.counters import SETTLED_KEEP_S, Admission, Reservation, with_room
from gateway.storage.driven import Asked, Driven, Row

#: How the name of a note begins that a reservation is settled, among the keys of `counter_values`.
SETTLED = "s|"

_LONGEST_MS = int(LONGEST_LEASE_S * 1000)

_SLOTS_OF = "SELECT counter, slot, amount, ends_ms FROM counter_slots WHERE counter IN ()"
_OVERDUE_OF = (
    "SELECT counter, id, slot, amount, ends_ms FROM reservations WHERE counter IN () AND (ends_ms <= ? OR ends_ms > ?)"
)
_NOTES_OF = "SELECT key FROM counter_values WHERE key IN () AND ends_ms > ?"
_HELD_OF = "SELECT counter, id, slot, amount FROM reservations WHERE id IN ()"
_RESERVED_OF = "SELECT COALESCE(SUM(amount), 0) FROM reservations WHERE counter = ? AND ends_ms > ?"
_SHORTEN = "UPDATE reservations SET ends_ms = ? WHERE counter = ? AND ends_ms > ?"
_FORGET = "DELETE FROM reservations WHERE id = ?"
_FORGET_ONE = "DELETE FROM reservations WHERE counter = ? AND id = ?"
_HOLD = "INSERT INTO reservations (counter, id, slot, amount, ends_ms) VALUES (?, ?, ?, ?, ?)"
_FORGET_SLOT = "DELETE FROM counter_slots WHERE counter = ? AND slot = ?"
_COUNT_LESS = (
    "INSERT INTO counter_slots (counter, slot, amount, ends_ms) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (counter, slot) DO UPDATE SET amount = excluded.amount"
)
_COUNT = f"{_COUNT_LESS}, ends_ms = excluded.ends_ms"
_NOTE = (
    "INSERT INTO counter_values (key, number, ends_ms) VALUES (?, ?, ?)"
    " ON CONFLICT (key) DO UPDATE SET number = excluded.number, ends_ms = excluded.ends_ms"
)


@dataclass(frozen=True)
class Wanted:
    """What a call wants to reserve."""

    claims: tuple[Claim, ...]
    lease_ms: int
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def done(self, counted: Counted) -> Admission:
        """Reserve it if all of it fits."""
        admitted = all(windows.fits(claim, counted.slots[claim.counter]) for claim in self.claims)
        standings = [counted.standing(claim, admitted=admitted) for claim in self.claims]
        if admitted:
            for claim in self.claims:
                counted.reserve(self.id, claim, self.lease_ms)
        return with_room(admitted, self.id, self.claims, standings)


@dataclass(frozen=True)
class Used:
    """What a call has used of what it reserved."""

    reservation: Reservation
    real: Mapping[str, tuple[Claim, int]]

    @property
    def claims(self) -> Sequence[Claim]:
        """What was reserved."""
        return self.reservation.claims

    def done(self, counted: Counted) -> bool:
        """Count what it really was; False: that was done before."""
        held = counted.end(self.reservation.id)
        if held is None:
            return False
        for counter, (claim, amount) in self.real.items():
            slot, before = held.get(counter, (0, 0))
            if amount < before:
                counted.take_back(counter, slot, before - amount)
            elif amount > before and not (claim.opened and not counted.slots[counter]):
                counted.count(claim, amount - before)
        return True


class Counted:
    """Some counters within a transaction that is alone on them.

    What is reserved beyond its lease is taken back when it is made.

    Args:
        statements: of the transaction.
        counters: what is read and changed.
        clock: the store's, in ms since the epoch; read again once the counters, which may be waited for, are known.
        settling: ids of reservations that are to be settled.

    Attributes:
        slots: what each counter has counted, by slot.
        ended: how many reservations were beyond their lease.
    """

    def __init__(
        self,
        statements: Driven,
        counters: Mapping[str, Window],
        clock: Callable[[], int],
        settling: Sequence[str] = (),
    ) -> None:
        self._statements = statements
        self._windows = counters
        self._fresh: set[str] = set()
        self._reserved: list[Row] = []
        self._ended_ids: list[str] = []
        slots, overdue, notes, held = self._read_all(clock(), settling)
        self._now_ms = clock()
        self._read: dict[str, dict[int, int]] = {counter: {} for counter in counters}
        forgotten = dict[str, set[int]]()
        for counter, slot, amount, ends_ms in slots:
            self._read[counter][slot] = amount
            if not counters[counter].slot_ms and ends_ms <= self._now_ms:
                forgotten.setdefault(counter, set()).add(slot)
        self.slots = {
            counter: windows.live(
                window,
                {slot: at for slot, at in self._read[counter].items() if slot not in forgotten.get(counter, ())},
                self._now_ms,
            )
            for counter, window in counters.items()
        }
        self._overdue = [row for row in overdue if row[4] <= self._now_ms]
        self._too_long = {row[0] for row in overdue if row[4] > self._longest_ms}
        for counter, _id, slot, amount, _ends_ms in self._overdue:
            self.take_back(counter, slot, amount)
        self.ended = len(self._overdue)
        over = {row[:2] for row in self._overdue}
        self._settled = {key.removeprefix(SETTLED) for (key,) in notes}
        self._held = dict[str, dict[str, tuple[int, int]]]()
        for counter, id, slot, amount in held:
            if (counter, id) not in over:
                self._held.setdefault(id, {})[counter] = (slot, amount)

    def _read_all(self, now_ms: int, settling: Sequence[str]) -> Sequence[Sequence[Row]]:
        names, ids = tuple(self._windows), tuple(settling)
        asked = [Asked(_SLOTS_OF, (names,)), Asked(_OVERDUE_OF, (names, now_ms, now_ms + _LONGEST_MS))]
        if not ids:
            return [*self._statements.ask(*asked), (), ()]
        notes = Asked(_NOTES_OF, (tuple(SETTLED + id for id in ids), now_ms))
        return self._statements.ask(*asked, notes, Asked(_HELD_OF, (ids,)))

    @property
    def _longest_ms(self) -> int:
        return self._now_ms + _LONGEST_MS

    def standing(self, claim: Claim, *, admitted: bool) -> Standing:
        """How a claim's window stands, where the claim itself is not counted here yet."""
        return windows.standing(claim, self.slots[claim.counter], self._now_ms, admitted=admitted)

    def count(self, claim: Claim, amount: int) -> None:
        """Count it in the slot that is now."""
        self.slots[claim.counter] = windows.counted(claim.window, self.slots[claim.counter], amount, self._now_ms)
        self._fresh.add(claim.counter)

    def take_back(self, counter: str, slot: int, amount: int) -> None:
        """Count it no more in the slot where it was."""
        window = self._windows[counter]
        self.slots[counter] = windows.taken_back(window, self.slots[counter], slot, amount, self._now_ms)

    def reserved(self, counter: str) -> int:
        """What is reserved of a counter and still held."""
        ((amount,),) = self._statements.ask(Asked(_RESERVED_OF, (counter, self._now_ms)))[0]
        return int(amount)

    def reserve(self, id: str, claim: Claim, lease_ms: int) -> None:
        """Count a claim until its lease ends."""
        self.count(claim, claim.amount)
        slot = claim.window.slot_at(self._now_ms)
        self._reserved.append((claim.counter, id, slot, claim.amount, self._now_ms + lease_ms))

    def end(self, id: str) -> dict[str, tuple[int, int]] | None:
        """Forget a reservation; return, for each counter where it was held, the slot and the amount.

        None: that was done before.
        """
        if id in self._settled:
            return None
        self._settled.add(id)
        self._ended_ids.append(id)
        return self._held.get(id, {})

    def write(self) -> None:
        """Write back what has changed."""
        gone: list[Row] = []
        used: list[Row] = []
        less: list[Row] = []
        for counter, slots in self.slots.items():
            read, window, fresh = self._read[counter], self._windows[counter], counter in self._fresh
            # one without end stays at 0 until it is forgotten: whether it was opened is told by its being there
            kept = {slot: amount for slot, amount in slots.items() if amount > 0 or fresh or not window.slot_ms}
            gone += [(counter, slot) for slot in read if slot not in kept]
            # a window without end is forgotten some time after its last use
            changed = {slot for slot, at in kept.items() if read.get(slot) != at or (fresh and not window.slot_ms)}
            (used if fresh else less).extend(
                (counter, slot, kept[slot], window.ends_ms(slot, self._now_ms)) for slot in changed
            )
        notes_end_ms = self._now_ms + int(SETTLED_KEEP_S * 1000)
        told: list[tuple[str, Sequence[Row]]] = [
            (_FORGET_ONE, [row[:2] for row in self._overdue]),
            (_FORGET, [(id,) for id in self._ended_ids]),
            (_SHORTEN, [(self._longest_ms, counter, self._longest_ms) for counter in self._too_long]),
            (_FORGET_SLOT, gone),
            (_COUNT, used),
            (_COUNT_LESS, less),
            (_HOLD, self._reserved),
            (_NOTE, [(SETTLED + id, 1, notes_end_ms) for id in self._ended_ids]),
        ]
        for statement, rows in told:
            if rows:
                self._statements.tell(statement, rows)
