"""Reads the traces that are kept here."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, or_, select, tuple_
from sqlalchemy.sql.elements import ColumnElement

from gateway.storage.database import Database
from gateway.storage.tables import spans, traces

JSON = dict[str, Any]

_PAGE = 100
#: Traces that a search for text goes through in one transaction: some megabytes.
_STRETCH = 200
#: Ids in one statement; SQLite takes some thousands.
_ASKED_AT_ONCE = 500
SHORTEST_PREFIX = 6


class NoSuchTrace(Exception):
    """Nothing here has that id."""


class Ambiguous(Exception):
    """Several traces have that id, or begin with it; `traces` has some of them, newest first."""

    def __init__(self, asked: str, found: Sequence[Trace]) -> None:
        super().__init__(f"{asked} could be any of {', '.join(trace.request_id for trace in found)}")
        self.traces = found


@dataclass(frozen=True)
class Trace:
    """One request, in short. `id` is its root row's; `state` is open, ended or interrupted."""

    id: str
    seq: int
    request_id: str
    root_span_id: str
    span_id: str
    state: str
    started: float
    duration_ms: float | None
    name: str | None
    model: str | None
    served_model: str | None
    provider: str | None
    caller: str | None
    status: int | None
    error: str | None
    error_code: str | None
    cost_usd: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    time_to_first_token_s: float | None
    stream: bool
    caller_gone: bool
    tags: tuple[str, ...]

    @property
    def cursor(self) -> tuple[float, str]:
        """Its place in a list: `before` of the page that follows it."""
        return self.started, self.id


@dataclass(frozen=True)
class Filters:
    """Which traces; what is None does not matter.

    Attributes:
        since_s: began then or later, in seconds since the epoch.
        until_s: began before then.
        model: asked for or served; `*` stands for any characters.
        caller: the caller's id.
        status: `404`, `4xx`, `error` (any failure), `open` or `interrupted`.
        min_cost_usd: cost that much or more.
        text: stands in input, output or error, in any case.
        tag: one of its tags.
        callers: one of these, by their ids.
    """

    since_s: float | None = None
    until_s: float | None = None
    model: str | None = None
    caller: str | None = None
    status: str | None = None
    min_cost_usd: float | None = None
    text: str | None = None
    tag: str | None = None
    callers: tuple[str, ...] | None = None


class Search:
    """The queries. All may raise `StorageError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(
        self, filters: Filters | None = None, *, limit: int, before: tuple[float, str] | None = None
    ) -> Sequence[Trace]:
        """Return the newest traces first.

        Args:
            filters: which of them.
            limit: how many at most.
            before: the `cursor` of the last one of the page before.
        """
        filters = filters or Filters()
        asked = _newest(_filtered(filters), before)
        return self._database.read(lambda connection: _page(connection, asked, filters.text, limit))

    def list_within(
        self, filters: Filters, *, limit: int, before: tuple[float, str] | None = None, within_s: float
    ) -> tuple[Sequence[Trace], tuple[float, str] | None]:
        """Return the newest traces first, as `list` does; a search for text goes on for so long and then stops.

        Args:
            filters: which of them.
            limit: how many at most.
            before: as `list` has it, or what this gave before.
            within_s: seconds; one stretch of traces is searched in any case, so that a next search gets on.

        Returns:
            Those that were found, and the place that the search has come to; None where it is at its end, or has found
            as many as it may.
        """
        if filters.text is None:
            return self.list(filters, limit=limit, before=before), None
        until_s, found = time.monotonic() + within_s, list[Trace]()
        while True:
            some, before = self._database.read(partial(_stretch, filters, before, limit - len(found)))
            found += some
            if before is None or len(found) >= limit:
                return found, None
            if time.monotonic() >= until_s:
                return found, before

    def get(self, asked: str) -> Trace:
        """Return the trace of that request id, root row id or trace id, or of an id that begins so.

        Raises:
            NoSuchTrace: there is none, or the beginning is shorter than `SHORTEST_PREFIX`.
            Ambiguous: there are several.
        """
        ids = (traces.c.request_id, traces.c.id, traces.c.root_span_id)
        ways = [or_(*(column == asked for column in ids))]
        if len(asked) >= SHORTEST_PREFIX:
            ways.append(or_(*(column.startswith(asked, autoescape=True) for column in ids)))
        newest = select(traces).order_by(traces.c.started.desc(), traces.c.id.desc()).limit(10)

        def work(connection: Connection) -> Sequence[Trace]:
            for way in ways:
                if found := connection.execute(newest.where(way)).all():
                    return [_trace(row) for row in found]
            return ()

        found = self._database.read(work)
        if not found:
            raise NoSuchTrace(asked)
        if len(found) > 1:
            raise Ambiguous(asked, found)
        return found[0]

    def rows(self, trace: Trace) -> Sequence[JSON]:
        """Return the rows of a trace as they were delivered, children first and the root last."""
        under = and_(spans.c.root_span_id == trace.root_span_id, spans.c.parent_span_id == trace.span_id)
        asked = (
            select(spans.c.row)
            .where(or_(under, spans.c.id == trace.id))
            .order_by(spans.c.id == trace.id, spans.c.started, spans.c.id)
        )
        return self._database.read(lambda connection: [json.loads(text) for text in connection.scalars(asked)])

    def export(self, filters: Filters | None = None) -> Iterator[JSON]:
        """Give the rows of every trace, newest trace first; few are in memory at once."""
        before = None
        while page := self.list(filters, limit=_PAGE, before=before):
            for trace in page:
                yield from self.rows(trace)
            before = page[-1].cursor

    def since(self, seq: int, *, limit: int = 500) -> Sequence[Trace]:
        """Return what has come or changed after `seq`, in that order; the last one's `seq` is the next place."""
        asked = select(traces).where(traces.c.seq > seq).order_by(traces.c.seq).limit(limit)
        return self._database.read(lambda connection: [_trace(row) for row in connection.execute(asked)])

    def latest(self) -> int:
        """Return the `seq` of what changed last; 0 where there is nothing."""
        asked = select(func.coalesce(func.max(traces.c.seq), 0))
        return self._database.read(lambda connection: int(connection.execute(asked).scalar_one()))

    def kept_of(self, requests: Iterable[str]) -> set[str]:
        """Return those of these requests that have a trace here."""
        wanted = sorted(requests)
        pages = [wanted[at : at + _ASKED_AT_ONCE] for at in range(0, len(wanted), _ASKED_AT_ONCE)]

        def work(connection: Connection) -> set[str]:
            column = traces.c.request_id
            return {id for page in pages for id in connection.scalars(select(column).where(column.in_(page)))}

        return self._database.read(work)

    def count(self) -> int:
        """Return how many traces are here."""
        asked = select(func.count()).select_from(traces)
        return self._database.read(lambda connection: int(connection.execute(asked).scalar_one()))


def _newest(asked: Select[Any], before: tuple[float, str] | None) -> Select[Any]:
    """In the order of lists, behind a place."""
    if before is not None:
        asked = asked.where(tuple_(traces.c.started, traces.c.id) < tuple_(*before))
    return asked.order_by(traces.c.started.desc(), traces.c.id.desc())


def _stretch(
    filters: Filters, before: tuple[float, str] | None, limit: int, connection: Connection
) -> tuple[Sequence[Trace], tuple[float, str] | None]:
    """Search one stretch of traces for a text; returns what was found, and where the next one begins."""
    others = _filtered(replace(filters, text=None)).with_only_columns(traces.c.started, traces.c.id)
    last = connection.execute(_newest(others, before).limit(1).offset(_STRETCH - 1)).first()
    asked = _newest(_filtered(filters), before)
    if last is None:
        return _page(connection, asked, filters.text, limit), None
    asked = asked.where(tuple_(traces.c.started, traces.c.id) >= tuple_(*last))
    return _page(connection, asked, filters.text, limit), (last.started, last.id)


def _filtered(filters: Filters) -> Select[Any]:
    wanted: list[ColumnElement[bool]] = []
    if filters.since_s is not None:
        wanted.append(traces.c.started >= filters.since_s)
    if filters.until_s is not None:
        wanted.append(traces.c.started < filters.until_s)
    if filters.model is not None:
        pattern = _like(filters.model).replace("*", "%")
        wanted.append(or_(*(name.like(pattern, escape="\\") for name in (traces.c.model, traces.c.served_model))))
    if filters.caller is not None:
        wanted.append(traces.c.caller == filters.caller)
    if filters.callers is not None:
        wanted.append(traces.c.caller.in_(filters.callers))
    if filters.status is not None:
        wanted.append(_status(filters.status))
    if filters.min_cost_usd is not None:
        wanted.append(traces.c.cost_usd >= filters.min_cost_usd)
    if filters.tag is not None:
        quoted = json.dumps(filters.tag, ensure_ascii=False)
        wanted.append(traces.c.tags.like(f"%{_like(quoted)}%", escape="\\"))
    if filters.text is None:
        return select(traces).where(*wanted)
    # A sieve only, which `_says` goes over: beyond ASCII, JSON spells in two ways and LIKE knows no case.
    spelt = _like(json.dumps(filters.text, ensure_ascii=False)[1:-1])
    sieve = "".join(sign if sign.isascii() else "%" for sign in spelt)
    wanted.append(spans.c.row.like(f"%{sieve}%", escape="\\"))
    return select(traces, spans.c.row).join(spans, spans.c.id == traces.c.id).where(*wanted)


def _status(asked: str) -> ColumnElement[bool]:
    """Compare with a status.

    Raises:
        ValueError: it is none.
    """
    if asked in ("open", "interrupted"):
        return traces.c.state == asked
    if asked == "error":
        return or_(traces.c.error.is_not(None), traces.c.status >= 400)
    if len(asked) == 3 and asked[0].isascii() and asked[0].isdigit() and asked[1:] == "xx":
        return traces.c.status.between(int(asked[0]) * 100, int(asked[0]) * 100 + 99)
    if not (asked.isascii() and asked.isdigit() and len(asked) == 3):
        raise ValueError(f"{asked} is no status; one is 404, 4xx, error, open or interrupted")
    return traces.c.status == int(asked)


def _page(connection: Connection, asked: Select[Any], text: str | None, limit: int) -> Sequence[Trace]:
    if text is None:
        return [_trace(row) for row in connection.execute(asked.limit(limit))]
    found: list[Trace] = []
    with connection.execution_options(yield_per=16).execute(asked) as result:
        for row in result:
            if len(found) == limit:
                break
            if _says(row.row, text.casefold()):
                found.append(_trace(row))
    return found


def _says(row: str, text: str) -> bool:
    read = json.loads(row)
    return any(text in said.casefold() for name in ("input", "output", "error") for said in _strings(read.get(name)))


def _strings(value: Any) -> Iterator[str]:
    left = [value]  # no recursion: a caller chooses how deep its messages go
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            left.extend(value.values() if isinstance(value, dict) else value)


def _like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _trace(row: Row[Any]) -> Trace:
    fields = {name: value for name, value in row._mapping.items() if name != "row"}
    return Trace(**{**fields, "tags": tuple(json.loads(row.tags)) if row.tags else ()})
