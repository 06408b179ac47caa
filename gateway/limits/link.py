"""The store of counters as a call sees it: it answers within a bound, or it is away for everybody at once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from gateway.errors import StoreUnavailable
from gateway.storage.counters import AWAY, Counters

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

#: What a call waits for a store that answers nobody.
BOUND_S = 0.1
#: Verbs of one worker that are under way at once: fewer than a database has connections, so none waits for one there.
_AT_ONCE = 8
#: After its bound a verb is given this to be noticed: the hub itself may have been held up.
_NOTICED_S = 0.02


class StoreLink:
    """Asks a store, and stops asking while it is away. `probe` finds out that it is back; no call ever does.

    Args:
        counters: the store.
        lost: called when it has gone.
        bounded: it bounds its own waits (Redis, memory). Else each verb runs in a thread of its own, and whoever waits
            for it gives up where the store has answered nobody for `BOUND_S`: work that merely queues is waited for.
    """

    def __init__(self, counters: Counters, lost: Callable[[], None], *, bounded: bool) -> None:
        self.counters = counters
        self._lost = lost
        self._bounded = bounded
        self._slots = threading.BoundedSemaphore(_AT_ONCE)
        self._answered_s = 0.0
        self._lock = threading.Lock()
        self.away = False

    def ask(
        self, work: Callable[[Counters], _Result], undo: Callable[[Counters, _Result], object] | None = None
    ) -> _Result:
        """Have the store do something.

        Args:
            work: one verb, or a few.
            undo: what is done with a result that came when nobody waited for it any more.

        Raises:
            StoreUnavailable: it is away.
        """
        if self.away:
            raise StoreUnavailable(AWAY)
        try:
            return work(self.counters) if self._bounded else self._aside(work, undo)
        except StoreUnavailable as error:
            self._lose(error)
            raise

    def _aside(
        self, work: Callable[[Counters], _Result], undo: Callable[[Counters, _Result], object] | None
    ) -> _Result:
        began_s = time.monotonic()
        while not self._slots.acquire(timeout=BOUND_S / 2):
            self._still_answers(began_s)
        verb = _Verb(self, work, undo)
        verb.start()
        while not verb.wait(BOUND_S / 2):
            if not self._is_answering(began_s) and not verb.wait(_NOTICED_S) and verb.abandon():
                raise StoreUnavailable(AWAY)
        return verb.result()

    def _is_answering(self, since_s: float) -> bool:
        return not self.away and time.monotonic() - max(since_s, self._answered_s) < BOUND_S

    def _still_answers(self, since_s: float) -> None:
        if not self._is_answering(since_s):
            raise StoreUnavailable(AWAY)

    def over(self, *, answered: bool) -> None:
        """A verb has ended."""
        if answered:
            self._answered_s = time.monotonic()
        self._slots.release()

    def _lose(self, error: StoreUnavailable) -> None:
        with self._lock:
            first = not self.away
            if first:
                self._lost()
            self.away = True
        if first:
            log.warning(
                "the store of limits is away: they are kept without it",
                extra={"fields": {"why": str(error.__cause__ or error)}},
            )

    def probe(self) -> bool:
        """Ask whether it is back, where it is away, with the store's own patience; True: it is there."""
        if not self.away:
            return True
        try:
            self.counters.add("limits", 1, 60.0)  # it has to take writes
        except StoreUnavailable:
            return False
        with self._lock:
            self.away, self._answered_s = False, time.monotonic()
        log.info("limits are kept in their store again")
        return True


class _Verb(Generic[_Result]):
    """One verb in a thread of its own."""

    def __init__(
        self,
        link: StoreLink,
        work: Callable[[Counters], _Result],
        undo: Callable[[Counters, _Result], object] | None,
    ) -> None:
        self._link, self._work, self._undo = link, work, undo
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._abandoned = False
        self._results: list[_Result] = []
        self._error: StoreUnavailable | None = None

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="limits-verb", daemon=True).start()

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; False where it has not come."""
        return self._done.wait(timeout_s)

    def abandon(self) -> bool:
        """Wait no more; False where it has just ended."""
        with self._lock:
            self._abandoned = not self._done.is_set()
            return self._abandoned

    def result(self) -> _Result:
        """What came of it, once it has ended."""
        if not self._results:
            raise self._error or StoreUnavailable(AWAY)  # a fault of ours: the thread has logged it
        return self._results[0]

    def _run(self) -> None:
        answered = False
        try:
            result = self._work(self._link.counters)
            answered = True
            with self._lock:
                late = self._abandoned
                if not late:
                    self._results.append(result)
                    self._done.set()
            if late and self._undo is not None:
                self._undo(self._link.counters, result)
        except StoreUnavailable as error:
            self._error = error  # of no interest where nobody waits: what was reserved unseen ends with its lease
        finally:
            self._link.over(answered=answered)
            self._done.set()
