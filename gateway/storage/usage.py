"""What each call used and cost: rows, and what may be asked of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Dialect, delete, func, literal_column, or_, select, tuple_

from gateway.core.ledger import ENDED
from gateway.core.paging import Page
from gateway.core.rights import matches
from gateway.core.rules import USD, Match
from gateway.storage import usage_rollups, usage_sums, usage_times
from gateway.storage.database import Database, inserting, vacuum
from gateway.storage.tables import usage as table
from gateway.storage.usage_rollups import KINDS, SUBJECTS, TOTAL
from gateway.storage.usage_sums import GROUPS, Report, Sums
from gateway.storage.usage_times import Histogram, Span, Step
from gateway.storage.usage_wanted import Wanted, conditions, whose

__all__ = ["GROUPS", "Histogram", "Report", "Span", "Step", "Sums", "UsageRows", "Wanted", "room_bytes"]

JSON = dict[str, Any]

_DAY_S = 86_400
_SWEEP_ROWS = 1000
_SWEEP_PAUSE_S = 0.02  # others' turn to write
#: Measured: a row with its entries in the indexes.
ROW_BYTES = 620


class UsageRows:
    """The table `usage`.

    Args:
        database: with the tables of this release.
        keep_days: rows that began longer ago are deleted; 0 keeps them for ever.
        clock: seconds since the epoch.
    """

    def __init__(self, database: Database, keep_days: float = 0.0, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._keep_s = keep_days * _DAY_S
        self._clock = clock

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
        whole = [row if len(row) == len(_NOTHING) else {**_NOTHING, **row} for row in rows]

        def work(connection: Connection) -> None:
            usage_rollups.forget(connection, [row["started"] for row in whole], self._clock())
            statement, names = _upsert(connection.dialect)
            # the driver's own parameters: SQLAlchemy looks at each of the columns of each of the rows
            connection.exec_driver_sql(
                statement, [tuple(map(row.__getitem__, names)) for row in whole] if names else whole
            )

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
        before_s = now_s - self._keep_s
        old = select(table.c.request_id).where(table.c.started < before_s)
        some = delete(table).where(table.c.request_id.in_(old.order_by(table.c.started).limit(_SWEEP_ROWS)))

        def work(connection: Connection) -> int:
            usage_rollups.forget_until(connection, before_s)
            return connection.execute(some).rowcount

        gone = 0
        while deleted := self._database.write(work):
            gone += deleted
            time.sleep(_SWEEP_PAUSE_S)
        while gone and self._database.write(vacuum):
            time.sleep(_SWEEP_PAUSE_S)
        return gone

    def add_up(self, now_s: float, most: int) -> int:
        """Add up hours that are over and the days that are whole by then, so that who asks need not.

        Args:
            now_s: seconds since the epoch.
            most: how many hours at most, the newest first.

        Returns:
            How many hours were added up; none where all are.

        Raises:
            StorageError: the database is busy or cannot be written.
        """
        due = self._due(now_s)
        done = sum(usage_rollups.add_up_hour(self._database, hour, _of_hour) for hour in due.hours[:most])
        if done:
            due = self._due(now_s)
        for day in due.days:
            usage_rollups.add_up_day(self._database, day)
        if due.days:
            before = self._due(now_s).whole
            self._database.write(lambda connection: usage_rollups.thin(connection, before))
        return done

    def _due(self, now_s: float) -> usage_rollups.Due:
        since_s = now_s - self._keep_s if self._keep_s else 0.0
        return self._database.read(lambda connection: usage_rollups.due(connection, now_s, since_s))

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
        return self._database.read(lambda connection: usage_sums.report(connection, wanted, by, limit))

    def reports(self, wanted: Wanted, names: Sequence[str], *, limit: int = 1000) -> dict[str, Report]:
        """Add rows up by each of these alone, as `report` does, in one look at the rows.

        Args:
            wanted: which rows.
            names: of `GROUPS`, but for tags and times.
            limit: how many groups of each at most.

        Raises:
            StorageError: the database is busy or cannot be read.
        """
        return self._database.read(lambda connection: usage_sums.reports(connection, wanted, names, limit))

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
            query = select(table).where(*conditions(wanted, connection.dialect.name))
            if after is not None:
                query = query.where(tuple_(table.c.started, table.c.request_id) < tuple_(*after))
            query = query.order_by(table.c.started.desc(), table.c.request_id.desc()).limit(limit + 1)
            return [dict(row._mapping) for row in connection.execute(query)]

        rows = [_read(row) for row in self._database.read(work)]
        return Page(rows[:limit], len(rows) > limit)

    def of_requests(self, ids: Sequence[str]) -> dict[str, JSON]:
        """Return single rows by column, by the ids of their requests, as far as there are any.

        Raises:
            StorageError: the database is busy or cannot be read.
        """
        asked = [id for id in ids if id.isascii() and id.isprintable()]
        query = select(table).where(table.c.request_id.in_(asked))
        found = self._database.read(lambda connection: [dict(row._mapping) for row in connection.execute(query)])
        return {row["request_id"]: _read(row) for row in found}

    def timeline(self, wanted: Wanted, span: Span) -> list[Step]:
        """Add rows up by when their calls began.

        Args:
            wanted: which rows; its times do not count.
            span: the time, and its steps; one of hours that begins with an hour is answered from what was added up.

        Returns:
            Each step of the span, in order.

        Raises:
            StorageError: the database is busy or cannot be read.
        """
        return self._database.read(lambda connection: usage_times.timeline(connection, wanted, span))

    def errors(self, wanted: Wanted, span: Span) -> dict[tuple[str, str], list[int]]:
        """Count calls that failed though their caller stayed.

        Args:
            wanted: which rows; its times do not count.
            span: the time, and its steps; one of hours that begins with an hour is answered from what was added up.

        Returns:
            By the error's code and the provider (empty where none answered): how many in each step.

        Raises:
            StorageError: the database is busy or cannot be read.
        """
        return self._database.read(lambda connection: usage_times.errors(connection, wanted, span))

    def pace(self, wanted: Wanted) -> dict[str, Histogram]:
        """Return how long calls took that were answered, by deployment.

        Raises:
            StorageError: the database is busy or cannot be read.
        """
        return self._database.read(lambda connection: usage_times.pace(connection, wanted))

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
        conditions = [table.c.started >= since_s, *whose(match.key, match.user, match.project, match.caller)]
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


@lru_cache(maxsize=2 * len(KINDS))
def _of_hour(kind: str, dialect: str) -> Any:
    # kept, since to make and to read one takes longer than an hour of some hundred calls
    return usage_sums.adding(kind, dialect) if kind in (TOTAL, *SUBJECTS) else usage_times.counting(kind, dialect)


def _read(row: JSON) -> JSON:
    return row | {name: json.loads(row[name]) for name in ("tags", "planned", "price") if row[name] is not None}


def room_bytes(connection: Connection) -> int:
    """Return about how many bytes of the SQLite file all rows take; they come and go in the order of their numbers."""
    span = connection.exec_driver_sql("SELECT max(rowid) - min(rowid) + 1 FROM usage").scalar_one()
    return int(span or 0) * ROW_BYTES


_NOTHING = dict.fromkeys(column.name for column in table.c)


@lru_cache(maxsize=8)
def _upsert(dialect: Dialect) -> tuple[str, Sequence[str]]:
    """The statement as a driver takes it, and its parameters in order; none where the driver takes them by name."""
    statement = inserting(dialect.name, table)
    # no parameter, for those are the columns alone
    new = statement.excluded
    ended: ColumnElement[str] = literal_column(f"'{ENDED}'")
    compiled = statement.on_conflict_do_update(
        index_elements=[table.c.request_id],
        set_={column.name: new[column.name] for column in table.c if column.name != "request_id"},
        where=or_(new.state == ended, table.c.state != ended),
    ).compile(dialect=dialect)
    return str(compiled), tuple(compiled.positiontup or ())


def _apart(each: Mapping[str, str | None]) -> list[ColumnElement[bool]]:
    found = whose(*(each.get(name) for name in ("key", "user", "project", "caller")))
    without = {"key": table.c.key_id, "user": table.c.user, "project": table.c.project, "caller": table.c.caller}
    return [*found, *(without[name].is_(None) for name, value in each.items() if value is None)]


def _takes(pattern: str | None, each: Mapping[str, str | None], model: str, planned: Sequence[str]) -> bool:
    if "model" in each and each["model"] != (planned[0] if planned else None):
        return False
    return pattern is None or any(matches(pattern, name) for name in (model, *planned))
