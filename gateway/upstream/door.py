"""The one transport under everything that LiteLLM sends.

Connections of our own (`http1.py`) under httpx: its own pool costs half the requests under load and loses streams. What
passes here is noted in the attempt's `Exchange`, which is the only source of truth about what was sent and what came
back. The door refuses to send without an exchange, to a host that is not the deployment's, or twice to one path
(LiteLLM rewrites some requests and sends again). It follows no redirect, whoever's client asks: `Location` and
`Set-Cookie` never get through.
"""

from __future__ import annotations

import ipaddress
import re
import time
import zlib
from collections.abc import Iterator
from functools import partial
from typing import Any, NoReturn

import httpx

from gateway.errors import GatewayError
from gateway.offload import give_way
from gateway.upstream.exchange import Asked, Exchange, Fault, current
from gateway.upstream.http1 import ConnectFailed, Connection, Connections, Content, Parts, target_of

CONNECT_S = 5.0
#: Of one answer, unpacked, streamed or not. A completion with images or audio is far smaller.
MOST_ANSWER_BYTES = 64 << 20
#: Requests that one attempt may make: the call itself, and what some providers want before it (a token, model info).
MOST_SENDS = 4

#: Quotes inside a JSON string are escaped, so this stands in no prompt.
_STREAM = re.compile(rb'"stream"[ \t\r\n]*:[ \t\r\n]*true')

_TOP_LEVEL = re.compile(r"[a-z][a-z0-9-]*", re.ASCII)

_PIECE = 65536
#: What an answer says of itself (its model) stands in its first event.
_HEAD_BYTES = 4096
_MOST_UNPACKED = 64 << 10
#: How long a stream may be read without giving the others a turn.
_BREATH_S = 0.02
#: Who waited for so long gave the others their turn.
_WAITED_S = 0.001
_NOT_PASSED_BACK = {
    "location", "set-cookie", "x-should-retry", "transfer-encoding", "connection", "keep-alive", "content-length",
    "content-encoding",
}  # fmt: skip
# the last bytes of a stream that ended well: what follows is the terminator of the chunked body alone
_LAST_WORDS = (b"[DONE]", b"message_stop", b'"stop_reason"')


class Refused(httpx.TransportError):
    """The door did not let a request or an answer through; the exchange says why."""


class Body(httpx.SyncByteStream):
    """The body of one answer, as it comes."""

    def __init__(self, connection: Connection, exchange: Exchange, idle: Connections) -> None:
        self._connection = connection
        self._exchange = exchange
        self._idle = idle
        self._over = False
        self._decoder = _decoder(connection.headers.get("content-encoding", ""))
        self._pieces = self._read()

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def _read(self) -> Iterator[bytes]:
        connection, exchange = self._connection, self._exchange
        size, silent_s, rested_s = 0, 0.0, time.monotonic()
        try:
            while not self._over:
                asked_s = time.monotonic()
                try:
                    piece = connection.read()
                except TimeoutError:
                    silent_s += exchange.step_s
                    if silent_s >= exchange.idle_s or exchange.aborted:
                        raise
                    yield b""
                    continue
                silent_s, now_s = 0.0, time.monotonic()
                if connection.complete:
                    self._end()  # from here on it may be another call's
                for data in (piece,) if self._decoder is None else self._unpacked(piece):
                    if not data:
                        continue
                    size += len(data)
                    if exchange.bounded and size > MOST_ANSWER_BYTES:
                        exchange.fault = Fault("too_large", str(size))
                        raise Refused("the answer is too large")
                    if len(exchange.head) < _HEAD_BYTES:
                        exchange.head += data
                    exchange.tail = data
                    yield data
                    if self._decoder is not None and time.monotonic() - now_s > _BREATH_S:
                        give_way()  # of one packed piece a thousand times as much may come
                        now_s = rested_s = time.monotonic()
                if now_s - asked_s > _WAITED_S:
                    rested_s = now_s
                elif now_s - rested_s > _BREATH_S:
                    give_way()  # a provider that is always ahead must not keep the other calls from their turn
                    rested_s = time.monotonic()
        except zlib.error as error:
            exchange.fault = Fault("encoding", str(error))
            raise httpx.DecodingError("the answer cannot be unpacked") from error
        except Exception as error:
            raise _failed(exchange, error) from error
        finally:
            self._end()

    def _unpacked(self, piece: bytes) -> Iterator[bytes]:
        while piece:
            yield self._decoder.decompress(piece, _MOST_UNPACKED)
            piece = self._decoder.unconsumed_tail

    def _end(self) -> None:
        """Free the connection. It leaves its exchange first, or an abort would end the call that uses it next."""
        if not self._over:
            self._over = True
            self._exchange.release(self._connection.sock)
            self._idle.put(self._connection)

    def close(self) -> None:
        """Give the connection back if nothing but the terminator is left to read; else close it."""
        if not self._over and not self._exchange.aborted and self._ended_well():
            try:
                self._exchange.patience(0.05)
                for _ in range(4):
                    if not next(self._pieces):
                        break
            except (StopIteration, httpx.HTTPError, OSError, ValueError):
                pass  # read to its end, or not: _end() has seen to it, or does now
        self._end()

    def _ended_well(self) -> bool:
        return self._exchange.ended or any(words in self._exchange.tail for words in _LAST_WORDS)


def _decoder(encoding: str) -> Any:
    """Undo an encoding that was not asked for (`identity` was); None for none."""
    encoding = encoding.strip().lower()
    if encoding in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(wbits=47)
    if encoding in ("", "identity"):
        return None
    raise zlib.error(f"the provider used the encoding {encoding!r}, which was not asked for")


def _failed(exchange: Exchange, error: Exception) -> httpx.TransportError:
    """Note a failure of the wire and say it in httpx's words."""
    if isinstance(error, httpx.TransportError):
        return error
    kind = "reset"
    if isinstance(error, ConnectFailed):
        kind = "connect_timeout" if isinstance(error.__cause__, TimeoutError) else "connect"
    elif isinstance(error, TimeoutError):
        kind = "read_timeout"
    raised = _RAISED[kind]
    if exchange.aborted:
        kind = "aborted"
    exchange.fault = Fault(kind, type(error).__name__)
    return raised(kind)


_RAISED: dict[str, type[httpx.TransportError]] = {
    "connect": httpx.ConnectError,
    "connect_timeout": httpx.ConnectTimeout,
    "read_timeout": httpx.ReadTimeout,
    "reset": httpx.ReadError,
}


class Door(httpx.BaseTransport):
    """Sends what LiteLLM's clients send, one exchange at a time.

    Args:
        pool: idle connections kept; more may be open at once.
    """

    def __init__(self, pool: int = 2048) -> None:
        self._idle = Connections(pool)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Carry one request of the current exchange (httpx.BaseTransport).

        Raises:
            httpx.TransportError: it could not be sent, or no answer came; the exchange has the fault.
        """
        exchange = current.get()
        if exchange is None:
            raise Refused("nothing may be sent outside a call")
        asked = Asked.of(request)
        if exchange.unsaid is not None:
            tell, exchange.unsaid = exchange.unsaid, None
            return tell()
        if _key(asked) in exchange.sent and (exchange.status or 0) >= 400:
            # LiteLLM sends some failed requests again, rewritten; told the same once more, it gives up at once
            return httpx.Response(exchange.status or 400, headers={"x-should-retry": "false"}, content=exchange.body)
        exchange.asked = asked
        self._put(exchange, asked, request.read())
        return _told(exchange)

    def put(self, exchange: Exchange, asked: Asked) -> bool:
        """Send a request once more as it was put in an earlier exchange, with the body that this one's `rewrite` says.

        Returns:
            Whether a good answer came. Else the client whose request it was has to be asked to send it: it is told what
            became of it, and raises what it raises then.
        """
        try:
            self._put(exchange, asked, b"")
        except httpx.TransportError as error:
            exchange.unsaid = partial(_raise, error)
            return False
        if 200 <= (exchange.status or 0) < 300:
            return True
        exchange.unsaid = partial(_told, exchange)
        return False

    def _put(self, exchange: Exchange, asked: Asked, raw: bytes) -> None:
        self._check(asked, exchange)
        exchange.path = asked.path
        body: bytes | Parts = raw
        if exchange.rewrite is not None and asked.method == "POST":
            body = exchange.rewrite(exchange.path, raw)
        parts = (body,) if isinstance(body, bytes) else body
        exchange.streamed = exchange.stream and any(_STREAM.search(part) is not None for part in parts)
        self._carry(exchange, asked.method, asked.url, dict(asked.headers), body)

    def send(self, exchange: Exchange, method: str, url: str, path: str, headers: dict[str, str], raw: Content) -> None:
        """Send the one request of an exchange; what comes back is in the exchange, and no client stands in between.

        Args:
            exchange: of the attempt.
            method: HTTP's.
            url: where to, from the configuration.
            path: the operation's, for who reads the exchange.
            headers: all but those of the connection itself.
            raw: the body, or its parts, or what it comes from in pieces, or None.

        Raises:
            GatewayError: of a body that comes in pieces, where that cannot be read to its end.
            httpx.TransportError: it could not be sent, or no answer came; the exchange has the fault.
        """
        exchange.path = path
        exchange.sent.add((method, url))
        exchange.streamed = exchange.stream and exchange.events
        self._carry(exchange, method, url, headers, raw)

    def _check(self, asked: Asked, exchange: Exchange) -> None:
        if exchange.host is None:
            allowed = asked.scheme == "https" and _is_public_name(asked.host)
        else:
            allowed = asked.netloc == exchange.host
        if not allowed:
            exchange.fault = Fault("host", asked.netloc)
            raise Refused(f"{asked.netloc} is not this deployment's host")
        if _key(asked) in exchange.sent or len(exchange.sent) >= MOST_SENDS:
            exchange.fault = Fault("repeated", asked.path)
            raise Refused("an attempt sends once")
        exchange.sent.add(_key(asked))

    def _carry(self, exchange: Exchange, method: str, url: str, headers: dict[str, str], raw: Content) -> None:
        """Send, and note the answer: its head and, where it is not streamed, its body."""
        headers["Accept-Encoding"] = "identity"
        exchange.status, exchange.headers, exchange.body = None, {}, None
        connection: Connection | None = None
        try:
            target = target_of(url)
            connection = self._idle.take(target.origin) or self._idle.connect(target.origin, CONNECT_S)
            exchange.hold(connection.sock)
            connection.send(method, target, headers, raw)
        except GatewayError:  # the caller's body broke off: nothing is the provider's fault
            if connection is not None:
                exchange.release(connection.sock)
                connection.close()
            raise
        except Exception as error:
            raise self._broken(exchange, connection, error) from error
        self._receive(exchange, connection, time.monotonic() + exchange.head_s)

    def _receive(self, exchange: Exchange, connection: Connection, until_s: float) -> None:
        """Wait for the head of the answer; not longer than silence may last, where that is to be told."""
        exchange.later = None
        left_s = max(0.001, until_s - time.monotonic())
        step_s = left_s if exchange.silence_s is None else min(left_s, exchange.silence_s)
        try:
            connection.sock.settimeout(step_s)
            connection.read_head()
            body = Body(connection, exchange, self._idle)
        except TimeoutError as error:
            if step_s < left_s and not exchange.aborted:
                exchange.later = partial(self._receive, exchange, connection, until_s)
                return
            raise self._broken(exchange, connection, error) from error
        except Exception as error:
            raise self._broken(exchange, connection, error) from error
        status = connection.status or 500
        exchange.status, exchange.headers = status, connection.headers
        kind = connection.headers.get("content-type", "").partition(";")[0].strip().lower()
        good = 200 <= status < 300
        if exchange.stream and good and kind not in exchange.whole:
            exchange.answer = body
            exchange.patience(exchange.step_s)
            return
        exchange.body = b"".join(body)
        if exchange.stream and good and exchange.streamed:  # LiteLLM asks some models for a whole answer all the same
            exchange.fault = Fault("not_sse", kind)
            raise Refused("an answer that is no event stream")
        if 300 <= status < 400:
            exchange.fault = Fault("redirect", str(status))

    def _broken(self, exchange: Exchange, connection: Connection | None, error: Exception) -> httpx.TransportError:
        if connection is not None:
            exchange.release(connection.sock)
            connection.close()
        if isinstance(error, zlib.error):
            exchange.fault = Fault("encoding", str(error))
            return Refused("an encoding that was not asked for")
        return _failed(exchange, error)

    def close(self) -> None:
        """Nothing: every client of LiteLLM shares this door, and some close theirs."""

    def shut(self) -> None:
        """Close all idle connections, at the end of the process."""
        self._idle.clear()


def _raise(error: Exception) -> NoReturn:
    raise error


def _told(exchange: Exchange) -> httpx.Response:
    """What came back, as httpx's clients read it.

    They are told not to try again: its clients of embeddings would, and first sleep as long as `Retry-After` says.
    """
    headers = [
        (name.encode("latin-1", "replace"), value.encode("latin-1", "replace"))
        for name, value in exchange.headers.items()
        if name.lower() not in _NOT_PASSED_BACK
    ]
    headers.append((b"x-should-retry", b"false"))
    if exchange.body is None:
        return httpx.Response(exchange.status or 200, headers=headers, stream=exchange.answer)
    return httpx.Response(exchange.status or 200, headers=headers, content=exchange.body)


def _key(asked: Asked) -> tuple[str, str]:
    return asked.method, f"{asked.netloc}{asked.path}"


def _is_public_name(host: str) -> bool:
    """Whether a host is a name on the public net, as far as its spelling tells."""
    host = host.rstrip(".").lower()
    last = host.rpartition(".")[2]
    if "." not in host or not _TOP_LEVEL.fullmatch(last) or last in ("localhost", "local", "internal"):
        return False  # also every way to write an address: its last label has no letter first
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return True
    return False
