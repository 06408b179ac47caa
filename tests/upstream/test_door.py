"""The one transport: what it refuses to send, what it does not let through, and how it lets go."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from gateway.upstream import door
from gateway.upstream import exchange as wire
from gateway.upstream.door import Door, Refused
from gateway.upstream.exchange import Exchange, Fault
from tests.fakes.loopback import Exchange as Served
from tests.fakes.loopback import Loopback, Received
from tests.fakes.provider import (
    FakeProvider,
    Reply,
    answer,
    close,
    data,
    delta,
    done,
    drop,
    hang,
    pause,
    plain_json,
    raw,
    raw_bytes,
    redirect,
    repeat,
    reset,
    silence,
    sse,
)

PATH = "/v1/chat/completions"
HELLO = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


class Trap(Loopback):
    """A server that nobody may ever ask."""

    def handle(self, exchange: Served) -> None:
        exchange.respond_json(200, {"caught": True})


@pytest.fixture
def trap() -> Iterator[Trap]:
    with Trap() as server:
        yield server


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    """A client that follows redirects, as those that LiteLLM makes do."""
    transport = Door()
    with httpx.Client(transport=transport, follow_redirects=True, trust_env=False, timeout=10) as made:
        yield made
    transport.shut()


def exchange(server: Loopback, *, stream: bool = False, **more: Any) -> Exchange:
    given = {"host": f"127.0.0.1:{server.port}", "head_s": 5.0, "idle_s": 5.0, **more}
    return Exchange(stream=stream, **given)


@contextmanager
def within(made: Exchange) -> Iterator[Exchange]:
    token = wire.current.set(made)
    try:
        yield made
    finally:
        made.close()
        wire.current.reset(token)


def ask(client: httpx.Client, made: Exchange, server: Loopback, path: str = PATH) -> httpx.Response:
    """Post once within an exchange, and read the whole answer."""
    with within(made):
        return client.post(server.origin + path, json={**HELLO, "stream": made.stream})


def raised(client: httpx.Client, made: Exchange, server: Loopback) -> Fault:
    """Post, expect a failure, and give the fault that was noted."""
    with pytest.raises(httpx.RequestError):
        ask(client, made, server)
    assert made.fault is not None
    return made.fault


# What is not sent.


def test_nothing_is_sent_outside_an_exchange(client: httpx.Client, provider: FakeProvider) -> None:
    with pytest.raises(Refused):
        client.post(provider.base_url + "/chat/completions", json=HELLO)
    assert provider.requests() == []


def test_another_host_is_refused(client: httpx.Client, provider: FakeProvider, trap: Trap) -> None:
    made = exchange(provider)
    with pytest.raises(Refused), within(made):
        client.post(trap.origin + PATH, json=HELLO)
    assert made.fault == Fault("host", f"127.0.0.1:{trap.port}")
    assert (trap.requests(), provider.requests()) == ([], [])


def test_a_user_name_in_the_address_does_not_hide_another_host(
    client: httpx.Client, provider: FakeProvider, trap: Trap
) -> None:
    with pytest.raises(Refused), within(exchange(provider)):
        client.post(f"http://127.0.0.1:{provider.port}@127.0.0.1:{trap.port}{PATH}", json=HELLO)
    assert trap.requests() == []


def test_a_second_post_to_one_path_is_refused(client: httpx.Client, provider: FakeProvider) -> None:
    made = exchange(provider)
    with within(made):
        assert client.post(provider.origin + PATH, json=HELLO).status_code == 200
        with pytest.raises(Refused):
            client.post(provider.origin + PATH + "?again=1", json=HELLO)
    assert made.fault == Fault("repeated", PATH)
    assert len(provider.requests()) == 1


def test_an_attempt_may_ask_a_few_other_paths_and_no_more(client: httpx.Client, provider: FakeProvider) -> None:
    made = exchange(provider)
    with within(made):
        for number in range(door.MOST_SENDS):
            client.get(f"{provider.origin}/{number}")
        with pytest.raises(Refused):
            client.get(f"{provider.origin}/one-more")
    assert len(provider.requests()) == door.MOST_SENDS


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/x",
        "https://10.0.0.1/x",
        "https://8.8.8.8/x",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://localhost/x",
        "https://a.localhost/x",
        "https://printer.local/x",
        "https://metadata.google.internal/x",
        "https://2130706433/x",
        "https://intranet/x",
        "http://api.example.com/x",
        "http://169.254.169.254/latest/meta-data",
    ],
)
def test_where_no_host_is_set_only_public_names_over_tls_are_reached(client: httpx.Client, url: str) -> None:
    made = Exchange(host=None, stream=False, head_s=1, idle_s=1)
    with pytest.raises(Refused), within(made):
        client.get(url)
    assert made.fault is not None
    assert made.fault.kind == "host"


def test_an_address_in_another_spelling_is_no_public_name(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """inet_aton and the resolver read these as what they are."""
    looked_up: list[str] = []

    def resolve(host: str, *_more: Any, **_named: Any) -> Any:
        looked_up.append(host)
        raise socket.gaierror("no network here")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for host in ("127.1", "0x7f.1", "0177.0.0.1", "127.0.0.1.", "localhost.", "printer.local."):
        with (
            pytest.raises((httpx.TransportError, httpx.InvalidURL)),
            within(Exchange(host=None, stream=False, head_s=1, idle_s=1)),
        ):
            client.get(f"https://{host}/x")
    assert looked_up == []


def test_a_public_name_is_let_through(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def resolve(host: Any, *_more: Any, **_named: Any) -> Any:
        asked.append(host)
        raise socket.gaierror("no network here")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    made = Exchange(host=None, stream=False, head_s=1, idle_s=1)
    with pytest.raises(httpx.TransportError), within(made):
        client.get("https://api.example.com/x")
    assert asked == ["api.example.com"]


# What is sent.


def test_the_callers_own_body_goes_out_in_place_of_the_clients(client: httpx.Client, provider: FakeProvider) -> None:
    seen: list[tuple[str, bytes]] = []

    def rewrite(path: str, theirs: bytes) -> bytes:
        seen.append((path, theirs))
        return b'{"model": "m", "messages": [{"role": "user", "content": "ours, and longer than theirs"}]}'

    ask(client, exchange(provider, rewrite=rewrite), provider)
    [received] = provider.requests()
    assert received.body["messages"][0]["content"] == "ours, and longer than theirs"
    assert received.headers["content-length"] == str(len(received.raw))
    assert [(path, json.loads(theirs)["model"]) for path, theirs in seen] == [(PATH, "m")]


def test_no_encoding_is_asked_for_and_no_trace_of_an_sdk_is_sent(client: httpx.Client, provider: FakeProvider) -> None:
    made = exchange(provider)
    with within(made):
        client.post(
            provider.origin + PATH, json=HELLO, headers={"X-Stainless-OS": "Linux", "Authorization": "Bearer k"}
        )
    [received] = provider.requests()
    assert received.headers["accept-encoding"] == "identity"
    assert received.headers["authorization"] == "Bearer k"
    assert received.headers["host"] == f"127.0.0.1:{provider.port}"
    assert not [name for name in received.headers if name.startswith("x-stainless")]


# What does not come through.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(client: httpx.Client, provider: FakeProvider, trap: Trap, status: int) -> None:
    provider.script("m", redirect(trap.origin + PATH, status))
    made = exchange(provider)
    got = ask(client, made, provider)
    assert got.status_code == status
    assert "location" not in got.headers
    assert made.fault == Fault("redirect", str(status))
    assert trap.requests() == []
    assert trap.open_connections == 0


def test_a_redirect_to_the_deployments_own_host_is_not_followed(client: httpx.Client, provider: FakeProvider) -> None:
    provider.script("m", redirect(provider.origin + "/v1/elsewhere"))
    ask(client, exchange(provider), provider)
    assert [received.path for received in provider.requests()] == [PATH]


def test_a_stream_that_is_redirected_is_not_followed(client: httpx.Client, provider: FakeProvider, trap: Trap) -> None:
    provider.script("m", redirect(trap.origin + PATH))
    made = exchange(provider, stream=True)
    ask(client, made, provider)
    assert made.fault == Fault("redirect", "307")
    assert trap.requests() == []


def test_no_cookie_of_a_provider_is_kept(client: httpx.Client, provider: FakeProvider) -> None:
    provider.script("m", answer(headers={"Set-Cookie": "a=b", "X-Kept": "yes"}))
    got = ask(client, exchange(provider), provider)
    assert "set-cookie" not in got.headers
    assert got.headers["x-kept"] == "yes"
    assert len(client.cookies) == 0
    ask(client, exchange(provider), provider)
    assert "cookie" not in provider.requests()[-1].headers


def test_what_came_is_noted(client: httpx.Client, provider: FakeProvider) -> None:
    provider.script("m", plain_json({"error": "no"}, 418, headers={"Retry-After": "7"}))
    made = exchange(provider)
    ask(client, made, provider)
    assert (made.path, made.status, made.fault) == (PATH, 418, None)
    assert made.headers["retry-after"] == "7"
    assert made.body == b'{"error": "no"}'


# Encodings and sizes.

JSON_TYPE = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_an_encoding_that_was_not_asked_for_is_undone(
    client: httpx.Client, provider: FakeProvider, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    provider.script("m", raw(200, {**JSON_TYPE, "Content-Encoding": encoding}, pack(b'{"a": 1}')))
    got = ask(client, exchange(provider), provider)
    assert got.json() == {"a": 1}
    assert "content-encoding" not in got.headers


def test_a_packed_stream_is_unpacked_as_it_comes(client: httpx.Client, provider: FakeProvider) -> None:
    stream = b"data: one\n\n" * 100 + b"data: [DONE]\n\n"
    head = {"Content-Type": "text/event-stream", "Content-Encoding": "gzip"}
    provider.script("m", raw(200, head, gzip.compress(stream)))
    assert ask(client, exchange(provider, stream=True), provider).read() == stream


def test_a_packed_answer_that_unpacks_to_too_much_is_a_fault(
    client: httpx.Client, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "MOST_ANSWER_BYTES", 1 << 20)
    provider.script("m", raw(200, {**JSON_TYPE, "Content-Encoding": "gzip"}, gzip.compress(bytes(8 << 20))))
    assert raised(client, exchange(provider), provider).kind == "too_large"
    provider.requests()[0].closed.wait(1)


def test_a_plain_answer_that_is_too_large_is_a_fault(
    client: httpx.Client, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "MOST_ANSWER_BYTES", 1 << 20)
    provider.script("m", sse(repeat(1000, raw_bytes(b"x" * 10_000))))
    assert raised(client, exchange(provider), provider).kind == "too_large"
    assert provider.requests()[0].closed.wait(1), "the rest is not read"


def test_damaged_packing_is_a_fault(client: httpx.Client, provider: FakeProvider) -> None:
    provider.script("m", raw(200, {**JSON_TYPE, "Content-Encoding": "gzip"}, b"this is no gzip at all"))
    assert raised(client, exchange(provider), provider).kind == "encoding"


def test_an_unknown_encoding_is_a_fault(client: httpx.Client, provider: FakeProvider) -> None:
    provider.script("m", raw(200, {**JSON_TYPE, "Content-Encoding": "br"}, b"x"))
    assert raised(client, exchange(provider), provider).kind == "encoding"


@pytest.mark.parametrize("kind", ["application/json", "text/html; charset=utf-8"])
def test_what_is_no_event_stream_where_one_was_asked_for_is_a_fault(
    client: httpx.Client, provider: FakeProvider, kind: str
) -> None:
    provider.script("m", raw(200, {"Content-Type": kind}, b'{"error": "x"}'))
    made = exchange(provider, stream=True)
    assert raised(client, made, provider) == Fault("not_sse", kind.partition(";")[0])
    assert made.body == b'{"error": "x"}'


def test_an_error_is_read_whole_also_where_a_stream_was_asked_for(client: httpx.Client, provider: FakeProvider) -> None:
    provider.script("m", plain_json({"error": {"message": "no"}}, 400))
    made = exchange(provider, stream=True)
    assert ask(client, made, provider).status_code == 400
    assert (made.fault, made.body) == (None, b'{"error": {"message": "no"}}')


# Failures of the wire.


@pytest.mark.parametrize(
    ("reply", "stream", "kind"),
    [
        (drop("reset"), False, "reset"),
        (drop("close"), False, "reset"),
        (drop("reset"), True, "reset"),
        (drop("close"), True, "reset"),
        (sse(delta({"content": "a"}), reset()), True, "reset"),
        (sse(delta({"content": "a"}), close()), True, "reset"),
        (sse(raw_bytes(b'{"a":'), close()), False, "reset"),
        (raw(200, {**JSON_TYPE, "Content-Length": "100"}, b'{"a":'), False, "read_timeout"),
        (hang(), True, "read_timeout"),
        (sse(silence()), True, "read_timeout"),
        (sse(delta({"content": "a"}), silence()), True, "read_timeout"),
        (hang(), False, "read_timeout"),
        (sse(raw_bytes(b'{"a":'), silence()), False, "read_timeout"),
    ],
)
def test_a_failure_of_the_wire_is_named(
    client: httpx.Client, provider: FakeProvider, reply: Reply, stream: bool, kind: str
) -> None:
    provider.script("m", reply)
    client.timeout = httpx.Timeout(0.15)  # of an answer that is not streamed
    made = exchange(provider, stream=stream, head_s=0.15, idle_s=0.15)
    assert raised(client, made, provider).kind == kind


def test_a_stream_may_take_long_in_all_where_it_is_never_silent_for_long(
    client: httpx.Client, provider: FakeProvider
) -> None:
    provider.script("m", sse(*[data("x"), pause(0.1)] * 5, done()))
    client.timeout = httpx.Timeout(0.3)
    got = ask(client, exchange(provider, stream=True, head_s=0.3, idle_s=0.3), provider)
    assert got.read().count(b"data: x") == 5


def test_a_closed_port_is_a_connect_fault(client: httpx.Client, provider: FakeProvider) -> None:
    with socket.socket() as held:  # bound and not listening: nobody else takes the port
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        made = Exchange(host=f"127.0.0.1:{port}", stream=False, head_s=1, idle_s=1)
        with pytest.raises(httpx.TransportError), within(made):
            client.post(f"http://127.0.0.1:{port}/", json=HELLO)
    assert made.fault == Fault("connect", "ConnectFailed")


def test_a_port_that_does_not_accept_is_a_connect_timeout(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "CONNECT_S", 0.2)
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)  # room for one connection; the kernel drops what comes after it
        for taken in (first, second):
            taken.setblocking(False)
            with suppress(BlockingIOError):
                taken.connect(listener.getsockname())
        time.sleep(0.05)
        port = listener.getsockname()[1]
        made = Exchange(host=f"127.0.0.1:{port}", stream=False, head_s=1, idle_s=1)
        with pytest.raises(httpx.ConnectTimeout), within(made):
            client.post(f"http://127.0.0.1:{port}/", json=HELLO)
    assert made.fault is not None
    assert made.fault.kind == "connect_timeout"


# Stopping.


def stop(client: httpx.Client, made: Exchange, provider: FakeProvider, wait: Callable[[Received], None]) -> float:
    """Post in a thread, abort once `wait` has seen enough, and tell how long the thread took to notice."""
    outcome: list[tuple[float, Exception]] = []

    def post() -> None:
        try:
            ask(client, made, provider).read()
        except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
            outcome.append((time.monotonic(), error))

    thread = threading.Thread(target=post)
    thread.start()
    [received] = provider.wait_for(1)
    wait(received)
    began_s = time.monotonic()
    made.abort()
    thread.join(5)
    [(ended_s, error)] = outcome
    assert isinstance(error, httpx.TransportError)
    assert made.fault is not None
    assert made.fault.kind == "aborted"
    assert received.closed.wait(1), "the provider sees the connection end"
    return ended_s - began_s


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(hang(), id="before the head"),
        pytest.param(sse(silence()), id="before the first byte"),
        pytest.param(sse(delta({"content": "a"}), silence()), id="in the middle"),
    ],
)
def test_abort_ends_a_silent_call_at_once(
    client: httpx.Client, provider: FakeProvider, reply: Reply, stream: bool
) -> None:
    provider.script("m", reply)
    assert stop(client, exchange(provider, stream=stream), provider, lambda _one: time.sleep(0.1)) < 0.2


def test_abort_ends_a_call_that_is_still_sending(client: httpx.Client, provider: FakeProvider) -> None:
    """The body does not fit into the sockets' buffers, and nobody reads it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        port = listener.getsockname()[1]
        made = Exchange(host=f"127.0.0.1:{port}", stream=False, head_s=5, idle_s=5)
        failed: list[Exception] = []

        def post() -> None:
            try:
                with within(made):
                    client.post(f"http://127.0.0.1:{port}/", content=bytes(64 << 20))
            except httpx.TransportError as error:
                failed.append(error)

        thread = threading.Thread(target=post)
        thread.start()
        peer, _ = listener.accept()
        time.sleep(0.1)
        began_s = time.monotonic()
        made.abort()
        thread.join(5)
        assert time.monotonic() - began_s < 0.2
        peer.close()
    assert len(failed) == 1


def test_a_call_that_was_stopped_before_it_began_sends_nothing(client: httpx.Client, provider: FakeProvider) -> None:
    made = exchange(provider)
    made.abort()
    assert raised(client, made, provider).kind == "aborted"
    assert provider.requests() == []


def test_a_stopped_call_stops_no_other_on_the_same_door(client: httpx.Client, provider: FakeProvider) -> None:
    provider.script("slow", sse(delta({"content": "a"}), pause(0.4), delta({}, "stop"), done()))
    got: list[bytes] = []

    def other() -> None:
        with (
            within(exchange(provider, stream=True)),
            client.stream("POST", provider.origin + PATH, json={**HELLO, "model": "slow", "stream": True}) as response,
        ):
            got.append(b"".join(response.iter_raw()))

    thread = threading.Thread(target=other)
    thread.start()
    provider.wait_for(1, "slow")
    provider.script("m", hang())
    made = exchange(provider, stream=True)
    threading.Timer(0.1, made.abort).start()
    with pytest.raises(httpx.TransportError):
        ask(client, made, provider)
    thread.join(5)
    assert got[0].endswith(b"data: [DONE]\n\n")


# Connections.


def connections(provider: FakeProvider) -> list[int]:
    return [received.connection for received in provider.requests()]


def test_a_connection_is_used_again_after_an_answer_and_after_a_stream(
    client: httpx.Client, provider: FakeProvider
) -> None:
    for stream in (False, True, True, False):
        ask(client, exchange(provider, stream=stream), provider).read()
    assert len(set(connections(provider))) == 1


@pytest.mark.parametrize("last", [b"data: [DONE]\n\n", b'event: message_stop\ndata: {"type": "message_stop"}\n\n'])
def test_a_connection_is_used_again_where_the_reader_stopped_at_the_last_event(
    client: httpx.Client, provider: FakeProvider, last: bytes
) -> None:
    provider.script("m", sse(data("x"), pause(0.02), raw_bytes(last)))
    for _ in range(2):
        with (
            within(exchange(provider, stream=True)),
            client.stream("POST", provider.origin + PATH, json={**HELLO, "stream": True}) as response,
        ):
            for piece in response.iter_raw():
                if last.strip() in piece:
                    break
    assert len(set(connections(provider))) == 1


def test_a_connection_whose_stream_was_left_in_the_middle_is_closed(
    client: httpx.Client, provider: FakeProvider
) -> None:
    provider.script("m", sse(repeat(1000, data("x"), pause(0.01))))
    with (
        within(exchange(provider, stream=True)),
        client.stream("POST", provider.origin + PATH, json={**HELLO, "stream": True}) as response,
    ):
        next(response.iter_raw())
    assert provider.requests()[0].closed.wait(1)


def test_a_connection_that_the_provider_will_close_is_not_used_again(
    client: httpx.Client, provider: FakeProvider
) -> None:
    provider.script("m", answer(headers={"Connection": "close"}))
    for stream in (False, True, False):
        assert ask(client, exchange(provider, stream=stream), provider).status_code == 200
    assert len(set(connections(provider))) == 3


def test_a_connection_that_the_provider_closed_meanwhile_is_replaced(
    client: httpx.Client, provider: FakeProvider
) -> None:
    ask(client, exchange(provider), provider)
    for connection in list(provider._server.connections):
        connection.shutdown(socket.SHUT_RDWR)
    time.sleep(0.1)
    assert ask(client, exchange(provider), provider).status_code == 200
    assert len(set(connections(provider))) == 2


def test_more_than_a_hundred_streams_run_at_once(client: httpx.Client, provider: FakeProvider) -> None:
    """LiteLLM's own client would run a hundred and let the others wait."""
    provider.script("m", sse(data("x"), pause(1.0), done()))
    failed: list[BaseException] = []

    def read() -> None:
        try:
            ask(client, exchange(provider, stream=True), provider).read()
        except httpx.HTTPError as error:
            failed.append(error)

    threads = [threading.Thread(target=read) for _ in range(120)]
    for thread in threads:
        thread.start()
    provider.wait_for(120)
    assert provider.open_connections == 120
    for thread in threads:
        thread.join(10)
    assert failed == []


def test_a_client_that_is_closed_leaves_the_door_open(provider: FakeProvider) -> None:
    shared = Door()
    for _ in range(2):
        with httpx.Client(transport=shared, trust_env=False) as one:
            ask(one, exchange(provider), provider)
    assert len(set(connections(provider))) == 1
    shared.shut()


# TLS.


class TLS:
    """A server that answers one request a connection over TLS: head and first piece, then silence."""

    def __init__(self, authority: trustme.CA) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self._context)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.asked = threading.Event()
        self.ended = threading.Event()
        self.requests: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        try:
            raw_peer, _ = self._listener.accept()
        except OSError:
            return
        with suppress(OSError), raw_peer, self._context.wrap_socket(raw_peer, server_side=True) as peer:
            self.requests.append(peer.recv(65536))
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            peer.sendall(head + b"9\r\ndata: x\n\n\r\n")
            self.asked.set()
            peer.settimeout(5)
            with suppress(OSError):
                while peer.recv(65536):
                    pass
        self.ended.set()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(6)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> Iterator[TLS]:
    server = TLS(authority)
    yield server
    server.close()


def test_a_certificate_that_nobody_vouches_for_is_a_connect_fault(client: httpx.Client, tls: TLS) -> None:
    made = Exchange(host=f"127.0.0.1:{tls.port}", stream=True, head_s=5, idle_s=5)
    with pytest.raises(httpx.ConnectError), within(made):
        client.post(f"https://127.0.0.1:{tls.port}{PATH}", json=HELLO, headers={"Authorization": "Bearer k"})
    assert made.fault is not None
    assert made.fault.kind == "connect"
    assert tls.requests == []


def test_abort_ends_a_silent_stream_over_tls(
    client: httpx.Client, authority: trustme.CA, tls: TLS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    made = Exchange(host=f"127.0.0.1:{tls.port}", stream=True, head_s=5, idle_s=5)
    aborted_s: list[float] = []

    def abort() -> None:
        tls.asked.wait(5)
        time.sleep(0.1)
        aborted_s.append(time.monotonic())
        made.abort()

    thread = threading.Thread(target=abort)
    thread.start()
    with pytest.raises(httpx.TransportError), within(made):
        client.post(f"https://127.0.0.1:{tls.port}{PATH}", json=HELLO)
    assert time.monotonic() - aborted_s[0] < 0.2
    thread.join()
    assert tls.ended.wait(1)
