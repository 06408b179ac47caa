"""What is written to the spool is there, within its cap, and no fault of the disk reaches a call."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import TraceBackpressure
from gateway.tracing import spool as module
from gateway.tracing.backlog import waiting
from gateway.tracing.delivery import Counts
from gateway.tracing.frames import Frame
from gateway.tracing.room import used_bytes
from gateway.tracing.sender import Sender
from gateway.tracing.spool import Spool
from tests.fakes.destination import Nobody, Recording, root, segments, trace

CAP = 8 << 20


def spool(folder: Path, **fields: Any) -> Spool:
    made = Spool(folder, Nobody(), **{"cap_bytes": CAP, "fsync": "off", **fields})
    made.start()
    return made


def call(to: Spool, id: str, text: str = "said") -> None:
    to.begin(root(id), None, 0)
    to.write(trace(id, text))


def frames(folder: Path) -> list[Frame]:
    found = [one for _path, one in waiting(folder)]
    assert not [one for one in found if isinstance(one, int)], "a damaged frame"
    return [one for one in found if isinstance(one, Frame)]


def test_a_call_is_a_begin_its_rows_and_nothing_else(tmp_path: Path) -> None:
    made = spool(tmp_path / "new")
    call(made, "a")
    assert [(one.kind, one.id) for one in frames(tmp_path / "new")] == [("begin", "a"), ("id", "a-0"), ("id", "a")]


def test_nobody_else_may_read_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "spool" / "new"
    call(spool(folder), "a")
    assert {made.stat().st_mode & 0o777 for made in (folder, folder.parent, folder.parent.parent)} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_open_calls_are_begun_again_in_each_new_segment(tmp_path: Path) -> None:
    made = spool(tmp_path, segment_bytes=64 << 10)
    made.begin(root("open"), None, 0)
    for number in range(40):
        call(made, f"c{number}", "x" * 4000)
    begun = {path for path, one in waiting(tmp_path) if isinstance(one, Frame) and one.id == "open"}
    assert len(segments(tmp_path)) > 2
    assert begun == set(segments(tmp_path))


def test_an_old_segment_is_closed_although_it_is_not_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = spool(tmp_path)
    call(made, "a")
    monkeypatch.setattr(module, "_SEGMENT_S", -1.0)
    call(made, "b")
    assert len(segments(tmp_path)) > 1


def test_threads_that_write_at_once_keep_frames_whole(tmp_path: Path) -> None:
    made = spool(tmp_path, segment_bytes=64 << 10)
    ids = [[f"t{thread}c{number}" for number in range(50)] for thread in range(8)]
    threads = [threading.Thread(target=lambda own=own: [call(made, id, id * 50) for id in own]) for own in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.id for one in frames(tmp_path) if one.kind == "id" and "-" not in one.id) == sorted(
        id for own in ids for id in own
    )


def test_a_full_folder_stays_within_its_cap_and_the_dropped_are_counted(tmp_path: Path) -> None:
    made, most, written = spool(tmp_path), 0, 0
    for number in range(400):
        call(made, f"c{number}", "x" * 20_000)
        written += 2
        most = max(most, used_bytes(tmp_path))
    made.close(0)
    assert made.dropped_rows > 0
    assert most <= CAP
    taken = Recording()
    assert Sender(tmp_path, taken, name="t", cap_bytes=CAP).drain(20)
    whole = [row for row in taken.rows.values() if "output" in row]
    assert len(whole) == written - made.dropped_rows
    assert not taken.broken_promises


def test_where_calls_are_refused_no_admitted_one_loses_its_rows(tmp_path: Path) -> None:
    made, admitted = spool(tmp_path, refuse=True), []

    def admit() -> None:
        for number in range(10_000):
            made.begin(root(f"c{number}"), None, 0)
            admitted.append(f"c{number}")

    with pytest.raises(TraceBackpressure):
        admit()
    threads = [
        threading.Thread(target=lambda ids=admitted[at::4]: [made.write(trace(id, "x" * 300_000)) for id in ids])
        for at in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) > 20
    assert made.dropped_rows == 0
    assert {one.id for one in frames(tmp_path) if one.kind == "id"} >= set(admitted)
    assert used_bytes(tmp_path) <= CAP


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TRY_AGAIN_S", 0.0)


@pytest.mark.usefixtures("impatient")
def test_a_disk_that_is_full_costs_rows_and_no_call_and_is_used_again(small_disk: Path) -> None:
    made, taken = spool(small_disk / "s"), Recording()
    (small_disk / "ballast").write_bytes(b"x" * 600_000)
    made.begin(root("open"), None, 0)
    for number in range(40):
        call(made, f"c{number}", "x" * 10_000)
    dropped = made.dropped_rows
    assert dropped > 0
    (small_disk / "ballast").unlink()
    call(made, "after")
    assert made.dropped_rows == dropped
    made.write(trace("open"))
    made.close(0)
    interrupted: list[int] = []
    counts = Counts()
    counts.interrupted = interrupted.append  # type: ignore[method-assign]
    assert Sender(small_disk / "s", taken, name="t", cap_bytes=CAP, counts=counts).drain(10)
    assert taken.rows["after"]["output"] == taken.rows["open"]["output"] == "said"
    assert len([row for row in taken.rows.values() if "output" in row]) == 82 + 2 - dropped
    assert sum(interrupted) == 0, "a call whose process lives was called interrupted"


@pytest.mark.usefixtures("impatient")
def test_rows_are_sent_although_no_acknowledgement_can_be_written(small_disk: Path) -> None:
    made, taken = spool(small_disk / "s"), Recording()
    call(made, "a")
    made.close(0)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    sender = Sender(small_disk / "s", taken, name="t", cap_bytes=CAP)
    sender._turn()
    assert taken.order == ["a-0", "a"]
    sender._forget()
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)


@pytest.mark.usefixtures("impatient")
def test_a_folder_that_cannot_be_written_costs_rows_and_no_call(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    made = spool(small_disk / "s")
    call(made, "a")
    assert made.dropped_rows == 2
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    call(made, "b")
    assert [one.id for one in frames(small_disk / "s") if one.kind == "id"] == ["b-0", "b"]


def open_and_ended(folder: Path) -> list[str | None]:
    """The rows, and the calls that are open: of one that has ended, its beginning may be in a folder that is gone."""
    ended = {one.id for one in frames(folder) if one.kind == "id"}
    return [one.id for one in frames(folder) if one.kind == "id" or one.id not in ended]


@pytest.mark.usefixtures("impatient")
def test_a_folder_that_is_deleted_is_made_again_with_the_open_calls(tmp_path: Path) -> None:
    made = spool(tmp_path / "s")
    made.begin(root("open"), None, 0)
    shutil.rmtree(tmp_path / "s")
    call(made, "b")
    assert made.dropped_rows == 0
    assert open_and_ended(tmp_path / "s") == ["open", "b-0", "b"]


@pytest.mark.usefixtures("impatient")
def test_a_write_that_fails_is_gone_around_in_the_same_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, write = spool(tmp_path), os.write
    made.begin(root("open"), None, 0)

    def fails(handle: int, data: Any) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "write", fails)
    call(made, "lost")
    monkeypatch.setattr(os, "write", write)
    call(made, "b")
    assert made.dropped_rows == 2
    assert len(list(tmp_path.glob("*.live"))) == 1
    assert [one.id for one in frames(tmp_path)][-4:] == ["open", "b", "b-0", "b"]


def test_always_means_that_rows_are_on_the_disk_when_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    made = spool(tmp_path, fsync="always")
    for number in range(3):
        made.write(trace(f"c{number}"))
        assert len(synced) == number + 1
    never = spool(tmp_path / "never", fsync="off")
    never.write(trace("x"))
    assert len(synced) == 3


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("made_again", [True, False])
def test_a_folder_that_is_moved_away_is_made_again_with_the_open_calls(tmp_path: Path, made_again: bool) -> None:
    made = spool(tmp_path / "s")
    made.begin(root("open"), None, 0)
    call(made, "a")
    (tmp_path / "s").rename(tmp_path / "aside")
    if made_again:
        (tmp_path / "s").mkdir()
    call(made, "b")
    assert made.dropped_rows == 0
    assert open_and_ended(tmp_path / "s") == ["open", "b-0", "b"]
    assert [one.id for one in frames(tmp_path / "aside")][:4] == ["open", "a", "a-0", "a"]


@pytest.mark.usefixtures("impatient")
def test_a_disk_that_stays_full_does_not_collect_empty_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = spool(tmp_path)

    def full(handle: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as while_full:
        while_full.setattr(os, "write", full)
        for number in range(20):
            call(made, f"c{number}")
    assert len(segments(tmp_path)) <= 1
    call(made, "after")
    assert [one.id for one in frames(tmp_path)][-2:] == ["after-0", "after"]
