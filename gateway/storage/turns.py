"""Work that is done by one at a time, for all who came meanwhile together: one transaction in the place of many.

Nobody waits for others to come: who finds nobody at work begins at once, and what comes while it works is done next, in
the order in which it came.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Turns(Generic[_Item, _Result]):
    """Takes turns; for threads and greenlets.

    Args:
        work: does what was asked for, and returns a result for each in order. What it raises is raised for all.
        most: at a time.
    """

    def __init__(self, work: Callable[[Sequence[_Item]], Sequence[_Result]], most: int) -> None:
        self._work = work
        self._most = most
        self._lock = threading.Lock()
        self._waiting: list[_Asked[_Item, _Result]] = []
        self._at_work = False

    def do(self, item: _Item) -> _Result:
        """Have it done, by whoever is at work next, and return its result or raise what the work raised.

        Raises:
            InterruptedError: whoever did it was killed; it may have been done.
        """
        asked = _Asked[_Item, _Result](item)
        with self._lock:
            self._waiting.append(asked)
            asked.leads, self._at_work = not self._at_work, True
        over = False
        try:
            if not asked.leads:
                asked.told.wait()
            if asked.leads:
                self._lead(asked)
            over = True
        finally:
            if not over:
                self._leave(asked)
        return asked.result()

    def _lead(self, asked: _Asked[_Item, _Result]) -> None:
        """Do what waits, the leader's own among it, and let the next one lead."""
        with self._lock:
            batch = self._waiting[: self._most]
            del self._waiting[: self._most]
        try:
            for one, result in zip(batch, self._work([one.item for one in batch]), strict=True):
                one.results.append(result)
        except Exception as error:  # noqa: BLE001  # raised again, for each of them
            for one in batch:
                one.error = error
        finally:  # a greenlet that is killed at work leaves the others without a result, and the lead to the next
            self._pass_on()
            for one in batch:
                if one is not asked:
                    one.told.set()

    def _pass_on(self) -> None:
        with self._lock:
            if not self._waiting:
                self._at_work = False
                return
            first = self._waiting[0]
            first.leads = True
        first.told.set()

    def _leave(self, asked: _Asked[_Item, _Result]) -> None:
        """Wait no more: somebody who was killed must not be who all others wait for."""
        with self._lock:
            waits = asked in self._waiting
            if waits:
                self._waiting.remove(asked)
        if waits and asked.leads:
            self._pass_on()


class _Asked(Generic[_Item, _Result]):
    """What somebody waits for."""

    def __init__(self, item: _Item) -> None:
        self.item = item
        self.leads = False
        self.told = threading.Event()
        self.results: list[_Result] = []
        self.error: Exception | None = None

    def result(self) -> _Result:
        if self.error is not None:
            raise self.error.with_traceback(None)
        if not self.results:
            raise InterruptedError("whoever did this work was killed")
        return self.results[0]
