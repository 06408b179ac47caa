"""Sums of the ledger's rows by hours and by days (UTC): what a page reads in place of the rows.

An hour is added up once it is over, each row of it once, and a day from the sums of its 24 hours. So what a page costs
follows from the hours that it shows and from the calls of the last one or two, not from how many rows there are.

A row that comes later for such an hour takes the sums of its hour and of its day away in the transaction that keeps it,
and they are made again; a number that grows with each of these tells who adds up meanwhile that it was for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Double,
    Label,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.engine import Row

from gateway.storage.database import Database
from gateway.storage.tables import revisions, usage_days, usage_hours
from gateway.storage.tables import usage as rows

HOUR_S, DAY_S = 3_600, 86_400
#: An hour is added up so long after its end: by then most of its calls are over, and each later one costs it anew.
GRACE_S = 600.0
#: Up to so long after its end an hour is not added up, even where hosts' clocks differ or a transaction takes long.
_SURE_S = 300.0
#: Hours that keep the sums of all kinds: the pages look back a day. A day has them for good.
WHOLE_HOURS = 72

#: What is added up: all; by what reports are grouped by; histograms of how long calls took, and their first tokens, by
#: step; failures by code and provider; how long answered calls took, by step and deployment.
TOTAL = ""
SUBJECTS = ("key", "user", "project", "caller", "model", "provider", "deployment", "operation", "tag")
TOOK, FIRST, ERRORS, PACE = "took", "first", "error", "pace"
#: What hours keep for good, and what days do.
LASTING = (TOTAL, TOOK, FIRST, ERRORS)
OF_DAYS = (TOTAL, *SUBJECTS, PACE)
KINDS = (*LASTING, *SUBJECTS, PACE)
#: One of the others, of which every hour with calls has a sum.
_MARK = "operation"

_REVISION = "usage"
_KEYS = ("kind", "hour", "value")
_SUMS = [column.name for column in usage_hours.c if column.name not in _KEYS]
_NOTHING = dict.fromkeys(_SUMS, 0)
_NUMBER = select(revisions.c.number).where(revisions.c.name == _REVISION)

#: Begin and end of a time, seconds since the epoch; None where it has none.
Times = tuple[float | None, float | None]
#: Makes, of a kind and a dialect, the query that adds up the rows `of_hour`; its first column is the value, but where
#: all are added up; then come the sums, or how many rows there are.
Query = Callable[[str, str], Select[Any]]


@dataclass(frozen=True)
class Rollup:
    """The sums of equal times.

    Attributes:
        table: where they are kept.
        unit: the column with the number of the time, counted from the epoch.
        length_s: how long a time is.
        kinds: that all of them have.
    """

    table: Table
    unit: Column[int]
    length_s: int
    kinds: Sequence[str]

    def number(self, at_s: float) -> int:
        """The number of the time that a moment is in."""
        return int(at_s // self.length_s)

    def whole(self, times: Times) -> tuple[int, int]:
        """The first time that lies in these as a whole, and the one behind the last; not after it where none does."""
        since_s, until_s = times
        first = math.ceil((since_s or 0.0) / self.length_s)
        return first, (_END_S if until_s is None else min(int(until_s), _END_S)) // self.length_s

    def known(self, connection: Connection, kind: str, first: int, last: int) -> list[int]:
        """The times from `first` to before `last` that have sums of a kind, in order."""
        here = and_(self.unit >= first, self.unit < last)
        total = self.table.c.kind == TOTAL
        if kind not in self.kinds:
            total = or_(and_(total, self.table.c.requests == 0), self.table.c.kind == _MARK)
        return list(connection.execute(select(self.unit).where(total, here).distinct().order_by(self.unit)).scalars())

    def sums(
        self,
        connection: Connection,
        kinds: Sequence[str],
        span: tuple[int, int],
        keys: Sequence[Label[Any]] = (),
        names: Collection[str] | None = None,
    ) -> list[Row[Any]]:
        """Return the sums of some kinds by their values.

        Args:
            connection: of `Database.read`.
            kinds: of those that are kept, each apart (`kind`).
            span: the number of the first time, and the one behind the last.
            keys: what they are added up by, besides kind and value; each labelled.
            names: of the columns that are wanted; None for all.
        """
        wanted = [self.table.c[name] for name in _SUMS if names is None or name in names]
        added = [func.sum(column).label(column.name) for column in wanted]
        by = [*keys, self.table.c.kind.label("kind"), self.table.c.value.label("value")]
        which = (self.table.c.kind.in_(kinds), self.unit >= span[0], self.unit < span[1])
        query = select(*by, *added).where(*which)
        return list(connection.execute(query.group_by(*(literal_column(key.name) for key in by))))

    def split(
        self, connection: Connection, kind: str, spans: Sequence[Times]
    ) -> tuple[list[tuple[int, int]], list[Times]]:
        """Say where sums of a kind stand for rows.

        Args:
            connection: of `Database.read`.
            kind: what is to be known.
            spans: times, in order.

        Returns:
            Spans of numbers, for `sums`, in which there is at least one; and the times in which there are none.
        """
        found, left = [], list[Times]()
        for times in spans:
            first, last = self.whole(times)
            numbers = self.known(connection, kind, first, last) if first < last else []
            if numbers:
                found.append((first, last))
            left += self._between(numbers, times)
        return found, left

    def _between(self, numbers: Sequence[int], times: Times) -> Iterator[Times]:
        at_s, until_s = times
        for number in numbers:
            if at_s is None or at_s < number * self.length_s:
                yield at_s, float(number * self.length_s)
            at_s = float((number + 1) * self.length_s)
        if until_s is None or at_s is None or at_s < until_s:
            yield at_s, until_s


#: The year 10000.
_END_S = 253_402_300_800
HOURS = Rollup(usage_hours, usage_hours.c.hour, HOUR_S, LASTING)
DAYS = Rollup(usage_days, usage_days.c.day, DAY_S, OF_DAYS)


#: Which rows the queries of an hour are about; both are bound when it is added up.
of_hour = (rows.c.started >= bindparam("since_s", type_=Double), rows.c.started < bindparam("until_s", type_=Double))


def said(row: Row[Any]) -> str | None:
    """The value that a sum is of; None where its rows have none."""
    return row.value[1:] if row.value else None


def forget(connection: Connection, started_s: Collection[float], now_s: float) -> None:
    """Take the sums away that late rows belong to; before these are kept, in the same transaction.

    Args:
        connection: of `Database.write`.
        started_s: when the rows' calls began, seconds since the epoch.
        now_s: seconds since the epoch.
    """
    late = sorted({hour for one in started_s if (hour := HOURS.number(one)) < HOURS.number(now_s - _SURE_S)})
    if late:
        # the number first: its lock is what those who add up wait for
        connection.execute(update(revisions).where(revisions.c.name == _REVISION).values(number=revisions.c.number + 1))
        connection.execute(delete(usage_hours).where(usage_hours.c.hour.in_(late)))
        connection.execute(delete(usage_days).where(usage_days.c.day.in_(sorted({hour // 24 for hour in late}))))


def forget_until(connection: Connection, before_s: float) -> None:
    """Take the sums of all times away that began before then, since rows of theirs go."""
    connection.execute(delete(usage_hours).where(usage_hours.c.hour <= HOURS.number(before_s)))
    connection.execute(delete(usage_days).where(usage_days.c.day <= DAYS.number(before_s)))


@dataclass(frozen=True)
class Due:
    """What is to be added up.

    Attributes:
        hours: that are over and lack sums, newest first.
        days: that are over and lack them though their hours have all.
        whole: hours before this one need no more than what lasts.
    """

    hours: Sequence[int]
    days: Sequence[int]
    whole: int


def due(connection: Connection, now_s: float, since_s: float) -> Due:
    """Say what is to be added up.

    Args:
        connection: of `Database.read`.
        now_s: seconds since the epoch.
        since_s: rows that began before go soon, so their hour and their day are left out.
    """
    oldest_s = connection.execute(select(func.min(rows.c.started)).where(rows.c.started >= since_s)).scalar_one()
    last = HOURS.number(now_s - GRACE_S)
    if oldest_s is None or HOURS.number(oldest_s) >= last:
        return Due((), (), 0)
    first_day = DAYS.number(oldest_s) if since_s <= 0 else max(DAYS.number(oldest_s), DAYS.number(since_s) + 1)
    oldest = 24 * first_day if since_s <= 0 else max(24 * DAYS.number(oldest_s), HOURS.number(since_s) + 1)
    known = set(HOURS.known(connection, TOTAL, oldest, last))
    whole = set(HOURS.known(connection, _MARK, oldest, last))
    days = set(DAYS.known(connection, TOTAL, first_day, last // 24))
    open_days = [day for day in range(first_day, last // 24) if day not in days]
    wanted = {*range(max(oldest, last - WHOLE_HOURS), last), *(hour for day in open_days for hour in _hours_of(day))}
    lacking = wanted - whole
    hours = [hour for hour in range(last - 1, oldest - 1, -1) if hour not in known or hour in lacking]
    ready = [day for day in open_days if whole.issuperset(_hours_of(day))]
    unready = [24 * day for day in open_days if day not in ready]
    return Due(hours, ready, min([last - WHOLE_HOURS, *unready]))


def _hours_of(day: int) -> range:
    return range(24 * day, 24 * (day + 1))


def add_up_hour(database: Database, hour: int, grouped: Query) -> bool:
    """Add an hour up, and keep that.

    Args:
        database: with the tables of this release.
        hour: its number.
        grouped: makes the queries.

    Returns:
        False: a row came meanwhile, and it has to be done again.

    Raises:
        StorageError: the database is busy or cannot be written.
    """

    def read(connection: Connection) -> tuple[int, list[dict[str, Any]]]:
        number = connection.execute(_NUMBER).scalar_one()
        bounds_s = {"since_s": hour * HOUR_S, "until_s": (hour + 1) * HOUR_S}
        made = [
            _kept(kind, hour, row)
            for kind in KINDS
            for row in connection.execute(grouped(kind, connection.dialect.name), bounds_s)
        ]
        return int(number), made

    number, made = database.read(read)

    def write(connection: Connection) -> bool:
        if connection.execute(_NUMBER.with_for_update()).scalar_one() != number:
            return False
        connection.execute(delete(usage_hours).where(usage_hours.c.hour == hour))
        connection.execute(insert(usage_hours), made)
        return True

    # alone by the number's lock, which those who bring a late row take first
    return database.write(write, alone_on=())


def _kept(kind: str, hour: int, row: Row[Any]) -> dict[str, Any]:
    value, *sums = (None, *row) if kind == TOTAL else row
    # a key has no null: what has no value is told from what has an empty one
    text = "" if value is None else f"={value}"
    return {"kind": kind, "hour": hour, "value": text, **_NOTHING, **dict(zip(_SUMS, map(int, sums), strict=False))}


def add_up_day(database: Database, day: int) -> None:
    """Add a day up from its hours, unless one of them lacks its sums by now.

    Args:
        database: with the tables of this release.
        day: its number.

    Raises:
        StorageError: the database is busy or cannot be written.
    """
    hours, kept = _hours_of(day), usage_hours.c
    added = [func.sum(kept[name]) for name in _SUMS]
    here = (kept.kind.in_(OF_DAYS), kept.hour >= hours.start, kept.hour < hours.stop)
    of_hours = select(kept.kind, literal(day), kept.value, *added).where(*here).group_by(kept.kind, kept.value)

    def work(connection: Connection) -> None:
        connection.execute(_NUMBER.with_for_update())  # from here on no late row takes an hour away
        if len(HOURS.known(connection, _MARK, hours.start, hours.stop)) < len(hours):
            return
        connection.execute(delete(usage_days).where(usage_days.c.day == day))
        connection.execute(insert(usage_days).from_select(["kind", "day", "value", *_SUMS], of_hours))

    database.write(work, alone_on=())


def thin(connection: Connection, before: int) -> None:
    """Take from hours before this one what their days have; within a `Database.write`."""
    kept = usage_hours.c
    connection.execute(delete(usage_hours).where(kept.kind.not_in(LASTING), kept.hour < before))
