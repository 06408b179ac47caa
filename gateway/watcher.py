"""One thread that notices what no read or write would: callers that left, and calls past their deadline."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable

from gateway.core.calls import CALLER_GONE, DEADLINE, SHUTTING_DOWN, Cancellation

log = logging.getLogger(__name__)

#: Linux keeps the state of a connection in the first byte of TCP_INFO (tcp(7)); 1 is TCP_ESTABLISHED.
_TCP_INFO = getattr(socket, "TCP_INFO", None) if os.uname().sysname == "Linux" else None
_ESTABLISHED = 1


class Connection:
    """A caller's connection, looked at without reading from it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._peek: socket.socket | None = None
        if _TCP_INFO is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
            # a Unix socket, or another system: a descriptor of our own to peek through, which never waits
            self._peek = socket.socket(fileno=os.dup(sock.fileno()))
            self._peek.setblocking(False)

    @property
    def gone(self) -> bool:
        """Whether the other side has closed it, at least its sending half.

        With TCP this shows also behind bytes that nobody has read yet (a pipelined request), and under TLS.
        """
        try:
            if self._peek is None:
                assert _TCP_INFO is not None
                return self._sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0] != _ESTABLISHED
            return self._peek.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """Let go of it; the connection itself stays open."""
        if self._peek is not None:
            self._peek.close()


class Watch:
    """One thing under watch, until `end()`."""

    def __init__(
        self,
        watcher: Watcher,
        expired: Callable[[], None],
        deadline_s: float,
        cancellation: Cancellation | None = None,
        connection: Connection | None = None,
    ) -> None:
        self._watcher = watcher
        self.expired = expired
        self.deadline_s = deadline_s
        self.cancellation = cancellation
        self.connection = connection

    def end(self) -> None:
        """Stop watching; safe to call again. Must run before the caller's socket is closed."""
        self._watcher._forget(self)


class Watcher:
    """Aborts calls whose caller has left or whose time is up, within one tick.

    A caller that leaves while the provider is silent shows on no write, and under gevent no second greenlet may wait
    for a socket. So each tick asks the kernel for the state of every connection: 1,000 of them cost 0.5 % of a CPU.

    Args:
        tick_s: how often it looks.
    """

    def __init__(self, tick_s: float = 0.2) -> None:
        self._tick_s = tick_s
        self._lock = threading.Lock()
        self._watches: set[Watch] = set()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._drain_s: float | None = None

    def open(self) -> None:
        """Start the thread; must run after the fork."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="gateway-watcher", daemon=True)
                self._thread.start()

    @property
    def draining(self) -> bool:
        """Whether the end of all calls has been announced."""
        return self._drain_s is not None

    def drain(self, at_s: float) -> None:
        """Abort whatever call is still under watch at `at_s` (monotonic clock) as `shutting_down`.

        One assignment, so that it may be called from a signal handler.
        """
        self._drain_s = at_s

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=5 * self._tick_s + 1)

    def watch(self, cancellation: Cancellation, deadline_s: float, sock: socket.socket | None) -> Watch:
        """Watch a call.

        Args:
            cancellation: aborted with `caller_gone`, `deadline` or `shutting_down`.
            deadline_s: on the monotonic clock.
            sock: the caller's connection, or None where the server does not show it.
        """
        connection = None
        if sock is not None and sock.fileno() >= 0:
            connection = Connection(sock)
        return self._add(Watch(self, lambda: cancellation.abort(DEADLINE), deadline_s, cancellation, connection))

    def timer(self, expired: Callable[[], None], deadline_s: float) -> Watch:
        """Run `expired` once when `deadline_s` (monotonic clock) has passed, unless the watch ends before."""
        return self._add(Watch(self, expired, deadline_s))

    def _add(self, watch: Watch) -> Watch:
        with self._lock:
            self._watches.add(watch)
        return watch

    def _forget(self, watch: Watch) -> None:
        with self._lock:
            self._watches.discard(watch)
            connection, watch.connection = watch.connection, None
        if connection is not None:
            connection.close()

    def _run(self) -> None:
        while not self._stopping.wait(self._tick_s):
            try:
                self._look(time.monotonic())
            except Exception:
                log.exception("the watcher failed and goes on")

    def _look(self, now_s: float) -> None:
        drained = self._drain_s is not None and self._drain_s <= now_s
        with self._lock:
            watches = list(self._watches)
            late = [watch for watch in watches if watch.deadline_s <= now_s]
            self._watches.difference_update(late)
            # under the lock: a watch that has ended may not be looked at, its socket can be closed
            left = [watch for watch in watches if watch.connection is not None and watch.connection.gone]
        for watch in late:
            watch.expired()
        for watch in left:
            if watch.cancellation is not None:
                watch.cancellation.abort(CALLER_GONE)
        for watch in watches:
            if drained and watch.cancellation is not None:
                watch.cancellation.abort(SHUTTING_DOWN)
