"""The store of counters as a call sees it: it answers within a bound, or it is away for everybody at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from gateway.errors import StoreUnavailable
from gateway.storage.counters import AWAY, Counters

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

#: What a call waits for a store that answers nobody, and after which part of it the store is asked for a sign of life:
#: work that merely waits for other work is waited for.
BOUND_S = 0.1
_SUSPECT_S = 0.04
#: Time is counted in such steps: one that took longer held up the hub, and the store's answer with it.
_STEP_S = 0.01
#: Verbs of one worker that are under way at once: fewer than a database has connections, so none waits for one there.
_AT_ONCE = 8


class StoreLink:
    """Asks a store, and stops asking while it is away. `probe` finds out that it is back; no call ever does.

    Args:
        counters: the store.
        lost: called when it has gone.
        meanwhile: what becomes of calls until then, for the log.
        bounded: it bounds its own waits (Redis, memory). Else each verb runs in a thread of its own, and whoever waits
            for it gives up where the store has given no sign of life for `BOUND_S`.
    """

    def __init__(self, counters: Counters, lost: Callable[[], None], meanwhile: str, *, bounded: bool) -> None:
        self.counters = counters
        self._lost = lost
        self._meanwhile = meanwhile
        self._bounded = bounded
        #: Guards what follows it; told when a verb has ended, and when the store has gone.
        self._changed = threading.Condition()
        self._under_way = 0
        self._pinging = False
        self._answers = 0
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
        with self._changed:
            self._changed.wait_for(lambda: self._under_way < _AT_ONCE or self.away)
            if self.away:
                raise StoreUnavailable(AWAY)
            self._under_way += 1
        verb = _Verb(self, work, undo)
        verb.start()
        answers, silent_s, step_s = self._answers, 0.0, _SUSPECT_S
        while not verb.wait(step_s):
            if answers != self._answers:
                answers, silent_s = self._answers, 0.0
            silent_s, step_s = silent_s + step_s, _STEP_S
            if silent_s >= _SUSPECT_S:
                self._ping()
            if (silent_s >= BOUND_S or self.away) and verb.abandon():
                raise StoreUnavailable(AWAY)
        return verb.result()

    def _ping(self) -> None:
        """Ask for a sign of life that waits for no other work, unless somebody does."""
        with self._changed:
            if self._pinging:
                return
            self._pinging = True
        threading.Thread(target=self._pinged, name="limits-ping", daemon=True).start()

    def _pinged(self) -> None:
        answered = False
        try:
            self.counters.get("limits")
            answered = True
        except StoreUnavailable:
            log.debug("the store of limits gives no sign of life")
        finally:
            with self._changed:
                self._pinging = False
                self._answers += answered

    def over(self, *, answered: bool) -> None:
        """A verb has ended."""
        with self._changed:
            self._under_way -= 1
            self._answers += answered
            self._changed.notify()

    def _lose(self, error: StoreUnavailable) -> None:
        with self._changed:
            first = not self.away
            if first:
                self._lost()
            self.away = True
            self._changed.notify_all()
        if first:
            log.warning(
                "limits have lost their store",
                extra={"fields": {"meanwhile": self._meanwhile, "why": str(error.__cause__ or error)}},
            )

    def probe(self) -> bool:
        """Ask whether it is back, where it is away, with the store's own patience; True: it is there."""
        if not self.away:
            return True
        try:
            self.counters.add("limits", 1, 60.0)  # it has to take writes
        except StoreUnavailable:
            return False
        with self._changed:
            self.away = False
            self._answers += 1
        log.info("limits have their store again")
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
