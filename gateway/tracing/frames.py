"""What stands in a spool's segments: one frame a line, so that a damaged one costs itself alone.

A line is `crc32hex SP json LF`; the CRC-32 is of the JSON. There are three kinds of JSON:

    {"begin":"<row id>","request":"req_…","to":{…},"row":{…}}    a call began; the row is its root, still open
    {"id":"<row id>","request":"req_…","to":{…},"row":{…}}       a row, whole; the root's closes the call
    {"void":"<row id>","rows":<n>,"end":<seconds>}               a call ended and its n rows could not be kept

`request` stands with roots only, `to` only where a row has a place of its own. The sender never parses a row: what
it needs stands before it.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

JSON = dict[str, Any]

_BEFORE_ROW = b',"row":{'  # cannot stand within a JSON string, where its first quote would be escaped
_RESYNC = re.compile(rb"(?<![0-9a-f])[0-9a-f]{8} \{\"(?:begin|id|void)\":")
_KINDS = frozenset({"begin", "id", "void"})
_LOOKS_BEGUN = re.compile(rb"[0-9a-f]{8} ")


class Frame(NamedTuple):
    """One frame, read.

    Attributes:
        kind: `begin`, `id` (a whole row) or `void`.
        id: of the row; of the root for `begin` and `void`.
        end_bytes: the offset in the segment just behind it.
    """

    kind: str
    id: str
    end_bytes: int
    row: bytes = b""
    to: JSON | None = None
    request: str | None = None
    facts: JSON | None = None


def frame(payload: bytes) -> bytes:
    """Make a line of a JSON text."""
    return b"%08x %s\n" % (zlib.crc32(payload), payload)


def row_frame(kind: str, id: str, row: bytes, to: JSON | None = None, request: str | None = None) -> bytes:
    """Make the frame of a row: `kind` is `begin` or `id`."""
    head: JSON = {kind: id}
    if request is not None:
        head["request"] = request
    if to:
        head["to"] = to
    return frame(b'%s,"row":%s}' % (dumps(head)[:-1], row))


def void_frame(id: str, rows: int, end_s: float) -> bytes:
    """Make the frame of a call whose rows were dropped."""
    return frame(json.dumps({"void": id, "rows": rows, "end": end_s}, separators=(",", ":")).encode())


def scan(buffer: bytes, offset: int) -> Iterator[Frame | int]:
    """Read the whole lines of a buffer.

    Args:
        buffer: bytes of a segment, from the beginning of a line; what follows the last LF is left alone.
        offset: where in the segment the buffer begins.

    Yields:
        Frames in order; and for a damaged line the offset just behind it (a negative one where the line is the rest
        of a damaged frame that was counted already).
    """
    start, damaged = 0, False
    while (stop := buffer.find(b"\n", start)) >= 0:
        line = buffer[start:stop]
        start = stop + 1
        found = _read(line, offset + start)
        if found is not None:
            damaged = False
            yield found
            continue
        if line:  # an empty line is where a writer began anew behind a torn one
            continues = damaged and _LOOKS_BEGUN.match(line) is None
            damaged = True
            yield -(offset + start) if continues else offset + start
            yield from _saved(line, offset + start)


def _saved(line: bytes, end: int) -> Iterator[Frame]:
    """Whole frames within a damaged line: where an LF was damaged, the frame behind it is good."""
    for match in _RESYNC.finditer(line, 1):
        found = _read(line[match.start() :], end)
        if found is not None:
            yield found
            return


def _read(line: bytes, end: int) -> Frame | None:
    payload = line[9:]
    try:
        if int(line[:8], 16) != zlib.crc32(payload) or line[8:9] != b" ":
            return None
        at = payload.find(_BEFORE_ROW)
        head = orjson.loads(payload if at < 0 else payload[:at] + b"}")
        kind = next(iter(head))
        row = b"" if at < 0 else payload[at + 7 : -1]
        id, to, request = head[kind], head.get("to"), head.get("request")
        if not (isinstance(id, str) and isinstance(to, dict | None) and isinstance(request, str | None)):
            return None
        if kind not in _KINDS or bool(row) is (kind == "void"):
            return None
        return Frame(kind, id, end, row, to, request, None if row else head)
    except (ValueError, StopIteration, AttributeError, LookupError, TypeError, RecursionError):
        return None


#: A string is not cut below this, so that what a row says of itself stays.
_SHORTEST_CUT = 256
_MOST_LEVELS = 100
#: Python refuses to write longer integers out.
_MOST_BITS = 4096


def cut(row: bytes, limit_bytes: int) -> bytes:
    """Shorten the texts of a row until it has at most `limit_bytes`; where it is cut, it says so.

    The longest texts are cut first. A row that is made of a million small values loses its input and output whole.
    """
    value = json.loads(row)
    longest = max(limit_bytes // 4, _SHORTEST_CUT)
    while longest >= _SHORTEST_CUT:
        shorter = _marked(_shortened(value, longest), len(row))
        if len(encoded := dumps(shorter)) <= limit_bytes:
            return encoded
        longest //= 4
    note = f"[cut: the row had {len(row)} bytes]"
    bare = {name: note if name in ("input", "output", "expected") else item for name, item in value.items()}
    shorter = _marked(_shortened(bare, _SHORTEST_CUT), len(row))
    if len(encoded := dumps(shorter)) <= limit_bytes:
        return encoded
    kept = {"id", "span_id", "root_span_id", "span_parents", "created", "span_attributes", "metrics"}
    core = {name: item for name, item in value.items() if name in kept}
    return dumps(_shortened({**core, "metadata": {"cut_from_bytes": len(row)}}, _SHORTEST_CUT))


def _marked(row: JSON, size_bytes: int) -> JSON:
    metadata = row.get("metadata")
    return {**row, "metadata": {**(metadata if isinstance(metadata, dict) else {}), "cut_from_bytes": size_bytes}}


def _shortened(value: Any, longest: int, levels: int = _MOST_LEVELS) -> Any:
    if isinstance(value, str):
        return value if len(value) <= longest else f"{value[:longest]}[cut: {len(value)} characters]"
    if isinstance(value, dict | list) and levels == 0:
        return "[cut: nested too deep]"
    if isinstance(value, dict):
        return {key: _shortened(item, longest, levels - 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item, longest, levels - 1) for item in value]
    return value


def dumps(value: Any) -> bytes:
    """Compact JSON in UTF-8 that every reader takes: no NaN, no half of a surrogate pair, nothing unknown to JSON."""
    try:
        return orjson.dumps(value, default=_described)
    except TypeError:  # a long integer, half of a surrogate pair, a key that is no text, too many levels
        return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _described(value: object) -> str:
    return f"<{type(value).__name__}>"


def _plain(value: Any, levels: int = _MOST_LEVELS) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict | list | tuple) and levels == 0:
        return _described(value)
    if isinstance(value, dict):
        return {str(key): _plain(item, levels - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, levels - 1) for item in value]
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return _described(value)
    return value if value is None or isinstance(value, str | int | bool) else _described(value)
