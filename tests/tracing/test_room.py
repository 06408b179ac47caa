"""Whoever writes to a folder: together they never exceed its cap."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gateway.tracing import room as module
from gateway.tracing.room import GRANT_BYTES, SLACK_BYTES, Room, granted_bytes, used_bytes
from tests.fakes.destination import until

CAP = 6 << 20


def room(folder: Path, name: str, cap_bytes: int = CAP) -> Room:
    live = os.open(folder / f"{name}.live", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(live, fcntl.LOCK_EX)
    return Room(folder, cap_bytes, live, f"{name}.live")


def fill(folder: Path, name: str) -> int:
    """Write until there is no room; returns how much that was."""
    made, total = room(folder, name), 0
    with (folder / f"{name}.seg").open("ab", buffering=0) as segment:
        while made.has(7000):
            total += segment.write(b"x" * 7000)
            made.spent(7000)
    return total


FILLS = """
import pathlib, sys, time
from tests.tracing.test_room import fill
print(fill(pathlib.Path(sys.argv[1]), sys.argv[2]), flush=True)
time.sleep(60)
"""


def test_processes_together_never_exceed_the_cap_and_a_killed_ones_grant_is_free_again(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", FILLS, tmp_path, f"p{number}"], stdout=subprocess.PIPE)
        for number in range(4)
    ]
    try:
        most = 0

        def all_full() -> bool:
            nonlocal most
            most = max(most, used_bytes(tmp_path))
            return granted_bytes(tmp_path) > 0 and used_bytes(tmp_path) > CAP - SLACK_BYTES - 4 * GRANT_BYTES

        until(all_full, 30)
        wrote = sum(int(writer.stdout.readline()) for writer in writers if writer.stdout is not None)
        assert max(most, used_bytes(tmp_path)) <= CAP
        assert wrote > CAP // 4
    finally:
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
    assert granted_bytes(tmp_path) == 0
    fill(tmp_path, "next")
    assert CAP - SLACK_BYTES - 2 * 7000 < used_bytes(tmp_path) <= CAP


def test_threads_with_a_room_each_never_exceed_the_cap(tmp_path: Path) -> None:
    threads = [threading.Thread(target=fill, args=(tmp_path, f"t{number}")) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert used_bytes(tmp_path) <= CAP
    assert used_bytes(tmp_path) <= CAP


def test_one_that_has_never_asked_takes_nothing_from_the_others(tmp_path: Path) -> None:
    idle = room(tmp_path, "idle")
    assert granted_bytes(tmp_path) == 0
    assert idle.has(10)
    assert granted_bytes(tmp_path) == GRANT_BYTES


def test_a_file_that_is_still_hidden_is_not_locked_by_who_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked: list[str] = []
    monkeypatch.setattr(module, "_grant_of", lambda path: locked.append(path) or 0)
    (tmp_path / ".new.live").touch()
    (tmp_path / "old.live").touch()
    granted_bytes(tmp_path)
    assert [Path(path).name for path in locked] == ["old.live"]


def test_a_full_folder_is_listed_rarely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(module, "used_bytes", lambda folder: asked.append(folder) or CAP)
    monkeypatch.setattr(module, "_ASK_AGAIN_S", 60.0)
    made = room(tmp_path, "a")
    assert not any(made.has(1000) for _ in range(100))
    assert len(asked) == 1
