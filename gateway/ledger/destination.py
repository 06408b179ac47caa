"""Where the ledger's spool is delivered to: the table `usage`."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from gateway.core.ledger import ENDED, LOST
from gateway.offload import offload
from gateway.storage.database import StorageError
from gateway.storage.tables import usage as table
from gateway.storage.usage import UsageRows
from gateway.tracing.delivery import Piece, Rejected, Unavailable

JSON = dict[str, Any]

log = logging.getLogger(__name__)

_TIDY_EVERY_S = 600.0
_ADD_UP_EVERY_S = 60.0
#: Added up in one turn, between deliveries: with a million calls a day each takes about a second.
_MOST_HOURS = 4
_LISTS = ("tags", "planned", "price")
_LARGEST_INT = 2**63 - 1
#: By name: the types of what a column holds.
_COLUMNS: dict[str, frozenset[type]] = {
    column.name: frozenset(
        (
            column.type.python_type,
            *((int,) if column.type.python_type is float else ()),
            *((type(None),) if column.nullable else ()),
        )
    )
    for column in table.c
}
_WHOLE = [column.name for column in table.c if column.type.python_type is int]


class UsageTable:
    """A `tracing.delivery.Destination` of the ledger's rows; between deliveries it adds them up and lets old ones go.

    Args:
        rows: where they are kept.
        clock: seconds since the epoch.
    """

    limit_bytes = 4 << 20

    def __init__(self, rows: UsageRows, clock: Callable[[], float] = time.time) -> None:
        self._rows = rows
        self._clock = clock
        self._tidied_s = self._added_up_s = -math.inf

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

    def tend(self) -> None:
        """Add up some hours that are over, and let old rows go; see `tracing.delivery.Tended`."""
        now_s = time.monotonic()
        try:
            if now_s - self._added_up_s >= _ADD_UP_EVERY_S:
                # one that fails is not tried again at once
                before_s, self._added_up_s = self._added_up_s, now_s
                if self._rows.add_up(self._clock(), _MOST_HOURS):
                    self._added_up_s = before_s
            if now_s - self._tidied_s >= _TIDY_EVERY_S:
                self._tidied_s = now_s
                self._rows.sweep(self._clock())
        except StorageError as error:
            log.warning("the ledger was not tidied up", extra={"fields": {"why": str(error)}})

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
        row = orjson.loads(text)
        facts, started_s = row["metadata"], float(row["metrics"]["start"])
        ended_s = float(row["metrics"].get("end", started_s))
        if facts.get("open"):
            return None
        if b"\\u" in text:  # what no database holds is written so, and hardly anything else is
            facts = _clean(facts)
        lost = "interrupted" in facts or "rows_dropped" in facts
        found = {name: facts.get(name) for name in _COLUMNS}
        found |= {"started": started_s, "ended": ended_s, "state": LOST if lost else ENDED}
        for name in _LISTS:
            if found[name] is not None:
                found[name] = orjson.dumps(found[name]).decode()
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError):
        raise Rejected("it is no row of the ledger") from None
    for name, types in _COLUMNS.items():
        if type(found[name]) not in types:
            raise Rejected(f"the row has no {name}" if found[name] is None else f"the row's {name} cannot be kept")
    for name in _WHOLE:
        if abs(found[name] or 0) > _LARGEST_INT:
            raise Rejected(f"the row's {name} cannot be kept")
    return found


def _clean(value: Any) -> Any:
    """Without NUL, which no text of a database holds."""
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(name): _clean(item) for name, item in value.items()}
    return value
