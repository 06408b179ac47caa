"""What is known by a look is what gunicorn's own parser and writer would have made of it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http.errors import InvalidResponseHeader, InvalidResponseHeaderName
from gunicorn.http.parser import RequestParser
from gunicorn.http.wsgi import Response, create
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import worker
from gateway.worker import Parser, UsualRequest, UsualResponse

ADDRESS = ("192.0.2.7", 40000)
SERVER = ("192.0.2.1", 8000)
TELLING = worker._TELLING | {"X-FORWARDED-PROTO"}
FIELDS = b"Host: a.example\r\nAuthorization: Bearer sk-1\r\nContent-Type: application/json\r\nX-Empty:\r\n"
POST = b"POST /v1/chat/completions?a=b&c HTTP/1.1\r\n" + FIELDS + b"Content-Length: 4\r\n\r\nbody"

Head = tuple[str, Sequence[tuple[str, str]]]


class Wire:
    """A connection whose other side has sent these pieces, and then ended; keeps what is written to it."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.written: list[bytes] = []

    def recv(self, size: int) -> bytes:
        if not self.pieces:
            return b""
        piece = self.pieces.pop(0)
        if piece[size:]:
            self.pieces.insert(0, piece[size:])
        return piece[:size]

    def sendall(self, data: bytes) -> None:
        self.written.append(data)


def conf(**more: Any) -> Config:
    cfg = Config()
    for name, value in {
        "forwarder_headers": "",
        "header_map": "drop",
        "limit_request_field_size": 16380,
        **more,
    }.items():
        cfg.set(name, value)
    return cfg


def parser(*pieces: bytes, cfg: Config | None = None) -> Parser:
    return Parser(cfg or conf(), Wire(*pieces), ADDRESS, TELLING, 8190)


def environ_of(cfg: Config, request: Any) -> dict[str, Any]:
    """What WSGI is told of a request by gunicorn, without the objects that belong to the connection."""
    told = create(request, Wire(), ADDRESS, SERVER, cfg)[1]
    return {name: value for name, value in told.items() if isinstance(value, str)}


def assert_alike(known: UsualRequest, request: Any) -> None:
    for name in ("method", "uri", "path", "query", "fragment", "version", "scheme", "headers", "trailers"):
        assert getattr(known, name) == getattr(request, name), name
    assert known.should_close() == request.should_close()
    assert known._expected_100_continue == request._expected_100_continue
    assert known.body.read() == request.body.read()
    own = {name: value for name, value in environ_of(conf(), request).items() if name in known.environ}
    assert known.environ == own


def test_a_usual_request_is_known_by_a_look_as_gunicorn_reads_it() -> None:
    known = parser(POST).usual()
    assert known is not None
    assert_alike(known, next(RequestParser(conf(), Wire(POST), ADDRESS)))


SIGNS = st.sampled_from([*"aZ09-_:;,. \t%?#/\\[]*\"'@", "\r\n", "\r", "\n", "\0", "\x7f", "\x80", "ÿ"])
TEXT = st.one_of(st.lists(SIGNS, max_size=10).map("".join), st.text("aZ0-;,. /@", max_size=10))
NAMES = ("Host", "content-length", "Connection", "X_A", "X-A", "Expect", "Transfer-Encoding", "TE", "X-Forwarded-Proto")
TARGETS = (
    "*",
    "//a/b",
    "/a%2fb",
    "/v1/models?x=%20",
    "/a?b?c",
    "/a?",
    "/a#b",
    "/a?b#c",
    "/[a]:1@b;c",
    "http://a/b",
    "/a b",
)


def mostly(usual: Sequence[str], odd: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Draws a usual one nine times in ten: a head is known only where all of it is usual."""
    return st.integers(0, 9).flatmap(lambda dice: st.sampled_from(usual) if dice else odd)


ROWS = st.lists(
    st.tuples(
        mostly(["Host", "Content-Type", "X-A", "x-b", "Accept"], st.one_of(st.sampled_from(NAMES), TEXT)),
        mostly([":", ": "], st.sampled_from([" :", "", ":\t \t"])),
        mostly(
            ["", "a", "a b\t", "ÿ: c"], st.one_of(TEXT, st.sampled_from(["0", "4", "close", "keep-alive", "chunked"]))
        ),
    ),
    max_size=4,
)
METHODS = mostly(["GET", "POST", "DELETE"], st.sampled_from(["HEAD", "OPTIONS", "get", "CONNECT", "PO ST", ""]))
PLACES = mostly(["/v1/models", "/a?b=c"], st.one_of(TEXT.map("/".__add__), TEXT, st.sampled_from(TARGETS)))
VERSIONS = mostly(["HTTP/1.1"], st.sampled_from(["HTTP/1.0", "HTTP/2.0", "HTTP/1.1 ", "http/1.1"]))


@settings(max_examples=600, deadline=None)
@given(METHODS, PLACES, VERSIONS, ROWS, mostly(["\r\n"], st.just("\n")))
def test_whatever_comes_is_read_as_gunicorn_reads_it_or_left_to_it(
    method: str, target: str, version: str, rows: list[tuple[str, str, str]], end: str
) -> None:
    lines = [f"{method} {target} {version}", *("".join(row) for row in rows), "", "body"]
    sent = end.join(lines).encode("latin-1")
    known = parser(sent).usual()
    if known is not None:
        assert_alike(known, next(RequestParser(conf(), Wire(sent), ADDRESS)))


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(POST.replace(b"/v1", b"//v1"), id="two slashes"),
        pytest.param(POST.replace(b"/v1", b"/%761"), id="an escape in the path"),
        pytest.param(POST.replace(b"HTTP/1.1", b"HTTP/1.0"), id="HTTP/1.0"),
        pytest.param(POST.replace(b"POST", b"HEAD"), id="HEAD"),
        pytest.param(POST.replace(b"X-Empty:", b"host: b.example"), id="a field twice"),
        pytest.param(POST.replace(b"X-Empty:", b"X_Empty: 1"), id="an underscore"),
        pytest.param(POST.replace(b"X-Empty:", b"X-Empty : 1"), id="a space in front of the colon"),
        pytest.param(POST.replace(b"X-Empty:", b"Connection: close"), id="the last request"),
        pytest.param(POST.replace(b"X-Empty:", b"Expect: 100-continue"), id="an expectation"),
        pytest.param(POST.replace(b"X-Empty:", b"Upgrade: h2c"), id="an upgrade"),
        pytest.param(POST.replace(b"X-Empty:", b"x-forwarded-proto: https"), id="a scheme"),
        pytest.param(POST.replace(b"X-Empty:", b"Transfer-Encoding: chunked"), id="a coding"),
        pytest.param(POST.replace(b"X-Empty:", b" folded"), id="a folded line"),
        pytest.param(POST.replace(b"Length: 4", b"Length: +4"), id="a length that is no number"),
        pytest.param(POST.replace(b"Length: 4", b"Length:"), id="no length"),
        pytest.param(POST.replace(b"X-Empty:", b"X-Long: " + b"a" * 8200), id="a long head"),
        pytest.param(POST.replace(b"X-Empty:", b"\r\n".join(b"X-%d: 1" % i for i in range(100))), id="too many fields"),
    ],
)
def test_what_is_not_usual_is_left_to_gunicorn_whole(odd: bytes) -> None:
    asked = parser(odd)
    assert asked.usual() is None
    assert asked.unreader.take_buffered() == odd


def test_names_that_nobody_knows_do_not_fill_the_memory() -> None:
    for number in range(2 * worker._MOST_NAMES):
        known = parser(POST.replace(b"X-Empty", b"X-%d" % number)).usual()
        assert known is not None
        assert known.environ[f"HTTP_X_{number}"] == ""
    assert len(worker._variables) <= worker._MOST_NAMES


def test_requests_that_came_together_are_read_one_after_the_other() -> None:
    asked = parser(POST + POST.replace(b"body", b"next") + POST.replace(b"HTTP/1.1", b"HTTP/1.0"))
    for body in (b"body", b"next"):
        known = asked.usual()
        assert known is not None
        assert known.body.read() == body
    assert asked.usual() is None
    assert next(asked).body.read() == b"body"
    with pytest.raises(StopIteration):
        asked.usual()


def test_a_body_that_comes_later_is_waited_for_and_what_nobody_read_is_skipped() -> None:
    asked = parser(POST[:-4], b"bo", b"dy" + POST[:-2], b"dy" + POST)
    first = asked.usual()
    assert first is not None
    assert first.body.read(4) == b"body"
    assert asked.usual() is not None
    last = asked.usual()
    assert last is not None
    assert last.body.read() == b"body"


def written(kind: type[Response], status: str, headers: Sequence[tuple[str, str]], *pieces: bytes) -> list[bytes]:
    known = parser(POST).usual()
    wire = Wire()
    response = kind(known, wire, conf())
    response.start_response(status, headers)
    for piece in pieces:
        response.write(piece)
    response.close()
    return wire.written


LENGTH = ("Content-Length", "4")
HEADS: list[Head] = [
    ("200 OK", [("Content-Type", "application/json"), LENGTH]),
    ("200 OK", [("Content-Type", "text/event-stream"), ("X-Accel-Buffering", "no")]),
    ("200 OK", [LENGTH, ("Connection", "close"), ("Transfer-Encoding", "chunked")]),
    ("200 OK", [("content-length", "4")]),
    ("200 OK", [("Content-Length", "2")]),
    ("204 NO CONTENT", [LENGTH]),
    ("304 NOT MODIFIED", []),
    ("418 I'M A TEAPOT", [LENGTH]),
    ("429 TOO MANY REQUESTS", [("Retry-After", "1"), ("X-Name", "vä\tlue"), LENGTH]),
]


@pytest.mark.parametrize(("status", "headers"), HEADS)
def test_an_answer_is_written_as_gunicorn_writes_it(
    status: str, headers: Sequence[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gunicorn.util.time.time", lambda: 1_800_000_000.5)
    for pieces in ((b"body",), (b"bo", b"", b"dy"), ()):
        own = written(UsualResponse, status, headers, *pieces)
        assert b"".join(own) == b"".join(written(Response, status, headers, *pieces))


def test_a_whole_answer_goes_out_in_one_piece() -> None:
    assert len(written(UsualResponse, "200 OK", [LENGTH], b"body")) == 1


def test_the_head_of_a_stream_goes_out_with_its_first_piece_or_at_once_where_that_is_empty() -> None:
    head, *chunks = written(UsualResponse, "200 OK", [], b"a" * 20, b"", b"b")
    assert head.endswith(b"\r\n\r\n14\r\n" + b"a" * 20 + b"\r\n")
    assert chunks == [b"1\r\nb\r\n", b"0\r\n\r\n"]
    head, *chunks = written(UsualResponse, "200 OK", [], b"", b"b")
    assert head.endswith(b"\r\n\r\n")
    assert chunks == [b"1\r\nb\r\n", b"0\r\n\r\n"]


@pytest.mark.parametrize(
    ("headers", "raised"),
    [
        ([("X-A", "1\r\nX-B: 2")], InvalidResponseHeader),
        ([("X-A", "1\nX-B: 2")], InvalidResponseHeader),
        ([("X-A", "1\n")], InvalidResponseHeader),
        ([("X-A", "\0")], InvalidResponseHeader),
        ([("X-A: 1\r\nX-B", "2")], InvalidResponseHeaderName),
        ([("X A", "2")], InvalidResponseHeaderName),
    ],
)
def test_an_answer_cannot_be_split_by_what_stands_in_its_head(
    headers: Sequence[tuple[str, str]], raised: type[Exception]
) -> None:
    written(UsualResponse, "200 OK", [("X-A", "known")])
    with pytest.raises(raised):
        written(UsualResponse, "200 OK", headers, b"body")


def test_the_date_of_an_answer_is_of_its_second(monkeypatch: pytest.MonkeyPatch) -> None:
    for now_s, date in ((1_800_000_000.9, b"08:00:00 GMT"), (1_800_000_001.0, b"08:00:01 GMT")):
        monkeypatch.setattr("gateway.worker.time.time", lambda now_s=now_s: now_s)
        assert date in written(UsualResponse, "200 OK", [LENGTH], b"body")[0]


class Plain(worker._Quick):
    """The worker's share without gevent."""

    def __init__(self, app: Callable[..., Iterable[bytes]], **more: Any) -> None:
        self.cfg = conf(**more)
        super().__init__(1, 1, [], None, 5, self.cfg, Logger(self.cfg))
        self.wsgi = app
        self.nr, self.alive, self.max_requests = 0, True, 100

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as gunicorn's listeners have it
        super().handle(listener, client, addr)
        self.tmp.close()

    def timeout_ctx(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


@contextlib.contextmanager
def connected(serving: Plain) -> Iterator[socket.socket]:
    """A connection to the worker, which serves it in a thread that has ended afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as here:
        here.settimeout(10)
        there, address = listener.accept()
        thread = threading.Thread(target=serving.handle, args=(listener, there, address))
        thread.start()
        try:
            yield here
        finally:
            here.close()
            thread.join(10)
            assert not thread.is_alive()


def told(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def everything(here: socket.socket) -> bytes:
    got = b""
    while piece := here.recv(4096):
        got += piece
    return got


def test_usual_and_other_requests_are_served_in_their_order_on_one_connection() -> None:
    chunked = POST.replace(b"Content-Length: 4", b"Transfer-Encoding: chunked").replace(
        b"body", b"3\r\nodd\r\n0\r\n\r\n"
    )
    last = POST.replace(b"X-Empty:", b"Connection: close").replace(b"body", b"last")
    with connected(Plain(told)) as here:
        here.sendall(POST + chunked + POST[:-2])
        here.sendall(b"dy" + POST + last)
        got = everything(here)
    bodies = [part.split(b"\r\n\r\n")[1] for part in got.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [b"body", b"odd", b"body", b"body", b"last"]


def test_the_app_is_told_the_same_whichever_way_a_request_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        seen.append({name: value for name, value in environ.items() if isinstance(value, str | bool | tuple)})
        return told(environ, start_response)

    for look in (True, False):
        if not look:
            monkeypatch.setattr(Parser, "_known", lambda *_: None)
        with connected(Plain(app)) as here:
            here.sendall(POST)
            here.shutdown(socket.SHUT_WR)
            assert everything(here).endswith(b"\r\n\r\nbody")
    for one in seen:
        assert {one.pop("REMOTE_PORT"), one.pop("SERVER_PORT")}
    assert seen[0] == seen[1]


def test_a_connection_on_which_nothing_comes_is_closed_without_a_word() -> None:
    with connected(Plain(told, keepalive=1)) as here:
        here.sendall(POST)
        assert everything(here).count(b"HTTP/1.1") == 1


def test_a_request_that_cannot_be_read_is_refused_by_gunicorn() -> None:
    with connected(Plain(told)) as here:
        here.sendall(POST.replace(b"X-Empty:", b"Host: b"))
        assert everything(here).startswith(b"HTTP/1.1 400 ")


def test_an_app_that_fails_is_answered_for_or_cut_off_where_its_answer_has_begun() -> None:
    closed: list[bool] = []

    class Failing:
        def __init__(self, begun: bool) -> None:
            self.pieces = iter([b"piece"] if begun else [])

        def __iter__(self) -> Iterator[bytes]:
            yield from self.pieces
            raise ValueError("on its way")

        def close(self) -> None:
            closed.append(True)

    def app(begun: bool) -> Callable[..., Iterable[bytes]]:
        def failing(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            start_response("200 OK", [("X-A", "1")])
            return Failing(begun)

        return failing

    with connected(Plain(app(begun=False))) as here:
        here.sendall(POST)
        assert everything(here).startswith(b"HTTP/1.1 500 ")
    with connected(Plain(app(begun=True))) as here:
        here.sendall(POST)
        got = everything(here)
    assert got.endswith(b"\r\n\r\n5\r\npiece\r\n")
    assert b"500" not in got
    assert closed == [True, True]


def test_a_worker_that_is_to_end_says_so_and_closes() -> None:
    serving = Plain(told)
    serving.alive = False
    with connected(serving) as here:
        here.sendall(POST)
        assert b"\r\nConnection: close\r\n" in everything(here)


def test_a_worker_that_has_served_enough_is_to_end() -> None:
    serving = Plain(told)
    serving.max_requests = 1
    with connected(serving) as here:
        here.sendall(POST + POST)
        assert everything(here).count(b"HTTP/1.1 200") == 1
    assert not serving.alive
