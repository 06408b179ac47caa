"""Server-Sent Events and error bodies: what goes over the wire, as bytes.

Event streams are parsed as the WHATWG HTML standard, section 9.2 ("Server-sent events") says, on bytes: a chunk of
the network may end anywhere, also within a character.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import orjson

from gateway.errors import GatewayError

JSON = dict[str, Any]

DONE = b"data: [DONE]\n\n"
#: A comment: clients ignore it by the standard, proxies see a living connection. Never an empty data event.
KEEP_ALIVE = b": keep-alive\n\n"

#: An event beyond this is no chunk of text; 8 MiB leaves room for a whole image or a second of audio.
MOST_EVENT_BYTES = 8 << 20

_LONGEST_HEADER = 1024
_VISIBLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")

_END_OF_EVENT = re.compile(rb"\r?\n\r?\n|\r\r(?!\n)")


class EventTooLarge(ValueError):
    """An event that does not end within `MOST_EVENT_BYTES`."""


class Events:
    """Splits a stream of bytes into whole events, each handed out as it came.

    A byte is looked at once, however small the pieces are: what grows is kept in parts until its end comes.

    Attributes:
        parts: of the event that has not come to its end; none between two events.
    """

    __slots__ = ("_begun", "_size", "parts")

    def __init__(self) -> None:
        self._begun = False
        self.parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take in bytes.

        Returns:
            The events that are whole now, their closing blank line included.

        Raises:
            EventTooLarge: the event that is growing will not end.
        """
        if not self._begun:
            self._begun, data = True, data.removeprefix(b"\xef\xbb\xbf")  # one such mark is skipped
        if not self.parts and data[-2:] == b"\n\n" and b"\r" not in data:  # the usual case: whole events
            if data.find(b"\n\n") == len(data) - 2:
                return [data]
            return [event + b"\n\n" for event in data[:-2].split(b"\n\n")]
        # an end may lie across two pieces: four bytes, of which the last three may have come before
        seam = b"".join(part[-3:] for part in self.parts[-3:])[-3:]
        if _END_OF_EVENT.search(seam + data) is None:
            self._keep(data)
            return []
        self.parts.append(data)
        whole = self.rest()
        events, start = [], 0
        for match in _END_OF_EVENT.finditer(whole):
            events.append(whole[start : match.end()])
            start = match.end()
        self._keep(whole[start:])
        return events

    def _keep(self, data: bytes) -> None:
        if data:
            self.parts.append(data)
            self._size += len(data)
        if self._size > MOST_EVENT_BYTES:
            raise EventTooLarge(f"an event of the stream is larger than {MOST_EVENT_BYTES} bytes")

    def rest(self) -> bytes:
        """Take out what stands there without its blank line. By the standard no event; some servers end so."""
        rest = b"".join(self.parts)
        self.parts.clear()
        self._size = 0
        return rest


def data_of(event: bytes) -> bytes | None:
    """Return the data of an event, or None where it has none (a comment, a retry line)."""
    if event[:5] == b"data:" and event.find(b"\n", 0, -2) < 0 and b"\r" not in event:
        return event[5:].strip()
    # bytes.splitlines() splits at \n, \r\n and \r only, as the standard wants
    lines = [line[5:].removeprefix(b" ") for line in event.splitlines() if line[:5] == b"data:"]
    return b"\n".join(lines) if lines else None


def dumps(value: Any) -> bytes:
    """Compact JSON in UTF-8, characters as they are."""
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer of more than 64 bits, or half of a surrogate pair, which only its escape can carry
        return json.dumps(value, separators=(",", ":")).encode()


def loads(text: bytes) -> Any:
    """Read JSON that a provider sent.

    Raises:
        ValueError: it is none. RecursionError: it is nested too deep to be read.
    """
    try:
        return orjson.loads(text)
    except ValueError:  # what only Python's reader takes: NaN, half of a surrogate pair, a byte order mark
        return json.loads(text)


def data_event(value: Any) -> bytes:
    """One unnamed event with a JSON value."""
    return b"data: " + dumps(value) + b"\n\n"


def header_value(text: str) -> str:
    """Make any text fit for a header: visible ASCII, everything else percent-encoded (RFC 3986, section 2.1)."""
    if text.isascii() and text.isprintable() and "%" not in text:
        return text[:_LONGEST_HEADER]
    return quote(text, safe=_VISIBLE)[:_LONGEST_HEADER]


def named_event(value: JSON) -> bytes:
    """One event with the name that its value's `type` gives, as Anthropic's and OpenAI's newer streams have them."""
    return b"event: " + str(value["type"]).encode() + b"\ndata: " + dumps(value) + b"\n\n"


def error_body(dialect: str, error: GatewayError, request_id: str) -> JSON:
    """The body of a failure, in the dialect that the caller's SDK reads."""
    if dialect == "anthropic":
        return anthropic_error(error, request_id)
    return openai_error(error, request_id)


def error_event(dialect: str, error: GatewayError, request_id: str, number: int) -> bytes:
    """The event that tells of a failure in mid-stream. `number` is how many events came before it."""
    body = error_body(dialect, error, request_id)
    if dialect == "anthropic":
        return named_event(body)
    if dialect == "responses":
        # the reference's own fields ("Streaming events", `error`), and beside them the object that makes SDKs raise
        own = {name: body["error"][name] for name in ("code", "message", "param")}
        return named_event({"type": "error", **own, "sequence_number": number, **body})
    return data_event(body)


#: Anthropic's types of errors (API reference, "Errors"), by HTTP status.
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def anthropic_error(error: GatewayError, request_id: str) -> JSON:
    """The body of a failure in Anthropic's dialect (API reference, "Errors"), with who is at fault beside it."""
    status = error.http_status
    kind = _ANTHROPIC_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    if error.public_type in _ANTHROPIC_TYPES.values() and error.source == "provider":
        kind = error.public_type  # the provider's own word; in mid-stream there is no status to tell it from
    return {
        "type": "error",
        "error": {
            "type": kind,
            "message": error.message,
            "param": error.param,
            "code": error.public_code,
            "provider": error.provider,
            "source": error.source,
        },
        "request_id": request_id,
    }


def openai_error(error: GatewayError, request_id: str) -> JSON:
    """The body of a failure in OpenAI's dialect (API reference, "Error codes"), with who is at fault beside it."""
    return {
        "error": {
            "message": error.message,
            "type": error.public_type,
            "param": error.param,
            "code": error.public_code,
            "request_id": request_id,
            "provider": error.provider,
            "source": error.source,
        }
    }
