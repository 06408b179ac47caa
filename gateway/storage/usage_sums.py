"""Rows of the ledger, added up by who, what and when: of whole days where these were added up before."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, func, literal_column, or_, select, true

from gateway.core.ledger import ENDED, LOST, TOKENS
from gateway.storage import usage_days
from gateway.storage.tables import usage as table

_HOUR_S, _DAY_S = 3_600, 86_400

#: What rows can be grouped by, and those of it that are columns.
_COLUMNS = {
    "key": table.c.key_id,
    "caller": table.c.caller,
    "model": table.c.model,
    "provider": table.c.provider,
    "deployment": table.c.deployment,
    "operation": table.c.operation,
}
TIMES = ("hour", "day", "month")
_SUBJECTS = ("key", "user", "project", "caller", "model", "provider", "deployment", "operation", "tag")
GROUPS = (*_SUBJECTS, *TIMES)
#: What whole days are added up by.
KINDS = (usage_days.TOTAL, *_SUBJECTS)
#: Further kinds, which `usage_times` adds up and reads: the hours of a day; codes of errors with their providers.
HOURS, ERRORS = "hour", "error"


@dataclass(frozen=True)
class Wanted:
    """Which rows are meant: those that have all of what is set.

    Attributes:
        since_s: that began then or later, in seconds since the epoch, and `until_s` before then.
        callers: made by one of these, by their ids.
        key: the id of a virtual key.
        user: the id or the name of a user, and `project` likewise of a project.
        model: as callers name it; `deployment` is the `provider/model` that answered.
        tag: one of the call's tags.
        operation: as `core/endpoints.py` names it.
        named: the model that was asked for or served, or the deployment; `*` stands for any characters.
        status: `404`, `4xx`, `error` (any failure but a caller who left) or `lost`.
        error_code: of the error that it ended with.
        min_cost_nano: cost that much or more, nano-dollars.
        min_took_s: took that long or longer.
    """

    since_s: float | None = None
    until_s: float | None = None
    key: str | None = None
    user: str | None = None
    project: str | None = None
    caller: str | None = None
    model: str | None = None
    provider: str | None = None
    deployment: str | None = None
    tag: str | None = None
    operation: str | None = None
    named: str | None = None
    status: str | None = None
    error_code: str | None = None
    min_cost_nano: int | None = None
    min_took_s: float | None = None
    callers: tuple[str, ...] | None = None


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
    if (found := _from_days(connection, wanted, by)) is not None:
        all_of_it = found if "tag" not in by else _from_days(connection, wanted, ()) or []
        groups = _ordered(found, by) if by else []
        return Report(groups[:limit], _added(all_of_it), len(groups) > limit)
    which = conditions(wanted, dialect)
    rows = connection.execute(_grouped(by, which, dialect).limit(limit + 1)).all() if by else []
    groups, more = [_sums(row, by) for row in rows[:limit]], len(rows) > limit
    if not by or more or "tag" in by:
        return Report(groups, _sums(connection.execute(select(*AGGREGATES).where(*which)).one(), ()), more)
    return Report(groups, _added(groups), more)


def whose(key: str | None, user: str | None, project: str | None, caller: str | None) -> list[ColumnElement[bool]]:
    """Say whose rows are meant; a user or project by id or name."""
    found: list[ColumnElement[bool]] = []
    if key is not None:
        # by the caller's id too, since there is an index of those
        found += [table.c.key_id == key, table.c.caller == f"key_{key}"]
    if user is not None:
        found.append(or_(table.c.user_id == user, table.c.user == user))
    if project is not None:
        found.append(or_(table.c.project_id == project, table.c.project == project))
    if caller is not None:
        found.append(table.c.caller == caller)
    return found


def conditions(wanted: Wanted, dialect: str) -> list[ColumnElement[bool]]:
    """Say which rows are meant, in the words of a dialect."""
    found = whose(wanted.key, wanted.user, wanted.project, wanted.caller)
    if wanted.callers is not None:
        found.append(table.c.caller.in_(wanted.callers))
    if wanted.since_s is not None:
        found.append(table.c.started >= wanted.since_s)
    if wanted.until_s is not None:
        found.append(table.c.started < wanted.until_s)
    for name in ("model", "provider", "deployment", "operation"):
        if (value := getattr(wanted, name)) is not None:
            found.append(_COLUMNS[name] == value)
    if wanted.tag is not None:
        each = _tags(dialect)
        found.append(select(true()).select_from(each).where(each.c.value == wanted.tag).exists())
    if wanted.named is not None:
        found.append(or_(*(_like(column, wanted.named) for column in _NAMES)))
    if wanted.status is not None:
        found.append(_status(wanted.status))
    if wanted.error_code is not None:
        found.append(table.c.error_code == wanted.error_code)
    if wanted.min_cost_nano is not None:
        found.append(table.c.cost_nano >= wanted.min_cost_nano)
    if wanted.min_took_s is not None:
        found.append(table.c.ended - table.c.started >= wanted.min_took_s)
    return found


_NAMES = (table.c.model, table.c.served_model, table.c.deployment)


def _like(column: ColumnElement[Any], pattern: str) -> ColumnElement[bool]:
    if "*" not in pattern:
        return column == pattern
    spelt = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_").replace("*", "%")
    return column.like(spelt, escape="\\")


def _status(asked: str) -> ColumnElement[bool]:
    """Compare with a status.

    Raises:
        ValueError: it is none.
    """
    if asked == "lost":
        return table.c.state == LOST
    if asked == "error":
        return FAILED
    if len(asked) == 3 and asked.isascii() and asked[0].isdigit() and asked[1:] == "xx":
        return table.c.status.between(int(asked[0]) * 100, int(asked[0]) * 100 + 99)
    if not (len(asked) == 3 and asked.isascii() and asked.isdigit()):
        raise ValueError(f"{asked} is no status; one is 404, 4xx, error or lost")
    return table.c.status == int(asked)


def _tags(dialect: str) -> Any:
    """The tags of a row, as a table with one column `value`."""
    if dialect == "postgresql":
        return func.jsonb_array_elements_text(literal_column("usage.tags::jsonb")).table_valued("value", name="tag")
    return func.json_each(table.c.tags).table_valued("value", name="tag")


FAILED = and_(table.c.error_code.is_not(None), table.c.caller_gone.is_not(true()))
AGGREGATES = (
    func.count().label("requests"),
    func.coalesce(func.sum(case((FAILED, 1), else_=0)), 0).label("failed"),
    func.coalesce(func.sum(case((table.c.state == LOST, 1), else_=0)), 0).label("lost"),
    *(func.coalesce(func.sum(table.c[name]), 0).label(name) for name in TOKENS),
    func.coalesce(func.sum(table.c.cost_nano), 0).label("cost_nano"),
    func.coalesce(func.sum(case((and_(table.c.cost_nano.is_(None), table.c.state == ENDED), 1), else_=0)), 0).label(
        "unpriced"
    ),
)


def _grouped(by: Sequence[str], which: Sequence[ColumnElement[bool]], dialect: str) -> Any:
    tags = _tags(dialect) if "tag" in by else None
    keys = [_key(name, tags, dialect).label(f"by_{name}") for name in by]
    source = table if tags is None else table.outerjoin(tags, true())
    query = select(*keys, *AGGREGATES).select_from(source).where(*which)
    names: list[ColumnElement[Any]] = [literal_column(f"by_{name}") for name in by]
    dearest: list[ColumnElement[Any]] = [literal_column("cost_nano").desc(), literal_column("requests").desc()]
    order = [*names[:1], *dearest, *names[1:]] if by[0] in TIMES else [*dearest, *names]
    return query.group_by(*names).order_by(*order)


def _key(name: str, tags: Any, dialect: str) -> ColumnElement[Any]:
    if name == "tag":
        value: ColumnElement[Any] = tags.c.value
        return value
    if name in ("user", "project"):
        return func.coalesce(table.c[f"{name}_id"], table.c[name])
    if name not in TIMES:
        return _COLUMNS[name]
    if dialect == "postgresql":
        if name == "month":
            return func.to_char(func.timezone("UTC", func.to_timestamp(table.c.started)), "YYYY-MM")
        return func.floor(table.c.started / (_HOUR_S if name == "hour" else _DAY_S))
    if name == "month":
        return func.strftime("%Y-%m", table.c.started, "unixepoch")
    return literal_column(f"CAST(usage.started / {_HOUR_S if name == 'hour' else _DAY_S} AS INTEGER)")


def _sums(row: Any, by: Sequence[str]) -> Sums:
    found = row._mapping
    return Sums(
        by={name: _said(name, found[f"by_{name}"]) for name in by},
        **{name: int(found[name]) for name in ("requests", "failed", "lost", "cost_nano", "unpriced")},
        tokens={name: int(found[name]) for name in TOKENS},
    )


def _said(name: str, value: Any) -> str | None:
    if name == "hour":
        return datetime.fromtimestamp(int(value) * _HOUR_S, UTC).strftime("%Y-%m-%dT%H:00Z")
    if name == "day":
        return datetime.fromtimestamp(int(value) * _DAY_S, UTC).strftime("%Y-%m-%d")
    return None if value is None else str(value)


def _added(groups: Sequence[Sums]) -> Sums:
    return Sums(
        by={},
        **{
            name: sum(getattr(one, name) for one in groups)
            for name in ("requests", "failed", "lost", "cost_nano", "unpriced")
        },
        tokens={name: sum(one.tokens[name] for one in groups) for name in TOKENS},
    )


def of_day(kind: str, bounds_s: tuple[float, float], dialect: str) -> Any:
    """Make the query that adds up a day; the first column is the value of the kind, where it is one."""
    which = [table.c.started >= bounds_s[0], table.c.started < bounds_s[1]]
    return _grouped([kind], which, dialect) if kind else select(*AGGREGATES).where(*which)


def _from_days(connection: Connection, wanted: Wanted, by: Sequence[str]) -> list[Sums] | None:
    """All groups of a report, of whole days as far as they are added up, in no order; None where that is of no use."""
    kinds = [name for name in by if name not in TIMES]
    if len(kinds) > 1 or "hour" in by or replace(wanted, since_s=None, until_s=None) != Wanted():
        return None
    first = math.ceil((wanted.since_s or 0.0) / _DAY_S)
    last = _LAST_DAY if wanted.until_s is None else int(wanted.until_s // _DAY_S)
    days = usage_days.known_days(connection, first, last)
    if not days:
        return None
    kind, dialect, found = kinds[0] if kinds else usage_days.TOTAL, connection.dialect.name, list[Sums]()
    for day, value, row in usage_days.sums(connection, kind, first, last, by_day=len(kinds) < len(by)):
        date = _said("day", day) or ""
        values = {"day": date, "month": date[:7], **dict.fromkeys(kinds, value)}
        found.append(replace(_sums(row, ()), by={name: values[name] for name in by}))
    for since_s, until_s in gaps(days, wanted):
        which = conditions(Wanted(since_s, until_s), dialect)
        query = _grouped(by, which, dialect) if by else select(*AGGREGATES).where(*which)
        found += [_sums(row, by) for row in connection.execute(query)]
    groups: dict[tuple[str | None, ...], list[Sums]] = {}
    for one in found:
        groups.setdefault(tuple(one.by.values()), []).append(one)
    return [replace(_added(some), by=some[0].by) for some in groups.values()]


#: Of the year 9999.
_LAST_DAY = 2_932_896


def gaps(days: Sequence[int], wanted: Wanted) -> Iterator[tuple[float | None, float | None]]:
    """The spans of time that are wanted and in none of these days, which are in order."""
    at_s = wanted.since_s
    for day in days:
        if at_s is None or at_s < day * _DAY_S:
            yield at_s, float(day * _DAY_S)
        at_s = float((day + 1) * _DAY_S)
    if wanted.until_s is None or at_s is None or at_s < wanted.until_s:
        yield at_s, wanted.until_s


def _ordered(groups: Sequence[Sums], by: Sequence[str]) -> list[Sums]:
    """In the order of `_grouped`."""

    def place(one: Sums) -> tuple[Any, ...]:
        names = [(value is not None, value or "") for value in one.by.values()]
        dear = (-one.cost_nano, -one.requests)
        return (names[0], *dear, *names[1:]) if by[0] in TIMES else (*dear, *names)

    return sorted(groups, key=place)
