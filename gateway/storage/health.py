"""Whether the stores answer: for readiness, which anybody may ask as often as he likes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from gateway.errors import StoreUnavailable
from gateway.storage.faults import StorageBusy, StorageError

log = logging.getLogger(__name__)

_EVERY_S = 2.0
_WAIT_S = 1.0


class StoreHealth:
    """Asks each store for a sign of life, once in 2 s at most and in a thread of its own.

    Args:
        checks: a store's name, and what raises where it gives no sign of life.
    """

    def __init__(self, checks: Mapping[str, Callable[[], object]]) -> None:
        self._checks = checks
        self._lock = threading.Lock()
        self._looked_s: float | None = None
        self._looked = threading.Event()
        self._running = False
        self._found: dict[str, str] = {}

    def states(self) -> dict[str, str]:
        """Return `ok`, `busy` or `unavailable` for each store, 2 s old at most; waits for 1 s at most."""
        if not self._checks:
            return {}
        with self._lock:
            fresh = self._looked_s is not None and time.monotonic() - self._looked_s < _EVERY_S
            if not (self._running or fresh):
                self._running = True
                self._looked.clear()
                threading.Thread(target=self._look, name="store-health", daemon=True).start()
        answered = self._looked.wait(_WAIT_S)
        # One after the other: where one hangs, what was found of those after it is old.
        return {name: self._found.get(name, "unavailable") if answered else "unavailable" for name in self._checks}

    def _look(self) -> None:
        try:
            for name, check in self._checks.items():
                self._note(name, *_state(check))
        finally:
            with self._lock:
                self._running, self._looked_s = False, time.monotonic()
            self._looked.set()

    def _note(self, name: str, state: str, why: str) -> None:
        before, self._found[name] = self._found.get(name, "ok"), state
        if state != before:
            if state == "ok":
                log.info("a store is back", extra={"fields": {"store": name}})
            else:
                log.warning("a store does not answer", extra={"fields": {"store": name, "why": why}})


def _state(check: Callable[[], object]) -> tuple[str, str]:
    try:
        check()
    except StorageError as error:
        return "busy" if isinstance(error, StorageBusy) else "unavailable", str(error)
    except StoreUnavailable as error:
        return "unavailable", str(error.__cause__ or error)
    return "ok", ""
