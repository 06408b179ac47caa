"""What was reserved for one call."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.core import limits
from gateway.core.calls import Attempt, Call, Outcome
from gateway.core.limits import Part, Position
from gateway.storage.counters import Counters, Reservation

if TYPE_CHECKING:
    from gateway.limits import Limiter


class Ticket:
    """What was reserved for one call, until it is settled.

    Attributes:
        attempts: those of the planned ones that may be tried.
        rules: the ids of the rules that the call is held to.
    """

    def __init__(self, call: Call, attempts: Sequence[Attempt], limiter: Limiter | None = None) -> None:
        self._call = call
        self._limiter = limiter
        self.attempts = attempts
        self._lock = threading.Lock()
        self._positions: tuple[Position, ...] = ()
        self._reservation: Reservation | None = None
        self._over = False
        #: Where it is counted.
        self.counters: Counters | None = None

    def hold(self, counters: Counters, reservation: Reservation, positions: tuple[Position, ...]) -> None:
        """Note what is reserved, and where."""
        self.counters, self._reservation, self._positions = counters, reservation, positions

    @property
    def rules(self) -> tuple[str, ...]:
        """The ids of the rules that the call is held to."""
        return tuple(one.part.rule.id for one in self._positions)

    @property
    def parts(self) -> tuple[Part, ...]:
        """What was claimed, in the order of the reservation's claims."""
        return tuple(one.part for one in self._positions)

    @property
    def held(self) -> Reservation | None:
        """What is reserved; None once it is settled."""
        with self._lock:
            return None if self._over else self._reservation

    @property
    def deadline_s(self) -> float:
        """When its call is over at the latest, on the monotonic clock."""
        return self._call.deadline_s

    def replace(self, reservation: Reservation) -> bool:
        """Hold another reservation in the place of one that the store has lost; False: it is settled by now."""
        with self._lock:
            if not self._over:
                self._reservation = reservation
            return not self._over

    def headers(self) -> dict[str, str]:
        """How limits and budgets stood when the call was admitted; nothing where none is about it."""
        if not self._positions:
            return {}
        anthropic = self._call.endpoint.dialect == "anthropic"
        return limits.headers(self._positions, self._call.caller, time.time(), anthropic=anthropic)

    def settle(self, outcome: Outcome) -> None:
        """Charge what the call has used, and free the rest. Once; it raises nothing that a caller could feel."""
        with self._lock:
            if self._over or self._reservation is None or self._limiter is None or self.counters is None:
                return
            self._over = True
            reservation, counters = self._reservation, self.counters
        self._limiter.settle(self, self._call, outcome, reservation, counters)
