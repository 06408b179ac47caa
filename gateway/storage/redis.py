"""Counters on a Redis or Valkey server, for several hosts."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Collection, Sequence
from typing import Any

from gateway.core import windows
from gateway.core.windows import LONGEST_LEASE_S, Claim, Standing
from gateway.errors import StoreUnavailable
from gateway.secret import Secret
from gateway.storage import redis_scripts as scripts
from gateway.storage.counters import (
    AWAY,
    SETTLED_KEEP_S,
    Admission,
    Reservation,
    checked_amounts,
    checked_key,
    with_room,
)
from gateway.storage.faults import StorageError
from gateway.storage.redis_link import ANSWER_S, RedisLink
from gateway.storage.redis_scripts import Script

_LONGEST_LEASE_MS = int(LONGEST_LEASE_S * 1000)
#: A reservation may be renewed for as long as a call may take (`GATEWAY_TIMEOUT_S`, a day), and then end.
_RESERVATION_KEEP_MS = 2 * 86_400_000


class RedisCounters:
    """`Counters` of a server, by the server's own clock. Nothing survives a server that keeps nothing over a restart.

    No verb takes more than 100 ms. Where the server does not answer, one call finds out, and the others fail at once;
    it is asked twice a second whether it is back.

    Args:
        address: `redis://…`, `rediss://…` or `unix://…` of one server: no cluster, no sentinels.
        clock: seconds since the epoch, in place of the server's.
        timeout_s: what an answer may take.

    Raises:
        StorageFailed: the address cannot be read.
    """

    def __init__(
        self, address: Secret, clock: Callable[[], float] | None = None, *, timeout_s: float = ANSWER_S
    ) -> None:
        self._link = RedisLink(address, timeout_s)
        self._clock = clock

    @property
    def name(self) -> str:
        """The address without user and password."""
        return self._link.name

    def start(self) -> None:
        """Begin to connect."""
        self._link.start()

    def close(self) -> None:
        """Close the connections."""
        self._link.close()

    def check(self) -> None:
        """See `Counters.check`; a new connection is made for it, which may take some seconds."""
        try:
            self._link.check()
        except StorageError as error:
            raise StoreUnavailable(AWAY) from error

    def reserve(self, claims: Sequence[Claim], lease_s: float) -> Admission:
        """See `Counters.reserve`."""
        id = uuid.uuid4().hex
        admitted, standings = self._claimed(claims, windows.lease_ms(lease_s), id)
        return with_room(admitted, id, claims, standings)

    def open(self, claim: Claim, amount: int) -> bool:
        """See `Counters.open`."""
        counter, keep_ms = windows.openable(claim, amount).counter, claim.window.keep_ms
        return bool(self._run(scripts.OPEN, self._now(), _LONGEST_LEASE_MS, counter, keep_ms, amount))

    def settle(self, reservation: Reservation, amounts: Sequence[int]) -> bool:
        """See `Counters.settle`."""
        real: list[str | int] = []
        for claim, amount in zip(reservation.claims, checked_amounts(reservation, amounts), strict=True):
            window = claim.window
            real += [claim.counter, window.slot_ms, window.slots, window.keep_ms, amount, int(claim.opened)]
        kept_ms = int(SETTLED_KEEP_S * 1000)
        return bool(self._run(scripts.SETTLE, self._now(), _LONGEST_LEASE_MS, reservation.id, kept_ms, *real))

    def renew(self, ids: Collection[str], lease_s: float) -> set[str]:
        """See `Counters.renew`."""
        lease_ms = windows.lease_ms(lease_s)
        return {id.decode() for id in self._run(scripts.RENEW, self._now(), lease_ms, *ids)} if ids else set()

    def look(self, claims: Sequence[Claim]) -> tuple[Standing, ...]:
        """See `Counters.look`."""
        _, standings = self._claimed(claims, 0, "")
        return standings

    def add(self, key: str, amount: int, ttl_s: float) -> int:
        """See `Counters.add`."""
        return int(self._run(scripts.ADD, checked_key(key, ttl_s, amount), amount, math.ceil(ttl_s * 1000)))

    def get(self, key: str) -> int:
        """See `Counters.get`."""
        (found,) = self._run(scripts.GET, f"n:{checked_key(key)}")
        return int(found or 0)

    def fetch(self, keys: Collection[str]) -> dict[str, str]:
        """See `Counters.fetch`."""
        asked = [checked_key(key) for key in keys]
        found = self._run(scripts.GET, *(f"t:{key}" for key in asked)) if asked else []
        return {key: text.decode() for key, text in zip(asked, found, strict=True) if text is not None}

    def swap(self, key: str, old: str | None, new: str | None, ttl_s: float) -> bool:
        """See `Counters.swap`."""
        checked_key(key, ttl_s, values=(old, new))
        before = (int(old is not None), old or "")
        after = (int(new is not None), new or "")
        return bool(self._run(scripts.SWAP, key, *before, *after, math.ceil(ttl_s * 1000)))

    def _claimed(self, claims: Sequence[Claim], lease_ms: int, id: str) -> tuple[bool, tuple[Standing, ...]]:
        windows.distinct(claims)
        asked: list[str | int] = []
        for claim in claims:
            window, limit = claim.window, "" if claim.limit is None else claim.limit
            asked += [claim.counter, window.slot_ms, window.slots, window.keep_ms, claim.amount, limit]
            asked.append(int(claim.opened))
        answer = self._run(scripts.RESERVE, self._now(), _LONGEST_LEASE_MS, lease_ms, id, _RESERVATION_KEEP_MS, *asked)
        admitted, now_ms = bool(answer[0]) and lease_ms > 0, int(answer[1])
        standings = [
            windows.standing(claim, dict(zip(map(int, flat[::2]), map(int, flat[1::2]), strict=True)), now_ms,
                             admitted=admitted)
            for claim, flat in zip(claims, answer[2], strict=True)
        ]  # fmt: skip
        return admitted, tuple(standings)

    def _now(self) -> str | int:
        return "" if self._clock is None else int(self._clock() * 1000)

    def _run(self, script: Script, *arguments: str | int) -> Any:
        try:
            return self._link.run(script, *arguments)
        except StorageError as error:
            raise StoreUnavailable(AWAY) from error
