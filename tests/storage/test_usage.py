"""The rows of the ledger: how they replace each other, what goes when, and what is answered about them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.core.rules import TOKENS, USD, Match
from gateway.storage.database import Database, StorageError
from gateway.storage.migrate import upgrade
from gateway.storage.usage import ROW_BYTES, UsageRows, Wanted, room_bytes
from gateway.tracing.local import LocalTraces

JSON = dict[str, Any]
Opened = Callable[..., Database]

#: 2026-11-01 00:00 UTC.
NOVEMBER_S = 1_793_491_200.0
HOUR_S, DAY_S = 3_600.0, 86_400.0


@pytest.fixture
def rows(opened: Opened) -> UsageRows:
    return UsageRows(opened())


def row(number: int = 1, **fields: Any) -> JSON:
    started = fields.pop("started", NOVEMBER_S)
    return {
        "request_id": f"req_{number:032x}",
        "started": started,
        "ended": started + 1,
        "state": "ended",
        "operation": "chat",
        "caller": "tok_a",
        "caller_kind": "token",
        "tenant": "tok_a",
        "model": "fast",
        "planned": '["openai/fast-1"]',
        "provider": "openai",
        "deployment": "openai/fast-1",
        "status": 200,
        "stream": False,
        "caller_gone": False,
        "attempts": 1,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cached_tokens": 2,
        "cache_write_tokens": 1,
        "reasoning_tokens": 3,
        "total_tokens": 15,
        "cost_nano": 1_500,
        "estimated": False,
        **fields,
    }


def lost(number: int = 1, **fields: Any) -> JSON:
    unknown = dict.fromkeys(("status", "caller_gone", "attempts", "cost_nano", "total_tokens", "prompt_tokens"))
    return row(number, **{"state": "lost", **unknown, **fields})


def states(rows: UsageRows) -> list[tuple[str, Any]]:
    return [(one["state"], one["cost_nano"]) for one in rows.page(Wanted()).items]


# Rows.


def test_a_row_comes_back_as_it_was_kept(rows: UsageRows) -> None:
    rows.keep([row(tags='["a", "b"]', price='[{"attempt": 1}]', time_to_first_token_s=0.25)])
    [found] = rows.page(Wanted()).items
    assert (found["tags"], found["planned"], found["price"]) == (["a", "b"], ["openai/fast-1"], [{"attempt": 1}])
    assert (found["time_to_first_token_s"], found["stream"], found["user"]) == (0.25, False, None)


def test_a_lost_row_never_takes_the_place_of_one_that_has_ended(rows: UsageRows) -> None:
    rows.keep([lost()])
    assert states(rows) == [("lost", None)]
    rows.keep([row()])
    assert states(rows) == [("ended", 1_500)]
    rows.keep([lost()])
    assert states(rows) == [("ended", 1_500)]


def test_a_row_that_comes_again_is_one_row(rows: UsageRows) -> None:
    rows.keep([row(1), row(2)])
    rows.keep([row(2), row(1, cost_nano=7)])
    assert sorted(states(rows)) == [("ended", 7), ("ended", 1_500)]
    rows.keep([])


def test_all_rows_are_kept_or_none(rows: UsageRows) -> None:
    with pytest.raises(StorageError):
        rows.keep([row(1), row(2, model=None)])
    assert states(rows) == []


def test_what_is_too_old_goes_in_batches_and_zero_days_keep_all(opened: Opened) -> None:
    kept, for_ever = UsageRows(opened(), keep_days=2), UsageRows(opened())
    kept.keep([row(number, started=NOVEMBER_S + number) for number in range(2_500)])
    kept.keep([row(9_999, started=NOVEMBER_S + 3 * DAY_S)])
    assert for_ever.sweep(NOVEMBER_S + 900 * DAY_S) == 0
    assert kept.sweep(NOVEMBER_S + 2 * DAY_S) == 0
    assert kept.sweep(NOVEMBER_S + 2 * DAY_S + 2_400) == 2_400
    assert for_ever.report(Wanted()).total.requests == 101


# Sums.


def test_sums_are_of_all_rows_that_are_meant(rows: UsageRows) -> None:
    rows.keep(
        [
            row(1),
            row(2, error_code="upstream_timeout", status=504, cost_nano=0),
            row(3, error_code="caller_gone", caller_gone=True, cost_nano=None),
            lost(4),
        ]
    )
    total = rows.report(Wanted()).total
    assert (total.requests, total.failed, total.lost, total.unpriced, total.cost_nano) == (4, 1, 1, 1, 1_500)
    assert total.tokens == {
        "prompt_tokens": 30,
        "completion_tokens": 20,
        "cached_tokens": 8,
        "cache_write_tokens": 4,
        "reasoning_tokens": 12,
        "total_tokens": 45,
    }


def test_nothing_adds_up_to_zero(rows: UsageRows) -> None:
    report = rows.report(Wanted(), ["model"])
    assert (list(report.groups), report.total.requests, report.total.cost_nano, report.more) == ([], 0, 0, False)
    assert set(report.total.tokens.values()) == {0}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(since_s=NOVEMBER_S + 1), [2]),
        (Wanted(until_s=NOVEMBER_S + 1), [1]),
        (Wanted(since_s=NOVEMBER_S, until_s=NOVEMBER_S + 5), [1, 2]),
        (Wanted(key="k1"), [2]),
        (Wanted(user="user_1"), [2]),
        (Wanted(user="ann"), [2]),
        (Wanted(project="proj_1"), [2]),
        (Wanted(project="shop"), [2]),
        (Wanted(caller="tok_a"), [1]),
        (Wanted(callers=("key_k1", "key_other")), [2]),
        (Wanted(callers=("tok_a", "key_k1")), [1, 2]),
        (Wanted(callers=()), []),
        (Wanted(model="slow"), [2]),
        (Wanted(provider="groq"), [2]),
        (Wanted(deployment="groq/s"), [2]),
        (Wanted(operation="embeddings"), [2]),
        (Wanted(tag="b"), [2]),
        (Wanted(tag="%"), []),
        (Wanted(key="k1", caller="tok_a"), []),
    ],
)
def test_every_filter_leaves_out_what_it_should(rows: UsageRows, wanted: Wanted, found: list[int]) -> None:
    whose = {"caller": "key_k1", "key_id": "k1", "user_id": "user_1", "user": "ann", "project_id": "proj_1"}
    what = {"model": "slow", "provider": "groq", "deployment": "groq/s", "operation": "embeddings"}
    rows.keep([row(1, tags='["a"]'), row(2, started=NOVEMBER_S + 2, project="shop", tags='["a","b"]', **whose, **what)])
    assert sorted(int(one["request_id"][4:], 16) for one in rows.page(wanted).items) == found
    assert rows.report(wanted).total.requests == len(found)


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("key", {None: 2, "k1": 1}),
        ("user", {None: 1, "bob": 1, "user_1": 1}),
        ("project", {None: 3}),
        ("caller", {"tok_a": 2, "key_k1": 1}),
        ("model", {"fast": 3}),
        ("provider", {"openai": 3}),
        ("deployment", {"openai/fast-1": 3}),
        ("operation", {"chat": 3}),
        ("tag", {"x": 2, "y": 1, None: 1}),
        ("hour", {"2026-11-01T00:00Z": 1, "2026-11-01T01:00Z": 1, "2026-12-01T00:00Z": 1}),
        ("day", {"2026-11-01": 2, "2026-12-01": 1}),
        ("month", {"2026-11": 2, "2026-12": 1}),
    ],
)
def test_rows_are_grouped_by_anything(rows: UsageRows, by: str, groups: dict[str | None, int]) -> None:
    rows.keep(
        [
            row(1, tags='["x", "y"]', user="bob"),
            row(2, started=NOVEMBER_S + HOUR_S, tags='["x"]'),
            row(3, started=NOVEMBER_S + 30 * DAY_S, caller="key_k1", key_id="k1", user_id="user_1", user="ann"),
        ]
    )
    report = rows.report(Wanted(), [by])
    assert {one.by[by]: one.requests for one in report.groups} == groups
    assert report.total.requests == 3, "a call with two tags counts once"
    if by in ("hour", "day", "month"):
        assert [one.by[by] for one in report.groups] == sorted(groups), "oldest first"  # type: ignore[type-var]


def test_the_dearest_comes_first_and_what_is_left_out_is_said(rows: UsageRows) -> None:
    rows.keep([row(number, model=f"m{number}", cost_nano=number) for number in (1, 3, 2)])
    report = rows.report(Wanted(), ["model"], limit=2)
    assert ([one.by["model"] for one in report.groups], report.more) == (["m3", "m2"], True)
    assert (report.total.requests, report.total.cost_nano) == (3, 6), "the total is of all"
    assert not rows.report(Wanted(), ["model"], limit=3).more


def test_groups_can_be_of_several_things(rows: UsageRows) -> None:
    rows.keep([row(1, model="a"), row(2, model="b", cost_nano=9_999), row(3, model="a", started=NOVEMBER_S + DAY_S)])
    found = rows.report(Wanted(), ["day", "model"]).groups
    assert [(one.by["day"], one.by["model"]) for one in found] == [
        ("2026-11-01", "b"),
        ("2026-11-01", "a"),
        ("2026-11-02", "a"),
    ]


# Pages.


def test_pages_show_every_row_once_newest_first(rows: UsageRows) -> None:
    rows.keep([row(number, started=NOVEMBER_S + number // 3) for number in range(10)])
    seen: list[str] = []
    after = None
    while True:
        page = rows.page(Wanted(), after=after, limit=3)
        seen += [one["request_id"] for one in page.items]
        if not page.more:
            break
        after = (page.items[-1]["started"], page.items[-1]["request_id"])
        rows.keep([row(100 + len(seen), started=NOVEMBER_S + DAY_S)])  # what comes meanwhile moves nothing
    assert seen == [f"req_{number:032x}" for number in (9, 8, 7, 6, 5, 4, 3, 2, 1, 0)]


# What budgets ask.


def test_what_was_spent_is_rounded_up_for_each_call_alone(rows: UsageRows) -> None:
    rows.keep([row(1, cost_nano=1), row(2, cost_nano=1_000), row(3, cost_nano=1_001), row(4, cost_nano=None), lost(5)])
    assert rows.spent(Match(), {}, 0, USD) == 1 + 1 + 2
    assert rows.spent(Match(), {}, 0, TOKENS) == 4 * 15
    assert rows.spent(Match(), {}, NOVEMBER_S + 1, USD) == 0


@pytest.mark.parametrize(
    ("match", "each", "calls"),
    [
        (Match(), {}, 4),
        (Match(key="k1"), {}, 1),
        (Match(user="ann"), {}, 2),
        (Match(user="user_1"), {}, 1),
        (Match(project="shop"), {}, 1),
        (Match(caller="tok_a"), {}, 2),
        (Match(), {"key": "k1"}, 1),
        (Match(), {"key": None}, 3),
        (Match(), {"user": "ann"}, 2),
        (Match(project="shop"), {"user": "bob"}, 0),
        (Match(model="fast"), {}, 2),
        (Match(model="openai/*"), {}, 2),
        (Match(model="groq/*"), {}, 3),
        (Match(model="*low"), {}, 1),
        (Match(), {"model": "groq/s"}, 2),
        (Match(), {"model": "openai/fast-1"}, 2),
        (Match(caller="tok_a", model="groq/*"), {"model": "openai/fast-1"}, 1),
    ],
)
def test_what_was_spent_is_of_the_calls_that_a_rule_is_about(
    rows: UsageRows, match: Match, each: dict[str, str | None], calls: int
) -> None:
    rows.keep(
        [
            row(1),
            row(2, planned='["openai/fast-1", "groq/s"]'),
            row(3, caller="key_k1", key_id="k1", user="ann", user_id="user_1", model="slow", planned='["groq/s"]'),
            row(4, caller="jwt_1", user="ann", project="shop", model="other", planned='["groq/s"]'),
        ]
    )
    assert rows.spent(match, each, NOVEMBER_S, USD) == 2 * calls


# Room.


def test_the_ledger_is_not_taken_out_of_the_room_of_the_traces(tmp_path: Path) -> None:
    upgrade(tmp_path / "gateway.db")
    database = Database(tmp_path / "gateway.db")
    kept = UsageRows(database)
    assert database.read(room_bytes) == 0
    kept.keep([row(number, tags='["a"]', price=f'[{{"cost_usd": "0.{number:06d}"}}]') for number in range(3_000)])
    took = database.read(room_bytes)
    assert took == 3_000 * ROW_BYTES
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as connection:
        [pages], [size] = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    assert 0.4 < pages * size / took < 1.2, "the measured size of a row"
    traces = LocalTraces(database, 14, 0)
    assert traces.sweep() == 0
    assert kept.report(Wanted()).total.requests == 3_000
    database.release()
