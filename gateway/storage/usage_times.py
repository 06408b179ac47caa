"""How calls went over time: rows of the ledger in steps, with histograms of how long they took.

Whole hours are read from their sums where these were added up before, so that a month of a million calls is answered
from some thousand small rows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, Label, Text, case, cast, func, literal_column, select

from gateway.storage.tables import usage as table
from gateway.storage.usage_rollups import DAYS, ERRORS, FIRST, HOUR_S, HOURS, PACE, TOOK, TOTAL, Times, of_hour, said
from gateway.storage.usage_wanted import AGGREGATES, FAILED, Wanted, conditions

#: Upper bounds of the histograms' steps, seconds; each a quarter above the one before, from 5 ms to 15 minutes.
BOUNDS_S = tuple(round(0.005 * 1.25**step, 6) for step in range(55))


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
    spans, left = _split(connection, wanted, span)
    for numbers in spans:
        for row in HOURS.sums(connection, (TOTAL,), numbers, [_step_of_hour(span)]):
            _add(found[_within(row.step, span)], row)
        for row in HOURS.sums(connection, tuple(_LENGTHS), numbers, [_step_of_hour(span)], ("requests",)):
            getattr(found[_within(row.step, span)], row.kind).add(int(said(row) or 0), int(row.requests))
    dialect = connection.dialect.name
    for since_s, until_s in left:
        which = conditions(replace(wanted, since_s=since_s, until_s=until_s), dialect)
        step = _step(span, dialect)
        for row in connection.execute(select(step, *AGGREGATES).where(*which).group_by(step)):
            _add(found[_within(row.step, span)], row)
        for kind, length in _LENGTHS.items():
            counted = select(step, _BINS[kind], _COUNT).where(*which, length.is_not(None)).group_by(step, _BINS[kind])
            for one in connection.execute(counted):
                getattr(found[_within(one.step, span)], kind).add(one.bin, one.requests)
    return found


def errors(connection: Connection, wanted: Wanted, span: Span) -> dict[tuple[str, str], list[int]]:
    """Count the failed calls of each step by code and provider; see `UsageRows.errors`."""
    found: dict[tuple[str, str], list[int]] = {}
    spans, left = _split(connection, wanted, span)
    for numbers in spans:
        for kept in HOURS.sums(connection, (ERRORS,), numbers, [_step_of_hour(span)], ("requests",)):
            code, _, provider = (said(kept) or "").partition(" ")
            found.setdefault((code, provider), [0] * span.steps)[_within(kept.step, span)] += int(kept.requests)
    dialect = connection.dialect.name
    for since_s, until_s in left:
        which = conditions(replace(wanted, since_s=since_s, until_s=until_s), dialect)
        step = _step(span, dialect)
        names = (table.c.error_code, func.coalesce(table.c.provider, "").label("provider"))
        counted = select(*names, step, _COUNT).where(*which, FAILED).group_by(*names, step)
        for row in connection.execute(counted):
            found.setdefault((row.error_code, row.provider), [0] * span.steps)[_within(row.step, span)] += row.requests
    return found


def pace(connection: Connection, wanted: Wanted) -> dict[str, Histogram]:
    """Count the lengths of answered calls by deployment; see `UsageRows.pace`."""
    found: dict[str, Histogram] = {}
    left: list[Times] = [(wanted.since_s, wanted.until_s)]
    for rollup in (DAYS, HOURS) if wanted.is_all else ():
        spans, left = rollup.split(connection, PACE, left)
        for numbers in spans:
            for row in rollup.sums(connection, (PACE,), numbers, names=("requests",)):
                bin, _, name = (said(row) or "").partition(" ")
                found.setdefault(name, Histogram()).add(int(bin), int(row.requests))
    dialect, bin_ = connection.dialect.name, _BINS[TOOK]
    for since_s, until_s in left:
        which = conditions(replace(wanted, since_s=since_s, until_s=until_s), dialect)
        counted = select(table.c.deployment, bin_, _COUNT).where(*which, *_ANSWERED)
        for answered in connection.execute(counted.group_by(table.c.deployment, bin_)):
            found.setdefault(answered.deployment, Histogram()).add(answered.bin, answered.requests)
    return found


def counting(kind: str, dialect: str) -> Any:
    """Make the query that counts an hour by a kind of this module; see `usage_rollups.Query`."""
    which: list[ColumnElement[bool]] = [*of_hour]
    if kind == ERRORS:
        value: ColumnElement[Any] = table.c.error_code + " " + func.coalesce(table.c.provider, "")
        which.append(FAILED)
    elif kind == PACE:
        value = cast(_bin(_LENGTHS[TOOK]), Text) + " " + table.c.deployment
        which += _ANSWERED
    else:
        value = _bin(_LENGTHS[kind])
        which.append(_LENGTHS[kind].is_not(None))
    value = value.label("value")
    return select(value, _COUNT).where(*which).group_by(value)


def _split(connection: Connection, wanted: Wanted, span: Span) -> tuple[list[tuple[int, int]], list[Times]]:
    """Say which hours' sums stand for the rows of a span, and at which times the rows themselves are wanted."""
    times: list[Times] = [(span.since_s, span.until_s)]
    if wanted.is_all and span.step_s % HOUR_S == 0 and span.since_s % HOUR_S == 0:
        return HOURS.split(connection, TOTAL, times)
    return [], times


def _step(span: Span, dialect: str) -> Label[int]:
    """The step that a row is in."""
    return whole((table.c.started - span.since_s) / span.step_s, dialect).label("step")


def _step_of_hour(span: Span) -> Label[int]:
    return ((HOURS.unit - int(span.since_s) // HOUR_S) // (span.step_s // HOUR_S)).label("step")


def whole(value: ColumnElement[Any], dialect: str) -> ColumnElement[int]:
    """The whole number at or below one that is not negative."""
    # Postgres rounds where it casts, and SQLite has a floor only where it was built with one
    return cast(func.floor(value) if dialect == "postgresql" else value, Integer)


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
#: Made once: each is a tree of some hundred nodes.
_BINS = {kind: _bin(length).label("bin") for kind, length in _LENGTHS.items()}
_COUNT = func.count().label("requests")
_ANSWERED = (table.c.deployment.is_not(None), table.c.error_code.is_(None))
