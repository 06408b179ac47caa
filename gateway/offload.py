"""What must not hold up every other call: disks, databases, and long work on large bodies.

Under gevent one thread serves thousands of calls, and whatever blocks it blocks them all: a patched `threading.Thread`
is no way out, since it runs on that same thread. The hub's native threads are. This is the only module that knows of
gevent; without it (plain threads, Modal) the work runs where it is called.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, ParamSpec, TypeVar

#: Work on as many bytes takes long enough to be worth a thread of its own.
LARGE_BYTES = 1 << 20

_LONGEST_REST_S = 0.05
#: Any time at all is waited for in the event loop, behind all that is ready in it.
_A_TURN_S = 1e-6

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def offload(work: Callable[_Given, _Result], *args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
    """Run `work` on a native thread where gevent is on, else here, and return its result or raise what it raises.

    The native thread has no hub of its own to speak of: `work` may not wait for locks, queues or sockets of the
    patched kind.
    """
    if not cooperative():
        return work(*args, **kwargs)
    import gevent  # noqa: PLC0415  # only where it is in use already

    result: _Result
    result, error = gevent.get_hub().threadpool.apply(_attempt, (work, args, kwargs))
    if error is not None:
        try:
            raise error
        finally:
            del error  # else it and its traceback, which has this frame, hold each other
    return result


def rest() -> None:
    """Let the hub catch up; to be called between the steps of long work, and without effect but on a native thread.

    Both share the interpreter's lock, and the hub lets go of it at each send: beside a thread that never rests it would
    get on by one send a step. So a thread rests for twice as long as it has worked since.
    """
    worked_since_s = _working.get(_ident()) if _working else None
    if worked_since_s is not None:
        _sleep(min(2 * (time.perf_counter() - worked_since_s), _LONGEST_REST_S))
        _working[_ident()] = time.perf_counter()


def give_way() -> None:
    """Let everyone go on who can; for greenlets that read or write for long and never have to wait.

    Not `time.sleep(0)`: gevent may resume whoever calls that again and again before it looks at a single socket.
    """
    time.sleep(_A_TURN_S)


def _attempt(work: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, Exception | None]:
    _working[_ident()] = time.perf_counter()
    try:
        return work(*args, **kwargs), None
    except Exception as error:  # noqa: BLE001  # raised again for who asked; gevent would write it to stderr besides
        return None, error
    finally:
        _working.pop(_ident(), None)


#: Native threads at work, and since when (seconds of `perf_counter`) without a rest.
_working: dict[int, float] = {}


def _original(module: str, name: str) -> Any:
    """A function of the standard library as it is for native threads, of which there are some under gevent alone."""
    from gevent import monkey  # noqa: PLC0415  # only where it is in use already

    return monkey.get_original(module, name)


@cache
def _ident_function() -> Callable[[], int]:
    found: Callable[[], int] = _original("_thread", "get_ident")
    return found


def _ident() -> int:
    return _ident_function()()


def _sleep(seconds: float) -> None:
    _original("time", "sleep")(seconds)


def cooperative() -> bool:
    """Whether threads of this process are greenlets, which take turns only where they wait."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def stop_threads() -> None:
    """End the native threads that ran what was offloaded; before a fork, which takes no thread along."""
    if cooperative():
        import gevent  # noqa: PLC0415  # only where it is in use already

        gevent.get_hub().threadpool.kill()
