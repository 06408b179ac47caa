"""Puts what an answer cost into the provider's own text of it, as `usage.cost`, and changes no other byte."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

from gateway.core.calls import plain
from gateway.core.wire import loads

JSON = dict[str, Any]

#: Where the usage stands in an answer, and in the event that ends the stream of a Response.
USAGE = ("usage",)
RESPONSE_USAGE = ("response", "usage")

#: No usage is longer, so that not all that comes behind it has to be looked at.
_USUAL_BYTES = 1 << 14
_DECODER = json.JSONDecoder()

#: A string, told apart whether it is a key, or a bracket: all that says how deep something stands.
_MARK = re.compile(rb'("(?:[^"\\]|\\.)*+")([ \t\r\n]*:)?|[{}\[\]]', re.DOTALL)
#: The quotes of a key stand in no string of JSON, where they would be escaped.
_OBJECT = re.compile(rb'"usage"[ \t\r\n]*:[ \t\r\n]*(?=\{)')
#: A letter of `usage` as an escape.
_SPELT = re.compile(rb"\\u00(?:75|73|61|67|65)")
#: The line of an event that has its data.
_DATA = re.compile(rb"(?:^|[\r\n])data:[^\r\n]*")


def with_cost(text: bytes, cost_usd: Decimal, path: tuple[str, ...] = USAGE) -> bytes:
    """Add `cost` to the usage of an answer.

    Args:
        text: a JSON object, which has an object at `path`.
        cost_usd: US dollars, 0 or more; all of its digits are written.
        path: the names of the usage and of what it stands in.

    Returns:
        The same text with one member more, in front of the brace that ends the usage. Unchanged where the usage is
        empty or has a cost already: that is the provider's, and its to tell.
    """
    found = list(_OBJECT.finditer(text))
    if len(found) == 1 and (b"\\" not in text or _SPELT.search(text) is None):
        start: int | None = found[0].end()  # the only one, so it is the one that is at the path
    else:
        start = _place_of(text, path)
    if start is None:
        return text
    usage, size = _read(text, start)
    if not usage or "cost" in usage:
        return text
    end = start + size - 1
    return text[:end] + b',"cost":' + plain(cost_usd).encode() + text[end:]


def event_with_cost(event: bytes, cost_usd: Decimal, path: tuple[str, ...] = USAGE) -> bytes:
    """Add `cost` to the usage in the data of an event; see `with_cost`.

    An event whose data is written over several lines stays as it is: no provider is known to send its usage so.
    """
    lines = list(_DATA.finditer(event))
    if len(lines) != 1:
        return event
    start, end = event.index(b":", lines[0].start()) + 1, lines[0].end()
    return event[:start] + with_cost(event[start:end], cost_usd, path) + event[end:]


def _read(text: bytes, start: int) -> tuple[JSON, int]:
    """The object that begins at `start`, and how many bytes it has; an empty one where it is none."""
    for window in (_USUAL_BYTES, len(text)):
        try:
            # a character a byte, so that its places are those of the bytes
            return _DECODER.raw_decode(text[start : start + window].decode("latin-1"))
        except (ValueError, RecursionError):
            continue
    return {}, 0


def _place_of(text: bytes, path: tuple[str, ...]) -> int | None:
    """Where the object at a path begins; of a name that stands twice the last one, as readers of JSON take it."""
    depth, inside, due = 0, 0, False
    found: int | None = None
    for mark in _MARK.finditer(text):
        sign = text[mark.start()]
        if sign in b'"':
            is_key = mark[2] is not None and depth == inside + 1 and inside < len(path)
            due = is_key and _is(mark[1], path[inside])
            if due:
                found = None  # what stood under this name before does not count
        elif sign in b"{[":
            depth += 1
            if due and sign in b"{":
                inside += 1
                found = mark.start() if inside == len(path) else found
            due = False
        else:
            if inside and inside == depth - 1:
                inside -= 1
            depth -= 1
            due = False
    return found


def _is(quoted: bytes, name: str) -> bool:
    if b"\\" not in quoted:
        return quoted[1:-1] == name.encode()
    try:
        return bool(loads(quoted) == name)
    except ValueError:
        return False
