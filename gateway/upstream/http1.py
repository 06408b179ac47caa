"""HTTP/1.1 connections to providers: one request at a time each, kept for the next (RFC 9112).

Answers are read by llhttp (httptools), and a piece of a body is handed out as soon as it came: streams are what this is
for, and general clients hold small pieces back or cost several times as much.
"""

from __future__ import annotations

import socket
import ssl
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from gateway.core.calls import Streamed
from gateway.sockets import lighten, lighten_tls

#: A connection that was idle for longer is not used again: routers and load balancers drop such in silence, most of
#: them after a minute.
MOST_IDLE_S = 50.0
#: Of all lines of an answer before its body; and of what may come in the middle of it that is no part of it.
MOST_HEAD_BYTES = 256 << 10
#: Lines before and behind a body; to join as many of one name as there is room for would take a third of a second.
MOST_HEAD_LINES = 1000

_READ_BYTES = 65536
#: A body up to this size goes out together with its head.
_JOINED_BYTES = 65536
_SWEEP_S = 10.0


#: A body in pieces of memory that need not lie side by side.
Parts = Sequence[bytes | memoryview]
#: What may be sent as a body.
Content = bytes | Parts | Streamed | None


class Origin(NamedTuple):
    """Where connections lead: scheme, host and port (RFC 9110, section 4.3.1)."""

    scheme: str
    host: str
    port: int


class Target(NamedTuple):
    """An address, taken apart: its origin, the `Host` of the request, and what is asked for there."""

    origin: Origin
    authority: str
    path: str


class ConnectFailed(Exception):
    """No connection was made: not resolved, refused, a certificate that nobody vouches for, or not in time."""


class BadAnswer(OSError):
    """What came is no answer of HTTP/1.1, or too long a head of one."""


@lru_cache(maxsize=1024)
def target_of(url: str) -> Target:
    """Take an `http` or `https` address apart. A user's name in it is not sent.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an address begins with http:// or https://")
    host = parts.hostname
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    shown = f"[{host}]" if ":" in host else host
    authority = shown if parts.port is None else f"{shown}:{port}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(Origin(parts.scheme, host, port), authority, path)


class Connection:
    """One connection, and the answer that is on its way over it.

    Attributes:
        sock: the socket; whoever reads sets its timeout.
        status: of the answer; None before its head is whole.
        headers: of the answer; names in lower case, values of one name joined by commas (RFC 9110, section 5.3).
        complete: the whole answer was read.
    """

    def __init__(self, origin: Origin, sock: socket.socket) -> None:
        self.origin = origin
        self.sock = sock
        self.idle_since_s = 0.0
        self._parser = HttpResponseParser(self)
        self._begin()

    def _begin(self) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.complete = False
        self._interim = False
        self._keeps = False
        self._until_closed = False
        self._pieces: list[bytes] = []
        self._fault: BadAnswer | None = None
        self._lines = 0

    def send(self, method: str, target: Target, headers: Mapping[str, str], body: Content) -> None:
        """Send a request. A body in parts is sent without being joined, one that is streamed as it comes.

        A provider may refuse a body before it has come through and close: what it says then can still be read.

        Raises:
            ValueError: a header has a line break or is not Latin-1.
            OSError: the connection failed; TimeoutError where the provider does not read on.
            GatewayError: of the body, where that cannot be read to its end.
        """
        self._begin()
        try:
            if body is None or isinstance(body, bytes | Sequence):
                self._send_parts(method, target, headers, body)
            else:
                self._send_streamed(method, target, headers, body)
        except (BrokenPipeError, ConnectionResetError):
            try:
                self.read_head()
            except OSError:
                raise ConnectionResetError("the connection was closed while the request was sent") from None
            self._keeps = False

    def _send_parts(self, method: str, target: Target, headers: Mapping[str, str], body: bytes | Parts | None) -> None:
        parts: Parts = () if body is None else (body,) if isinstance(body, bytes) else body
        size = sum(map(len, parts))
        head = _head(method, target, headers, None if body is None else size)
        if size <= _JOINED_BYTES:
            self.sock.sendall(b"".join((head, *parts)))
        else:
            for part in (head, *parts):
                self.sock.sendall(part)

    def _send_streamed(self, method: str, target: Target, headers: Mapping[str, str], body: Streamed) -> None:
        size, sent = body.size, 0
        chunked = size is None
        more = {**headers, "Transfer-Encoding": "chunked"} if chunked else headers
        self.sock.sendall(_head(method, target, more, size, chunked=chunked))
        for piece in body:
            sent += len(piece)
            if chunked:  # RFC 9112, section 7.1
                self.sock.sendall(b"%x\r\n" % len(piece))
                self.sock.sendall(piece)
                self.sock.sendall(b"\r\n")
            else:
                self.sock.sendall(piece)
        if chunked:
            self.sock.sendall(b"0\r\n\r\n")
        elif sent != size:
            raise ConnectionAbortedError("the body has another size than it was said to have")

    def read_head(self) -> None:
        """Read until the head of the answer is whole; interim answers are passed over (RFC 9110, section 15.2).

        Raises:
            OSError: the connection failed (TimeoutError: nothing came in time), or this is no answer.
        """
        size = 0
        while self.status is None:
            data = self.sock.recv(_READ_BYTES)
            if not data:
                raise ConnectionResetError("the connection was closed before an answer")
            size += len(data)
            self._feed(data)
            if self.status is None and (self._fault is not None or size > MOST_HEAD_BYTES):
                raise self._fault or BadAnswer("the head of the answer does not end")

    def read(self) -> bytes:
        """The next piece of the body as it came, without the chunked coding; empty at its end.

        Raises:
            OSError: the connection failed (TimeoutError: nothing came in time), or ended too early, or what comes is
                the chunked coding alone (an extension or a trailer without an end).
        """
        empty_bytes = 0
        while not self._pieces:
            if self.complete:
                return b""
            if self._fault is not None:
                raise self._fault
            data = self.sock.recv(_READ_BYTES)
            if data:
                self._feed(data)
                empty_bytes += len(data)
                if empty_bytes > MOST_HEAD_BYTES and not self._pieces:
                    raise BadAnswer("the answer goes on without a body")
            elif self._until_closed:
                self.complete = True
            else:
                raise ConnectionResetError("the connection was closed before the end of the answer")
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._keeps = False  # what follows an answer that is whole is nobody's
            self._fault = BadAnswer(f"no answer of HTTP/1.1: {error}")  # after what came before it

    # What the parser tells.

    def on_message_begin(self) -> None:
        """An answer begins; one that nobody asked for makes the connection useless."""
        if self.complete:
            self._keeps = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One line of the head, or of a trailer, which nobody reads."""
        self._lines += 1
        if self._lines > MOST_HEAD_LINES:
            raise BadAnswer("the answer has too many lines before or behind its body")
        if self.status is None:
            key = name.decode("latin-1").lower()
            text = value.decode("latin-1")
            self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        """The head is whole."""
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._interim = True
            self.headers = {}
            return
        if self.status is None:
            self.status = status
            self._keeps = self._parser.should_keep_alive()
            codings = self.headers.get("transfer-encoding", "").lower()
            self._until_closed = "content-length" not in self.headers and not codings.endswith("chunked")

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if not self.complete:
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        """The answer is whole, or an interim one is."""
        if self._interim:
            self._interim = False
        else:
            self.complete = True

    # Between two answers.

    @property
    def reusable(self) -> bool:
        """The answer was read to its end, and another may follow on this connection."""
        return self.complete and self._keeps and not self._pieces

    @property
    def alive(self) -> bool:
        """The other side has not closed it, and nothing stands there that belongs to no answer."""
        self.sock.settimeout(0)
        try:
            # not SSLSocket's own recv, which takes no flags
            socket.socket.recv(self.sock, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close it; safe to call again."""
        self.sock.close()


def _head(method: str, target: Target, headers: Mapping[str, str], size: int | None, *, chunked: bool = False) -> bytes:
    lines = [f"{method} {target.path} HTTP/1.1", f"Host: {target.authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if not chunked and (size is not None or method in ("POST", "PUT", "PATCH")):  # RFC 9110, section 8.6
        lines.append(f"Content-Length: {size or 0}")
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
        raise ValueError("a header has a line break")
    return text.encode("latin-1") + b"\r\n\r\n"


class Connections:
    """Connections that wait for their next request. Any thread may take one and put it back.

    Args:
        most_idle: kept in all; more may be in use.
    """

    def __init__(self, most_idle: int = 2048) -> None:
        self._most_idle = most_idle
        self._idle: dict[Origin, deque[Connection]] = {}
        self._count = 0
        self._swept_s = time.monotonic()
        self._context: ssl.SSLContext | None = None
        weakref.finalize(self, _close_all, self._idle)

    def connect(self, origin: Origin, timeout_s: float) -> Connection:
        """Make a new connection.

        Raises:
            ConnectFailed: it could not be made; its cause is a TimeoutError where it took longer than `timeout_s`.
        """
        try:
            sock = socket.create_connection((origin.host, origin.port), timeout_s)
        except (OSError, UnicodeError) as error:
            raise ConnectFailed(str(error)) from error
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if origin.scheme == "https":
                sock = self._tls().wrap_socket(sock, server_hostname=origin.host)
            else:
                sock = lighten(sock)
        except (OSError, ValueError) as error:  # SSLError is an OSError, CertificateError a ValueError too
            sock.close()
            raise ConnectFailed(str(error)) from error
        return Connection(origin, sock)

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:  # 30 ms, and nobody needs it where providers are on this host
            context = ssl.create_default_context()
            context.set_alpn_protocols(["http/1.1"])
            lighten_tls(context)
            self._context = context
        return self._context

    def take(self, origin: Origin) -> Connection | None:
        """An idle connection that still stands, the one that was used last; None where there is none."""
        idle = self._idle.get(origin)
        while idle:
            try:
                connection = idle.pop()
            except IndexError:  # another thread took the last one
                break
            self._count -= 1
            if time.monotonic() - connection.idle_since_s < MOST_IDLE_S and connection.alive:
                return connection
            connection.close()
        return None

    def put(self, connection: Connection) -> None:
        """Keep a connection for the next request, or close it where that cannot be."""
        now_s = connection.idle_since_s = time.monotonic()
        if not connection.reusable or self._count >= self._most_idle:
            connection.close()
            return
        self._count += 1
        self._idle.setdefault(connection.origin, deque()).append(connection)
        if now_s - self._swept_s > _SWEEP_S:
            self._swept_s = now_s
            self._sweep(now_s)

    def _sweep(self, now_s: float) -> None:
        """Close what was idle for too long."""
        for idle in tuple(self._idle.values()):
            while idle:
                try:
                    oldest = idle.popleft()
                except IndexError:
                    break
                if now_s - oldest.idle_since_s < MOST_IDLE_S:
                    idle.appendleft(oldest)
                    break
                self._count -= 1
                oldest.close()

    def clear(self) -> None:
        """Close all that are idle."""
        _close_all(self._idle)
        self._count = 0


def _close_all(waiting: Mapping[Origin, deque[Connection]]) -> None:
    for idle in tuple(waiting.values()):
        while idle:
            idle.pop().close()
