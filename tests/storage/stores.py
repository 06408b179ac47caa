"""Every store of counters, for the one suite that all of them pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gateway.core.windows import Claim, Window
from gateway.secret import Secret
from gateway.storage.counters import Counters
from gateway.storage.database import Database
from gateway.storage.memory import MemoryCounters
from gateway.storage.redis import RedisCounters
from gateway.storage.tabled import TableCounters

NOW_S = 1_764_000_000.0


class Clock:
    """A clock that a test sets."""

    def __init__(self, now_s: float = NOW_S) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def open_counters(place: str, clock: Callable[[], float] | None = None, timeout_s: float = 10.0) -> Counters:
    """Open the store at a place: `memory:`, the address of a server, or the path of an SQLite file.

    It is more patient than in a gateway, for machines on which a server does not get its turn at once.
    """
    if place == "memory:":
        return MemoryCounters(clock) if clock else MemoryCounters()
    if place.startswith("redis://"):
        return RedisCounters(Secret(place), clock, timeout_s=timeout_s)
    database = Database(Secret(place) if "://" in place else Path(place), patience_s=timeout_s)
    return TableCounters(database, clock) if clock else TableCounters(database)


def claim(amount: int = 1, limit: int | None = 10, subject: str = "key/1", length_s: float | None = 60.0) -> Claim:
    return Claim(subject, Window(length_s), amount, limit)
