"""The root of a call whose own end is not there: what is known of it from its begin frame."""

from __future__ import annotations

import json
from typing import Any

from gateway.tracing.delivery import Piece
from gateway.tracing.frames import dumps

JSON = dict[str, Any]


def is_open(piece: Piece) -> bool:
    """Whether a row says that its call is still open."""
    try:
        row = json.loads(piece.row)
        return row["metadata"]["open"] is True and "end" not in row["metrics"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return False


def interrupted(piece: Piece, ended_s: float) -> Piece:
    """What is known of a call whose process died, at `ended_s` seconds since the epoch or before."""
    return _closed(piece, "The gateway's process died before the call ended.", ended_s, {"interrupted": True})


def without_rows(piece: Piece, facts: JSON) -> Piece:
    """What is known of a call whose rows had no room."""
    ended_s, dropped = facts.get("end"), {"rows_dropped": facts.get("rows")}
    return _closed(piece, "The trace had no room in the spool and was dropped.", ended_s, dropped)


def _closed(piece: Piece, error: str, ended_s: Any, more: JSON) -> Piece:
    """Close an open root. One of a shape that is not ours goes out as it is: the destination is to judge it."""
    try:
        row = json.loads(piece.row)
        start_s = float(row["metrics"]["start"])
        row["metrics"]["end"] = max(float(ended_s), start_s) if ended_s is not None else start_s
        row["metadata"] = {**{name: value for name, value in row["metadata"].items() if name != "open"}, **more}
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError):
        return piece
    return piece._replace(row=dumps({**row, "error": error}))
