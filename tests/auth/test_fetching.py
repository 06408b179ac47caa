"""What an issuer is asked: there alone, in bounded time, and no more than is wanted."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator

import pytest
import trustme

from gateway.auth import fetching
from gateway.auth.fetching import configuration, fetched, is_safe, posted
from tests.fakes.loopback import Answering, Exchange


@pytest.fixture
def server() -> Iterator[Answering]:
    with Answering() as one:
        yield one


def test_an_object_is_fetched_from_exactly_there(server: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert fetched(f"{server.origin}/keys?all=1") == {"a": 1}
    [asked] = server.requests()
    assert (asked.method, asked.path, asked.headers["host"]) == ("GET", "/keys?all=1", f"127.0.0.1:{server.port}")


def test_a_form_is_sent_as_a_form_and_the_status_is_told(server: Answering) -> None:
    server.says = lambda exchange: exchange.respond_json(400, {"error": "x"})
    assert posted(f"{server.origin}/token", {"a b": "ü&="}, {"Authorization": "Basic x"}) == (400, {"error": "x"})
    [asked] = server.requests()
    assert asked.raw == b"a+b=%C3%BC%26%3D"
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert asked.headers["authorization"] == "Basic x"
    server.says = lambda exchange: exchange.respond(502, {}, b"<html>")
    assert posted(f"{server.origin}/token", {}, {}) == (502, None)


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (lambda exchange: exchange.respond(302, {"Location": "/other"}, b"{}"), "the answer is 302"),
        (lambda exchange: exchange.respond_json(404, {}), "the answer is 404"),
        (lambda exchange: exchange.respond_json(200, []), "no JSON object"),
        (lambda exchange: exchange.respond(200, {}, b"[" * 100_000), "no JSON object"),
        (lambda exchange: exchange.respond(200, {}, b"\xff"), "no JSON object"),
        (lambda exchange: exchange.respond(200, {}, b" " * (1 << 20) + b"{}"), "too large"),
    ],
)
def test_an_answer_that_is_of_no_use_says_why(server: Answering, says: Callable[[Exchange], None], why: str) -> None:
    server.says = says
    with pytest.raises(ValueError, match=why):
        fetched(f"{server.origin}/keys")
    assert len(server.requests()) == 1


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 OK\r\nX-Long: ", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"]
)
def test_an_answer_that_drips_is_given_up(server: Answering, monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    def drip(exchange: Exchange) -> None:
        exchange.write(head)
        while True:
            exchange.write(b"x")
            exchange.wait(0.05)

    monkeypatch.setattr(fetching, "_TIMEOUT_S", 0.5)
    server.says = drip
    began_s = time.monotonic()
    with pytest.raises(ValueError, match="too slow"):
        fetched(f"{server.origin}/keys")
    assert time.monotonic() - began_s < 3
    [asked] = server.requests()
    assert asked.closed.wait(5), "the connection is let go"


def test_only_what_nobody_can_change_on_the_way_is_believed() -> None:
    safe = ("https://id.example/keys", "http://127.0.0.1:80/keys", "http://localhost/keys", "http://[::1]:9/keys")
    unsafe = (
        *("http://id.example/keys", "file:///etc/passwd", "ftp://id.example", "//id.example", "http://", "x"),
        *(
            "https://",
            "https://id.example:port",
            "https://a:b@id.example",
            "https://id.example/\r\nX: y",
            "https://é.x",
        ),
        *("http://localhost.evil.example", "http://127.0.0.1.evil.example", "https://id.example/a b"),
    )
    assert all(map(is_safe, safe))
    assert not any(map(is_safe, unsafe))
    with pytest.raises(ValueError, match="nothing is asked"):
        fetched("http://id.example/keys")


def test_a_configuration_is_the_issuers_own(server: Answering) -> None:
    issuer = f"{server.origin}/realms/one/"
    server.says = lambda exchange: exchange.respond_json(200, {"issuer": issuer})
    assert configuration(issuer) == {"issuer": issuer}
    assert server.requests()[0].path == "/realms/one/.well-known/openid-configuration"
    with pytest.raises(ValueError, match="of another issuer"):
        configuration(issuer[:-1])  # to the letter


def test_a_certificate_of_nobody_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket
    import threading

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority = trustme.CA()
    authority.issue_cert("localhost").configure_cert(context)
    plain = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for _ in range(2):
            connection, _address = plain.accept()
            connection.settimeout(5)
            try:
                with context.wrap_socket(connection, server_side=True) as secured:
                    secured.recv(4096)
                    secured.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a": 1}')
            except OSError:
                connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    url = f"https://localhost:{plain.getsockname()[1]}/keys"
    with pytest.raises(ssl.SSLCertVerificationError):
        fetched(url)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    monkeypatch.setattr(ssl, "create_default_context", lambda: trusting)
    assert fetched(url) == {"a": 1}
    thread.join(10)
    plain.close()
