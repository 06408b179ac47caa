"""Segments that cannot be read, and too many of them, hold up nobody's rows."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.tracing.frames import frame, row_frame
from tests.fakes.destination import Recording, segments, until
from tests.tracing.test_sender import by_hand, sender

FIRST, SECOND = (f"{number:020d}-aaaaaaaa" for number in (2, 3))


def _disk_fault(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand(path.parent, FIRST, "bad")
    pread, bad = os.pread, path.stat().st_ino

    def faulty(handle: int, size: int, offset: int) -> bytes:
        if os.fstat(handle).st_ino == bad:
            raise OSError(5, "Input/output error")
        return pread(handle, size, offset)

    monkeypatch.setattr(os, "pread", faulty)


def _link(path: Path, _monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand(path.parent, f"{9:020d}-aaaaaaaa", "elsewhere").rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


BROKEN: dict[str, Callable[[Path, pytest.MonkeyPatch], Any]] = {
    "a fault of the disk": _disk_fault,
    "a folder": lambda path, _: path.mkdir(),
    "a named pipe": lambda path, _: os.mkfifo(path),
    "a link": _link,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_read_stays_and_the_others_rows_are_delivered(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bad = tmp_path / f"{FIRST}-000001.seg"
    BROKEN[kind](bad, monkeypatch)
    good = by_hand(tmp_path, SECOND, "good")
    taken = Recording()
    one = sender(tmp_path, taken)
    one.start()
    until(lambda: not good.exists())
    one.finish(None, 1)
    assert taken.order == ["good-0", "good"]
    assert os.path.lexists(bad)
    assert bad.name in caplog.text


def test_a_segment_that_can_be_read_again_is_delivered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = Recording()
    one = sender(tmp_path, taken)
    with monkeypatch.context() as while_broken:
        _disk_fault(tmp_path / f"{FIRST}-000001.seg", while_broken)
        one._is_sender()
        one._turn()
        assert taken.order == []
    one._turn()
    one._leave()
    assert taken.order == ["bad-0", "bad"]


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 32, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("few_descriptors")
def test_more_segments_than_descriptors_are_delivered(tmp_path: Path) -> None:
    for number in range(100):
        by_hand(tmp_path, FIRST, f"one{number}", number=number + 1)
        by_hand(tmp_path, f"{number:020d}-bbbbbbbb", f"each{number}")
    taken = Recording()
    assert sender(tmp_path, taken).drain(20)
    assert len(taken.rows) == 400
    assert not segments(tmp_path)


STRANGE = {
    "an id that is a list": frame(b'{"id":[1],"row":{"a":1}}'),
    "a place that is a number": frame(b'{"id":"x","to":5,"row":{"a":1}}'),
    "a request that is a list": frame(b'{"id":"x","request":[],"row":{"a":1}}'),
    "a kind that is none": frame(b'{"what":"x","row":{"a":1}}'),
    "a row that has no row": frame(b'{"id":"x"}'),
    "a begun call without a time": row_frame("begin", "x", b'{"id":"x"}'),
    "a begun call that is no JSON": row_frame("begin", "x", b"{["),
    "a begun call whose time is a text": row_frame("begin", "x", b'{"metrics":{"start":"soon"},"metadata":{}}'),
}


@pytest.mark.parametrize("line", STRANGE.values(), ids=STRANGE)
def test_a_frame_of_a_strange_shape_holds_nothing_up(tmp_path: Path, line: bytes) -> None:
    (tmp_path / f"{FIRST}-000001.seg").write_bytes(line)
    by_hand(tmp_path, SECOND, "good")
    taken: list[str] = []
    recording = Recording(fail=lambda pieces: taken.extend(piece.id for piece in pieces))
    began_s = time.monotonic()
    assert sender(tmp_path, recording).drain(20)
    assert {"good-0", "good"} <= set(taken)
    assert not segments(tmp_path)
    assert time.monotonic() - began_s < 15
