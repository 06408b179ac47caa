"""What is in the folder is delivered: in order, however often it is started, whatever the destination says."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.tracing.delivery import Piece, Rejected, TooLarge, Unavailable
from gateway.tracing.dispatch import Dispatcher, Ending
from gateway.tracing.frames import dumps, row_frame
from gateway.tracing.keeping import Quarantine, put_aside, read_state
from gateway.tracing.room import granted_bytes, used_bytes
from gateway.tracing.sender import Sender
from gateway.tracing.spool import Spool
from tests.fakes.destination import Nobody, Recording, root, segments, trace, until

CAP = 64 << 20


def sender(folder: Path, taken: Recording, **fields: Any) -> Sender:
    return Sender(folder, taken, name="t", cap_bytes=CAP, **fields)


def spool(folder: Path, mail: Any = None, **fields: Any) -> Spool:
    made = Spool(folder, mail or Nobody(), **{"cap_bytes": CAP, "fsync": "off", **fields})
    made.start()
    return made


def written(folder: Path, *ids: str, text: str = "said", open: Sequence[str] = (), **fields: Any) -> None:
    """The folder of a process that has ended."""
    made = spool(folder, **fields)
    for id in open:
        made.begin(root(id), None, 0)
    for id in ids:
        made.begin(root(id), None, 0)
        made.write(trace(id, text))
    made.close(0)


def by_hand(folder: Path, token: str, *ids: str, number: int = 1) -> Path:
    lines = [
        row_frame("id", row["id"], line, None)
        for id in ids
        for record in [trace(id)]
        for row, line in zip(record.rows, record.encoded, strict=True)
    ]
    path = folder / f"{token}-{number:06d}.seg"
    path.write_bytes(b"".join(lines))
    return path


def test_rows_are_delivered_within_a_second_children_first(tmp_path: Path) -> None:
    taken = Recording()
    made = spool(tmp_path, sender(tmp_path, taken))
    made.begin(root("a"), None, 0)
    made.write(trace("a", children=3))
    until(lambda: "a" in taken.rows, 1.0)
    made.close(5)
    assert taken.order == ["a-0", "a-1", "a-2", "a"]
    assert not segments(tmp_path)


def test_what_comes_while_the_sender_rests_is_delivered_at_once(tmp_path: Path) -> None:
    batches: list[int] = []
    taken = Recording(fail=lambda pieces: batches.append(len(pieces)))
    made = spool(tmp_path, sender(tmp_path, taken))
    made.write(trace("first"))
    until(lambda: "first" in taken.rows)
    for id in "abcd":
        made.write(trace(id))
        time.sleep(0.04)
    until(lambda: "d" in taken.rows, 1.0)
    made.close(5)
    assert batches == [2, 8]


def test_the_end_is_not_waited_for_by_a_sender_that_rests(tmp_path: Path) -> None:
    taken = Recording()
    made = spool(tmp_path, sender(tmp_path, taken))
    made.write(trace("first"))
    until(lambda: "first" in taken.rows)
    made.write(trace("last"))
    began_s = time.monotonic()
    made.close(5)
    assert "last" in taken.rows
    assert time.monotonic() - began_s < 0.4


def test_a_call_that_is_open_for_long_is_told_and_then_replaced(tmp_path: Path) -> None:
    taken = Recording()
    made = spool(tmp_path, sender(tmp_path, taken, late_s=0.05))
    made.begin(root("a"), None, 0)
    until(lambda: "a" in taken.rows)
    assert taken.rows["a"]["metadata"]["open"] is True
    made.write(trace("a"))
    made.close(5)
    assert "open" not in taken.rows["a"]["metadata"]
    assert taken.times["a"] == 2


KILLED = """
import os, random, signal, sys, pathlib
from tests.tracing.test_sender import spool, root, trace
made = spool(pathlib.Path(sys.argv[1]), segment_bytes=64 << 10)
chance = random.Random(int(sys.argv[2]))
for number in range(chance.randrange(1, 60)):
    made.begin(root(f"c{number}"), None, 0)
    print(f"begin c{number}", flush=True)
    if chance.random() < 0.7:
        made.write(trace(f"c{number}", "x" * 3000))
        print(f"end c{number}", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("seed", range(3))
def test_what_a_killed_process_left_is_delivered_and_its_open_calls_are_interrupted(tmp_path: Path, seed: int) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path, str(seed)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    said = [line.split() for line in done.stdout.splitlines()]
    ended = {id for word, id in said if word == "end"}
    opened = {id for word, id in said if word == "begin"} - ended
    taken = Recording()
    assert sender(tmp_path, taken).drain(10)
    assert {id for id, row in taken.rows.items() if row.get("metadata", {}).get("interrupted")} == opened
    assert ended <= set(taken.rows)
    assert set(taken.times.values()) <= {1}
    assert read_state(tmp_path).get("interrupted", 0) == len(opened)


HOLDS = """
import fcntl, os, sys, time
lock = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_one_sender_delivers_and_another_takes_over_when_it_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "sender.lock"
    first = subprocess.Popen([sys.executable, "-c", HOLDS, lock], stdout=subprocess.PIPE)
    assert first.stdout is not None
    with first:
        first.stdout.readline()
        written(tmp_path, "a")
        taken = Recording()
        assert not sender(tmp_path, taken).drain(1)
        second = sender(tmp_path, taken)
        second.start()
        first.kill()
    until(lambda: "a" in taken.rows)
    second.finish(None, 1)


def test_a_clean_restart_sends_nothing_twice(tmp_path: Path) -> None:
    taken = Recording()
    made = spool(tmp_path)
    made.write(trace("a"))
    one = sender(tmp_path, taken)
    one.start()
    until(lambda: "a" in taken.rows)
    one.finish(None, 1)
    made.write(trace("b"))
    made.close(0)
    assert sender(tmp_path, taken).drain(5)
    assert taken.order == ["a-0", "a", "b-0", "b"]


@pytest.mark.parametrize("ack", [None, b"", b"garbage", b"7", b"%020d" % 10**12, b"\xff" * 20, b"00000000000000000-12"])
def test_an_acknowledgement_that_cannot_be_meant_counts_for_none(tmp_path: Path, ack: bytes | None) -> None:
    written(tmp_path, "a")
    if ack is not None:
        segments(tmp_path)[0].with_suffix(".ack").write_bytes(ack)
    taken = Recording()
    assert sender(tmp_path, taken).drain(5)
    assert taken.order == ["a-0", "a"]


def test_a_missing_segment_and_a_clock_that_was_set_back_hold_nothing_up(tmp_path: Path) -> None:
    by_hand(tmp_path, f"{2:020d}-aaaaaaaa", "early", number=1)
    by_hand(tmp_path, f"{2:020d}-aaaaaaaa", "third", number=3)
    by_hand(tmp_path, f"{10**19:020d}-bbbbbbbb", "late")
    written(tmp_path, "now")
    taken = Recording()
    assert sender(tmp_path, taken).drain(5)
    assert {"early", "third", "late", "now"} <= set(taken.rows)
    assert not segments(tmp_path)


def test_segments_that_are_delivered_again_change_nothing(tmp_path: Path) -> None:
    folder, aside, chance, taken = tmp_path / "s", tmp_path / "aside", random.Random(1), Recording()
    for token in range(4):
        written(
            folder,
            *(f"t{token}c{number}" for number in range(30)),
            text="x" * 3000,
            open=[f"open{token}"],
            segment_bytes=64 << 10,
        )
    shutil.copytree(folder, aside)
    assert sender(folder, taken).drain(10)
    before = dict(taken.rows)
    for _ in range(3):
        names = sorted({path.name[:29] for path in segments(aside)})
        for name, new in zip(names, chance.sample(names, len(names)), strict=True):
            for path in segments(aside):
                if path.name.startswith(name):
                    shutil.copy2(path, folder / path.name.replace(name, new))
        assert sender(folder, taken).drain(10)
        assert taken.rows == before


def test_too_much_at_once_is_split_and_one_row_that_is_too_large_is_cut(tmp_path: Path) -> None:
    def small(pieces: Sequence[Piece]) -> None:
        if sum(len(piece.row) for piece in pieces) > 5000:
            raise TooLarge

    written(tmp_path, *(f"c{number}" for number in range(20)))
    written(tmp_path, "big", text="x" * 20_000)
    taken = Recording(fail=small)
    assert sender(tmp_path, taken).drain(5)
    assert len(taken.rows) == 42
    assert taken.rows["big"]["metadata"]["cut_from_bytes"] > 20_000
    assert not taken.broken_promises


@pytest.mark.parametrize("error", [Rejected("bad"), ZeroDivisionError()])
def test_only_the_bad_rows_are_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def picky(pieces: Sequence[Piece]) -> None:
        if any(piece.id in ("c3", "c17-0") for piece in pieces):
            raise error

    monkeypatch.setattr(Ending, "rest", lambda self, seconds: None)
    written(tmp_path, *(f"c{number}" for number in range(40)))
    taken = Recording(fail=picky)
    assert sender(tmp_path, taken).drain(5)
    assert {row["row"]["id"] for _path, row in put_aside(tmp_path)} == {"c3", "c17-0"}
    assert len(taken.rows) == 78
    assert not taken.broken_promises


def test_what_is_put_aside_leaves_the_room_that_was_granted(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    made = spool(tmp_path / "s", cap_bytes=1 << 20)
    made.write(trace("a"))
    aside = Quarantine(tmp_path / "s", 1 << 20)
    while aside.add(Piece("b", b'{"x":"%s"}' % (b"y" * 5000)), "bad"):
        pass
    assert used_bytes(tmp_path / "s") + granted_bytes(tmp_path / "s") <= 1 << 20


def test_half_a_row_that_was_put_aside_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aside, write = Quarantine(tmp_path, CAP), os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:10]))
    with pytest.raises(OSError, match="No space"):
        aside.add(Piece("a", b"{}"), "bad")
    monkeypatch.setattr(os, "write", write)
    assert aside.add(Piece("b", b'{"id":"b"}'), "bad")
    assert [row["row"]["id"] for _path, row in put_aside(tmp_path)] == ["b"]


def test_waits_grow_and_do_what_the_destination_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    failures = [
        *(Unavailable("down") for _ in range(8)),
        Unavailable("slow", retry_after_s=42.0),
        Unavailable("slow", retry_after_s=9e9),
        *(Unavailable("no", refused=True) for _ in range(3)),
    ]

    def fail(pieces: Sequence[Piece]) -> None:
        if failures:
            raise failures.pop(0)

    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    monkeypatch.setattr(Dispatcher, "_takes_others", lambda self, batch: False)
    monkeypatch.setattr(Ending, "rest", lambda self, seconds: waits.append(seconds))
    written(tmp_path, "a")
    taken = Recording(fail=fail)
    assert sender(tmp_path, taken).drain(5)
    assert waits == [0.5, 1, 2, 4, 8, 15, 15, 15, 42, 300, 30, 30, 30]
    assert taken.order == ["a-0", "a"]


@pytest.mark.parametrize("insist", [False, True])
def test_the_end_is_bounded_while_the_destination_refuses_or_hangs(tmp_path: Path, insist: bool) -> None:
    hanging = threading.Event()

    def refuses(pieces: Sequence[Piece]) -> None:
        raise Unavailable("down")

    def hangs(pieces: Sequence[Piece]) -> None:
        hanging.wait(20)

    for number, fail in enumerate((refuses, hangs)):
        made = spool(tmp_path / str(number), sender(tmp_path / str(number), Recording(fail=fail)))
        made.write(trace("a"))
        began_s = time.monotonic()
        made.close(0.5, insist=insist)
        assert time.monotonic() - began_s < 1.5
        assert segments(tmp_path / str(number))
    hanging.set()


def test_who_insists_is_heard_when_the_destination_comes_back(tmp_path: Path) -> None:
    failures = [Unavailable("down")]

    def fail(pieces: Sequence[Piece]) -> None:
        if failures:
            raise failures.pop()

    taken = Recording(fail=fail)
    made = spool(tmp_path, sender(tmp_path, taken))
    made.write(trace("a"))
    made.close(5, insist=True)
    assert taken.order == ["a-0", "a"]


def test_damage_is_counted_once_although_the_sender_starts_again(tmp_path: Path) -> None:
    path = by_hand(tmp_path, f"{2:020d}-aaaaaaaa", "a", "b")
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(bytes(data) + b"torn")
    by_hand(tmp_path, f"{2:020d}-aaaaaaaa", "c", number=2)
    down = True

    def fail(pieces: Sequence[Piece]) -> None:
        if down and any(piece.id == "c" for piece in pieces):
            raise Unavailable("down")

    taken = Recording(fail=fail)
    for _ in range(2):
        with pytest.raises(Unavailable):
            sender(tmp_path, taken).drain(0.1)
    down = False
    assert sender(tmp_path, taken).drain(5)
    assert read_state(tmp_path)["damaged"] == 2
    assert {"a", "b", "c"} <= set(taken.rows)


def test_a_call_whose_rows_had_no_room_is_told_as_such(tmp_path: Path) -> None:
    from gateway.tracing.frames import void_frame

    path = tmp_path / f"{2:020d}-aaaaaaaa-000001.seg"
    path.write_bytes(row_frame("begin", "a", dumps(root("a"))) + void_frame("a", 2, 1002.0))
    taken = Recording()
    assert sender(tmp_path, taken).drain(5)
    assert taken.rows["a"]["metadata"]["rows_dropped"] == 2
    assert taken.rows["a"]["metrics"]["end"] == 1002.0
    assert read_state(tmp_path)["dropped"] == 2
    assert json.dumps(taken.rows["a"]).count("open") == 0
