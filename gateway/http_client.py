"""One HTTP request, bounded in time as a whole, to exactly the place that was named and checked.

The name is looked up once, what was found is checked, and the connection goes there: a name that means something else
a moment later leads nowhere. There is no proxy on the way, and no redirect is followed. Only the search for the
address is bounded by the system alone.
"""

from __future__ import annotations

import http.client
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import SplitResult, urlsplit

log = logging.getLogger(__name__)

_Addresses = list[tuple[Any, ...]]


class TooSlow(TimeoutError):
    """It was reached, and the answer was not there in time."""


@dataclass(frozen=True)
class Answer:
    """What came back; `body` is empty where it was not read."""

    status: int
    body: bytes = b""


def ask(
    method: str,
    url: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout_s: float,
    most_bytes: int | None = None,
    check: Callable[[str], None] | None = None,
) -> Answer:
    """Send one request, and return the answer.

    Args:
        method: of HTTP.
        url: http or https, with a host.
        body: what is sent; None for nothing.
        headers: besides `Host`, `Connection` and `Content-Length`.
        timeout_s: for all of it but the search for the address.
        most_bytes: the largest body that is read; None reads none.
        check: is told each address that the name has, and raises where one is not to be connected to.

    Raises:
        TooSlow: it was reached, and the answer was not there in time.
        OSError: it cannot be reached, or not in time (TimeoutError).
        HTTPException: what it answers is no HTTP.
        ValueError: its name can be none, or the answer is too large.
    """
    parts = urlsplit(url)
    found = _looked_up(parts, check)
    with _Bound(timeout_s) as bound:
        sock = _connected(found, parts, bound)
        connection = http.client.HTTPConnection("there")  # the name means nothing: it is connected already
        connection.sock = sock
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, path, body, {**(headers or {}), "Host": parts.netloc, "Connection": "close"})
        with connection.getresponse() as answer:
            raw = b"" if most_bytes is None else answer.read(most_bytes + 1)
            status = answer.status
    if most_bytes is not None and len(raw) > most_bytes:
        raise ValueError("the answer is too large")
    return Answer(status, raw)


class _Bound:
    """Shuts the sockets of one request down when its time is over, and closes them when it has ended.

    A socket's own bound is for each read, and an answer may come byte by byte. What is cut off here looks like the end
    of an answer, so nothing that came counts then.

    Attributes:
        connected: there is a connection; what takes long from here on is the other side.
    """

    def __init__(self, timeout_s: float) -> None:
        self._until_s = time.monotonic() + timeout_s
        self._over = threading.Event()
        self._held: list[socket.socket] = []
        self._timer = threading.Timer(timeout_s, self._give_up)
        self._timer.daemon = True
        self.connected = False

    @property
    def left_s(self) -> float:
        """What is left of the time; below 0 when it is over."""
        return self._until_s - time.monotonic()

    def hold(self, sock: socket.socket) -> None:
        """Take a socket into the bound.

        Raises:
            TimeoutError: the time is over.
        """
        self._held.append(sock)
        if self._over.is_set():  # it may have looked through them already
            raise TimeoutError

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._timer.cancel()
        for sock in self._held:
            sock.close()
        late = self._over.is_set() or isinstance(error, TimeoutError)
        if late and (error is None or isinstance(error, OSError | http.client.HTTPException)):
            raise (TooSlow if self.connected else TimeoutError) from None

    def _give_up(self) -> None:
        self._over.set()
        for sock in self._held:
            try:
                # the plain one, since TLS would wait for the other end
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                log.debug("the connection is gone already")


def _looked_up(parts: SplitResult, check: Callable[[str], None] | None) -> _Addresses:
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    for *_, place in found:
        if check is not None:
            check(str(place[0]))
    return found


def _connected(found: _Addresses, parts: SplitResult, bound: _Bound) -> socket.socket:
    """Connect to the first address that can be, over TLS where the scheme wants it."""
    failure = OSError("no address")
    for family, kind, protocol, _, place in found:
        if (left_s := bound.left_s) <= 0:
            raise TimeoutError
        sock = socket.socket(family, kind, protocol)
        bound.hold(sock)
        sock.settimeout(left_s)
        try:
            sock.connect(place)
        except OSError as error:
            failure = error
            continue
        bound.connected = True
        if parts.scheme == "http":
            return sock
        guarded = ssl.create_default_context().wrap_socket(
            sock, server_hostname=parts.hostname, do_handshake_on_connect=False
        )
        bound.hold(guarded)
        guarded.do_handshake()
        return guarded
    raise failure
