"""Puts what an answer cost into the provider's own text of it, as `usage.cost`, and changes no other byte."""

from __future__ import annotations

import re
from decimal import Decimal

from gateway.core.calls import plain
from gateway.core.wire import loads

#: Where the usage stands in an answer, and in the event that ends the stream of a Response.
USAGE = ("usage",)
RESPONSE_USAGE = ("response", "usage")

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
        span = _object_at(text, found[0].end())  # the only one, so it is the one that is at the path
    else:
        span = _object_in(text, path)
    if span is None:
        return text
    start, end = span
    try:
        usage = loads(text[start:end])
    except (ValueError, RecursionError):
        return text
    if not isinstance(usage, dict) or not usage or "cost" in usage:
        return text
    return text[: end - 1] + b',"cost":' + plain(cost_usd).encode() + text[end - 1 :]


def event_with_cost(event: bytes, cost_usd: Decimal, path: tuple[str, ...] = USAGE) -> bytes:
    """Add `cost` to the usage in the data of an event; see `with_cost`.

    An event whose data is written over several lines stays as it is: no provider is known to send its usage so.
    """
    lines = list(_DATA.finditer(event))
    if len(lines) != 1:
        return event
    start, end = event.index(b":", lines[0].start()) + 1, lines[0].end()
    return event[:start] + with_cost(event[start:end], cost_usd, path) + event[end:]


def _object_at(text: bytes, start: int) -> tuple[int, int] | None:
    """Where the object that begins at `start` begins and ends."""
    depth = 0
    for mark in _MARK.finditer(text, start):
        sign = text[mark.start()]
        if sign in b"{[":
            depth += 1
        elif sign in b"}]":
            depth -= 1
            if not depth:
                return start, mark.end()
    return None


def _object_in(text: bytes, path: tuple[str, ...]) -> tuple[int, int] | None:
    """Where the object at a path begins and ends; of a name that stands twice the last one, as readers of JSON do."""
    depth, inside, begun, due = 0, 0, 0, False
    found: tuple[int, int] | None = None
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
                begun = mark.start() if inside == len(path) else begun
            due = False
        else:
            if inside == depth - 1 and inside:
                if inside == len(path):
                    found = begun, mark.end()
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
