"""Calendar periods, against Python's own calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.periods import period_at, timestamp

_SECONDS = st.integers(0, 253_402_300_799)
_KINDS = ("hour", "day", "week", "month")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@given(_SECONDS)
def test_a_time_is_written_as_pythons_calendar_has_it(second: int) -> None:
    assert timestamp(second) == datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")


@given(_SECONDS)
def test_a_month_is_the_calendars(second: int) -> None:
    moment = datetime.fromtimestamp(second, UTC)
    first = moment.replace(day=1, hour=0, minute=0, second=0)
    period = period_at("month", second)
    assert period.name == f"{moment.year:04d}-{moment.month:02d}"
    assert period.start_s == first.timestamp()
    assert period.end_s is not None
    assert period.end_s - period.start_s in {days * 86_400 for days in (28, 29, 30, 31)}
    if moment.year < 9999:
        assert datetime.fromtimestamp(period.end_s, UTC).day == 1


@given(_SECONDS)
def test_a_week_begins_on_monday(second: int) -> None:
    period = period_at("week", second)
    monday = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=period.start_s)
    assert monday.weekday() == 0
    assert period.start_s <= second < period.start_s + 7 * 86_400 == period.end_s


@given(_SECONDS, st.sampled_from(_KINDS))
def test_a_time_lies_in_its_period_and_the_next_one_begins_where_it_ends(second: int, kind: str) -> None:
    period = period_at(kind, second)
    assert period.end_s is not None
    assert period.start_s <= second < period.end_s < period.start_s + period.keep_s
    if period.end_s < 253_402_300_799:
        after = period_at(kind, period.end_s)
        assert after.start_s == period.end_s
        assert after.name != period.name
    assert period_at(kind, period.end_s - 1) == period


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("hour", "2026-11-26T13"),
        ("day", "2026-11-26"),
        ("week", "week-2026-11-23"),
        ("month", "2026-11"),
        ("total", "total"),
    ],
)
def test_a_period_has_a_name(kind: str, name: str) -> None:
    assert period_at(kind, at("2026-11-26T13:59:59")).name == name


def test_what_has_no_end_begins_with_all_there_ever_was() -> None:
    period = period_at("total", at("2026-11-26T13:00:00"))
    assert (period.start_s, period.end_s) == (0.0, None)


@pytest.mark.parametrize("now_s", [-1e12, 1e15])
def test_a_clock_that_is_nowhere_near_has_periods_too(now_s: float) -> None:
    assert period_at("month", now_s).name in ("1970-01", "9999-12")
    assert period_at("week", now_s).name.startswith("week-")
