"""Calls over time: steps, histograms, errors; the same from rows and from hours that were added up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.storage.database import Database
from gateway.storage.usage import Histogram, Span, UsageRows, Wanted
from gateway.storage.usage_times import BOUNDS_S, bin_of
from tests.storage.test_usage import DAY_S, HOUR_S, NOVEMBER_S, row

Opened = Callable[..., Database]
DAYS = Span(NOVEMBER_S, int(HOUR_S), 72)


@pytest.fixture
def rows(opened: Opened) -> UsageRows:
    kept = UsageRows(opened())
    kept.keep(
        [
            row(
                number,
                started=NOVEMBER_S + number * 1_000,
                ended=NOVEMBER_S + number * 1_000 + (0.1 if number % 10 else 9.0),
                time_to_first_token_s=0.05 if number % 2 else None,
                error_code="rate_limit_exceeded" if number % 7 == 0 else None,
                provider="openai" if number % 14 else None,
                caller="tok_a" if number % 3 else "tok_b",
            )
            for number in range(200)
        ]
    )
    return kept


def told(rows: UsageRows, wanted: Wanted, span: Span) -> list[tuple[object, ...]]:
    return [
        (one.requests, one.failed, one.cost_nano, one.prompt_tokens, one.took.counts, one.first.counts)
        for one in rows.timeline(wanted, span)
    ]


def test_each_call_is_in_the_step_in_which_it_began(rows: UsageRows) -> None:
    steps = rows.timeline(Wanted(), DAYS)
    assert len(steps) == 72
    assert sum(one.requests for one in steps) == 200
    assert steps[0].requests == 4  # at 0, 1000, 2000 and 3000 s
    assert sum(one.failed for one in steps) == 29
    assert sum(sum(one.first.counts) for one in steps) == 100


def test_hours_that_were_added_up_tell_the_same(rows: UsageRows) -> None:
    before = told(rows, Wanted(), DAYS)
    errors = rows.errors(Wanted(), Span(NOVEMBER_S, int(DAY_S), 3))
    assert rows.add_up(NOVEMBER_S + 2.5 * DAY_S, 99) == 59
    assert told(rows, Wanted(), DAYS) == before
    assert rows.errors(Wanted(), Span(NOVEMBER_S, int(DAY_S), 3)) == errors
    assert rows.add_up(NOVEMBER_S + 2.5 * DAY_S, 99) == 0


def test_a_filter_holds_for_each_step(rows: UsageRows) -> None:
    rows.add_up(NOVEMBER_S + 2.5 * DAY_S, 99)
    assert sum(one.requests for one in rows.timeline(Wanted(caller="tok_b"), DAYS)) == 67


def test_errors_are_told_by_code_and_provider(rows: UsageRows) -> None:
    found = rows.errors(Wanted(), DAYS)
    assert {name: sum(counts) for name, counts in found.items()} == {
        ("rate_limit_exceeded", ""): 15,
        ("rate_limit_exceeded", "openai"): 14,
    }


@pytest.mark.parametrize("length_s", [0.0, 0.001, 0.005, 0.0051, 0.3, 5.0, 100.0, 5_000.0])
def test_the_database_and_the_code_put_a_length_in_the_same_place(opened: Opened, length_s: float) -> None:
    kept = UsageRows(opened())
    kept.keep([row(started=NOVEMBER_S, ended=NOVEMBER_S, time_to_first_token_s=length_s)])
    [step] = kept.timeline(Wanted(), Span(NOVEMBER_S, 60, 1))
    assert step.first.counts.index(1) == bin_of(length_s)


def test_a_quantile_is_right_to_a_quarter() -> None:
    histogram = Histogram()
    for number in range(1, 1001):
        histogram.add(bin_of(number / 1000), 1)
    for share in (0.5, 0.95, 0.99):
        found = histogram.quantile(share)
        assert found is not None
        assert found == pytest.approx(share, rel=0.13)
    assert Histogram().quantile(0.5) is None
    beyond = Histogram()
    beyond.add(len(BOUNDS_S), 1)
    assert beyond.quantile(0.5) == BOUNDS_S[-1]


def test_single_rows_are_found_by_all_that_can_be_asked(rows: UsageRows) -> None:
    def count(**wanted: object) -> int:
        return len(rows.page(Wanted(**wanted), limit=500).items)  # type: ignore[arg-type]

    assert count(named="fast") == count(named="openai/*") == count(named="f*t") == 200
    assert count(named="fas") == count(named="%") == count(named="f_st") == 0
    assert count(status="error") == count(error_code="rate_limit_exceeded") == 29
    assert count(status="200") == count(status="2xx") == 200
    assert count(status="lost") == count(status="5xx") == 0
    assert count(min_took_s=8.0) == 20
    assert count(min_cost_nano=1_500) == 200
    assert count(min_cost_nano=1_501) == 0
    with pytest.raises(ValueError, match="no status"):
        count(status="bad")


def test_rows_are_found_by_the_ids_of_their_requests(rows: UsageRows) -> None:
    id = f"req_{5:032x}"
    found = rows.of_requests([id, "req_none", "\0", "é"])
    assert list(found) == [id]
    assert found[id]["planned"] == ["openai/fast-1"]


def test_the_pace_of_deployments_is_of_answered_calls(rows: UsageRows) -> None:
    pace = rows.pace(Wanted())
    assert sum(pace["openai/fast-1"].counts) == 171
    assert pace["openai/fast-1"].quantile(0.5) == pytest.approx(0.1, rel=0.25)
