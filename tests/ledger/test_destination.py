"""From the spool into the table: ends that nobody saw, rows that come again, rows that cannot be kept."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.calls import Caller, Outcome
from gateway.core.pricing import Meter, Prices
from gateway.errors import InternalError
from gateway.ledger import Entry, Ledger
from gateway.ledger.destination import UsageTable, columns
from gateway.storage.database import Database, StorageBusy
from gateway.storage.migrate import upgrade
from gateway.storage.usage import UsageRows, Wanted
from gateway.tracing.backlog import look
from gateway.tracing.delivery import Piece, Rejected, Unavailable
from gateway.tracing.frames import dumps
from gateway.tracing.sender import Sender
from gateway.tracing.spool import Spool
from tests.builders import attempt, call

JSON = dict[str, Any]


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[UsageRows]:
    upgrade(tmp_path / "gateway.db")
    made = UsageRows(Database(tmp_path / "gateway.db", patience_s=0.1), keep_days=1)
    yield made
    made.release()


class Host:
    """A gateway's ledger with its spool, whose process may die."""

    def __init__(self, folder: Path, rows: UsageRows, cap_bytes: int = 64 << 20) -> None:
        self.folder, self.cap_bytes = folder / "spool", cap_bytes
        self.sender = Sender(self.folder, UsageTable(rows), name="ledger", cap_bytes=cap_bytes, late_s=math.inf)
        self.spool = Spool(self.folder, self.sender, name="ledger", cap_bytes=cap_bytes, fsync="off")
        self.ledger = Ledger(self.spool, rows, Meter(Prices({})))

    def begin(self, number: int, **fields: Any) -> Entry:
        caller = Caller("key_abc", "proj_1", "key", key_id="abc")
        entry = self.ledger.entry(call("fast", id=f"req_{number:032x}", caller=caller, **fields))
        entry.open([attempt("openai/a"), attempt("groq/b")])
        return entry

    def die(self) -> None:
        """What is left of a process that was killed: its files, and no lock on them."""
        opened, self.spool._open = self.spool._open, None
        assert opened is not None
        self.spool._forget(opened)

    def deliver(self) -> None:
        sender = Sender(self.folder, self.sender._destination, name="ledger", cap_bytes=self.cap_bytes)
        assert sender.drain(10)


def outcome(status: int = 200, **fields: Any) -> Outcome:
    return Outcome(status, [attempt("openai/a")], time.time(), **fields)


def found(rows: UsageRows) -> dict[int, JSON]:
    return {int(row["request_id"][4:], 16): row for row in rows.page(Wanted()).items}


def test_what_a_killed_process_leaves_open_becomes_a_row_that_says_so(tmp_path: Path, rows: UsageRows) -> None:
    host = Host(tmp_path, rows)
    host.begin(1).close(outcome())
    host.begin(2, tags=("x",))
    host.die()
    host.deliver()
    kept = found(rows)
    assert (kept[1]["state"], kept[1]["status"], kept[1]["cost_nano"]) == ("ended", 200, 0)
    lost = kept[2]
    assert (lost["state"], lost["status"], lost["cost_nano"]) == ("lost", None, None)
    assert (lost["caller"], lost["key_id"], lost["model"], lost["tags"]) == ("key_abc", "abc", "fast", ["x"])
    assert lost["planned"] == ["openai/a", "groq/b"]
    assert lost["ended"] >= lost["started"]
    assert look("ledger", host.folder, 1 << 20).waiting_bytes == 0


def test_a_call_that_is_under_way_has_no_row_yet(tmp_path: Path, rows: UsageRows) -> None:
    host = Host(tmp_path, rows)
    host.sender._late_s = -1.0  # one that is told at once is skipped
    entry = host.begin(1)
    assert host.sender.drain(10)
    assert found(rows) == {}
    entry.close(outcome())
    host.deliver()
    assert found(rows)[1]["state"] == "ended"


def test_a_call_whose_row_had_no_room_is_lost(tmp_path: Path, rows: UsageRows) -> None:
    host = Host(tmp_path, rows)
    entry = host.begin(1)
    host.spool._cap_bytes = 0
    assert host.spool._open is not None
    host.spool._open.room.has = lambda _bytes: False  # type: ignore[method-assign]
    entry.close(outcome())
    host.die()
    host.deliver()
    assert found(rows)[1]["state"] == "lost"


def test_the_same_again_changes_nothing(tmp_path: Path, rows: UsageRows) -> None:
    table = UsageTable(rows)
    piece = Piece("req_1", json.dumps(spooled()).encode())
    lost = Piece("req_1", json.dumps(spooled(interrupted=True, cost_nano=None)).encode())
    for one in (piece, piece, lost):
        table.deliver([one])
    [row] = rows.page(Wanted()).items
    assert (row["state"], row["cost_nano"]) == ("ended", 5)


def spooled(**more: Any) -> JSON:
    metadata: JSON = {
        "request_id": "req_1",
        "operation": "chat",
        "caller": "tok_a",
        "caller_kind": "token",
        "tenant": "tok_a",
        "model": "fast",
        "planned": ["openai/a"],
        "stream": False,
        "cost_nano": 5,
        **more,
    }
    now_s = time.time()
    return {"id": "req_1", "metadata": metadata, "metrics": {"start": now_s, "end": now_s + 1}}


@pytest.mark.parametrize(
    "broken",
    [
        b"{",
        b"[]",
        b"{}",
        json.dumps({**spooled(), "metrics": {}}).encode(),
        json.dumps(spooled(model=None)).encode(),
        json.dumps(spooled(model=["fast"])).encode(),
        json.dumps(spooled(cost_nano=2**63)).encode(),
        json.dumps(spooled(cost_nano=1.5)).encode(),
        json.dumps(spooled(status=True)).encode(),
        json.dumps(spooled(time_to_first_token_s=math.inf)).encode(),
        json.dumps(spooled(model="\ud800")).encode(),
        b"[" * 100_000,
    ],
)
def test_a_row_that_cannot_be_kept_is_refused_and_holds_no_other_up(broken: bytes, rows: UsageRows) -> None:
    good = Piece("req_1", json.dumps(spooled()).encode())
    with pytest.raises(Rejected):
        UsageTable(rows).deliver([good, Piece("req_2", broken)])
    assert found_none(rows)
    UsageTable(rows).deliver([good])
    assert not found_none(rows)


def found_none(rows: UsageRows) -> bool:
    return rows.report(Wanted()).total.requests == 0


def test_texts_that_no_database_holds_are_mended(rows: UsageRows) -> None:
    row = dumps(spooled(model="a\0b", served_model="\ud800", tags=["x\0"]))
    UsageTable(rows).deliver([Piece("req_1", row)])
    [kept] = rows.page(Wanted()).items
    assert (kept["model"], kept["served_model"], kept["tags"]) == ("a\ufffdb", "?", ["x\ufffd"])


def test_an_open_row_is_none(rows: UsageRows) -> None:
    assert columns(json.dumps(spooled(open=True)).encode()) is None


def test_a_database_that_is_held_is_tried_again_later(rows: UsageRows, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(_rows: Any) -> None:
        raise StorageBusy("held")

    monkeypatch.setattr(rows, "keep", busy)
    with pytest.raises(Unavailable, match="held"):
        UsageTable(rows).deliver([Piece("req_1", json.dumps(spooled()).encode())])


def test_between_deliveries_old_rows_go_and_a_fault_in_that_is_logged(
    rows: UsageRows, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old = spooled()
    old["metrics"] = {"start": time.time() - 2 * 86_400, "end": time.time()}
    table = UsageTable(rows)
    table.deliver([Piece("req_1", json.dumps(old).encode())])
    assert not found_none(rows)
    table.tend()
    assert found_none(rows), "it is older than a day"

    def busy(_now_s: float) -> int:
        raise StorageBusy("held")

    monkeypatch.setattr(rows, "sweep", busy)
    with caplog.at_level(logging.WARNING):
        UsageTable(rows).tend()
    assert "the ledger was not tidied up" in caplog.text


def test_hours_that_are_over_are_added_up_a_few_at_a_time_and_then_looked_for_once_a_minute(
    rows: UsageRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = UsageRows.add_up

    def add_up(self: UsageRows, now_s: float, most: int) -> int:
        asked.append(real(self, now_s, most))
        return asked[-1]

    monkeypatch.setattr(UsageRows, "add_up", add_up)
    now_s = time.time()
    table = UsageTable(rows, lambda: now_s)
    old = spooled()
    old["metrics"] = {"start": now_s - 5 * 3_600, "end": now_s - 5 * 3_600}
    table.deliver([Piece("req_1", json.dumps(old).encode())])
    for _ in range(20):
        table.tend()
    assert asked[0] == 4
    assert asked[-1] == 0
    assert asked.count(0) == 1, "once all are added up, the next look is a minute away"


def test_the_sender_tends_the_ledger_though_no_row_is_to_be_delivered(
    tmp_path: Path, rows: UsageRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    tended = threading.Event()
    monkeypatch.setattr(UsageTable, "tend", lambda _self: tended.set())
    host = Host(tmp_path, rows)
    host.begin(1)
    host.sender.start()
    try:
        assert tended.wait(10)
    finally:
        host.sender.finish(None, 2)


def test_a_call_that_failed_in_the_gateway_is_a_row_as_well(tmp_path: Path, rows: UsageRows) -> None:
    host = Host(tmp_path, rows)
    host.begin(1).close(outcome(500, error=InternalError("fault")))
    host.die()
    host.deliver()
    assert rows.report(Wanted()).total.failed == 1
