"""Sums of whole days of the ledger, so that a month is not added up anew each time that somebody looks.

A day (UTC) is added up once it is over. A row that comes later for such a day takes its sums away in the transaction
that keeps it, and they are made again; a number that grows with each of these tells who adds up meanwhile that it was
for nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Label, and_, delete, func, insert, literal_column, or_, select, update
from sqlalchemy.engine import Row

from gateway.storage.database import Database
from gateway.storage.tables import revisions, usage_days
from gateway.storage.tables import usage as rows

DAY_S = 86_400
#: For rows of calls that ran over midnight.
GRACE_S = 2 * 3_600

#: What days are added up by; nothing, for the sum of all.
TOTAL = ""
#: A kind that each day with calls has, of those that came last.
NEWEST = "hour"
_REVISION = "usage"
_SUMS = [column for column in usage_days.c if column.name not in ("kind", "day", "value")]


def day_of(at_s: float) -> int:
    """The number of the day (UTC) that a moment is in."""
    return int(at_s // DAY_S)


def forget(connection: Connection, started_s: Collection[float], now_s: float) -> None:
    """Take the sums of those days away that late rows belong to; before these are kept, in the same transaction.

    Args:
        connection: of `Database.write`.
        started_s: when the rows' calls began, seconds since the epoch.
        now_s: seconds since the epoch.
    """
    late = {day_of(one) for one in started_s} - {day_of(now_s)}
    if late:
        # the number first: its lock is what those who add up wait for
        connection.execute(update(revisions).where(revisions.c.name == _REVISION).values(number=revisions.c.number + 1))
        connection.execute(delete(usage_days).where(usage_days.c.day.in_(sorted(late))))


def forget_until(connection: Connection, before_s: float) -> None:
    """Take the sums of all days away that began before then, since rows of theirs go."""
    connection.execute(delete(usage_days).where(usage_days.c.day <= day_of(before_s)))


def missing(connection: Connection, now_s: float, since_s: float) -> list[int]:
    """The days that are over and have no sums, oldest first.

    Args:
        connection: of `Database.read`.
        now_s: seconds since the epoch.
        since_s: rows that began before go soon, so their day is left out.
    """
    first = connection.execute(select(func.min(rows.c.started)).where(rows.c.started >= since_s)).scalar_one()
    if first is None:
        return []
    least = day_of(first) if since_s <= 0 else max(day_of(first), day_of(since_s) + 1)
    # a day with calls that lacks the newest kind was added up by an earlier release: again
    empty = and_(usage_days.c.kind == TOTAL, usage_days.c.requests == 0)
    known = set(connection.execute(select(usage_days.c.day).where(or_(empty, usage_days.c.kind == NEWEST))).scalars())
    return [day for day in range(least, day_of(now_s - GRACE_S)) if day not in known]


def add_up(database: Database, day: int, kinds: Sequence[str], grouped: Any) -> bool:
    """Add a day up, and keep that.

    Args:
        database: with the tables of this release.
        day: its number.
        kinds: what it is added up by.
        grouped: makes, of a kind, a day's bounds and a dialect, the query whose first column is the kind's value.

    Returns:
        False: a row came meanwhile, and it has to be done again.

    Raises:
        StorageError: the database is busy or cannot be written.
    """

    def read(connection: Connection) -> tuple[int, list[dict[str, Any]]]:
        number = connection.execute(_NUMBER).scalar_one()
        made = []
        for kind in kinds:
            query = grouped(kind, (day * DAY_S, (day + 1) * DAY_S), connection.dialect.name)
            made += [_kept(kind, day, row) for row in connection.execute(query)]
        return int(number), made

    number, made = database.read(read)

    def write(connection: Connection) -> bool:
        if connection.execute(_NUMBER.with_for_update()).scalar_one() != number:
            return False
        connection.execute(delete(usage_days).where(usage_days.c.day == day))
        connection.execute(insert(usage_days), made)
        return True

    # alone by the number's lock, which those who bring a late row take first
    return database.write(write, alone_on=())


_NUMBER = select(revisions.c.number).where(revisions.c.name == _REVISION)


def _kept(kind: str, day: int, row: Row[Any]) -> dict[str, Any]:
    found = row._mapping
    value = None if kind == TOTAL else row[0]
    # a key has no null: what has no value is told from what has an empty one
    text = "" if value is None else f"={value}"
    return {"kind": kind, "day": day, "value": text, **{column.name: int(found[column.name]) for column in _SUMS}}


def known_days(connection: Connection, first: int, last: int) -> list[int]:
    """The days from `first` to before `last` that have sums."""
    wanted = select(usage_days.c.day).where(usage_days.c.kind == TOTAL, usage_days.c.day >= first)
    return list(connection.execute(wanted.where(usage_days.c.day < last).order_by(usage_days.c.day)).scalars())


def sums(
    connection: Connection, kind: str, first: int, last: int, *, by_day: bool
) -> list[tuple[int, str | None, Row[Any]]]:
    """Return the sums of days by the values of a kind.

    Args:
        connection: of `Database.read`.
        kind: of those that were added up.
        first: the first day, and `last` the one behind the last.
        last: see there.
        by_day: each day apart; else their day is 0.
    """
    day: ColumnElement[int] = usage_days.c.day
    keys = [usage_days.c.value, day] if by_day else [usage_days.c.value]
    added = [func.sum(column).label(column.name) for column in _SUMS]
    where = (usage_days.c.kind == kind, day >= first, day < last)
    found = connection.execute(select(*keys, *added).where(*where).group_by(*keys))
    return [(row.day if by_day else 0, row.value[1:] if row.value else None, row) for row in found]


def with_kind(connection: Connection, kind: str, first: int, last: int) -> list[int]:
    """The days from `first` to before `last` that have sums of a kind, in order."""
    wanted = select(usage_days.c.day).distinct().where(usage_days.c.kind == kind, usage_days.c.day >= first)
    return list(connection.execute(wanted.where(usage_days.c.day < last).order_by(usage_days.c.day)).scalars())


#: What a value says, of those that say something; and the hours from the epoch to a day.
said: ColumnElement[str] = func.substr(usage_days.c.value, 2)
hours_of_day: ColumnElement[int] = usage_days.c.day * 24


def grouped(
    connection: Connection,
    kind: str,
    days: Sequence[int],
    keys: Sequence[Label[Any]],
    names: Collection[str] | None = None,
) -> list[Row[Any]]:
    """Return the sums of these days, added up by what the database makes of `said` and `hours_of_day`.

    Args:
        connection: of `Database.read`.
        kind: of those that were added up.
        days: which.
        keys: what they are added up by, labelled.
        names: of the columns that are wanted; None for all.
    """
    wanted = [column for column in _SUMS if names is None or column.name in names]
    added = [func.sum(column).label(column.name) for column in wanted]
    query = select(*keys, *added).where(usage_days.c.kind == kind, usage_days.c.day.in_(days))
    return list(connection.execute(query.group_by(*(literal_column(key.name) for key in keys))))


def sums_of(connection: Connection, kind: str, days: Sequence[int]) -> list[tuple[int, str | None, Row[Any]]]:
    """The sums of these days, which are in order, by the values of a kind; each day apart."""
    if not days:
        return []
    wanted = set(days)
    found = sums(connection, kind, days[0], days[-1] + 1, by_day=True)
    return [one for one in found if one[0] in wanted]
