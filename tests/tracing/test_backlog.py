"""A folder, seen from outside, is what its sender sees of it, whatever callers wrote into its rows."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from gateway.tracing.backlog import look, read_calls, some_waiting, waiting
from gateway.tracing.frames import row_frame
from gateway.tracing.record import Record
from gateway.tracing.segments import Segment
from tests.fakes.destination import root, trace
from tests.tracing.test_sender import CAP, by_hand, spool

FRAME = row_frame("id", "a", b'{"id":"a","metrics":{"start":1.0,"end":2.0}}')
LIES: dict[str, Any] = {
    "a time long ago": {"metrics": {"start": 0}},
    "a time to come": {"metrics": {"start": 9e15}},
    "no time": {"metrics": {"start": "x"}},
    "a text": 'a,"metrics":{"start":0}',
}


@pytest.mark.parametrize(
    ("ack", "acked_bytes"),
    [
        (b"%020d" % len(FRAME), len(FRAME)),
        (b"%d" % len(FRAME), 0),  # torn
        (b"%020d" % 10_000, 0),  # of another file
        (b"", 0),
    ],
)
def test_what_waits_is_what_the_sender_will_send(ack: bytes, acked_bytes: int, tmp_path: Path) -> None:
    path = tmp_path / f"{1:020d}-aaaaaaaa-000001.seg"
    path.write_bytes(2 * FRAME)
    path.with_suffix(".ack").write_bytes(ack)
    assert Segment(path).acked_bytes == acked_bytes
    assert look("traces", tmp_path, 1 << 30).waiting_bytes == 2 * len(FRAME) - acked_bytes
    assert len(list(waiting(tmp_path))) == (1 if acked_bytes else 2)


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_no_callers_metadata_says_how_old_a_row_is(tmp_path: Path, lie: Any) -> None:
    ended_s = time.time() - 500
    facts = {"request_id": "req_1", "metadata": lie}
    row = {**root("a"), "metadata": facts, "metrics": {"start": ended_s - 100, "end": ended_s}}
    spool(tmp_path).write(Record([{"id": "a", **{name: value for name, value in row.items() if name != "id"}}]))
    assert look("t", tmp_path, CAP).oldest_s == pytest.approx(500, abs=5)


def test_a_row_that_is_too_long_to_be_read_is_as_old_as_its_segment(tmp_path: Path) -> None:
    spool(tmp_path).write(trace("a", "x" * 1_000_000, children=0))
    [path] = tmp_path.glob("*.seg")
    os.utime(path, (time.time(), time.time() - 300))
    assert look("t", tmp_path, CAP).oldest_s == pytest.approx(300, abs=5)


def test_of_each_process_one_segment_is_read_however_many_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        by_hand(tmp_path, f"{2:020d}-aaaaaaaa", f"c{number}", number=number + 1)
    read: list[bytes] = []
    loads = json.loads

    def counted(text: bytes) -> Any:
        read.append(text)
        return loads(text)

    monkeypatch.setattr(json, "loads", counted)
    assert look("t", tmp_path, CAP).waiting_bytes == sum(path.stat().st_size for path in tmp_path.glob("*.seg"))
    assert len(read) < 5


STRANGE: dict[str, Callable[[Path], None]] = {
    "a folder": Path.mkdir,
    "a named pipe": os.mkfifo,
    "a link": lambda path: path.symlink_to(by_hand(path.parent, "elsewhere", "not-ours")),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_segment_hides_no_row_and_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    STRANGE[kind](tmp_path / f"{1:020d}-aaaaaaaa-000001.seg")
    good = by_hand(tmp_path, f"{2:020d}-aaaaaaaa", "good")
    found = look("t", tmp_path, CAP)
    assert found.waiting_bytes >= good.stat().st_size
    assert found.oldest_s > 1e9, "that row is of 1970, the other file is new"
    assert {piece.id for seed in range(9) for piece in some_waiting(tmp_path, random.Random(seed))} == {
        "good-0",
        "good",
    }
    with nullcontext() if kind == "a named pipe" else pytest.raises(OSError, match=r"000001\.seg"):
        read_calls([tmp_path])


def test_a_folder_that_may_not_be_listed_is_trouble_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def forbidden(path: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    made = spool(tmp_path)
    made.write(trace("a"))
    assert made.backlog().trouble is None
    with monkeypatch.context() as while_forbidden:
        while_forbidden.setattr(os, "listdir", forbidden)  # root may read anything
        assert made.backlog().trouble == "traces cannot be kept"
    assert "Permission denied" in caplog.text
    assert made.backlog().waiting_bytes > 0
