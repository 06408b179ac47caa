"""Calendar periods in UTC, by arithmetic on seconds since the epoch (proleptic Gregorian calendar, no leap seconds)."""

from __future__ import annotations

from dataclasses import dataclass

_HOUR_S, _DAY_S = 3600, 86_400
_EPOCH_DAY = 719_162  # days from 0001-01-01 to 1970-01-01
_MONTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_LAST_S = 253_402_300_799.0  # 9999-12-31T23:59:59

#: How long a counter of a period is kept after its last use: well beyond the period, and a year at most.
_KEEP_S = {"hour": 2 * _DAY_S, "day": 4 * _DAY_S, "week": 15 * _DAY_S, "month": 63 * _DAY_S, "total": 366 * _DAY_S}


@dataclass(frozen=True)
class Period:
    """A span of the calendar.

    Attributes:
        name: tells it from every other: `2026-11` for a month, `2026-11-26` for a day, `2026-11-26T13` for an hour,
            `week-2026-11-23` by its Monday, `total`.
        start_s: seconds since the epoch; 0 for `total`.
        end_s: when the next one begins; None for `total`.
        keep_s: for how long after its last use a counter of it is worth keeping.
    """

    name: str
    start_s: float
    end_s: float | None
    keep_s: float


def period_at(kind: str, now_s: float) -> Period:
    """Return the period of a kind that a time lies in.

    Args:
        kind: `hour`, `day`, `week` (begins on Monday), `month` or `total`.
        now_s: seconds since the epoch; what lies before it or beyond the year 9999 counts as its first or last second.

    Raises:
        KeyError: no such kind.
    """
    keep_s, now = float(_KEEP_S[kind]), int(_bounded(now_s))
    if kind == "total":
        return Period(kind, 0.0, None, keep_s)
    if kind == "hour":
        start = now - now % _HOUR_S
        return Period(timestamp(start)[:13], float(start), float(start + _HOUR_S), keep_s)
    day = now // _DAY_S
    if kind == "day":
        return _of_days(timestamp(now)[:10], day, day + 1, keep_s)
    if kind == "week":
        monday = day - (day + 3) % 7  # the epoch was a Thursday
        return _of_days(f"week-{timestamp(max(0, monday) * _DAY_S)[:10]}", monday, monday + 7, keep_s)
    year, month, of_month = _date(day)
    first = day - (of_month - 1)
    return _of_days(f"{year:04d}-{month:02d}", first, first + _days_in(year, month), keep_s)


def timestamp(at_s: float) -> str:
    """Write a time as RFC 3339 has it, in UTC and whole seconds: `2026-11-26T13:05:09Z`."""
    days, second = divmod(int(_bounded(at_s)), _DAY_S)
    year, month, day = _date(days)
    return f"{year:04d}-{month:02d}-{day:02d}T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}Z"


def _bounded(at_s: float) -> float:
    return min(max(0.0, at_s), _LAST_S)


def _of_days(name: str, first: int, end: int, keep_s: float) -> Period:
    return Period(name, float(first * _DAY_S), float(end * _DAY_S), keep_s)


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _days_in(year: int, month: int) -> int:
    return _MONTHS[month - 1] + (month == 2 and _is_leap(year))


def _days_before(year: int) -> int:
    """Days from 0001-01-01 to the first of January of a year."""
    past = year - 1
    return past * 365 + past // 4 - past // 100 + past // 400


def _date(days: int) -> tuple[int, int, int]:
    """Year, month and day of a day counted from the epoch."""
    since = days + _EPOCH_DAY
    year = since * 400 // 146_097 + 2  # 400 years have as many days; a year or two too many
    while _days_before(year) > since:
        year -= 1
    left, month = since - _days_before(year), 1
    while left >= (length := _days_in(year, month)):
        left, month = left - length, month + 1
    return year, month, left + 1
