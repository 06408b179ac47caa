"""Where the ledger's spool is delivered to: the table `usage`."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Sequence
from typing import Any

from gateway.core.ledger import ENDED, LOST
from gateway.offload import offload
from gateway.storage.database import StorageError
from gateway.storage.tables import usage as table
from gateway.storage.usage import UsageRows
from gateway.tracing.delivery import Piece, Rejected, Unavailable

JSON = dict[str, Any]

log = logging.getLogger(__name__)

_SWEEP_EVERY_S = 600.0
_LISTS = ("tags", "planned", "price")
_LARGEST_INT = 2**63 - 1


class UsageTable:
    """A `tracing.delivery.Destination` of the ledger's rows, which also lets old ones go.

    Args:
        rows: where they are kept.
    """

    limit_bytes = 4 << 20

    def __init__(self, rows: UsageRows) -> None:
        self._rows = rows
        self._swept_s = -math.inf

    def deliver(self, pieces: Sequence[Piece]) -> None:
        """Keep all of these rows or none. One that is still open is none yet.

        Raises:
            Unavailable: the database is busy, full or damaged.
            Rejected: a row cannot be read.
        """
        rows = offload(lambda: [row for piece in pieces if (row := columns(piece.row)) is not None])
        try:
            self._rows.keep(rows)
        except StorageError as error:
            raise Unavailable(str(error)) from None
        if time.monotonic() - self._swept_s < _SWEEP_EVERY_S:
            return
        self._swept_s = time.monotonic()
        try:
            self._rows.sweep(time.time())
        except StorageError as error:
            log.warning("old rows of the ledger were not deleted", extra={"fields": {"why": str(error)}})

    def close(self) -> None:
        """Let go of connections."""
        self._rows.release()


def columns(text: bytes) -> JSON | None:
    """Read a row of the spool.

    Args:
        text: a JSON object, as `Entry` writes it or a sender ends it.

    Returns:
        The columns of a row; None where its call is still open.

    Raises:
        Rejected: it is no row of the ledger.
    """
    try:
        row = json.loads(text)
        facts, started_s = row["metadata"], float(row["metrics"]["start"])
        ended_s = float(row["metrics"].get("end", started_s))
        if facts.get("open"):
            return None
        lost = "interrupted" in facts or "rows_dropped" in facts
        found = {column.name: facts.get(column.name) for column in table.c}
        found |= {
            "started": started_s,
            "ended": ended_s,
            "state": LOST if lost else ENDED,
            **{name: None if found[name] is None else json.dumps(_clean(found[name])) for name in _LISTS},
        }
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError):
        raise Rejected("it is no row of the ledger") from None
    for column in table.c:
        value = found[column.name]
        if value is None and not column.nullable:
            raise Rejected(f"the row has no {column.name}")
        if value is not None and not _fits(value, column.type.python_type):
            raise Rejected(f"the row's {column.name} cannot be kept")
    return {name: _clean(value) for name, value in found.items()}


def _fits(value: Any, kind: type) -> bool:
    if kind is int:
        return type(value) is int and abs(value) <= _LARGEST_INT
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind


def _clean(value: Any) -> Any:
    """Without what a text of a database cannot hold: NUL, and half of a surrogate pair."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(name): _clean(item) for name, item in value.items()}
    return value
