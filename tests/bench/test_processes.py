"""What is started by a benchmark is measured from outside, and ends with it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from bench.processes import Process, clean_environment

CORE = min(os.sched_getaffinity(0))
WAITS = [sys.executable, "-c", "import time; sum(range(5_000_000)); print('I wait', flush=True); time.sleep(60)"]


def test_a_process_is_measured_with_its_children_and_ends_with_its_context(tmp_path: Path) -> None:
    with Process("waits", WAITS, tmp_path, {}, CORE) as process:
        process.wait_for(lambda: "I wait" in process.log, 30)
        assert psutil.Process(process.pid).cpu_affinity() == [CORE]
        assert process.pss_bytes() > 1 << 20
        assert 1 << 20 < process.largest_pss_bytes() <= process.pss_bytes()
        assert process.cpu_s() > 0
        assert [one.pid for one in process.tree()] == [process.pid]
    assert not psutil.pid_exists(process.pid)


def test_the_largest_process_is_told_from_those_below_it(tmp_path: Path) -> None:
    parent = (
        "import subprocess, sys; held = bytearray(b'x' * (40 << 20)); "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); print('I wait', flush=True); "
        "child.wait()"
    )
    with Process("parent", [sys.executable, "-c", parent], tmp_path, {}, CORE) as process:
        process.wait_for(lambda: "I wait" in process.log, 30)
        assert len(process.tree()) == 2
        assert 40 << 20 < process.largest_pss_bytes() < process.pss_bytes()
        assert 40 << 20 < process.own_bytes() < process.pss_bytes()


def test_the_core_of_who_starts_is_what_it_was(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    with Process("waits", WAITS, tmp_path, {}, CORE):
        assert os.sched_getaffinity(0) == before


def test_a_process_that_ends_too_soon_says_what_it_wrote(tmp_path: Path) -> None:
    fails = [sys.executable, "-c", "raise SystemExit('no port is free')"]
    with (
        Process("fails", fails, tmp_path, {}, CORE) as process,
        pytest.raises(RuntimeError, match="fails ended with 1:\nno port is free"),
    ):
        process.wait_for(lambda: False, 30)


def test_no_key_of_a_developer_is_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    given = clean_environment(tmp_path, {"PORT": "1"})
    assert given["PORT"] == "1"
    assert given["HOME"] == str(tmp_path)
    assert "sk-mine" not in given.values()
