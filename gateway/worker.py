"""gunicorn's worker, quicker with the requests that clients of an API send.

gunicorn judges every request. Here the usual ones are known by a look: HTTP/1.1 whose head came in one piece, with a
plain path, no field twice, and none that means something to a server (RFC 9112). Of them its parser would say the same,
which the tests compare; whatever is not as usual, or is not known to be, goes to that parser. The same holds for the
head of an answer.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gunicorn import SERVER
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.errors import NoMoreData
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.http.wsgi import Response, base_environ
from gunicorn.util import close, http_date
from gunicorn.workers.base_async import AsyncWorker
from gunicorn.workers.ggevent import GeventWorker

from gateway.sockets import lighten

Environ = dict[str, Any]
Fields = Sequence[tuple[str, str]]

#: What is read at once: the heads and the bodies of most requests.
_PIECE_BYTES = 32 << 10

_TOKEN = r"[!#$%&'*+\-.^`|~0-9A-Za-z]+"  # noqa: S105  # RFC 9110, section 5.6.2; but for _, which gunicorn may drop
_LINE = re.compile(rb"(GET|POST|PUT|PATCH|DELETE) ((/(?!/)[!\"$&->@-\[\]-~]*)(?:\?([!\"$-~]*))?) HTTP/1\.1\r\n")
_HEAD = re.compile(rf"(?:{_TOKEN}:[\t -~\x80-\xff]*\r\n)+")
_LENGTH = re.compile(r"[0-9]{1,12}", re.ASCII)

#: Fields that are more than data to a server; gunicorn reads a request that has one of them.
_TELLING = frozenset({"EXPECT", "HTTP2-SETTINGS", "PROXY-CONNECTION", "TE", "TRAILER", "TRANSFER-ENCODING", "UPGRADE"})

#: Names that have been looked at, as they were written: of a request, where WSGI has the field (PEP 3333); of an
#: answer, that they are fit to be sent. Anybody may send names: no more than these are kept.
_MOST_NAMES = 1024
_variables: dict[str, str] = {}
_fit: set[str] = set()
_statuses: set[str] = set()
_VALUES = re.compile(r"[\t\n -~\x80-\xff]*")
#: The date of the answers, and the second that it is of.
_date = [0, ""]


class UsualRequest(Request):  # type: ignore[misc]  # gunicorn has no types
    """A request that was known by a look, as gunicorn's would be after its parser; `environ` is WSGI's share of it."""

    version = (1, 1)
    scheme = "http"
    fragment = ""
    must_close = False
    proxy_protocol_info: Any = None
    _expected_100_continue = False

    def __init__(self, parser: Parser, line: tuple[str, str, str, str], rows: Sequence[str], environ: Environ) -> None:
        self.cfg, self.unreader, self.req_number = parser.cfg, parser.unreader, parser.req_count
        self.peer_addr = self.remote_addr = parser.source_addr
        self.method, self.uri, self.path, self.query = line
        self._rows = rows
        self.trailers: list[tuple[str, str]] = []
        self.environ = environ
        self.body: Any = None

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The fields, names in upper case."""
        parts = (row.partition(":") for row in self._rows)
        return [(name.upper(), value.strip(" \t")) for name, _, value in parts]

    def should_close(self) -> bool:
        """Whether the connection ends with it: only where the server says so (Message.should_close)."""
        return bool(self.must_close)


class Parser(RequestParser):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's parser of a connection, with a look at each request first.

    Args:
        cfg: gunicorn's configuration.
        sock: the connection.
        addr: of the caller.
        telling: fields that are more than data, in upper case.
        longest: the most bytes that a head which is known by a look may have.
    """

    mesg: Any

    def __init__(self, cfg: Any, sock: socket.socket, addr: Any, telling: frozenset[str], longest: int) -> None:
        super().__init__(cfg, sock, addr)
        self._sock = sock
        self._rest = b""
        self._telling = telling
        self._longest = longest
        self._most_fields = cfg.limit_request_fields

    def usual(self) -> UsualRequest | None:
        """Wait for the next request, and read it if it is as usual.

        Returns:
            None where it is not: it is read by `next` then, which may wait for more of it.

        Raises:
            StopIteration: there is none.
            TimeoutError: none has come within the socket's timeout.
        """
        last = self.mesg
        if last is not None:
            if last.should_close() or (type(last.body) is not io.BytesIO and not self.finish_body()):
                raise StopIteration
            self.mesg = None
        data = self._rest or self.unreader.take_buffered() or self._sock.recv(_PIECE_BYTES)
        self._rest = b""
        if not data:
            raise StopIteration
        if (found := self._known(data)) is None:
            self.unreader.unread(data)
        return found

    def _known(self, data: bytes) -> UsualRequest | None:
        line = _LINE.match(data)
        end = data.find(b"\r\n\r\n") + 2
        if line is None or not line.end() < end <= self._longest:
            return None
        head = data[line.end() : end].decode("latin-1")
        if _HEAD.fullmatch(head) is None:
            return None
        rows = head[:-2].split("\r\n")
        environ: Environ = {}
        for row in rows:
            name, _, value = row.partition(":")
            variable = _variables.get(name) or self._variable(name)
            if not variable or variable in environ:
                return None
            environ[variable] = value.strip(" \t")
        if len(rows) > self._most_fields or environ.get("HTTP_CONNECTION", "keep-alive").lower() != "keep-alive":
            return None
        declared = environ.get("CONTENT_LENGTH", "0")
        if _LENGTH.fullmatch(declared) is None:
            return None
        self.req_count += 1
        method, uri, path, query = (part.decode() for part in line.groups(b""))
        found = self.mesg = UsualRequest(self, (method, uri, path, query), rows, environ)
        size, start = int(declared), end + 2
        if (stop := start + size) <= len(data):
            found.body, self._rest = io.BytesIO(data[start:stop]), data[stop:]
        else:
            self.unreader.unread(data[start:])
            found.body = Body(LengthReader(self.unreader, size))
        return found

    def _variable(self, name: str) -> str:
        """Where WSGI has a field; empty where it is more than data."""
        if (upper := name.upper()) in self._telling:
            return ""
        key = upper.replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        if len(_variables) < _MOST_NAMES:
            _variables[name] = key
        return key


class UsualResponse(Response):  # type: ignore[misc]  # gunicorn has no types
    """The answer to a usual request: a head like any other is checked at a look, and goes out with the first piece."""

    status: Any
    response_length: Any
    headers_sent: bool
    sent: int
    _head: str | None = None

    def start_response(self, status: str, headers: Fields, exc_info: Any = None) -> Callable[[bytes], None]:
        """Take the status and the headers of the answer (PEP 3333)."""
        if exc_info is None and self.status is None and self._is_fit(status, headers):
            self.status, self.status_code = status, int(status[:3])
            self.headers = headers
            self.chunked = self.response_length is None
            return self.write
        self._head = self.response_length = None
        return super().start_response(status, headers, exc_info)  # type: ignore[no-any-return]

    def _is_fit(self, status: str, headers: Fields) -> bool:
        """Whether gunicorn would send these as they are, and a body behind them."""
        if status not in _statuses:
            if not re.fullmatch(r"[2-5][0-9]{2} [A-Z -]{2,64}", status) or status[:3] in ("204", "304"):
                return False
            _statuses.add(status)
        lines, values = "", []
        for name, value in headers:
            if name == "Content-Length" and _LENGTH.fullmatch(value):
                self.response_length = int(value)
            elif name not in _fit and not self._is_fit_name(name):
                return False
            lines += f"{name}: {value}\r\n"
            values.append(value)
        joined = "\n".join(values)
        if _VALUES.fullmatch(joined) is None or joined.count("\n") >= max(1, len(values)):
            return False
        self._head = lines
        return True

    def _is_fit_name(self, name: str) -> bool:
        if len(_fit) >= _MOST_NAMES or name.lower() == "content-length":
            return False
        taken = Response(self.req, None, self.cfg)
        taken.process_headers([(name, "")])  # raises where it is no name
        if not taken.headers:
            return False  # of the connection, not of the answer
        _fit.add(name)
        return True

    def write(self, piece: bytes) -> None:
        """Send a piece of the body, and the head in front of the first one."""
        if self.chunked and piece and self._head is not None:  # an empty one would be the end
            opening = b"" if self.headers_sent else self._opening()
            self.headers_sent = True
            self.sent += len(piece)
            self.sock.sendall(b"%b%X\r\n%b\r\n" % (opening, len(piece), piece))  # RFC 9112, section 7.1
        elif self._head is not None and not self.headers_sent and len(piece) == self.response_length:
            self.sock.sendall(self._opening() + piece)
            self.headers_sent = True
            self.sent = len(piece)
        else:
            super().write(piece)

    def send_headers(self) -> None:
        """Send the head, once."""
        if self._head is None:
            super().send_headers()
        elif not self.headers_sent:
            self.sock.sendall(self._opening())
            self.headers_sent = True

    def _opening(self) -> bytes:
        now_s = int(time.time())
        if _date[0] != now_s:
            _date[:] = now_s, http_date(now_s)
        ends = "close" if self.should_close() else "keep-alive"
        coding = "Transfer-Encoding: chunked\r\n" if self.chunked else ""
        return (
            f"HTTP/1.1 {self.status}\r\nServer: {SERVER}\r\nDate: {_date[1]}\r\nConnection: {ends}\r\n{coding}"
            f"{self._head}\r\n"
        ).encode("latin-1")


class _Quick(AsyncWorker):  # type: ignore[misc]  # gunicorn has no types
    """What the worker does with one connection; stands behind gunicorn's worker on gevent in the order of classes."""

    alive: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cfg = self.cfg
        #: Callers speak HTTP/1.1 and nothing else, and keep their connections.
        self._quick = bool(
            cfg.keepalive
            and not cfg.is_ssl
            and cfg.proxy_protocol == "off"
            and getattr(cfg, "protocol", "http") == "http"
            and list(cfg.http_protocols) == ["h1"]
            and not os.environ.get("SCRIPT_NAME")
        )
        self._before, self._after = cfg.pre_request, cfg.post_request
        self._telling = _TELLING | {name.upper() for name in cfg.secure_scheme_headers}
        limits = [limit for limit in (cfg.limit_request_line, cfg.limit_request_field_size) if limit > 0]
        self._longest_head = min(*limits, _PIECE_BYTES)
        self._environ = {
            **base_environ(cfg),
            "wsgi.multithread": True,
            "wsgi.url_scheme": "http",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SCRIPT_NAME": "",
        }

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection."""
        server = listener.getsockname()
        if not (self._quick and isinstance(server, tuple) and isinstance(addr, tuple)):
            super().handle(listener, client, addr)
            return
        req = None
        try:
            parser = Parser(self.cfg, client, addr, self._telling, self._longest_head)
            environ = {
                **self._environ,
                "gunicorn.socket": client,
                "REMOTE_ADDR": addr[0],
                "REMOTE_PORT": str(addr[1]),
                "SERVER_NAME": server[0],
                "SERVER_PORT": str(server[1]),
            }
            keepalive_s = self.cfg.keepalive
            while True:
                req = None
                client.settimeout(keepalive_s)
                try:
                    req = parser.usual()
                except TimeoutError:
                    break
                if req is None:
                    client.settimeout(None)
                    with self.timeout_ctx():
                        req = next(parser)
                    if not req:
                        break
                    req.proxy_protocol_info = {}
                else:
                    req.environ = {
                        **environ,
                        "REQUEST_METHOD": req.method,
                        "RAW_URI": req.uri,
                        "PATH_INFO": req.path,
                        "QUERY_STRING": req.query,
                        "wsgi.input": req.body,
                        **req.environ,
                    }
                self.handle_request(server, req, client, addr)
        except (NoMoreData, StopIteration) as error:
            self.log.debug("Closing connection. %s", error)
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                self.log.debug("Ignoring a caller that has left: %s", error)
            else:
                self.log.exception("Socket error processing request.")
        except BaseException as error:  # noqa: BLE001  # as gunicorn's own: it is logged and answered
            self.handle_error(req, client, addr, error)
        finally:
            close(client)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> bool:
        """Answer one request; raises StopIteration where the connection ends with it."""
        if type(req) is not UsualRequest:
            return bool(super().handle_request(listener_name, req, sock, addr))
        response, environ = UsualResponse(req, sock, self.cfg), req.environ
        try:
            self._before(self, req)
            self.nr += 1
            if self.nr >= self.max_requests and self.alive:
                self.log.info("Autorestarting worker after current request.")
                self.alive = False
            if not self.alive:
                response.force_close()
            answer: Iterable[bytes] = self.wsgi(environ, response.start_response)
            try:
                if isinstance(answer, environ["wsgi.file_wrapper"]):
                    response.write_file(answer)
                else:
                    for piece in answer:
                        response.write(piece)
                response.close()
            finally:
                if (ended := getattr(answer, "close", None)) is not None:
                    ended()
            if response.should_close():
                raise StopIteration
        except (StopIteration, OSError):
            raise
        except (Exception, SystemExit):
            if not response.headers_sent:
                raise
            # it has begun: a second head would be taken for a part of it
            self.log.exception("Error handling request")
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
                sock.close()
            raise StopIteration from None
        finally:
            self._after(self, req, environ, response)
        return True


class Worker(GeventWorker, _Quick):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's worker on gevent, with sockets and heads that cost each request and each chunk of a stream less."""

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection."""
        super().handle(listener, lighten(client), addr)
