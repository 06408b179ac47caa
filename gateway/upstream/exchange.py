"""What one attempt did on the wire: the only source of truth about what was sent, and what came back."""

from __future__ import annotations

import contextlib
import contextvars
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from gateway.upstream.http1 import Parts

#: What is no stream, whatever was asked for.
WHOLE = ("application/json", "text/html")
_NOT_SENT = {b"host", b"connection", b"content-length", b"accept-encoding", b"transfer-encoding"}

_RATE_LIMITS = ("x-ratelimit-", "anthropic-ratelimit-")
#: Providers tell of a dozen; many clients refuse an answer with more than a hundred headers.
_MOST_RATE_LIMITS = 32
_LONGEST_NAME = 64

current: contextvars.ContextVar[Exchange | None] = contextvars.ContextVar("exchange", default=None)


@dataclass(frozen=True)
class Fault:
    """What went wrong on the wire.

    `kind` is one of `connect`, `connect_timeout`, `read_timeout`, `reset`, `aborted`, `redirect`, `not_sse`,
    `too_large`, `encoding`, `host`, `repeated`.
    """

    kind: str
    detail: str = ""


@dataclass(frozen=True)
class Asked:
    """A request as it was put on the wire: all of it but the body, and what belongs to a connection.

    Attributes:
        host: without the port.
        netloc: with it, where the address has one.
    """

    method: str
    url: str
    scheme: str
    host: str
    netloc: str
    path: str
    headers: Mapping[str, str]

    @classmethod
    def of(cls, request: httpx.Request) -> Self:
        """What a client of httpx's asks for."""
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in request.headers.raw
            if name.lower() not in _NOT_SENT and not name.lower().startswith(b"x-stainless")
        }
        url = request.url
        return cls(request.method, str(url), url.scheme, url.host, url.netloc.decode("ascii"), url.path, headers)


@dataclass
class Exchange:
    """What one attempt did on the wire.

    Attributes:
        host: the only `host[:port]` that may be reached; None allows any public one over TLS.
        stream: the answer is read as it comes, as Server-Sent Events where `events` says that it has to be some.
        whole: types of an answer that are read at once all the same.
        bounded: an answer of more than 64 MB is a fault; not so where nobody keeps it.
        head_s: how long to wait for the head of the answer.
        idle_s: how long a read or a write may wait in the middle.
        rewrite: given path and body, returns the body that is sent, or its parts.
        passes: the caller's own body goes out to this path and the provider's own bytes come back, so that nobody needs
            what a client makes of either; None for none.
        asked: the last request that a client made.
        unsaid: tells a client what went wrong with a request that `Door.put` sent, until it was told.
        aborted: the call was stopped.
        silence_s: after how long without a byte whoever reads a stream is told so (by an empty piece), and needs not
            wait for its head any longer; None for never.
        later: goes on waiting for the head, where that was not there yet after `silence_s`.
        path: of the last request.
        status, headers, body: of the last request and its answer; `body` of one that was not streamed.
        streamed: the request that was sent asks for a stream.
        ended: whoever reads the stream has its last event; what follows is the terminator of the chunked body alone.
        head, tail: the first 4 KB or more, and the last piece, that a stream gave.
    """

    host: str | None
    stream: bool
    head_s: float
    idle_s: float
    rewrite: Callable[[str, bytes], bytes | Parts] | None = None
    passes: str | None = None
    asked: Asked | None = None
    unsaid: Callable[[], httpx.Response] | None = None
    sent: set[tuple[str, str]] = field(default_factory=set)
    path: str = ""
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    streamed: bool = False
    ended: bool = False
    answer: httpx.SyncByteStream | None = None
    head: bytes = b""
    tail: bytes = b""
    fault: Fault | None = None
    aborted: bool = False
    silence_s: float | None = None
    later: Callable[[], None] | None = None
    events: bool = True
    whole: Sequence[str] = WHOLE
    bounded: bool = True
    _sockets: set[socket.socket] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def hold(self, sock: Any) -> None:
        """Note a connection in use; raises OSError where the call has been stopped meanwhile."""
        with self._lock:
            self._sockets.add(sock)
            sock.settimeout(self.idle_s)  # of sending
            if not self.aborted:
                return
        raise OSError("the call was stopped")

    def release(self, sock: Any) -> None:
        """Forget a connection: from here on it may be another call's."""
        with self._lock:
            self._sockets.discard(sock)

    @property
    def step_s(self) -> float:
        """How long one read in the middle of a stream may wait."""
        return self.idle_s if self.silence_s is None else min(self.idle_s, self.silence_s)

    def patience(self, seconds: float) -> None:
        """Set how long a read of the connection in use may wait for bytes."""
        with self._lock:
            for sock in self._sockets:
                sock.settimeout(seconds)

    def abort(self) -> None:
        """Shut the call's connections down; a thread that reads or writes there fails within milliseconds."""
        with self._lock:
            self.aborted = True
            for sock in self._sockets:
                # closed meanwhile, or TLS inside TLS: then the deadline of the read bounds it
                with contextlib.suppress(OSError, TypeError):
                    # not sock.shutdown(): an SSLSocket's own one drops its state under the reader's feet
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    @property
    def answered(self) -> bool:
        """A whole answer came, and a good one."""
        return self.fault is None and self.body is not None and 200 <= (self.status or 0) < 300

    def close(self) -> None:
        """Free the connection, back into the pool where the answer was read to its end; safe to call again."""
        if self.answer is not None:
            self.answer.close()


def rate_limits(exchange: Exchange) -> dict[str, str]:
    """The provider's rate limits, under names that cannot be taken for the gateway's own."""
    limits: dict[str, str] = {}
    for name, value in exchange.headers.items():
        for prefix in _RATE_LIMITS:
            if name.startswith(prefix) and len(name) <= _LONGEST_NAME and len(limits) < _MOST_RATE_LIMITS:
                limits["x-provider-ratelimit-" + name.removeprefix(prefix)] = value[:64]
    return limits
