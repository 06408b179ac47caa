"""Sockets that cost a stream less than gevent's own do, and wait the same way.

A stream is a wait, a read and a send for each of its chunks. gevent's socket makes a timer for each wait that has a
timeout, reads once in vain before it waits, and asks for the size of its buffer before it sends: two system calls and
an eighth of what a relayed chunk costs. Without gevent (plain threads, Modal) sockets stay what they are.
"""

from __future__ import annotations

import math
import socket
import ssl
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from gateway.offload import cooperative


def lighten(sock: socket.socket) -> socket.socket:
    """Put a lighter socket in the place of a connected one, which has no descriptor any more then.

    Args:
        sock: a plain one; any other is returned as it is. One greenlet at a time may wait for it.
    """
    if not cooperative() or type(sock) is not socket.socket:
        return sock
    timeout_s = sock.gettimeout()
    lighter: socket.socket = _plain()(sock.family, sock.type, sock.proto, fileno=sock.detach())
    lighter.settimeout(timeout_s)
    return lighter


def body_reader(source: Any) -> Callable[[int], bytes]:
    """What reads a request's body: as `source.read`, but that it may return less before the end.

    gunicorn's own reader copies megabytes of what it has read ahead for each piece that it hands out: a body of 30 MB
    takes five times as long as from the socket itself. So it hands out what it holds, and the rest is read here.

    Args:
        source: `wsgi.input`, of any server, from which nothing was read yet.
    """
    reader: Any = getattr(source, "reader", None)
    unreader: Any = getattr(reader, "unreader", None)
    sock, held = getattr(unreader, "sock", None), getattr(unreader, "buf", None)
    if not isinstance(getattr(reader, "length", None), int) or sock is None or not hasattr(held, "getbuffer"):
        return source.read  # type: ignore[no-any-return]  # another server, or a body in chunks

    def read(size: int) -> bytes:
        size = min(size, reader.length)
        if held_bytes := unreader.buf.getbuffer().nbytes:
            piece: bytes = reader.read(min(size, held_bytes))  # not `source`, which takes 1 KB at least, and waits
        elif size > 0:
            piece = sock.recv(size)
            reader.length -= len(piece)  # gunicorn looks for the next request behind the body
        else:
            piece = b""
        return piece

    return read


def lighten_tls(context: ssl.SSLContext) -> None:
    """Let the sockets that a context wraps be lighter ones."""
    if cooperative():
        context.sslsocket_class = _encrypted()


def _patient(base: Any) -> type[Any]:
    """Make a class of gevent's wait with one timer for all of its waits."""
    # not where this module is imported: without gevent's patches it is not to be imported at all
    from gevent import getcurrent  # noqa: PLC0415
    from gevent.exceptions import InvalidSwitchError  # noqa: PLC0415

    class Patient(base):  # type: ignore[misc]
        """A socket whose timer is set once for many waits.

        The timer is let run when a wait is over: the one of before rings in the middle of a later wait, looks when that
        has lasted long enough, and is set anew for then. So a stream costs it nothing for each of its chunks.
        """

        __slots__ = ("_late", "_rings_s", "_timer", "_until_s", "_waits")

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._timer: Any = None
            self._rings_s = self._until_s = math.inf
            self._waits: Any = None
            self._late: BaseException | None = None
            super().__init__(*args, **kwargs)  # last: one of TLS waits for its handshake

        def _wait(self, watcher: Any, timeout_exc: BaseException | None = None) -> None:
            timeout_s: float | None = self.timeout
            if timeout_s is None or watcher is None or watcher.callback is not None or self._waits is not None:
                super()._wait(watcher, timeout_exc)
                return
            until_s = self._until_s = time.monotonic() + timeout_s
            if until_s < self._rings_s:
                self._set(until_s, timeout_s)
            self._late = timeout_exc
            self._waits = waits = getcurrent()
            watcher.start(waits.switch, watcher)
            try:
                woken_by = self.hub.switch()
            finally:
                self._waits = None
                watcher.stop()
            if woken_by is not watcher:
                raise InvalidSwitchError(f"woken by {woken_by!r} while waiting for {watcher!r}")

        def _set(self, rings_s: float, after_s: float) -> None:
            self._unset()
            self._rings_s = rings_s
            # nothing to keep the loop running for: whoever waits has a watcher there
            self._timer = self.hub.loop.timer(after_s, ref=False)
            self._timer.start(self._ring)

        def _unset(self) -> None:
            self._rings_s = math.inf
            timer, self._timer = self._timer, None
            if timer is not None:
                timer.close()

        def _ring(self) -> None:
            self._unset()
            if self._waits is None:
                return
            left_s = self._until_s - time.monotonic()
            if left_s > 0:
                self._set(self._until_s, left_s)
            else:
                self._waits.throw(TimeoutError("timed out") if self._late is None else self._late)

        def _drop_events_and_close(self, *args: Any, **kwargs: Any) -> None:
            self._unset()
            super()._drop_events_and_close(*args, **kwargs)

    return Patient


@cache
def _plain() -> type[Any]:
    base: Any = _patient(socket.socket)

    class LightSocket(base):  # type: ignore[misc]
        """A connected stream."""

        __slots__ = ("_dry",)

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            #: Nothing was there to be read any more when it was last looked at.
            self._dry = False

        def recv(self, size: int, *flags: int) -> bytes:
            """Wait first where the last read took all that there was, or a request has just been sent."""
            if flags or self.timeout == 0.0:
                return super().recv(size, *flags)  # type: ignore[no-any-return]
            if self._dry and (watcher := self._read_event) is not None:
                self._wait(watcher)
            try:
                data: bytes = self._sock.recv(size)
            except BlockingIOError:
                data = super().recv(size)
            self._dry = 0 < len(data) < size
            return data

        def sendall(self, data: Any, flags: int = 0) -> None:
            """Send at once what the kernel has room for, which is all of it but for large bodies and slow readers."""
            try:
                sent = self._sock.send(data, flags)
            except BlockingIOError:
                sent = 0
            self._dry = True
            if sent < (size := len(data) if isinstance(data, bytes) else memoryview(data).nbytes):
                super().sendall(memoryview(data).cast("B")[sent:size], flags)

    return LightSocket


@cache
def _encrypted() -> type[Any]:
    return _patient(ssl.SSLSocket)
