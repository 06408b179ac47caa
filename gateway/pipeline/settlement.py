"""What is owed when a call ends, once."""

from __future__ import annotations

import logging
from collections.abc import Callable

from gateway.core.calls import Outcome

log = logging.getLogger(__package__)  # the name in log lines is the room's


class Settlement:
    """What must happen once when a call ends, however it ends: the last thing added runs first."""

    def __init__(self) -> None:
        self._closers: list[Callable[[Outcome], None]] = []
        #: Holds one thing, which whoever settles first takes: `pop` needs no lock.
        self._due = [True]

    def add(self, closer: Callable[[Outcome], None]) -> None:
        """Promise to call `closer` with the outcome."""
        self._closers.append(closer)

    def __call__(self, outcome: Outcome) -> bool:
        """Settle, unless that has happened; one closer that fails keeps no other from running."""
        try:
            self._due.pop()
        except IndexError:
            return False
        for closer in reversed(self._closers):
            try:
                closer(outcome)
            except Exception:
                log.exception("a call could not be settled in full")
        return True
