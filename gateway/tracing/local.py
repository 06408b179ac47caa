"""Traces kept here, in the gateway's own database, for `gateway traces` and whoever has no Braintrust."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, func, or_, select
from sqlalchemy.dialects.sqlite import insert

from gateway.offload import offload
from gateway.storage import usage
from gateway.storage.database import Database, StorageError, vacuum
from gateway.storage.owned import room_bytes
from gateway.storage.tables import spans, traces
from gateway.tracing.delivery import Piece, Rejected, Unavailable

JSON = dict[str, Any]

log = logging.getLogger(__name__)

_SWEEP_EVERY_S = 60.0
_SWEEP_TRACES = 500
_SWEEP_PAUSE_S = 0.02
_YEAR_10000_S = 253_402_300_800.0
_LARGEST_INT = 2**63 - 1


class LocalTraces:
    """A `Destination`: rows go into the tables `spans` and `traces`, and leave them by age and size.

    Args:
        database: with the tables of this release.
        keep_days: rows that began longer ago are deleted.
        keep_bytes: above that size of the database, stored objects apart, the oldest are deleted.
    """

    limit_bytes = 8 << 20

    def __init__(self, database: Database, keep_days: float, keep_bytes: int) -> None:
        self._database = database
        self._keep_s = keep_days * 86_400
        self._keep_bytes = keep_bytes
        self._swept_s = -math.inf

    def deliver(self, pieces: Sequence[Piece]) -> None:
        """Keep all of these rows or none.

        Each replaces the one of its id; only, one that is open does not replace one that has ended.

        Raises:
            Unavailable: the database is busy, full or damaged.
            Rejected: a row cannot be read.
        """
        rows = offload(_read, pieces)
        try:
            self._database.write(lambda connection: _keep(connection, rows))
        except StorageError as error:
            raise Unavailable(str(error)) from None
        now_s = time.monotonic()
        if now_s - self._swept_s < _SWEEP_EVERY_S:
            return
        self._swept_s = now_s
        try:
            self.sweep()
        except StorageError as error:
            log.warning("old traces were not deleted", extra={"fields": {"why": str(error)}})

    def sweep(self) -> int:
        """Delete what is too old, then the oldest until the size is right; return how many traces went.

        Raises:
            StorageError: the database is busy or damaged; what went so far is gone.
        """
        before_s = time.time() - self._keep_s
        gone = 0
        while (deleted := self._database.write(lambda connection: _delete_older(connection, before_s))) is not None:
            gone += deleted
            time.sleep(_SWEEP_PAUSE_S)  # others' turn to write
        # Stored objects and the ledger are in the same file, and have bounds of their own.
        keep_bytes = self._keep_bytes + self._database.read(room_bytes) + self._database.read(usage.room_bytes)
        while (deleted := self._database.write(lambda connection: _delete_excess(connection, keep_bytes))) is not None:
            gone += deleted
            time.sleep(_SWEEP_PAUSE_S)
        while self._database.write(vacuum):
            time.sleep(_SWEEP_PAUSE_S)
        return gone

    def close(self) -> None:
        """Nothing is open between two operations."""


@dataclass(frozen=True)
class _Row:
    """A row as the tables have it; `trace` is None where it is no root of a gateway's."""

    span: JSON
    trace: JSON | None


def _read(pieces: Iterable[Piece]) -> list[_Row]:
    rows = []
    for piece in pieces:
        try:
            text = piece.row.decode()
            row = json.loads(text)
        except (ValueError, RecursionError):
            raise Rejected(f"the row {_clean(piece.id)} is not JSON") from None
        if not isinstance(row, dict):
            raise Rejected(f"the row {_clean(piece.id)} is no JSON object")
        rows.append(_columns(row, text, len(piece.row)))
    return rows


def _columns(row: JSON, text: str, size: int) -> _Row:
    row_id, root, own = (_text(row.get(name)) for name in ("id", "root_span_id", "span_id"))
    if not row_id or not root or not own:
        raise Rejected("a row has no id, root_span_id or span_id")
    metadata, metrics, attributes = (_dict(row.get(name)) for name in ("metadata", "metrics", "span_attributes"))
    parents = row.get("span_parents")
    started, ended = _started_s(row, metrics), _float(metrics.get("end"))
    span = {
        "id": row_id,
        "root_span_id": root,
        "span_id": own,
        "parent_span_id": _text(parents[0]) if isinstance(parents, list) and parents else None,
        "name": _text(attributes.get("name")),
        "type": _text(attributes.get("type")),
        "started": started,
        "ended": ended,
        "open": bool(metadata.get("open")) and ended is None,
        "row": text,
        "bytes": size,
    }
    is_root = span["type"] == "task" and bool(_text(metadata.get("request_id")))
    return _Row(span, _summary(span, row, metadata) if is_root else None)


def _summary(span: JSON, row: JSON, metadata: JSON) -> JSON:
    usage, error, tags = _dict(metadata.get("usage")), row.get("error"), row.get("tags")
    state = "open" if span["open"] else "interrupted" if metadata.get("interrupted") else "ended"
    return {
        **{name: span[name] for name in ("id", "root_span_id", "span_id", "started", "name")},
        "state": state,
        "duration_ms": None if span["ended"] is None else 1000 * (span["ended"] - span["started"]),
        **{
            name: _text(metadata.get(name))
            for name in ("request_id", "model", "served_model", "provider", "caller", "error_code")
        },
        "error": None if error is None else _text(error if isinstance(error, str) else json.dumps(error)),
        "status": _int(metadata.get("status")),
        "cost_usd": _float(metadata.get("cost_usd")),
        "prompt_tokens": _int(usage.get("prompt_tokens")),
        "completion_tokens": _int(usage.get("completion_tokens")),
        "cached_tokens": _int(usage.get("prompt_cached_tokens")),
        "time_to_first_token_s": _float(metadata.get("time_to_first_token_s")),
        **{name: bool(metadata.get(name)) for name in ("stream", "caller_gone")},
        "tags": json.dumps([_text(tag) for tag in tags], ensure_ascii=False) if isinstance(tags, list) else None,
    }


def _keep(connection: Connection, rows: Iterable[_Row]) -> None:
    seq: int = connection.execute(select(func.coalesce(func.max(traces.c.seq), 0))).scalar_one()
    for row in rows:
        if connection.execute(_KEEP_SPAN, row.span).rowcount == 0:
            continue  # the same again, or an open one after its end
        if row.trace is None:
            connection.execute(_FORGET_TRACE, {"gone": row.span["id"]})  # it may have been a root before
        else:
            seq += 1
            connection.execute(_KEEP_TRACE, {**row.trace, "seq": seq})


def _upsert_span() -> Any:
    statement = insert(spans)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[spans.c.id],
        set_={column.name: new[column.name] for column in spans.c if column.name != "id"},
        where=and_(new.row != spans.c.row, or_(spans.c.open, ~new.open)),
    )


def _upsert_trace() -> Any:
    statement = insert(traces)
    fields = {column.name: statement.excluded[column.name] for column in traces.c if column.name != "id"}
    return statement.on_conflict_do_update(index_elements=[traces.c.id], set_=fields)


_KEEP_SPAN = _upsert_span()
_KEEP_TRACE = _upsert_trace()
_FORGET_TRACE = delete(traces).where(traces.c.id == bindparam("gone"))
_DELETIONS = (
    delete(spans).where(
        spans.c.root_span_id == bindparam("root"),
        spans.c.parent_span_id == bindparam("above"),
        # a call may hang under another one, and goes when its own time has come
        ~select(traces.c.id).where(traces.c.id == spans.c.id).exists(),
    ),
    delete(spans).where(spans.c.id == bindparam("gone")),
    _FORGET_TRACE,
)

#: What a trace takes: its root, and the spans right under it.
_BYTES = (
    select(func.coalesce(func.sum(spans.c.bytes), 0))
    .where(
        or_(
            spans.c.id == traces.c.id,
            and_(spans.c.root_span_id == traces.c.root_span_id, spans.c.parent_span_id == traces.c.span_id),
        )
    )
    .scalar_subquery()
)


def _delete_older(connection: Connection, before_s: float) -> int | None:
    """Delete some of what began before then. None: there was nothing."""
    old = select(traces.c.id, traces.c.root_span_id, traces.c.span_id).where(traces.c.started < before_s)
    found = connection.execute(old.order_by(traces.c.started).limit(_SWEEP_TRACES)).all()
    if found:
        _delete(connection, found)
        return len(found)
    strays = select(spans.c.id).where(spans.c.started < before_s).where(_is_stray()).limit(_SWEEP_TRACES)
    return 0 if connection.execute(delete(spans).where(spans.c.id.in_(strays))).rowcount else None


def _delete_excess(connection: Connection, keep_bytes: int) -> int | None:
    excess_bytes = _used_bytes(connection) - keep_bytes
    return _delete_oldest(connection, excess_bytes) if excess_bytes > 0 else None


def _delete_oldest(connection: Connection, excess_bytes: int) -> int | None:
    """Delete of the oldest as many as it takes, though not too many at once. None: there was nothing."""
    oldest = select(traces.c.id, traces.c.root_span_id, traces.c.span_id, traces.c.started, _BYTES.label("size"))
    found = []
    for trace in connection.execute(oldest.order_by(traces.c.started, traces.c.id).limit(_SWEEP_TRACES)):
        found.append(trace)
        excess_bytes -= trace.size
        if excess_bytes <= 0:
            break
    _delete(connection, found)
    strays = select(spans.c.id).where(_is_stray()).order_by(spans.c.started).limit(_SWEEP_TRACES)
    if found:
        strays = strays.where(spans.c.started <= found[-1].started)
    gone = connection.execute(delete(spans).where(spans.c.id.in_(strays))).rowcount
    return len(found) if found or gone else None


def _delete(connection: Connection, found: Sequence[Any]) -> None:
    if not found:
        return
    gone = [{"gone": trace.id, "root": trace.root_span_id, "above": trace.span_id} for trace in found]
    for statement in _DELETIONS:
        connection.execute(statement, gone)


def _is_stray() -> Any:
    """Whether a span is neither a root nor under one that is here."""
    above = and_(traces.c.root_span_id == spans.c.root_span_id, traces.c.span_id == spans.c.parent_span_id)
    return ~select(traces.c.id).where(or_(traces.c.id == spans.c.id, above)).exists()


def _used_bytes(connection: Connection) -> int:
    pages, free, size = (
        connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _started_s(row: JSON, metrics: JSON) -> float:
    started = _float(metrics.get("start"))
    if started is not None and 0 <= started < _YEAR_10000_S:  # what cannot be shown would break every list
        return started
    try:
        moment = datetime.fromisoformat(row.get("created", ""))
    except (TypeError, ValueError):
        raise Rejected("a row does not say when it began") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _dict(value: Any) -> JSON:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return None if value is None else _clean(str(value))


def _clean(text: str) -> str:
    """Without what a text column cannot hold: half a surrogate pair, and NUL, at which SQLite's functions stop."""
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _int(value: Any) -> int | None:
    return value if type(value) is int and abs(value) <= _LARGEST_INT else None


def _float(value: Any) -> float | None:
    if type(value) not in (int, float) or abs(value) > 1e300:
        return None
    return float(value) if math.isfinite(value) else None
