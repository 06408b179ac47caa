"""One thread that notices what no read or write would: callers that left, and calls past their deadline."""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable

from gateway.core.calls import CALLER_GONE, DEADLINE, SHUTTING_DOWN, Cancellation

log = logging.getLogger(__name__)


class Watch:
    """One thing under watch, until `end()`."""

    def __init__(
        self,
        watcher: Watcher,
        expired: Callable[[], None],
        deadline_s: float,
        cancellation: Cancellation | None = None,
    ) -> None:
        self._watcher = watcher
        self.expired = expired
        self.deadline_s = deadline_s
        self.cancellation = cancellation
        self.sock: socket.socket | None = None

    def end(self) -> None:
        """Stop watching; safe to call again. Must run before the caller's socket is closed."""
        self._watcher._forget(self)


class Watcher:
    """Aborts calls whose caller has left or whose time is up, within one tick.

    A caller that leaves while the provider is silent shows on no write. Its socket becomes readable then: it is
    peeked at, never read. A readable socket that is not at its end has a pipelined request: it is left alone from
    then on, since it would stay readable.

    Args:
        tick_s: how often deadlines are looked at.
    """

    def __init__(self, tick_s: float = 0.2) -> None:
        self._tick_s = tick_s
        self._lock = threading.Lock()
        self._selector: selectors.BaseSelector | None = None
        self._watches: set[Watch] = set()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._drain_s: float | None = None

    def open(self) -> None:
        """Start the thread; must run after the fork."""
        with self._lock:
            if self._thread is None:
                self._selector = selectors.DefaultSelector()
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
        with self._lock:
            self._stopping, thread = True, self._thread
        if thread is not None:
            thread.join(timeout=5 * self._tick_s + 1)

    def watch(self, cancellation: Cancellation, deadline_s: float, sock: socket.socket | None) -> Watch:
        """Watch a call.

        Args:
            cancellation: aborted with `caller_gone` or `deadline`.
            deadline_s: on the monotonic clock.
            sock: the caller's connection, or None where the server does not show it.
        """
        watch = Watch(self, lambda: cancellation.abort(DEADLINE), deadline_s, cancellation)
        with self._lock:
            self._watches.add(watch)
            if sock is not None and self._selector is not None and sock.fileno() >= 0:
                try:
                    self._selector.register(sock, selectors.EVENT_READ, lambda: cancellation.abort(CALLER_GONE))
                    watch.sock = sock
                except (KeyError, ValueError, OSError):  # gone already, or still watched: the write will tell
                    log.debug("a caller's socket could not be watched", exc_info=True)
        return watch

    def timer(self, expired: Callable[[], None], deadline_s: float) -> Watch:
        """Run `expired` once when `deadline_s` (monotonic clock) has passed, unless the watch ends before."""
        watch = Watch(self, expired, deadline_s)
        with self._lock:
            self._watches.add(watch)
        return watch

    def _forget(self, watch: Watch) -> None:
        with self._lock:
            self._watches.discard(watch)
            self._unregister(watch.sock)
            watch.sock = None

    def _unregister(self, sock: socket.socket | None) -> None:
        if sock is None or self._selector is None:
            return
        try:
            self._selector.unregister(sock)
        except (KeyError, ValueError):  # it was readable once and has been left alone since
            log.debug("a caller's socket was not under watch any more")

    def _run(self) -> None:
        selector = self._selector
        assert selector is not None
        while not self._stopping:
            self._expire(time.monotonic())
            if not selector.get_map():
                time.sleep(self._tick_s)
                continue
            for key, _ in selector.select(self._tick_s):
                self._look_at(key)
        selector.close()

    def _expire(self, now_s: float) -> None:
        drained = self._drain_s is not None and self._drain_s <= now_s
        with self._lock:
            late = [watch for watch in self._watches if watch.deadline_s <= now_s]
            self._watches.difference_update(late)
            ended = [watch.cancellation for watch in self._watches if drained and watch.cancellation is not None]
        for watch in late:
            watch.expired()
        for cancellation in ended:
            cancellation.abort(SHUTTING_DOWN)

    def _look_at(self, key: selectors.SelectorKey) -> None:
        sock: socket.socket = key.fileobj  # type: ignore[assignment]
        try:
            gone = sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return
        except OSError:
            gone = True
        with self._lock:
            self._unregister(sock)
        if gone:
            key.data()
