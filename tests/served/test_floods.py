"""Bodies that never end and come faster than they can be read: they cost nobody else a turn, and end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.served.process import TOKEN, Served

#: How long others may wait beside a flood, and it for its answer.
_TURN_S, _ANSWER_S = 3.0, 20.0
_PIECE = b"x" * (1 << 18)
_LENGTH = b"Content-Length: 1000000000000\r\n\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
_FILE = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n'
_BEARER = f"Authorization: Bearer {TOKEN}\r\n".encode()
_CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
_SIGN_IN = b"POST /ui/sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Type: "

#: How each flood begins, what is sent again and again, and how it is answered.
FLOODS = {
    "by a stranger": (_CHAT + _LENGTH, _PIECE, 401),
    "by a stranger, in chunks of a byte": (_CHAT + _CHUNKED, b"1\r\nx\r\n" * 50_000, 401),
    "by a caller, in chunks": (_CHAT + _BEARER + _CHUNKED, b"%x\r\n%b\r\n" % (len(_PIECE), _PIECE), 413),
    "where nothing is": (b"POST /nothing HTTP/1.1\r\nHost: localhost\r\n" + _BEARER + _LENGTH, _PIECE, 404),
    "by who signs in": (_SIGN_IN + b"application/x-www-form-urlencoded\r\n" + _CHUNKED, b"1\r\nx\r\n" * 50_000, 413),
    "of a file by who signs in": (_SIGN_IN + b"multipart/form-data; boundary=b\r\n" + _LENGTH + _FILE, _PIECE, 413),
}


class Flood:
    """Sends as fast as it can, until the gateway closes or the test ends."""

    def __init__(self, gateway: Served, head: bytes, piece: bytes) -> None:
        self._socket = socket.create_connection(("127.0.0.1", gateway.port), 5)
        self._socket.sendall(head)
        self._piece = piece
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._socket.settimeout(1)
        while not self._stop.is_set():
            try:
                self._socket.send(self._piece)
            except TimeoutError:
                continue
            except OSError:
                return

    def answer(self) -> bytes:
        """The head of the answer."""
        got = b""
        with socket.socket(fileno=self._socket.dup().detach()) as reader:
            reader.settimeout(_ANSWER_S)
            while b"\r\n\r\n" not in got:
                piece = reader.recv(65536)
                assert piece, got
                got += piece
        return got

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)
        self._socket.close()


@contextmanager
def flood(gateway: Served, head: bytes, piece: bytes) -> Iterator[Flood]:
    made = Flood(gateway, head, piece)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(("head", "piece", "status"), FLOODS.values(), ids=FLOODS)
def test_a_body_without_an_end_costs_nobody_else_a_turn(
    gateway: Served, head: bytes, piece: bytes, status: int
) -> None:
    with flood(gateway, head, piece) as made, httpx.Client(base_url=gateway.url, trust_env=False) as other:
        until_s = time.monotonic() + 1
        while time.monotonic() < until_s:
            began_s = time.monotonic()
            assert other.get("/health", timeout=_ANSWER_S).status_code == 200
            assert time.monotonic() - began_s < _TURN_S
        assert b" %d " % status in made.answer().partition(b"\r\n")[0]
