"""Traces that are kept here: what is found again, what replaces what, and what is deleted."""

from __future__ import annotations

import json
import random
import sqlite3
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from gateway.tracing import local
from gateway.tracing.delivery import Piece, Rejected, Unavailable
from gateway.tracing.search import Ambiguous, Filters, NoSuchTrace
from tests.tracing.kept import Kept, piece, trace

HOSTILE = "\x1b[31mred [bold]100%_ \r\x00 \u202e\x9b é \\ \" '); DROP TABLE spans; --"


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "data")


def state(kept: Kept) -> tuple[list[Any], list[Any]]:
    """All that is there but for the order in which it came."""
    with closing(sqlite3.connect(kept.path)) as connection:
        connection.row_factory = sqlite3.Row
        spans, traces = (
            [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY id")]
            for table in ("spans", "traces")
        )
    for one in traces:
        del one["seq"]
    return spans, traces


def numbers(kept: Kept, **filters: Any) -> list[int]:
    return [int(found.id[-6:]) for found in kept.search.list(Filters(**filters), limit=100)]


def test_a_trace_is_found_with_all_that_lists_say_of_it(kept: Kept) -> None:
    rows = trace(1, tags=["blue", "green"], error="cut", error_code="x", caller_gone=True)
    kept.put(rows)
    (found,) = kept.search.list(limit=10)
    assert (found.id, found.request_id, found.state, found.status) == ("row-000001", f"req_{1:032x}", "ended", 200)
    assert (found.model, found.served_model) == ("openai/gpt-4o-mini", "gpt-4o-mini-2024-07-18")
    assert (found.provider, found.caller, found.cost_usd) == ("openai", "tok_12345678", 0.000112)
    assert (found.prompt_tokens, found.completion_tokens, found.cached_tokens) == (12, 34, 2)
    assert (found.time_to_first_token_s, found.stream, found.caller_gone) == (0.4, True, True)
    assert (found.tags, found.error, found.error_code) == (("blue", "green"), "cut", "x")
    assert found.duration_ms == pytest.approx(2000)
    assert kept.search.rows(found) == rows, "children first"
    assert kept.search.count() == 1


def test_a_root_under_the_callers_own_span_is_a_trace_too(kept: Kept) -> None:
    rows = [trace(number, parent="a" * 16, root="b" * 32) for number in (1, 2)]
    kept.put(*rows)
    found = kept.search.list(limit=10)
    assert [kept.search.rows(one) for one in found] == rows[::-1], "each has its own children"


def test_a_refused_request_is_a_trace_of_one_row(kept: Kept) -> None:
    kept.put(trace(1, status=401)[1:])
    (found,) = kept.search.list(limit=10)
    assert (found.status, len(kept.search.rows(found))) == (401, 1)


def test_a_row_that_is_no_call_is_no_trace(kept: Kept) -> None:
    task = trace(1)[1]
    del task["metadata"]["request_id"]
    kept.put([task])
    assert kept.search.count() == 0


def test_an_open_row_is_replaced_by_its_end_and_never_the_other_way(kept: Kept) -> None:
    begun, ended = trace(1, open_=True), trace(1, interrupted=True)
    kept.put(begun)
    assert kept.search.get("row-000001").state == "open"
    kept.put(ended)
    kept.put(begun)
    assert kept.search.get("row-000001").state == "interrupted"
    assert kept.search.rows(kept.search.get("row-000001")) == ended


def test_of_two_rows_with_one_id_the_last_one_stays(kept: Kept) -> None:
    kept.put(trace(1, status=200))
    kept.put(trace(1, status=502))
    assert kept.search.get("row-000001").status == 502
    no_root = {**trace(1)[0], "id": "row-000001"}
    kept.put([no_root])
    assert kept.search.count() == 0, "what is no root any more is no trace either"


#: Three calls that have ended, and the open roots of two of them.
PIECES = [piece(row) for number in (1, 2, 3) for row in trace(number)] + [
    piece(row) for number in (1, 2) for row in trace(number, open_=True)
]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), unique_by=lambda one: one.id, max_size=5), max_size=6), st.randoms())
def test_replays_in_any_order_end_in_the_same_state(batches: list[list[Piece]], chance: random.Random) -> None:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        straight, mixed = Kept(Path(folder)), Kept(Path(other))
        whole = [PIECES[:6], PIECES[6:]]
        for batch in whole:
            straight.store.deliver(batch)
        shuffled = [*batches, *whole, *batches]
        chance.shuffle(shuffled)
        for batch in shuffled:
            mixed.store.deliver(chance.sample(batch, len(batch)))
        assert state(mixed) == state(straight)


def test_the_same_rows_again_are_no_news(kept: Kept) -> None:
    kept.put(trace(1), trace(2))
    seen = kept.search.latest()
    kept.put(trace(3))
    rows = kept.search.rows(kept.search.get("row-000001"))
    kept.put(rows)
    assert [found.id for found in kept.search.since(seen)] == ["row-000003"]


def test_what_ends_is_news_even_if_it_began_before_others(kept: Kept) -> None:
    kept.put(trace(1, open_=True, ago_s=500), trace(2))
    seen = kept.search.latest()
    kept.put(trace(1, ago_s=500))
    assert [(found.id, found.state) for found in kept.search.since(seen)] == [("row-000001", "ended")]


@pytest.mark.parametrize(
    "row",
    [
        b"{",
        b"\xff{}",
        b"[]",
        b"[" * 100_000,
        b"{}",
        b'{"id":"a","root_span_id":"b","span_id":"c"}',
        b'{"id":"a","root_span_id":"b","span_id":"c","created":"soon"}',
    ],
)
def test_a_row_that_cannot_be_read_is_rejected_and_nothing_is_kept(row: bytes, kept: Kept) -> None:
    with pytest.raises(Rejected):
        kept.store.deliver([piece(trace(1)[1]), Piece("a", row)])
    assert kept.search.count() == 0


@pytest.mark.parametrize(
    "strange",
    [
        {"metadata": {"request_id": "req_1", "status": 10**30, "cost_usd": float("inf"), "usage": [], "model": 7}},
        {"metadata": {"request_id": "req_1", "model": "\ud800", "caller": "a\0b"}, "tags": ["\udc00", None, 1]},
        {"metrics": {"start": 1e400, "end": True}, "error": {"deep": [None]}},
        {"metrics": 1, "span_attributes": {"type": "task", "name": ["x"]}, "span_parents": [None], "tags": "t"},
        {"input": float("nan"), "output": 1},
    ],
)
def test_a_row_of_a_strange_shape_is_kept_and_every_query_answers(strange: dict[str, Any], tmp_path: Path) -> None:
    kept = Kept(tmp_path, keep_days=100_000)
    row = {**trace(1)[1], **strange}

    kept.store.deliver([Piece("row-000001", json.dumps(row).encode())])
    (found,) = kept.search.list(limit=5)
    assert kept.search.list(Filters(text="zebra", tag="t", model="*"), limit=5) == []
    assert len(kept.search.rows(found)) == 1


def test_a_text_is_found_however_deep_it_lies(kept: Kept) -> None:
    deep: Any = "needle"
    for _ in range(400):
        deep = {"a": [deep]}
    kept.put(trace(1, said=deep))
    assert numbers(kept, text="needle") == [1]


def test_a_busy_database_is_unavailable(kept: Kept) -> None:
    with closing(sqlite3.connect(kept.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="others have held"):
            kept.put(trace(1))
    kept.put(trace(1))
    assert kept.search.count() == 1


def test_a_damaged_database_is_unavailable(kept: Kept) -> None:
    kept.path.write_bytes(b"no database" * 1000)
    with pytest.raises(Unavailable, match="is not a database"):
        kept.put(trace(1))


def test_the_newest_come_first_and_pages_follow_each_other(kept: Kept) -> None:
    kept.put(*(trace(number, ago_s=1000 - number // 2) for number in range(20)))
    pages, before = [], None
    while page := kept.search.list(limit=6, before=before):
        pages += [found.cursor for found in page]
        before = page[-1].cursor
    assert len(pages) == 20
    assert pages == sorted(pages, reverse=True)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"model": "openai/gpt-4o-mini"}, [4, 1]),
        ({"model": "openai/*"}, [4, 1]),
        ({"model": "*claude*"}, [3, 2]),
        ({"model": "claude-x"}, [3]),
        ({"model": "open%"}, []),
        ({"model": "openai/gpt_4o_mini"}, []),
        ({"caller": "tok_b"}, [2]),
        ({"callers": ("tok_b", "tok_c")}, [2]),
        ({"callers": ()}, []),
        ({"status": "404"}, [2]),
        ({"status": "4xx"}, [2]),
        ({"status": "error"}, [3, 2]),
        ({"status": "open"}, [4]),
        ({"min_cost_usd": 0.5}, [3]),
        ({"tag": "blue"}, [3, 1]),
        ({"tag": "bl_e"}, []),
        ({"tag": "ue"}, []),
        ({"text": "a shark"}, [1]),
        ({"text": "SHARK"}, [1]),
        ({"text": "no such model"}, [2]),
        ({"text": "not found, and not asked"}, []),
        ({"text": "tok_b"}, []),
        ({"tag": "blue", "status": "error"}, [3]),
    ],
)
def test_filters_find_what_they_say(filters: dict[str, Any], found: list[int], kept: Kept) -> None:
    kept.put(
        trace(1, ago_s=400, said="a shark", tags=["blue"]),
        trace(
            2, ago_s=300, model="anthropic/claude", served_model=None, caller="tok_b", status=404, error="no such model"
        ),
        trace(3, ago_s=200, model="alias", served_model="claude-x", cost_usd=0.6, error="cut", tags=["red", "blue"]),
        trace(4, ago_s=100, open_=True),
    )
    assert numbers(kept, **filters) == found


def test_a_range_of_time_has_its_begin_and_not_its_end(kept: Kept) -> None:
    kept.put(*(trace(number, ago_s=500 - number) for number in range(5)))
    starts = [found.started for found in kept.search.list(limit=5)][::-1]
    assert numbers(kept, since_s=starts[1], until_s=starts[3]) == [2, 1]


@pytest.mark.parametrize("status", ["", "40", "4x", "xx", "abc", "٤٠٤", "200 OR 1=1"])
def test_a_status_that_is_none_is_refused(status: str, kept: Kept) -> None:
    with pytest.raises(ValueError, match="is no status"):
        kept.search.list(Filters(status=status), limit=1)


@pytest.mark.parametrize("part", [HOSTILE, "[bold]", "100%_", "%", "_", "\\", '"', "\x1b", "\0", "É", "\r", "'); DROP"])
def test_a_text_is_found_sign_by_sign(part: str, kept: Kept) -> None:
    kept.put(trace(1, said=HOSTILE, tags=[HOSTILE]), trace(2, said="plain words only", answer="too"))
    assert numbers(kept, text=part) == [1]
    assert numbers(kept, text=f"{part}!") == []


def test_a_text_is_found_in_long_texts_and_in_parts(kept: Kept) -> None:
    kept.put(
        trace(1, said=[{"type": "text", "text": "x" * 1_000_000 + "needle"}]),
        trace(2, answer="y" * 1_000_000),
        trace(3),
    )
    assert numbers(kept, text="xneedle") == [1]


def test_get_takes_any_of_the_ids_and_the_beginning_of_one(kept: Kept) -> None:
    kept.put(trace(0xABCDEF << 100), trace(2, root="c0ffee" + "0" * 26))
    first = (
        kept.search.list(limit=5)[1] if kept.search.list(limit=5)[0].id.endswith("2") else kept.search.list(limit=5)[0]
    )
    for asked in (first.request_id, first.id, first.root_span_id, first.request_id[:14]):
        assert kept.search.get(asked).id == first.id
    assert kept.search.get("c0ffee").id == "row-000002"


def test_get_names_all_that_an_id_could_be(kept: Kept) -> None:
    kept.put(trace(1), trace(2), trace(3, root="d" * 32), trace(4, root="d" * 32))
    with pytest.raises(Ambiguous) as caught:
        kept.search.get("row-00000")
    assert {found.id for found in caught.value.traces} == {f"row-{number:06}" for number in (1, 2, 3, 4)}
    with pytest.raises(Ambiguous):
        kept.search.get("d" * 32)
    assert kept.search.get("row-000001").id == "row-000001"


@pytest.mark.parametrize("asked", ["row-0", "", "%%%%%%", "______", "row_000001", "row-000001x"])
def test_get_finds_nothing_by_a_short_or_wrong_beginning(asked: str, kept: Kept) -> None:
    kept.put(trace(1))
    with pytest.raises(NoSuchTrace):
        kept.search.get(asked)


def test_what_is_too_old_goes_with_all_its_rows(tmp_path: Path) -> None:
    kept = Kept(tmp_path, keep_days=1)
    stray = {**trace(9, ago_s=100_000)[0], "id": "stray"}
    kept.put(trace(1, ago_s=100_000), trace(2), [stray])
    assert numbers(kept) == [2], "the first delivery sweeps"
    assert [row["id"] for row in state(kept)[0]] == ["llm-000002", "row-000002"]


def test_the_oldest_go_until_the_size_is_right_and_the_file_shrinks(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.put(*(trace(number, ago_s=10_000 - number, said="x" * 20_000) for number in range(300)))
    before = kept.path.stat().st_size
    limited = local.LocalTraces(kept.database, 14, before // 3)
    gone = limited.sweep()
    left = numbers(kept)
    assert 150 < gone < 290
    assert left == sorted(left, reverse=True)[: len(left)]
    assert kept.search.count() == 300 - gone
    assert min(numbers(kept)) == gone, "the newest stay"
    assert before // 5 < kept.path.stat().st_size <= before // 3
    assert limited.sweep() == 0, "once is enough"


def test_rows_without_a_root_go_too_where_room_is_needed(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.put(*([{**trace(number, said="x" * 5_000)[0], "id": f"s{number}"}] for number in range(100)))
    local.LocalTraces(kept.database, 14, 10).sweep()
    assert state(kept)[0] == []


def test_a_sweep_never_holds_the_database_for_more_than_500_traces(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.put(*(trace(number, ago_s=100) for number in range(1100)))
    old = local.LocalTraces(kept.database, 0, 1 << 30)
    counts: list[int] = []
    monkeypatch.setattr(local.time, "sleep", lambda _s: counts.append(kept.search.count()))
    assert old.sweep() == 1100
    assert counts[:3] == [600, 100, 0]


def test_deliveries_sweep_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(tmp_path)
    swept: list[float] = []
    now = [1000.0]
    monkeypatch.setattr(local.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(kept.store, "sweep", lambda: swept.append(now[0]))
    for now[0] in (1000.0, 1030.0, 1059.0, 1061.0, 1100.0):
        kept.put(trace(1))
    assert swept == [1000.0, 1061.0]


def test_a_sweep_that_fails_does_not_fail_the_delivery(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> int:
        raise local.StorageError("full")

    monkeypatch.setattr(kept.store, "sweep", fail)
    kept.put(trace(1))
    assert kept.search.count() == 1
    assert "old traces were not deleted" in caplog.text


def test_a_reader_without_the_tables_is_told_so(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.database.write(lambda connection: connection.execute(text("DROP TABLE traces")) and None)
    with pytest.raises(local.StorageError, match="not those of this release"):
        kept.search.count()


def test_of_many_requests_those_with_a_trace_are_found(kept: Kept) -> None:
    kept.put(trace(1), trace(2))
    asked = {f"req_{number:032x}" for number in (1, 2, *range(1000, 2200))}
    assert kept.search.kept_of(asked) == {f"req_{1:032x}", f"req_{2:032x}"}
    assert kept.search.kept_of(()) == set()


def test_a_call_that_hangs_under_an_older_one_stays_whole_when_that_one_goes(tmp_path: Path) -> None:
    kept = Kept(tmp_path, keep_days=1)
    older = trace(1, ago_s=90_000)
    kept.put(older, trace(2, ago_s=60, root=older[-1]["root_span_id"], parent=older[-1]["span_id"]))
    kept.store.sweep()
    [left] = kept.search.list(limit=10)
    assert [row["id"] for row in kept.search.rows(left)] == ["llm-000002", "row-000002"]


@pytest.mark.parametrize("start", [1e250, -1e18, 253_402_300_800.0])
def test_a_time_that_cannot_be_shown_is_that_of_the_row_s_making(kept: Kept, start: float) -> None:
    rows = trace(1)
    now = datetime.now(UTC)
    rows[-1]["created"] = now.isoformat()
    rows[-1]["metrics"]["start"] = start
    kept.put(rows)
    assert kept.search.list(limit=1)[0].started == now.timestamp()
