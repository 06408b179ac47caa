"""From the bytes of a request to a checked JSON object. Whatever the bytes are, a fault is the caller's.

`unpack` undoes the content encoding, `parse` reads the JSON, `check` looks at what an endpoint's row knows.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Any, NoReturn

from gateway.core.endpoints import Endpoint
from gateway.core.fields import Field, fault_of
from gateway.errors import BodyTooLarge, InvalidRequest, UnsupportedBody

MAX_DEPTH = 64  # whoever walks or writes the value later recurses, far below the bound of the interpreter

# -- unpack --------------------------------------------------------------------------------------------------

_PLAIN = ("", "identity")
_GZIP = ("gzip", "x-gzip")  # one and the same (RFC 9110, section 8.4.1.3)
_DEFLATE = "deflate"  # the zlib format, not bare deflate (RFC 9110, section 8.4.1.2)
_GZIP_BITS = 16 + zlib.MAX_WBITS

_BLOCK_BYTES = 1024  # deflate expands 1,032 times at most: a block makes 1 MiB before the limit is looked at
_MAX_MEMBERS = 10_000  # a member may hold nothing, so that no limit on the output would end a row of them


def unpack(raw: bytes, encoding: str, limit_bytes: int) -> bytes:
    """Undo a body's `Content-Encoding`, and stop as soon as it proves too large.

    Args:
        raw: the body as it came.
        encoding: the header's value; empty where there is none.
        limit_bytes: the most that the body may be when unpacked.

    Raises:
        BodyTooLarge: more than `limit_bytes`; about 1 MiB beyond it was unpacked at most.
        UnsupportedBody: another encoding, or several in a row.
        InvalidRequest: the data is damaged, cut off, or followed by something else.
    """
    encoding = encoding.strip().lower()
    if encoding in _PLAIN:
        if len(raw) > limit_bytes:
            raise _too_large(limit_bytes)
        return raw
    if encoding in _GZIP:
        return _inflate(raw, _GZIP_BITS, _MAX_MEMBERS, limit_bytes)
    if encoding == _DEFLATE:
        return _inflate(raw, zlib.MAX_WBITS, 1, limit_bytes)
    raise UnsupportedBody("the body's content encoding must be one of gzip, deflate and identity")


def _inflate(raw: bytes, bits: int, members: int, limit_bytes: int) -> bytes:
    """Unpack up to `members` compressed streams that follow one another (RFC 1952, section 2.2)."""
    got = bytearray()
    decoder = zlib.decompressobj(bits)
    for start in range(0, len(raw), _BLOCK_BYTES):
        block = raw[start : start + _BLOCK_BYTES]
        while block:
            if decoder.eof:
                members -= 1
                if members < 1:
                    raise InvalidRequest("the compressed body goes on after its end")
                decoder = zlib.decompressobj(bits)
            try:
                got += decoder.decompress(block)
            except zlib.error:
                raise InvalidRequest("the compressed body is damaged") from None
            if len(got) > limit_bytes:
                raise _too_large(limit_bytes)
            block = decoder.unused_data
    if not decoder.eof:
        raise InvalidRequest("the compressed body is cut off")
    return bytes(got)


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {limit_bytes} bytes")


# -- parse ---------------------------------------------------------------------------------------------------

_BOM = b"\xef\xbb\xbf"
_NAME_CHARS = 64  # of a caller's key in a message
_NOT_UTF_8 = "the body must be UTF-8"
_TOO_DEEP = f"the body is nested deeper than {MAX_DEPTH} levels"

# How much of a body is looked at in one step, which takes a millisecond at most.
_STEP_BYTES = 512 << 10
# A string from this length on is put in behind the decoder. Half of a surrogate pair, which no body may have, marks it.
_LONG_BYTES = 64 << 10
_MARK = "\udc00"
_CONTROLS = bytes(range(0x20))

# Reading a value costs a microsecond whatever it is, during which nobody else of a worker's callers has a turn.
MAX_VALUES = 1_000_000
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)

# A half of a surrogate pair, and a whole pair, as escapes (RFC 8259, section 7).
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")


def parse(raw: bytes, rest: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Read a JSON object strictly: what two readers could understand differently is refused.

    Integers stay exact at any size that Python reads (4,300 digits); other numbers become floats.

    Args:
        raw: the body.
        rest: called between the steps, each of which takes some ten milliseconds at most for an image of 30 MB.

    Raises:
        InvalidRequest: not one UTF-8 JSON object (RFC 8259; a byte order mark is forgiven), or one with a key
            twice in an object, NaN, an infinity, half of a surrogate pair or more than `MAX_DEPTH` levels.
    """
    raw = raw.removeprefix(_BOM)
    if not raw or raw.isspace():
        raise _invalid("the body is empty; it must be a JSON object")
    if b"\0" in raw[:4]:  # RFC 4627, section 3: how UTF-16 and UTF-32 show; their ASCII is valid UTF-8 too
        raise _invalid(_NOT_UTF_8)
    value: Any = _parse_around_long_strings(raw, rest) if len(raw) > _STEP_BYTES else None
    if value is None:
        value = _parse_text(raw, rest)
    if not isinstance(value, dict):
        raise _invalid("the body must be a JSON object")
    if _is_deeper_than(MAX_DEPTH, value):
        raise _invalid(_TOO_DEEP)
    return value


def _parse_text(raw: bytes, rest: Callable[[], None]) -> Any:
    if _has_too_many_values(raw, rest):
        raise _invalid(f"the body has more than {MAX_VALUES} values")
    rest()
    if _has_half_a_pair(raw):
        raise _invalid("the body has half of a surrogate pair in a string")
    # What the decoders raise holds the whole body: it must not become the context of what is raised here.
    value: Any = None
    fault: str | None = None
    try:
        rest()
        text = raw.decode()
        rest()
        value = _DECODER.decode(text)
        del text
        rest()
    except UnicodeDecodeError:
        fault = _NOT_UTF_8
    except json.JSONDecodeError as error:
        reason = error.msg.rstrip(": ").removesuffix(" at")
        fault = f"the body is not valid JSON: {reason} at line {error.lineno}, column {error.colno}"
    except RecursionError:  # after some 1,000 levels, so that 100,000 cost no more
        fault = _TOO_DEEP
    except ValueError:  # Python's own bound on the digits of an integer, 4,300
        fault = "the body has an integer with too many digits"
    if fault is not None:
        raise _invalid(fault)
    return value


def _parse_around_long_strings(raw: bytes, rest: Callable[[], None]) -> Any:
    """Read what is about long plain strings, which media are, and put these in: the decoder reads all in one step.

    Returns:
        None where it cannot be done so, whatever the reason: `_parse_text` knows what to say.
    """
    parts, strings = _cut(raw, rest)
    if not strings or _has_half_a_pair(b"".join(parts)):
        return None
    marks = {f"{_MARK}{number}": string for number, string in enumerate(strings)}
    # what is cut out between two strings has its mark there too, where none is allowed
    between = (f"\\u{ord(_MARK):04x}{number}".encode() for number in range(len(strings)))
    short = b"".join(piece for pair in zip_longest(parts, between, fillvalue=b"") for piece in pair)
    if _has_too_many_values(short, rest):
        return None
    try:
        value = _DECODER.decode(short.decode())
    except (ValueError, RecursionError, InvalidRequest):
        return None
    rest()
    return value if _put_back(value, marks) == len(marks) else None


def _cut(raw: bytes, rest: Callable[[], None]) -> tuple[list[bytes], list[str]]:
    """Cut out long runs of plain ASCII from one quote to the next.

    Returns:
        What is left, in one part more than there are runs, and the runs. Each is the whole content of a string, unless
        its first quote is an escaped one or ends a string.
    """
    parts: list[bytes] = []
    strings: list[str] = []
    kept_to, place = 0, raw.find(b'"') + 1
    while 0 < place <= len(raw) - _LONG_BYTES:
        last = raw.rfind(b'"', place, place + _LONG_BYTES)
        if last >= 0:
            place = last + 1
            continue
        end = raw.find(b'"', place + _LONG_BYTES)
        if end >= 0 and raw.find(b"\\", place, end) < 0 and (run := _plain(raw, place, end, rest)) is not None:
            parts.append(raw[kept_to:place])
            strings.append(run)
            kept_to = end
        place = end + 1
    return [*parts, raw[kept_to:]], strings


def _plain(raw: bytes, start: int, end: int, rest: Callable[[], None]) -> str | None:
    """The text of a run that is ASCII without control characters, which stand in no string; None for any other."""
    for step in range(start, end, _STEP_BYTES):
        piece = raw[step : min(step + _STEP_BYTES, end)]
        if len(piece.translate(None, _CONTROLS)) < len(piece):
            return None
        rest()
    try:
        return str(memoryview(raw)[start:end], "ascii")
    except UnicodeDecodeError:
        return None


def _put_back(value: Any, marks: Mapping[str, str]) -> int:
    """Put each string where its mark is a value; returns how many were."""
    found, open_values = 0, [value]
    while open_values:
        parent = open_values.pop()
        for key, child in list(parent.items() if type(parent) is dict else enumerate(parent)):
            if type(child) is dict or type(child) is list:
                open_values.append(child)
            elif type(child) is str and child[:1] == _MARK:
                parent[key] = marks[child]
                found += 1
    return found


def _has_too_many_values(raw: bytes, rest: Callable[[], None]) -> bool:
    """Count commas and brackets, and only where there are many look which of them stand in texts."""

    def values(json_text: bytes) -> int:
        found = 0
        for start in range(0, len(json_text), _STEP_BYTES):
            found += sum(json_text.count(sign, start, start + _STEP_BYTES) for sign in (b",", b"[", b"{"))
            rest()
        return found

    return values(raw) > MAX_VALUES and values(_STRING.sub(b"", raw)) > MAX_VALUES


def _has_half_a_pair(raw: bytes) -> bool:
    r"""Tell whether a string has half of a surrogate pair, which UTF-8 cannot carry on to a provider.

    The decoder joins a high half with the low half behind it, and so does `_PAIR`. `\\` gives way first, as
    what follows it is no escape. Of what is no JSON the answer means nothing; the decoder refuses it anyway.
    """
    return bool(b"\\" in raw and _HALF.search(raw) and _HALF.search(_PAIR.sub(b"", raw.replace(rb"\\", b"/"))))


def _is_deeper_than(limit: int, value: Any) -> bool:
    """Measure level by level rather than by recursion; each value is looked at once."""
    level = [value]
    for _ in range(limit):
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    got = dict(pairs)
    if len(got) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _invalid(f"the body has the key {key[:_NAME_CHARS]!r} twice in one object")
            seen.add(key)
    return got


def _finite(text: str) -> float:
    got = float(text)
    if math.isinf(got):
        raise _invalid("the body has a number that is too large")
    return got


def _refuse_constant(name: str) -> NoReturn:
    raise _invalid(f"the body is not valid JSON: {name} is no JSON number")


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="invalid_json")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_refuse_constant)

# -- check ---------------------------------------------------------------------------------------------------


def check(endpoint: Endpoint, body: dict[str, Any]) -> None:
    """Look at the parameters that the endpoint's row knows, in its order. Other fields are data and pass.

    Raises:
        InvalidRequest: `param` names the first parameter at fault.
    """
    parameters = endpoint.parameters
    for name in body:
        if name != "model" and len(name) == 5 and name.lower() == "model":
            # Go's encoding/json takes it for the model too, and the last one counts: another than was allowed
            raise InvalidRequest(f"model must be spelt so, not {name}", param="model")
    faults = {name: fault for name in (*endpoint.required, *body) if (fault := _fault_of(name, body, parameters))}
    for name in parameters if faults else ():
        if name in faults:
            raise InvalidRequest(faults[name], param=name)


def _fault_of(name: str, body: dict[str, Any], parameters: Mapping[str, Field]) -> str | None:
    if (field := parameters.get(name)) is None:
        return None
    value = body.get(name)
    fault = fault_of(name, value, field)
    if fault is None and value is not None and name in _FURTHER:
        fault = _FURTHER[name](value)
    return fault


def _fault_of_stop(stop: Any) -> str | None:
    if isinstance(stop, list) and not all(isinstance(item, str) for item in stop):
        return "every item of stop must be a string"
    return None


def _fault_of_tools(tools: Any) -> str | None:
    """Keep callers out of LiteLLM's own MCP gateway, which `completion` enters for `litellm_proxy…`."""
    for tool in tools:
        url = tool.get("server_url")
        if isinstance(url, str) and url.strip().lower().startswith("litellm"):
            return "tools must not name litellm as an MCP server"
    return None


_FURTHER = {"stop": _fault_of_stop, "tools": _fault_of_tools}
