"""Sockets that cost a stream less than gevent's own do, and wait the same way.

A stream is a wait, a read and a send for each of its chunks. gevent's socket makes a timer for each wait that has a
timeout, reads once in vain before it waits, and asks for the size of its buffer before it sends: two system calls and
an eighth of what a relayed chunk costs. Without gevent (plain threads, Modal) sockets stay what they are.
"""

from __future__ import annotations

import socket
import ssl
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


def _waiting(own: type[Any]) -> Callable[..., None]:
    """Make the method that waits for a watcher of a socket (gevent's SocketMixin._wait), with one timer for all waits.

    Args:
        own: the class of gevent's whose method it stands in for.
    """
    from gevent import getcurrent  # noqa: PLC0415  # only where it is in use already
    from gevent.socket import wait  # noqa: PLC0415

    def _wait(self: Any, watcher: Any, timeout_exc: BaseException | None = None) -> None:
        timeout_s, timer = self.timeout, self._timer
        if timeout_s is None or watcher is None or (timer is not None and timer.active):
            own._wait(self, watcher, timeout_exc)
            return
        if timer is None or self._timer_s != timeout_s:
            timer = self._timer = self.hub.loop.timer(timeout_s, timeout_s)
            self._timer_s = timeout_s
        timer.again(getcurrent().throw, TimeoutError("timed out") if timeout_exc is None else timeout_exc)
        try:
            wait(watcher)
        finally:
            timer.stop()

    return _wait


@cache
def _plain() -> type[Any]:
    # not where this module is imported: without gevent's patches it is not to be imported at all
    base: Any = socket.socket

    class LightSocket(base):  # type: ignore[misc]
        """A connected stream."""

        __slots__ = ("_dry", "_timer", "_timer_s")

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._timer = self._timer_s = None
            #: Nothing was there to be read any more when it was last looked at.
            self._dry = False

        _wait = _waiting(base)

        def recv(self, size: int, *flags: int) -> bytes:
            """Wait first where the last read took all that there was, or a request has just been sent."""
            if self._dry and self.timeout != 0.0 and not flags and (watcher := self._read_event) is not None:
                self._wait(watcher)
            data: bytes = super().recv(size, *flags)
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
    base: Any = ssl.SSLSocket

    class LightSSLSocket(base):  # type: ignore[misc]
        """A connected stream over TLS."""

        __slots__ = ("_timer", "_timer_s")

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._timer = self._timer_s = None  # first: it waits for the handshake
            super().__init__(*args, **kwargs)

        _wait = _waiting(base)

    return LightSSLSocket
