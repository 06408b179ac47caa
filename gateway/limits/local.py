"""Limits without their store: this worker's share of each, counted in its own memory, until the store is back."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from gateway.core.limits import Part
from gateway.core.rules import BUDGET
from gateway.core.windows import Claim
from gateway.errors import StoreUnavailable
from gateway.storage.counters import AWAY, Admission
from gateway.storage.memory import MemoryCounters

_MOST_SEEN = 20_000


class Local:
    """Counts for one worker while the store is away.

    Args:
        workers: how many share what is left of a limit on this host.
        spent: what a budget held by the ledger; None where that does not say either.
    """

    def __init__(self, workers: int, spent: Callable[[Part], int | None]) -> None:
        self._workers = max(1, workers)
        self._spent = spent
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._began: dict[str, int] = {}
        self._owed: dict[str, tuple[Claim, int]] = {}
        self.counters = MemoryCounters()

    def saw(self, subject: str, used: int) -> None:
        """Note what a budget held, while the store could tell."""
        with self._lock:
            self._seen[subject] = used
            self._seen.move_to_end(subject)
            if len(self._seen) > _MOST_SEEN:
                self._seen.popitem(last=False)

    def seen(self, subject: str) -> int | None:
        """What a budget held when it was last seen here."""
        with self._lock:
            return self._seen.get(subject)

    def begin(self) -> None:
        """The store has gone: begin with nothing counted. What is held of an earlier time is settled there."""
        with self._lock:
            self.counters, self._began = MemoryCounters(), {}

    def reserve(self, parts: Sequence[Part], lease_s: float) -> tuple[MemoryCounters, Admission]:
        """Reserve this worker's share, and say in whose memory.

        Raises:
            StoreUnavailable: nobody knows how a budget stands.
        """
        counters = self.counters
        return counters, counters.reserve([self._share(part, counters) for part in parts], lease_s)

    def _share(self, part: Part, counters: MemoryCounters) -> Claim:
        claim = part.claim
        most = part.rule.most
        if part.rule.kind != BUDGET:
            return replace(claim, limit=max(1, most // self._workers) if most else 0)
        began = self._began.get(claim.subject)
        if began is None:
            known = self.seen(claim.subject)
            began = self._spent(part) if known is None else known
            if began is None:
                raise StoreUnavailable(AWAY)
            with self._lock:
                began = self._began.setdefault(claim.subject, began)
        counters.open(claim, began)
        if claim.limit is None:
            return claim
        return replace(claim, limit=min(most, began + max(0, most - began) // self._workers))

    def owe(self, part: Part, amount: int) -> None:
        """Note what is to be charged to a budget once the store is back."""
        if part.rule.kind == BUDGET and amount:
            with self._lock:
                _, before = self._owed.get(part.claim.counter, (part.claim, 0))
                self._owed[part.claim.counter] = part.claim, before + amount

    def owed(self) -> list[tuple[Claim, int]]:
        """Take what is to be charged; what could not be charged after all is given back by `owe_again`."""
        with self._lock:
            taken, self._owed = list(self._owed.values()), {}
        return taken

    def owe_again(self, debts: Sequence[tuple[Claim, int]]) -> None:
        """Give back what could not be charged."""
        with self._lock:
            for claim, amount in debts:
                _, before = self._owed.get(claim.counter, (claim, 0))
                self._owed[claim.counter] = claim, before + amount
