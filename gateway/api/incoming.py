"""The body of a request, read piece by piece: counted, and within time."""

from __future__ import annotations

import logging
import socket
import time

from flask import request

from gateway.errors import BodyTooLarge, BodyTooSlow, InvalidRequest
from gateway.pipeline import Gateway
from gateway.sockets import body_reader
from gateway.web import caller_socket

log = logging.getLogger(__name__)

_PIECE_BYTES = 128 << 10
#: Where it comes in chunks: one may hold a single byte, and takes the server some microseconds.
_CHUNKED_PIECE_BYTES = 16 << 10


class Incoming:
    """Reads the body of the request at hand; usable without Flask's context once it is made.

    Args:
        gateway: whose limits count. Each piece of 128 KB may take as long as a whole body may elsewhere.
        limit_bytes: the most that the body may be.
        until_s: when it has to be here, on the monotonic clock.

    Raises:
        BodyTooLarge: it is said to be larger.
    """

    def __init__(self, gateway: Gateway, limit_bytes: int, until_s: float) -> None:
        self._gateway = gateway
        self._limit_bytes = limit_bytes
        self._until_s = until_s
        self._read = body_reader(request.environ["wsgi.input"])
        self._sock = caller_socket()
        self._size = 0
        self._late = False
        self.declared = request.content_length
        if self.declared is not None and self.declared > limit_bytes:
            raise BodyTooLarge(f"The body has {self.declared} bytes; this gateway takes {limit_bytes} at most.")

    def __call__(self) -> bytes:
        """The next bytes, none at the end.

        Raises:
            BodyTooLarge: more bytes than allowed.
            BodyTooSlow: they took too long to come.
            InvalidRequest: the connection, or the chunked coding, broke off.
        """
        left = _CHUNKED_PIECE_BYTES if self.declared is None else min(_PIECE_BYTES, self.declared - self._size)
        if left == 0:
            return b""
        timer = self._gateway.watcher.timer(
            self._give_up, min(self._until_s, time.monotonic() + self._gateway.limits.body_s)
        )
        try:
            piece: bytes = self._read(left)
        except Exception as error:  # each server raises classes of its own for a broken chunked coding
            raise (_slow() if self._late else InvalidRequest("The body could not be read to its end.")) from error
        finally:
            timer.end()
        if self._late:
            raise _slow()
        self._size += len(piece)
        if self._size > self._limit_bytes:
            raise BodyTooLarge(f"The body is larger than the {self._limit_bytes} bytes that this gateway takes.")
        if not piece and self.declared is not None:
            raise InvalidRequest("The body ended before its Content-Length.")
        return piece

    def _give_up(self) -> None:
        self._late = True
        if self._sock is not None:
            try:
                self._sock.shutdown(socket.SHUT_RD)  # the read ends; an answer can still be written
            except OSError:
                log.debug("the caller's connection is gone already")


def _slow() -> BodyTooSlow:
    return BodyTooSlow("The body did not arrive in time.")
