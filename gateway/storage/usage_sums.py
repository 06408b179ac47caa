"""Rows of the ledger, added up by who, what and when: of whole days and hours where these were added up before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, literal_column, select, true

from gateway.core.ledger import TOKENS
from gateway.storage.tables import usage as table
from gateway.storage.usage_rollups import DAY_S, DAYS, HOUR_S, HOURS, SUBJECTS, TOTAL, Rollup, Times, of_hour, said
from gateway.storage.usage_wanted import AGGREGATES, COLUMNS, Wanted, conditions, tags_of

TIMES = ("hour", "day", "month")
_COUNTS = ("requests", "failed", "lost", "cost_nano", "unpriced")
#: What rows can be grouped by.
GROUPS = (*SUBJECTS, *TIMES)


@dataclass(frozen=True)
class Sums:
    """Rows, added up.

    Attributes:
        by: the value of each thing that they are grouped by; None where the rows have none.
        requests: how many rows; `failed` ended with an error though their caller stayed, `lost` ended unseen.
        tokens: by the names of `core.ledger.TOKENS`.
        cost_nano: nano-dollars of those whose cost is known.
        unpriced: how many ended, and used something that has no price.
    """

    by: Mapping[str, str | None]
    requests: int = 0
    failed: int = 0
    lost: int = 0
    tokens: Mapping[str, int] = field(default_factory=dict)
    cost_nano: int = 0
    unpriced: int = 0


@dataclass(frozen=True)
class Report:
    """What was asked for: groups, the sum of all rows that are meant, and whether there are more groups."""

    groups: Sequence[Sums]
    total: Sums
    more: bool


def report(connection: Connection, wanted: Wanted, by: Sequence[str], limit: int) -> Report:
    """Add rows up; see `UsageRows.report`."""
    dialect = connection.dialect.name
    if (found := _from_sums(connection, wanted, by)) is not None:
        all_of_it = _from_sums(connection, wanted, ()) if "tag" in by else found
        groups = _ordered(found, by) if by else []
        return Report(groups[:limit], _added(all_of_it or ()), len(groups) > limit)
    which = conditions(wanted, dialect)
    rows = connection.execute(_grouped(by, which, dialect).limit(limit + 1)).all() if by else []
    groups, more = [_sums(row, by) for row in rows[:limit]], len(rows) > limit
    if not by or more or "tag" in by:
        return Report(groups, _sums(connection.execute(select(*AGGREGATES).where(*which)).one(), ()), more)
    return Report(groups, _added(groups), more)


def reports(connection: Connection, wanted: Wanted, names: Sequence[str], limit: int) -> dict[str, Report]:
    """Add rows up by one thing after the other, looking at each once; see `UsageRows.reports`."""
    each: dict[str, list[Sums]] = {name: [] for name in names}
    spans, left = _split(connection, wanted, names[0], (DAYS, HOURS))
    for rollup, span in spans:
        for row in rollup.sums(connection, names, span):
            each[row.kind].append(_numbers(row, {row.kind: said(row)}))
    dialect = connection.dialect.name
    for since_s, until_s in left:
        which = conditions(replace(wanted, since_s=since_s, until_s=until_s), dialect)
        for row in connection.execute(_grouped(names, which, dialect)):
            one = _sums(row, names)
            counts = (one.requests, one.failed, one.lost)
            for name in names:
                each[name].append(Sums({name: one.by[name]}, *counts, one.tokens, one.cost_nano, one.unpriced))
    found = {}
    for name, some in each.items():
        groups = _ordered(_merged(some), [name])
        found[name] = Report(groups[:limit], _added(groups), len(groups) > limit)
    return found


def _grouped(by: Sequence[str], which: Sequence[ColumnElement[bool]], dialect: str) -> Any:
    tags = tags_of(dialect) if "tag" in by else None
    keys = [_key(name, tags, dialect).label(f"by_{name}") for name in by]
    source = table if tags is None else table.outerjoin(tags, true())
    query = select(*keys, *AGGREGATES).select_from(source).where(*which)
    groups: list[ColumnElement[Any]] = [literal_column(f"by_{name}") for name in by]
    names: list[ColumnElement[Any]] = [group.nulls_first() for group in groups]  # as `_ordered` has them
    dearest: list[ColumnElement[Any]] = [literal_column("cost_nano").desc(), literal_column("requests").desc()]
    order = [*names[:1], *dearest, *names[1:]] if by[0] in TIMES else [*dearest, *names]
    return query.group_by(*groups).order_by(*order)


def _key(name: str, tags: Any, dialect: str) -> ColumnElement[Any]:
    if name == "tag":
        value: ColumnElement[Any] = tags.c.value
        return value
    if name in ("user", "project"):
        return func.coalesce(table.c[f"{name}_id"], table.c[name])
    if name not in TIMES:
        return COLUMNS[name]
    if dialect == "postgresql":
        if name == "month":
            return func.to_char(func.timezone("UTC", func.to_timestamp(table.c.started)), "YYYY-MM")
        return func.floor(table.c.started / (HOUR_S if name == "hour" else DAY_S))
    if name == "month":
        return func.strftime("%Y-%m", table.c.started, "unixepoch")
    return literal_column(f"CAST(usage.started / {HOUR_S if name == 'hour' else DAY_S} AS INTEGER)")


def _sums(row: Any, by: Sequence[str]) -> Sums:
    return _numbers(row, {name: _said(name, row._mapping[f"by_{name}"]) for name in by})


def _numbers(row: Any, by: Mapping[str, str | None]) -> Sums:
    found = row._mapping
    return Sums(
        by=by,
        **{name: int(found[name]) for name in _COUNTS},
        tokens={name: int(found[name]) for name in TOKENS},
    )


def _said(name: str, value: Any) -> str | None:
    if name == "hour":
        return datetime.fromtimestamp(int(value) * HOUR_S, UTC).strftime("%Y-%m-%dT%H:00Z")
    if name == "day":
        return datetime.fromtimestamp(int(value) * DAY_S, UTC).strftime("%Y-%m-%d")
    return None if value is None else str(value)


def _added(groups: Sequence[Sums], *, by_first: bool = False) -> Sums:
    return Sums(
        by=groups[0].by if by_first else {},
        **{name: sum([getattr(one, name) for one in groups]) for name in _COUNTS},
        tokens={name: sum([one.tokens[name] for one in groups]) for name in TOKENS},
    )


def adding(kind: str, dialect: str) -> Any:
    """Make the query that adds up an hour by a kind; see `usage_rollups.Query`."""
    return _grouped([kind], of_hour, dialect).order_by(None) if kind else select(*AGGREGATES).where(*of_hour)


def _from_sums(connection: Connection, wanted: Wanted, by: Sequence[str]) -> list[Sums] | None:
    """All groups of a report, in no order, of sums as far as there are any; None where these are of no use."""
    kinds = [name for name in by if name not in TIMES]
    if len(kinds) > 1:
        return None
    kind, dialect, found = kinds[0] if kinds else TOTAL, connection.dialect.name, list[Sums]()
    spans, left = _split(connection, wanted, kind, (HOURS,) if "hour" in by else (DAYS, HOURS))
    if not spans:
        return None
    for rollup, span in spans:
        unit = [rollup.unit.label("unit")] if len(kinds) < len(by) else []
        for row in rollup.sums(connection, (kind,), span, unit):
            if unit and not row.requests:
                continue  # an hour without calls is no group
            values = _times(row.unit * rollup.length_s) if unit else {}
            values |= dict.fromkeys(kinds, said(row))
            found.append(_numbers(row, {name: values[name] for name in by}))
    for since_s, until_s in left:
        which = conditions(Wanted(since_s, until_s), dialect)
        query = _grouped(by, which, dialect) if by else select(*AGGREGATES).where(*which)
        found += [_sums(row, by) for row in connection.execute(query)]
    return _merged(found)


def _times(at_s: float) -> dict[str, str | None]:
    hour, day = _said("hour", at_s // HOUR_S), _said("day", at_s // DAY_S)
    return {"hour": hour, "day": day, "month": day[:7] if day else None}


def _split(
    connection: Connection, wanted: Wanted, kind: str, rollups: Sequence[Rollup]
) -> tuple[list[tuple[Rollup, tuple[int, int]]], list[Times]]:
    """Say which sums of a kind stand for the rows that are wanted, and at which times the rows themselves are."""
    left: list[Times] = [(wanted.since_s, wanted.until_s)]
    found: list[tuple[Rollup, tuple[int, int]]] = []
    for rollup in rollups if wanted.is_all else ():
        spans, left = rollup.split(connection, kind, left)
        found += [(rollup, span) for span in spans]
    return found, left


def _merged(found: Sequence[Sums]) -> list[Sums]:
    """Add those up that are by the same values."""
    groups: dict[tuple[str | None, ...], list[Sums]] = {}
    for one in found:
        groups.setdefault(tuple(one.by.values()), []).append(one)
    return [some[0] if len(some) == 1 else _added(some, by_first=True) for some in groups.values()]


def _ordered(groups: Sequence[Sums], by: Sequence[str]) -> list[Sums]:
    """In the order of `_grouped`."""

    def place(one: Sums) -> tuple[Any, ...]:
        names = [(value is not None, value or "") for value in one.by.values()]
        dear = (-one.cost_nano, -one.requests)
        return (names[0], *dear, *names[1:]) if by[0] in TIMES else (*dear, *names)

    return sorted(groups, key=place)
