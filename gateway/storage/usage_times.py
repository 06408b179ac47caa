"""How calls went over time: rows of the ledger in steps, with histograms of how long they took.

Whole days are read from their sums where these were added up before, so that a month of a million calls is answered
from some thousand small rows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, Text, case, cast, func, literal, literal_column, select

from gateway.storage import usage_days
from gateway.storage.tables import usage as table
from gateway.storage.usage_sums import AGGREGATES, ERRORS, FAILED, HOURS, Wanted, conditions, gaps

_HOUR_S, _DAY_S = 3_600, 86_400

#: Upper bounds of the histograms' steps, seconds; each a quarter above the one before, from 5 ms to 15 minutes.
BOUNDS_S = tuple(round(0.005 * 1.25**step, 6) for step in range(55))

#: Kinds of sums of whole days, besides those of reports: by the hour of the day, and by hour and step of a histogram.
TOOK, FIRST = "took", "first"


@dataclass(frozen=True)
class Span:
    """A time in equal steps.

    Attributes:
        since_s: its begin, seconds since the epoch.
        step_s: how long a step is, whole seconds.
        steps: how many there are.
    """

    since_s: float
    step_s: int
    steps: int

    @property
    def until_s(self) -> float:
        """Its end."""
        return self.since_s + self.step_s * self.steps

    def step(self, at_s: float) -> int:
        """The number of the step that a moment of it is in."""
        return min(self.steps - 1, max(0, int((at_s - self.since_s) // self.step_s)))


@dataclass
class Histogram:
    """How many values lie in each step of `BOUNDS_S`, and beyond the last."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))

    def add(self, step: int, count: int) -> None:
        """Count some values."""
        self.counts[step] += count

    def quantile(self, share: float) -> float | None:
        """The value below which a share (0 to 1) of the values lie, to a quarter; None where there are none."""
        total = sum(self.counts)
        if not total:
            return None
        seen, wanted = 0, share * total
        for step, count in enumerate(self.counts):
            if count and seen + count >= wanted:
                low = BOUNDS_S[step - 1] if step else 0.0
                high = BOUNDS_S[min(step, len(BOUNDS_S) - 1)]
                return low + (high - low) * max(0.0, wanted - seen) / count
            seen += count
        return BOUNDS_S[-1]


@dataclass
class Step:
    """The calls that began in one step of time; see `usage_sums.Sums`, `took` and `first` are histograms."""

    requests: int = 0
    failed: int = 0
    cost_nano: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    took: Histogram = field(default_factory=Histogram)
    first: Histogram = field(default_factory=Histogram)


_SUMMED = ("requests", "failed", "cost_nano", "prompt_tokens", "completion_tokens", "cached_tokens")


def timeline(connection: Connection, wanted: Wanted, span: Span) -> list[Step]:
    """Add up the calls of each step; see `UsageRows.timeline`."""
    found = [Step() for _ in range(span.steps)]
    bounded = replace(wanted, since_s=span.since_s, until_s=span.until_s)
    live: Sequence[tuple[float | None, float | None]] = [(span.since_s, span.until_s)]
    if replace(wanted, since_s=None, until_s=None) == Wanted() and span.step_s % _HOUR_S == 0:
        first, last = -int(-span.since_s // _DAY_S), int(span.until_s // _DAY_S)
        days = usage_days.with_kind(connection, HOURS, first, last)
        _from_days(connection, found, span, days)
        live = list(gaps(days, bounded))
    dialect = connection.dialect.name
    for since_s, until_s in live:
        which = conditions(replace(bounded, since_s=since_s, until_s=until_s), dialect)
        step = whole((table.c.started - span.since_s) / span.step_s, dialect).label("step")
        for row in connection.execute(select(step, *AGGREGATES).where(*which).group_by(step)):
            _add(found[_within(row.step, span)], row)
        for kind, length in _LENGTHS.items():
            bin = _bin(length).label("bin")
            counted = select(step, bin, func.count().label("requests")).where(*which, length.is_not(None))
            for row in connection.execute(counted.group_by(step, bin)):
                getattr(found[_within(row.step, span)], kind).add(row.bin, row.requests)
    return found


def errors(connection: Connection, wanted: Wanted, span: Span) -> dict[tuple[str, str], list[int]]:
    """Count the failed calls of each step by code and provider; see `UsageRows.errors`."""
    found: dict[tuple[str, str], list[int]] = {}
    bounded = replace(wanted, since_s=span.since_s, until_s=span.until_s)
    live: Sequence[tuple[float | None, float | None]] = [(span.since_s, span.until_s)]
    if replace(wanted, since_s=None, until_s=None) == Wanted() and span.step_s % _DAY_S == 0:
        first, last = -int(-span.since_s // _DAY_S), int(span.until_s // _DAY_S)
        days = usage_days.with_kind(connection, HOURS, first, last)
        for day, value, row in usage_days.sums_of(connection, ERRORS, days):
            code, _, provider = (value or "").partition(" ")
            steps = found.setdefault((code, provider), [0] * span.steps)
            steps[span.step(day * _DAY_S)] += int(row.requests)
        live = list(gaps(days, bounded))
    dialect = connection.dialect.name
    for since_s, until_s in live:
        which = conditions(replace(bounded, since_s=since_s, until_s=until_s), dialect)
        step = whole((table.c.started - span.since_s) / span.step_s, dialect).label("step")
        names = (table.c.error_code, func.coalesce(table.c.provider, "").label("provider"))
        counted = select(*names, step, func.count().label("requests")).where(*which, FAILED).group_by(*names, step)
        for row in connection.execute(counted):
            steps = found.setdefault((row.error_code, row.provider), [0] * span.steps)
            steps[_within(row.step, span)] += row.requests
    return found


def of_day(kind: str, bounds_s: tuple[float, float], dialect: str) -> Any:
    """Make the query that adds up a day by a kind of this module; the first column is the kind's value."""
    which: list[ColumnElement[bool]] = [table.c.started >= bounds_s[0], table.c.started < bounds_s[1]]
    hour = cast(whole((table.c.started - bounds_s[0]) / _HOUR_S, dialect), Text)
    if kind == HOURS:
        value: ColumnElement[Any] = hour
    elif kind == ERRORS:
        value = table.c.error_code + " " + func.coalesce(table.c.provider, "")
        which.append(FAILED)
    else:
        length = _LENGTHS[kind]
        value = hour + literal(" ") + cast(_bin(length), Text)
        which.append(length.is_not(None))
    value = value.label("value")
    return select(value, *AGGREGATES).where(*which).group_by(value)


def whole(value: ColumnElement[Any], dialect: str) -> ColumnElement[int]:
    """The whole number at or below one that is not negative."""
    # Postgres rounds where it casts, and SQLite has a floor only where it was built with one
    return cast(func.floor(value) if dialect == "postgresql" else value, Integer)


def _from_days(connection: Connection, found: list[Step], span: Span, days: Sequence[int]) -> None:
    """Add what whole days were added up to; their hours go into the span's steps in the database, some being many."""
    hour = _part(0, connection.dialect.name)
    step = ((usage_days.hours_of_day + hour - int(span.since_s) // _HOUR_S) // (span.step_s // _HOUR_S)).label("step")
    for row in usage_days.grouped(connection, HOURS, days, [step]):
        _add(found[_within(row.step, span)], row)
    bin = _part(1, connection.dialect.name).label("bin")
    for kind in _LENGTHS:
        for row in usage_days.grouped(connection, kind, days, [step, bin], ("requests",)):
            getattr(found[_within(row.step, span)], kind).add(row.bin, int(row.requests))


def _part(number: int, dialect: str) -> ColumnElement[int]:
    """One of the one or two whole numbers that a value of this module's kinds says, with a blank between them."""
    text = usage_days.said
    if dialect == "postgresql":
        return cast(func.split_part(text, " ", number + 1), Integer)
    # SQLite reads a number up to what is none
    return cast(func.substr(text, func.instr(text, " ") + 1) if number else text, Integer)


def _add(step: Step, row: Any) -> None:
    for name in _SUMMED:
        setattr(step, name, getattr(step, name) + int(getattr(row, name)))


def _within(step: int, span: Span) -> int:
    return min(span.steps - 1, max(0, int(step)))


def bin_of(length_s: float) -> int:
    """The step of `BOUNDS_S` that a length is in."""
    return bisect_left(BOUNDS_S, length_s)


def _bin(length: ColumnElement[Any]) -> ColumnElement[int]:
    """The same as an expression: a tree of comparisons, since each row goes through it."""
    return _between(length, 0, len(BOUNDS_S))


def _between(length: ColumnElement[Any], low: int, high: int) -> ColumnElement[int]:
    if low == high:
        return literal_column(str(low), Integer)
    middle = (low + high) // 2
    bound: ColumnElement[Any] = literal_column(repr(BOUNDS_S[middle]))  # a parameter each would be bound at each call
    return case((length <= bound, _between(length, low, middle)), else_=_between(length, middle + 1, high))


_LENGTHS: Mapping[str, ColumnElement[Any]] = {
    TOOK: table.c.ended - table.c.started,
    FIRST: table.c.time_to_first_token_s,
}
