"""What must not hold up every other call: disks, databases, and long work on large bodies.

Under gevent one thread serves thousands of calls, and whatever blocks it blocks them all: a patched `threading.Thread`
is no way out, since it runs on that same thread. The hub's native threads are. This is the only module that knows of
gevent; without it (plain threads, Modal) the work runs where it is called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

#: Work on as many bytes takes long enough to be worth a thread of its own.
LARGE_BYTES = 1 << 20

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

    # caught there and raised here: gevent would print the traceback of whatever leaves a thread of its pool, also where
    # the caller expects it (a database that is busy) and whatever it quotes
    result, raised = gevent.get_hub().threadpool.apply(_ended, (work, args, kwargs))
    if raised is not None:
        raise raised
    ended: _Result = result
    return ended


def _ended(work: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, Exception | None]:
    try:
        return work(*args, **kwargs), None
    except Exception as error:  # noqa: BLE001  # it is raised where the work was called
        return None, error


def cooperative() -> bool:
    """Whether threads of this process are greenlets, which take turns only where they wait."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def stop_threads() -> None:
    """End the native threads that ran what was offloaded; before a fork, which takes no thread along."""
    if cooperative():
        import gevent  # noqa: PLC0415  # only where it is in use already

        gevent.get_hub().threadpool.kill()
