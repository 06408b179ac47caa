"""What a killed process leaves beside no segment is deleted by the next sender; what lives is left alone."""

import fcntl
import os
import time
from pathlib import Path

from gateway.tracing.segments import tidy

DEAD, LIVING, WITH_SEGMENT = (f"{number:020d}-0000000{number}" for number in (1, 2, 3))


def test_files_of_the_dead_that_belong_to_no_segment_are_deleted_and_no_others(tmp_path: Path) -> None:
    for name in (f"{DEAD}.live", f"{DEAD}-000001.ack", f"{LIVING}.live", f"{WITH_SEGMENT}.live"):
        (tmp_path / name).touch()
    for suffix in ("seg", "ack"):
        (tmp_path / f"{WITH_SEGMENT}-000001.{suffix}").touch()
    living = os.open(tmp_path / f"{LIVING}.live", os.O_RDWR)
    try:
        fcntl.flock(living, fcntl.LOCK_EX)
        tidy(tmp_path)
    finally:
        os.close(living)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{LIVING}.live",
        f"{WITH_SEGMENT}-000001.ack",
        f"{WITH_SEGMENT}-000001.seg",
        f"{WITH_SEGMENT}.live",
    ]


def test_a_segment_that_was_never_finished_goes_when_nobody_can_be_writing_it(tmp_path: Path) -> None:
    old, new = (tmp_path / f".{token}-000001.seg" for token in (DEAD, LIVING))
    for path in (old, new):
        path.touch()
    os.utime(old, (time.time(), time.time() - 7200))
    tidy(tmp_path)
    assert list(tmp_path.iterdir()) == [new]
