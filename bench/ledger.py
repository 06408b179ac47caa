"""Where a worker's CPU goes: charges each nanosecond of its thread to the stage that the running greenlet is in.

A profiler would count the calls of one thread; here hundreds of greenlets share it, and what one of them waits for is
spent by others. So the clock (CPU of this thread, clock_gettime(2)) is read whenever a stage begins or ends and
whenever greenlets are switched, and the time since then belongs to who was running.
"""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import greenlet
from gevent.hub import Hub

#: What belongs to no stage: the event loop itself, and greenlets that were in none.
LOOP, OTHERS = "event loop", "other greenlets"

_STACK = "bench_stages"


class Ledger:
    """CPU nanoseconds by stage, of the one thread in which it was started."""

    def __init__(self, clock_ns: Callable[[], int] = time.thread_time_ns) -> None:
        self._clock_ns = clock_ns
        self._spent_ns: defaultdict[str, int] = defaultdict(int)
        self._last_ns = 0
        self.running = False

    def start(self) -> None:
        """Begin to charge; nothing is spent so far. After the fork, in the thread that is measured."""
        self.running = True
        self._last_ns = self._clock_ns()
        greenlet.settrace(self._switched)

    def stop(self) -> None:
        """Charge no more."""
        greenlet.settrace(None)
        self.running = False

    def spent_ns(self) -> dict[str, int]:
        """What each stage has spent since the start, without the stages inside it."""
        self._charge(_stack(greenlet.getcurrent()))
        return dict(self._spent_ns)

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that what it spends is its stage's. Its greenlet may be switched inside."""

        @functools.wraps(function)
        def run(*args: Any, **named: Any) -> Any:
            stack = _stack(greenlet.getcurrent())
            self._charge(stack)
            stack.append(stage)
            try:
                return function(*args, **named)
            finally:
                self._charge(stack)
                stack.pop()

        return run

    def _switched(self, _event: str, between: tuple[greenlet.greenlet, greenlet.greenlet]) -> None:
        self._charge(_stack(between[0]))

    def _charge(self, stack: list[str]) -> None:
        if self.running:
            now_ns = self._clock_ns()
            self._spent_ns[stack[-1]] += now_ns - self._last_ns
            self._last_ns = now_ns


def _stack(of: greenlet.greenlet) -> list[str]:
    """The stages that a greenlet is in, innermost last."""
    stack: list[str] | None = of.__dict__.get(_STACK)
    if stack is None:
        stack = of.__dict__[_STACK] = [LOOP if isinstance(of, Hub) else OTHERS]
    return stack
