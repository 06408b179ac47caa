"""One HTTP request: to exactly the place that was checked, in bounded time, and no more than is wanted."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway.http_client import Answer, TooSlow, ask
from tests.fakes.loopback import Answering, Exchange
from tests.fakes.receiver import Receiver


@pytest.fixture
def server() -> Iterator[Answering]:
    with Answering() as one:
        one.says = lambda exchange: exchange.respond(200, {}, b"12345")
        yield one


def found_at(*addresses: str) -> Callable[..., Any]:
    """A name server that knows every name by these addresses."""

    def look_up(_host: str, port: int, **_more: Any) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return look_up


def test_what_is_sent_comes_as_it_was_said(server: Answering) -> None:
    url = f"{server.origin}/a/b?c=d"
    assert ask("POST", url, b"body", {"X-One": "1"}, timeout_s=5, most_bytes=5) == Answer(200, b"12345")
    [asked] = server.requests()
    assert (asked.method, asked.path, asked.raw) == ("POST", "/a/b?c=d", b"body")
    assert asked.headers["host"] == f"127.0.0.1:{server.port}"
    assert (asked.headers["x-one"], asked.headers["connection"]) == ("1", "close")


def test_an_address_without_a_path_means_its_root(server: Answering) -> None:
    assert ask("GET", server.origin, timeout_s=5).status == 200
    assert server.requests()[0].path == "/"


def test_a_body_is_read_only_where_it_is_wanted_and_as_far(server: Answering) -> None:
    assert ask("GET", f"{server.origin}/", timeout_s=5) == Answer(200)
    with pytest.raises(ValueError, match="too large"):
        ask("GET", f"{server.origin}/", timeout_s=5, most_bytes=4)


def test_neither_a_proxy_nor_another_place_is_asked(server: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server.says = lambda exchange: exchange.respond(307, {"Location": "/other"}, b"")
    assert ask("GET", f"{server.origin}/one", timeout_s=5, most_bytes=5).status == 307
    assert [asked.path for asked in server.requests()] == ["/one"]


def test_the_name_is_looked_up_once_and_every_address_of_it_is_checked(
    server: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[str] = []

    def look_up(host: str, port: int, **_more: Any) -> list[tuple[Any, ...]]:
        looked_up.append(host)
        return found_at("127.0.0.1", "203.0.113.7")(host, port)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    checked: list[str] = []
    url = f"http://name.example:{server.port}/"
    assert ask("GET", url, timeout_s=5, check=checked.append).status == 200
    assert (looked_up, checked) == (["name.example"], ["127.0.0.1", "203.0.113.7"])
    assert server.requests()[0].headers["host"] == f"name.example:{server.port}"


def test_what_the_check_refuses_is_not_connected_to(server: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", found_at("127.0.0.1", "169.254.169.254"))

    def check(address: str) -> None:
        if address.startswith("169.254."):
            raise PermissionError(address)

    with pytest.raises(PermissionError):
        ask("GET", f"http://name.example:{server.port}/", timeout_s=5, check=check)
    assert server.requests() == []


def test_the_next_address_is_tried_where_the_first_refuses(server: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", found_at("127.0.0.2", "127.0.0.1"))
    assert ask("GET", f"http://name.example:{server.port}/", timeout_s=5).status == 200


def test_where_nobody_listens_it_cannot_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        ask("GET", f"http://127.0.0.1:{port}/", timeout_s=5)


@pytest.mark.parametrize(
    "head",
    [b"", b"HTTP/1.1 200 OK\r\nX-Long: ", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"],
    ids=["before the head", "in the head", "in a body without an end", "in a body"],
)
def test_an_answer_that_drips_is_too_slow_and_its_connection_let_go(server: Answering, head: bytes) -> None:
    def drip(exchange: Exchange) -> None:
        exchange.write(head)
        while True:
            exchange.write(b"x")
            exchange.wait(0.05)

    server.says = drip
    began_s = time.monotonic()
    with pytest.raises(TooSlow):
        ask("GET", f"{server.origin}/", timeout_s=0.4, most_bytes=1 << 20)
    assert 0.3 < time.monotonic() - began_s < 3
    assert server.requests()[0].closed.wait(5)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_silence_is_too_slow_in_the_handshake_too(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began_s = time.monotonic()
        with pytest.raises(TooSlow):
            ask("GET", f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/", timeout_s=0.4)
        assert time.monotonic() - began_s < 3


def test_a_place_that_never_connects_is_not_reached_in_time() -> None:
    with socket.socket() as full:  # its queue holds one, and nobody takes it out
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        place = full.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(place)
        began_s = time.monotonic()
        with pytest.raises(TimeoutError) as raised:
            ask("GET", f"http://127.0.0.1:{place[1]}/", timeout_s=0.4)
        assert not isinstance(raised.value, TooSlow)
        assert time.monotonic() - began_s < 3
        for one in waiting:
            one.close()


def test_what_is_no_http_is_said(server: Answering) -> None:
    server.says = lambda exchange: exchange.write(b"what?\r\n\r\n")
    with pytest.raises(HTTPException):
        ask("GET", f"{server.origin}/", timeout_s=5)


def test_nothing_is_left_behind(server: Answering) -> None:
    before = threading.active_count()
    ask("GET", f"{server.origin}/", timeout_s=60, most_bytes=5)
    until_s = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < until_s:
        time.sleep(0.01)  # the timer's thread ends when it is told
    assert threading.active_count() <= before


def test_a_certificate_has_to_be_the_names_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    receiver = Receiver(context)
    with pytest.raises(ssl.SSLCertVerificationError):
        ask("POST", receiver.url, b"", timeout_s=5)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert ask("POST", receiver.url, b"", timeout_s=5).status == 204
    with pytest.raises(ssl.SSLCertVerificationError):
        ask("POST", receiver.url.replace("localhost", "127.0.0.1"), b"", timeout_s=5)
    assert len(receiver.told) == 1
    receiver.close()
