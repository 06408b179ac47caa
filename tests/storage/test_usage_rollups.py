"""Sums of hours and days: they change no answer, and go with what they are of."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway.storage.database import Database
from gateway.storage.usage import GROUPS, Span, UsageRows, Wanted
from gateway.storage.usage_rollups import GRACE_S, WHOLE_HOURS
from tests.storage.test_usage import DAY_S, HOUR_S, NOVEMBER_S, lost, row

JSON = dict[str, Any]
Opened = Callable[..., Database]

CALLERS = ("key_k0", "key_k1", "tok_a")
ALL_DAYS = 24 * 99


class Clock:
    """A clock that a test sets."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock(NOVEMBER_S + 5 * DAY_S + 3 * HOUR_S)


@pytest.fixture
def dated(opened: Opened, clock: Clock) -> UsageRows:
    return UsageRows(opened(), clock=clock)


def varied(number: int, started: float) -> JSON:
    """A row that differs from its neighbours in all that rows are grouped by."""
    tags = [None, '["a"]', '["a", "b"]'][number % 3]
    whose = {"caller": f"key_k{number % 2}", "key_id": f"k{number % 2}"} if number % 4 else {}
    what = {"model": f"m{number % 2}", "cost_nano": None if number == 4 else 1_000 * number, "tags": tags}
    more = {"user": ["ann", "", None][number % 3], "provider": None if number == 7 else "openai"}
    failed = {"error_code": "rate_limit_exceeded", "deployment": None} if number % 5 == 3 else {}
    lengths = {
        "ended": started + 0.07 * (number % 11),
        "time_to_first_token_s": [None, 0.02 * (number % 7)][number % 2],
    }
    return row(number, started=started, **whose, **what, **more, **failed, **lengths)


def many(days: int = 6) -> list[JSON]:
    """Rows of some days, three a day."""
    return [varied(number, NOVEMBER_S + number * DAY_S / 3 + 60) for number in range(3 * days)]


SPANS = [
    Wanted(),
    Wanted(since_s=NOVEMBER_S),
    Wanted(since_s=NOVEMBER_S + DAY_S, until_s=NOVEMBER_S + 3 * DAY_S),
    Wanted(since_s=NOVEMBER_S + DAY_S / 2, until_s=NOVEMBER_S + 3.5 * DAY_S),
    Wanted(since_s=NOVEMBER_S + 5.75 * HOUR_S, until_s=NOVEMBER_S + 2 * DAY_S + 5.75 * HOUR_S),  # a day of Kathmandu's
    Wanted(until_s=NOVEMBER_S + 2 * DAY_S),
    Wanted(since_s=NOVEMBER_S + 3 * DAY_S, until_s=NOVEMBER_S + 3 * DAY_S),
    Wanted(since_s=NOVEMBER_S + DAY_S / 4, until_s=NOVEMBER_S + DAY_S / 2),
    Wanted(key="k1"),
]
BYS = [(), *((name,) for name in GROUPS), ("day", "model"), ("tag", "day"), ("month", "key"), ("key", "model")]


def told(kept: UsageRows, wanted: Wanted) -> list[Any]:
    """All that the ledger answers about a time."""
    span = Span(wanted.since_s or NOVEMBER_S, int(3 * HOUR_S), 24)
    steps = [
        (one.requests, one.failed, one.cost_nano, one.cached_tokens, one.took.counts, one.first.counts)
        for one in kept.timeline(wanted, span)
    ]
    pace = {name: one.counts for name, one in kept.pace(wanted).items()}
    reports = kept.reports(wanted, ("caller", "model", "provider"))
    return [*(kept.report(wanted, by) for by in BYS), reports, steps, kept.errors(wanted, span), pace]


def raw(wanted: Wanted) -> Wanted:
    """The same rows, said so that no sum stands for them."""
    return replace(wanted, callers=CALLERS)


def test_what_was_added_up_changes_no_answer(dated: UsageRows, clock: Clock) -> None:
    dated.keep(many())
    before = [told(dated, wanted) for wanted in SPANS]
    assert dated.add_up(clock.now_s, 50) == 50, "two days and two hours: some are there and some are not"
    assert [told(dated, wanted) for wanted in SPANS] == before
    assert dated.add_up(clock.now_s, ALL_DAYS) == 5 * 24 + 2 - 50, "the hour that is now is not over, nor its grace"
    assert dated.add_up(clock.now_s, ALL_DAYS) == 0
    assert [told(dated, wanted) for wanted in SPANS] == before
    assert before[0][0].total.requests == 18
    for whole, by in zip(before[0], BYS, strict=False):
        short = dated.report(Wanted(), by, limit=1)
        assert (short.groups, short.total) == (whole.groups[:1], whole.total)
        assert short.more is (len(whole.groups) > 1)


@pytest.mark.parametrize("seed", range(4))
def test_sums_are_those_of_the_rows_whatever_comes_when(seed: int, opened: Opened) -> None:
    """Rows of now and late ones, lost ones with and without their outcome, and hours added up in between."""
    chance, clock = random.Random(seed), Clock(NOVEMBER_S + moment_of_day(seed))
    kept = UsageRows(opened(), clock=clock)
    number, open_calls, rows = 0, list[JSON](), dict[str, JSON]()
    for _ in range(12):
        batch = list[JSON]()
        for _ in range(chance.randrange(12)):
            number += 1
            # most began just now, some hours ago, a few days ago: on the edge of an hour as well
            age_s = chance.choice(
                [0, chance.uniform(0, 900), chance.uniform(0, 4 * HOUR_S), chance.uniform(0, 4 * DAY_S)]
            )
            started = max(NOVEMBER_S - DAY_S, clock.now_s - age_s)
            made = varied(number, chance.choice([started, started // HOUR_S * HOUR_S]))
            if chance.random() < 0.25:
                open_calls.append(made)
                made = lost(
                    number, **{name: made[name] for name in ("started", "caller", "key_id", "model") if name in made}
                )
            batch.append(made)
        if open_calls and chance.random() < 0.6:
            ended = open_calls.pop(chance.randrange(len(open_calls)))
            batch = [one for one in batch if one["request_id"] != ended["request_id"]] + [ended]
        kept.keep(batch)
        rows |= {one["request_id"]: one for one in batch}
        clock.now_s += chance.choice([60.0, 700.0, HOUR_S, 7 * HOUR_S, 1.3 * DAY_S])
        kept.add_up(clock.now_s, chance.choice([0, 3, 40, ALL_DAYS]))
    somewhere, this_hour = chance.uniform(NOVEMBER_S, clock.now_s), clock.now_s // HOUR_S * HOUR_S
    times = [(None, None), (this_hour - DAY_S, clock.now_s), (NOVEMBER_S, somewhere), (somewhere, this_hour)]
    for since_s, until_s in times:
        wanted = Wanted(since_s, until_s)
        assert told(kept, wanted) == told(kept, raw(wanted))
        meant = [one for one in rows.values() if (since_s or 0) <= one["started"] < (until_s or 1e12)]
        total = kept.report(wanted).total
        assert total.requests == len(meant)
        assert total.lost == sum(one["state"] == "lost" for one in meant)
        assert total.cost_nano == sum(one.get("cost_nano") or 0 for one in meant)
        assert total.tokens["total_tokens"] == sum(one.get("total_tokens") or 0 for one in meant)


def moment_of_day(seed: int) -> float:
    """Some moment of a day, its last and its first second among them."""
    return [DAY_S - 1, 0.0, 13.4 * HOUR_S + GRACE_S, HOUR_S - 0.001][seed]


def test_pages_read_the_sums(dated: UsageRows, clock: Clock, opened: Opened) -> None:
    dated.keep(many())
    dated.add_up(clock.now_s, ALL_DAYS)
    before = told(dated, Wanted())
    opened().write(lambda connection: connection.exec_driver_sql("UPDATE usage_days SET requests = requests + 100"))
    assert dated.report(Wanted(), ["model"]).total.requests > before[0].total.requests
    opened().write(lambda connection: connection.exec_driver_sql("UPDATE usage_hours SET requests = requests + 100"))
    span = Span(NOVEMBER_S, int(HOUR_S), 24)
    assert sum(step.requests for step in dated.timeline(Wanted(), span)) == 3 + 24 * 100
    lately = Wanted(since_s=clock.now_s - 3 * HOUR_S)
    assert dated.report(lately, ["model"]).total.requests == dated.report(raw(lately)).total.requests + 100


def test_a_row_that_comes_late_is_in_every_report_after_it(dated: UsageRows, clock: Clock) -> None:
    dated.keep(many())
    dated.add_up(clock.now_s, ALL_DAYS)
    before = dated.report(Wanted(), ["model"]).total
    dated.keep([lost(900, started=NOVEMBER_S + 60, model="m0")])
    assert dated.report(Wanted(), ["model"]).total.requests == before.requests + 1
    assert dated.add_up(clock.now_s, ALL_DAYS) == 3, "its day needs all of its hours with calls"
    dated.keep([row(900, started=NOVEMBER_S + 60, model="m0")])
    after = dated.report(Wanted(), ["model"]).total
    assert (after.requests, after.lost, after.cost_nano) == (before.requests + 1, 0, before.cost_nano + 1_500)


def test_a_row_that_comes_before_its_hour_is_added_up_costs_nothing(
    dated: UsageRows, clock: Clock, opened: Opened
) -> None:
    dated.keep(many())
    dated.add_up(clock.now_s, ALL_DAYS)
    number = "SELECT number FROM revisions WHERE name = 'usage'"
    before = opened().read(lambda connection: connection.exec_driver_sql(number).scalar_one())
    dated.keep([row(900, started=clock.now_s)])
    clock.now_s += GRACE_S / 3
    dated.keep([row(901, started=NOVEMBER_S + 5 * DAY_S + 3 * HOUR_S - 1)])
    assert opened().read(lambda connection: connection.exec_driver_sql(number).scalar_one()) == before
    assert dated.report(Wanted()).total.requests == 20
    dated.add_up(clock.now_s + GRACE_S, ALL_DAYS)
    assert dated.report(Wanted()).total.requests == 20


def test_what_is_added_up_while_a_row_comes_is_done_again(
    dated: UsageRows, clock: Clock, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    dated.keep(many())
    other = UsageRows(opened(), clock=clock)
    real, late = Database.write, [row(900, started=NOVEMBER_S + 4.9 * DAY_S)]

    def write(self: Database, *given: Any, **named: Any) -> Any:
        if late:
            other.keep([late.pop()])
        return real(self, *given, **named)

    monkeypatch.setattr(Database, "write", write)
    assert dated.add_up(clock.now_s, 1) == 0
    monkeypatch.undo()
    assert dated.add_up(clock.now_s, ALL_DAYS) == 5 * 24 + 2
    assert dated.report(Wanted()).total.requests == 19


def test_hours_keep_no_more_than_the_pages_need_once_their_day_is_added_up(
    dated: UsageRows, clock: Clock, opened: Opened
) -> None:
    dated.keep(many())
    dated.add_up(clock.now_s, ALL_DAYS)
    query = "SELECT min(hour) FROM usage_hours WHERE kind = 'model'"
    oldest = opened().read(lambda connection: connection.exec_driver_sql(query).scalar_one())
    assert oldest >= (clock.now_s - GRACE_S) // HOUR_S - WHOLE_HOURS
    query = "SELECT count(*) FROM usage_hours WHERE kind = ''"
    assert opened().read(lambda connection: connection.exec_driver_sql(query).scalar_one()) == 5 * 24 + 2


def test_sums_go_with_the_rows_that_they_are_of(opened: Opened, clock: Clock) -> None:
    kept = UsageRows(opened(), keep_days=2, clock=clock)
    kept.keep(many())
    kept.add_up(NOVEMBER_S + 2.2 * DAY_S, ALL_DAYS)
    now_s = NOVEMBER_S + 4.5 * DAY_S
    kept.sweep(now_s)
    left = kept.report(Wanted(since_s=now_s - 2 * DAY_S)).total
    assert kept.report(Wanted()).total == left
    assert kept.add_up(now_s, ALL_DAYS) > 0
    assert kept.add_up(now_s, ALL_DAYS) == 0, "what cannot be whole any more is not added up again and again"
    assert kept.report(Wanted()).total == left
    assert kept.report(Wanted(), ["day"]).groups[0].by == {"day": "2026-11-03"}
