"""A connection to the gateway without any client in between: what is sent is said byte by byte."""

import json
import socket
import struct
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from tests.served.caller import CHAT
from tests.served.process import TOKEN, Served

BEARER = {"Authorization": f"Bearer {TOKEN}"}


def chat_request(asked: dict[str, Any], headers: Mapping[str, str] = BEARER, path: str = CHAT) -> bytes:
    """Build the bytes of a request; what is in `headers` goes out as it is, blanks and all."""
    body = json.dumps(asked).encode()
    own = {"Host": "gateway", **headers, "Content-Type": "application/json", "Content-Length": len(body)}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in own.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def ask(gateway: Served, asked: dict[str, Any], headers: Mapping[str, str] = BEARER) -> tuple[int, dict[str, Any]]:
    """Send one request on a connection of its own and return the status and the JSON of the answer."""
    with Wire(gateway) as wire:
        wire.send(chat_request(asked, headers))
        status, body = wire.read_answer()
    return status, json.loads(body)


class Wire:
    """One connection; every wait on it is bounded."""

    def __init__(self, gateway: Served, timeout_s: float = 15) -> None:
        self._socket = socket.create_connection(("127.0.0.1", gateway.port), timeout_s)
        self._got = b""

    @property
    def port(self) -> int:
        """This end's, by which the other end tells its connections apart."""
        return int(self._socket.getsockname()[1])

    def send(self, piece: bytes) -> None:
        self._socket.sendall(piece)

    def read_until(self, words: bytes) -> bytes:
        """Read until `words` have come; return everything up to their end."""
        while (at := self._got.find(words)) < 0:
            piece = self._socket.recv(65536)
            assert piece, f"closed before {words!r}: {self._got[-500:]!r}"
            self._got += piece
        end = at + len(words)
        read, self._got = self._got[:end], self._got[end:]
        return read

    def read_answer(self) -> tuple[int, bytes]:
        """Read one answer that has a length or comes in chunks: its status and its body."""
        head = self.read_until(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        status = int(head.split(b" ", 2)[1])
        body = b""
        if b"transfer-encoding: chunked" in lines:
            while size := int(self.read_until(b"\r\n"), 16):
                body += self._read(size)
                self.read_until(b"\r\n")
            self.read_until(b"\r\n")
            return status, body
        length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
        return status, self._read(length)

    def _read(self, size: int) -> bytes:
        while len(self._got) < size:
            piece = self._socket.recv(65536)
            assert piece, "closed within a body"
            self._got += piece
        read, self._got = self._got[:size], self._got[size:]
        return read

    def read_to_the_end(self) -> bytes:
        """Read until the gateway closes."""
        while piece := self._socket.recv(65536):
            self._got += piece
        return self._got

    def leave(self, *, abruptly: bool = False) -> float:
        """Close, with a RST where `abruptly`; return the moment on the monotonic clock."""
        if abruptly:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        left_s = time.monotonic()
        self._socket.close()
        return left_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
