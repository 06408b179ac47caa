"""A lock is held by one at a time, and says whether its holder lives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.tracing.locks import is_taken, take


def test_a_lock_has_one_holder_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "sender.lock"
    held = take(path)
    assert held is not None
    assert path.stat().st_mode & 0o777 == 0o600
    assert (take(path), is_taken(path)) == (None, True)
    os.close(held)
    assert not is_taken(path)
    again = take(path)
    assert again is not None
    os.close(again)


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.live"
    program = (
        "import sys, time; from pathlib import Path; from gateway.tracing.locks import take; "
        "assert take(Path(sys.argv[1])) is not None; print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert is_taken(path)
        holder.kill()
    assert not is_taken(path)


def test_asking_makes_no_file(tmp_path: Path) -> None:
    assert not is_taken(tmp_path / "none.lock")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_cannot_be_made_is_not_said_to_be_anothers(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        take(tmp_path / "nowhere" / "sender.lock")
    (tmp_path / "sender.lock").mkdir()
    with pytest.raises(IsADirectoryError):
        take(tmp_path / "sender.lock")
