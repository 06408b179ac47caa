"""What each call used and cost, and what may be asked of it: sums by who, what and when, single rows, money spent."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    cast,
    delete,
    func,
    literal_column,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB

from gateway.core.ledger import ENDED, LOST, TOKENS
from gateway.core.paging import Page
from gateway.core.rights import matches
from gateway.core.rules import USD, Match
from gateway.storage.database import Database, vacuum
from gateway.storage.tables import usage as table

JSON = dict[str, Any]

_SWEEP_ROWS = 1000
_SWEEP_PAUSE_S = 0.02  # others' turn to write
#: Measured: a row with its entries in the indexes.
ROW_BYTES = 620

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
GROUPS = ("key", "user", "project", "caller", "model", "provider", "deployment", "operation", "tag", *TIMES)


@dataclass(frozen=True)
class Wanted:
    """Which rows are meant: those that have all of what is set.

    Attributes:
        since_s: that began then or later, in seconds since the epoch, and `until_s` before then.
        key: the id of a virtual key.
        user: the id or the name of a user, and `project` likewise of a project.
        model: as callers name it; `deployment` is the `provider/model` that answered.
        tag: one of the call's tags.
        operation: as `core/endpoints.py` names it.
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


class UsageRows:
    """The table `usage`.

    Args:
        database: with the tables of this release.
        keep_days: rows that began longer ago are deleted; 0 keeps them for ever.
    """

    def __init__(self, database: Database, keep_days: float = 0.0) -> None:
        self._database = database
        self._keep_s = keep_days * _DAY_S

    def release(self) -> None:
        """Close what is open."""
        self._database.release()

    def keep(self, rows: Sequence[JSON]) -> None:
        """Keep all of these rows or none, each in place of the one of its id.

        Args:
            rows: by column; one that is lost does not take the place of one that has ended.

        Raises:
            StorageError: the database is busy, full or damaged.
        """
        if not rows:
            return
        whole = [row if row.keys() >= _NOTHING.keys() else {**_NOTHING, **row} for row in rows]

        def work(connection: Connection) -> None:
            connection.execute(_upsert(connection.dialect.name), whole)

        # Each row is one statement that reads nothing else, so hosts that write at once need not wait for each other.
        self._database.write(work, alone_on=())

    def sweep(self, now_s: float) -> int:
        """Delete what is too old, some at a time.

        Args:
            now_s: seconds since the epoch.

        Returns:
            How many rows went.

        Raises:
            StorageError: the database is busy or damaged; what went so far is gone.
        """
        if not self._keep_s:
            return 0
        old = select(table.c.request_id).where(table.c.started < now_s - self._keep_s)
        some = delete(table).where(table.c.request_id.in_(old.order_by(table.c.started).limit(_SWEEP_ROWS)))
        gone = 0
        while deleted := self._database.write(lambda connection: connection.execute(some).rowcount):
            gone += deleted
            time.sleep(_SWEEP_PAUSE_S)
        while gone and self._database.write(vacuum):
            time.sleep(_SWEEP_PAUSE_S)
        return gone

    def report(self, wanted: Wanted, by: Sequence[str] = (), *, limit: int = 1000) -> Report:
        """Add rows up.

        A call counts once for each of its tags, and in the total once.

        Args:
            wanted: which rows.
            by: what they are grouped by, of `GROUPS`, each once; times are UTC.
            limit: how many groups at most.

        Returns:
            Groups by time, oldest first, where a time is the first of `by`; else the dearest first.

        Raises:
            StorageError: the database is busy or cannot be read.
        """

        def work(connection: Connection) -> Report:
            dialect = connection.dialect.name
            conditions = _conditions(wanted, dialect)
            groups, more = [], False
            if by:
                rows = connection.execute(_grouped(by, conditions, dialect).limit(limit + 1)).all()
                groups, more = [_sums(row, by) for row in rows[:limit]], len(rows) > limit
            if not by or more or "tag" in by:
                total = _sums(connection.execute(select(*_AGGREGATES).where(*conditions)).one(), ())
            else:
                total = _added(groups)
            return Report(groups, total, more)

        return self._database.read(work)

    def page(self, wanted: Wanted, *, after: tuple[float, str] | None = None, limit: int = 50) -> Page[JSON]:
        """Return single rows by column, newest first.

        Args:
            wanted: which rows.
            after: when the last row of the page before this one `started`, and its `request_id`.
            limit: how many at most.

        Raises:
            StorageError: the database is busy or cannot be read.
        """

        def work(connection: Connection) -> list[JSON]:
            query = select(table).where(*_conditions(wanted, connection.dialect.name))
            if after is not None:
                query = query.where(tuple_(table.c.started, table.c.request_id) < tuple_(*after))
            query = query.order_by(table.c.started.desc(), table.c.request_id.desc()).limit(limit + 1)
            return [dict(row._mapping) for row in connection.execute(query)]

        rows = self._database.read(work)
        for row in rows:
            row.update({name: json.loads(row[name]) for name in ("tags", "planned", "price") if row[name] is not None})
        return Page(rows[:limit], len(rows) > limit)

    def spent(self, match: Match, each: Mapping[str, str | None], since_s: float, measure: str) -> int:
        """Return what calls have used up of a budget.

        Args:
            match: which calls the budget is about.
            each: for whom it is counted apart: a value for each subject that the rule names (`core.rules.SUBJECTS`);
                a user or project by id or name, `model` as `provider/model` of the first deployment that was planned.
            since_s: when its period began, seconds since the epoch.
            measure: `core.rules.USD` or `TOKENS`.

        Returns:
            Micro-dollars, those of each call rounded up, as budgets count them; or tokens.

        Raises:
            StorageError: the database is busy or cannot be read.
        """
        amount = func.coalesce(
            func.sum((table.c.cost_nano + 999) // 1000 if measure == USD else table.c.total_tokens), 0
        )
        conditions = [table.c.started >= since_s, *_whose(match.key, match.user, match.project, match.caller)]
        if by := {name: value for name, value in each.items() if name != "model"}:
            conditions += _apart(by)
        if match.model is None and "model" not in each:
            return int(
                self._database.read(
                    lambda connection: connection.execute(select(amount).where(*conditions)).scalar_one()
                )
            )
        # whether a pattern takes a model is decided where it always is; there are few models
        query = select(table.c.model, table.c.planned, amount.label("amount")).where(*conditions)
        rows = self._database.read(
            lambda connection: connection.execute(query.group_by(table.c.model, table.c.planned)).all()
        )
        return sum(int(row.amount) for row in rows if _takes(match.model, each, row.model, json.loads(row.planned)))


def room_bytes(connection: Connection) -> int:
    """Return about how many bytes of the SQLite file all rows take; they come and go in the order of their numbers."""
    span = connection.exec_driver_sql("SELECT max(rowid) - min(rowid) + 1 FROM usage").scalar_one()
    return int(span or 0) * ROW_BYTES


_NOTHING = dict.fromkeys(column.name for column in table.c)


@cache
def _upsert(dialect: str) -> Any:
    statement = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[table.c.request_id],
        set_={column.name: new[column.name] for column in table.c if column.name != "request_id"},
        where=or_(new.state == ENDED, table.c.state != ENDED),
    )


def _whose(key: str | None, user: str | None, project: str | None, caller: str | None) -> list[ColumnElement[bool]]:
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


def _apart(each: Mapping[str, str | None]) -> list[ColumnElement[bool]]:
    found = _whose(*(each.get(name) for name in ("key", "user", "project", "caller")))
    without = {"key": table.c.key_id, "user": table.c.user, "project": table.c.project, "caller": table.c.caller}
    return [*found, *(without[name].is_(None) for name, value in each.items() if value is None)]


def _takes(pattern: str | None, each: Mapping[str, str | None], model: str, planned: Sequence[str]) -> bool:
    if "model" in each and each["model"] != (planned[0] if planned else None):
        return False
    return pattern is None or any(matches(pattern, name) for name in (model, *planned))


def _conditions(wanted: Wanted, dialect: str) -> list[ColumnElement[bool]]:
    found = _whose(wanted.key, wanted.user, wanted.project, wanted.caller)
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
    return found


def _tags(dialect: str) -> Any:
    """The tags of a row, as a table with one column `value`."""
    if dialect == "postgresql":
        return func.jsonb_array_elements_text(cast(table.c.tags, JSONB)).table_valued("value", name="tag")
    return func.json_each(table.c.tags).table_valued("value", name="tag")


_FAILED = and_(table.c.error_code.is_not(None), table.c.caller_gone.is_not(true()))
_AGGREGATES = (
    func.count().label("requests"),
    func.coalesce(func.sum(case((_FAILED, 1), else_=0)), 0).label("failed"),
    func.coalesce(func.sum(case((table.c.state == LOST, 1), else_=0)), 0).label("lost"),
    *(func.coalesce(func.sum(table.c[name]), 0).label(name) for name in TOKENS),
    func.coalesce(func.sum(table.c.cost_nano), 0).label("cost_nano"),
    func.coalesce(func.sum(case((and_(table.c.cost_nano.is_(None), table.c.state == ENDED), 1), else_=0)), 0).label(
        "unpriced"
    ),
)


def _grouped(by: Sequence[str], conditions: Sequence[ColumnElement[bool]], dialect: str) -> Any:
    tags = _tags(dialect) if "tag" in by else None
    keys = [_key(name, tags, dialect).label(f"by_{name}") for name in by]
    source = table if tags is None else table.outerjoin(tags, true())
    query = select(*keys, *_AGGREGATES).select_from(source).where(*conditions)
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
