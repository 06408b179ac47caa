"""A folder, seen from outside, is what its sender sees of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.tracing.backlog import look, waiting
from gateway.tracing.frames import row_frame
from gateway.tracing.segments import Segment

FRAME = row_frame("id", "a", b'{"id":"a","metrics":{"start":1.0,"end":2.0}}')


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
    segment = Segment(path)
    segment.close()
    assert segment.acked_bytes == acked_bytes
    assert look("traces", tmp_path, 1 << 30).waiting_bytes == 2 * len(FRAME) - acked_bytes
    assert len(list(waiting(tmp_path))) == (1 if acked_bytes else 2)
