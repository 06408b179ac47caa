"""A threaded HTTP/1.1 server on 127.0.0.1 that records what it is asked and notices when a client leaves."""

from __future__ import annotations

import itertools
import json
import re
import select
import socket
import socketserver
import struct
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, NoReturn, Self

JSON = dict[str, Any]
_VALUE = re.compile(rb'name="model"\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]*)\r\n')
TICK_S = 0.02  # how stale a look at the client may be where one cannot block on its socket


class ClientGoneError(Exception):
    """The client closed, shut down or reset its connection before the reply was complete."""


class DroppedError(Exception):
    """The server ends the connection here, on purpose."""


@dataclass(eq=False)
class Received:
    """One request as it came, and what became of its connection while it was answered.

    Attributes:
        path: with its query string.
        headers: names in lower case.
        body: the parsed JSON, None where it is none.
        received: monotonic seconds at which the request had been read.
        connection: a number of its own for each TCP connection, so that reuse shows.
        port: of the client's end of it.
        closed: set once the client leaves before the reply is complete, `closed_at` (monotonic) just before.
        answered: set once the reply has been handed to the kernel in full.
    """

    method: str
    path: str
    headers: dict[str, str]
    raw: bytes
    connection: int
    port: int
    body: Any = None
    received: float = field(default_factory=time.monotonic)
    closed: threading.Event = field(default_factory=threading.Event)
    closed_at: float | None = None
    answered: threading.Event = field(default_factory=threading.Event)

    @property
    def model(self) -> str | None:
        """The `model` that the body names, if any; of a form the value of the part of that name."""
        if isinstance(self.body, dict):
            return self.body.get("model")
        place = self.raw.find(b'name="model"')  # a pattern would hold everybody up for half a second in 64 MB
        found = _VALUE.match(self.raw, place) if place >= 0 else None
        return found[1].decode() if found is not None else None


class Exchange:
    """One request and the way back to its client. Everything that sends or waits raises `ClientGoneError`."""

    def __init__(self, request: Received, connection: socket.socket, release: Callable[[], None]) -> None:
        self.request = request
        self._socket = connection
        self._release = release

    def respond(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send a whole reply. Its length is added unless `headers` frame it."""
        framed = {name.lower() for name in headers} & {"content-length", "transfer-encoding"}
        length = {} if framed else {"Content-Length": str(len(body))}
        self.write(_head(status, {**headers, **length}) + (b"" if self.request.method == "HEAD" else body))

    def respond_json(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """Send `body` as JSON."""
        head = {"Content-Type": "application/json", **(headers or {})}
        self.respond(status, head, json.dumps(body, ensure_ascii=False).encode())

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the head of a chunked reply; `send` pieces of its body, then `finish`."""
        self.write(_head(status, {**headers, "Transfer-Encoding": "chunked"}))

    def send(self, piece: bytes) -> None:
        """Send one chunk, in a write of its own."""
        if piece:
            self.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def finish(self) -> None:
        """End a chunked reply as HTTP wants it."""
        self.write(b"0\r\n\r\n")

    def write(self, piece: bytes) -> None:
        """Put bytes on the wire as they are, looking out for the client even while it does not read."""
        left = memoryview(piece)
        poller = select.poll()  # not select(): hundreds of clients mean descriptors above its 1024
        poller.register(self._socket, select.POLLOUT)
        while left:
            self._look_for_client()
            try:
                left = left[self._socket.send(left, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                poller.poll(TICK_S * 1000)
            except OSError:
                raise ClientGoneError from None

    def wait(self, seconds: float | None) -> None:
        """Let time pass, for ever where `seconds` is None. The client's leaving ends it at once."""
        end = None if seconds is None else time.monotonic() + seconds
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        while True:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return
            if poller.poll(None if left is None else left * 1000):
                self._look_for_client()
                time.sleep(TICK_S if left is None else min(TICK_S, left))  # it only sent ahead

    def hang_up(self) -> NoReturn:
        """End the connection in good order (FIN), whatever of the reply is still owed."""
        raise DroppedError

    def reset(self) -> NoReturn:
        """End the connection with a RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._release()  # the descriptor only closes once nobody reads from it
        self._socket.close()
        raise DroppedError

    def _look_for_client(self) -> None:
        try:
            gone = self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            gone = False
        except OSError:
            gone = True
        if gone:
            raise ClientGoneError


class Loopback(ABC):
    """The server: starts when made, ends with `close()` or its `with` block. Subclasses say `handle`."""

    def __init__(self) -> None:
        self.stopping = False
        self._received: list[Received] = []
        self._changed = threading.Condition()
        self._listen(0)

    def _listen(self, port: int) -> None:
        self._server = _Server(self, port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(TICK_S,), daemon=True)
        self._thread.start()

    @abstractmethod
    def handle(self, exchange: Exchange) -> None:
        """Answer one request, in a thread of its connection."""

    @property
    def origin(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        """The port that the kernel chose."""
        return int(self._server.server_address[1])

    @property
    def open_connections(self) -> int:
        """TCP connections that are open now, idle ones included."""
        return len(self._server.connections)

    def requests(self, model: str | None = None) -> list[Received]:
        """Return the requests so far, oldest first; those whose body names `model`, if given."""
        with self._changed:
            return [one for one in self._received if model is None or one.model == model]

    def forget(self) -> None:
        """Lose the requests so far, and the room that their bodies take."""
        with self._changed:
            self._received.clear()

    def wait_for(self, count: int, model: str | None = None, timeout: float = 5.0) -> list[Received]:
        """Wait until `count` requests have arrived, answered or not.

        Raises:
            TimeoutError: they did not within `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.requests(model)) >= count, timeout):
                raise TimeoutError(f"{len(self.requests(model))} of {count} requests within {timeout} s")
            return self.requests(model)

    def come_back(self) -> None:
        """Listen at the same port again after `close()`; what was received before is still known."""
        end_s = time.monotonic() + 10
        while True:
            try:
                self._listen(self.port)
                break
            except OSError:  # a client's own end may have the port for a moment
                if time.monotonic() > end_s:
                    raise
                time.sleep(TICK_S)
        self.stopping = False

    def close(self) -> None:
        """Stop listening, end every connection and wait for the threads. Clients left so are not `closed`."""
        if self.stopping:
            return
        self.stopping = True
        self._server.shutdown()
        self._thread.join()
        for connection, thread in list(self._server.connections.items()):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(5)
        self._server.server_close()

    def serve(self, exchange: Exchange) -> bool:
        """Record a request and answer it; tell whether the connection may carry another."""
        request = exchange.request
        with self._changed:
            self._received.append(request)
            self._changed.notify_all()
        try:
            self.handle(exchange)
        except ClientGoneError:
            if not self.stopping:
                request.closed_at = time.monotonic()
                request.closed.set()
            return False
        except DroppedError:
            return False
        request.answered.set()
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Answering(Loopback):
    """Answers as `says` does, which a test may change."""

    def __init__(self) -> None:
        self.says: Callable[[Exchange], None] = lambda exchange: exchange.respond_json(200, {"a": 1})
        super().__init__()

    def handle(self, exchange: Exchange) -> None:
        self.says(exchange)


class _Server(socketserver.ThreadingTCPServer):
    """Accepts connections and keeps count of them; `http.server` reads the requests."""

    request_queue_size = 1024
    daemon_threads = True
    allow_reuse_address = True  # else the port of an earlier one is not free for a minute

    def __init__(self, owner: Loopback, port: int) -> None:
        self.owner = owner
        self.connections: dict[socket.socket, threading.Thread] = {}
        self.numbers = itertools.count(1)
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        target = self.process_request_thread
        thread = threading.Thread(target=target, args=(request, client_address), daemon=True)
        self.connections[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.connections.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a connection's end is no fault; a bug here is shown
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Reads requests off one connection and hands them to the owner of the server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.number = next(self.server.numbers)

    def do_POST(self) -> None:
        raw = self._read_body()
        if raw is None:
            self.close_connection = True
            return
        request = Received(
            method=self.command,
            path=self.path,
            headers={name.lower(): value for name, value in self.headers.items()},
            raw=raw,
            connection=self.number,
            port=self.client_address[1],
            body=_parsed(raw),
        )
        exchange = Exchange(request, self.connection, self.rfile.close)
        if not self.server.owner.serve(exchange):
            self.close_connection = True

    do_GET = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_POST  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""

    def _read_body(self) -> bytes | None:
        """Read a body by its length or by its chunks; None where the client left in the middle of it."""
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            size = int(self.headers.get("Content-Length", 0))
            raw = self.rfile.read(size)
            return raw if len(raw) == size else None
        raw = b""
        while line := self.rfile.readline():
            size = int(line.partition(b";")[0], 16)
            piece = self.rfile.read(size + 2)
            if len(piece) < size + 2:
                return None
            if not size:
                return raw
            raw += piece[:-2]
        return None


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    known = status in HTTPStatus._value2member_map_
    phrase = HTTPStatus(status).phrase if known else "Status"
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
