"""Puts the rows of a folder's quarantine back into its spool, to be delivered once more."""

from __future__ import annotations

import json
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from gateway.tracing.frames import dumps, row_frame

_SEGMENT_BYTES = 8 << 20


@dataclass
class Requeued:
    """How many rows are back, and how many lines could not be read."""

    rows: int = 0
    unreadable: int = 0


def requeue(folder: Path, *, settle_s: float) -> Requeued:
    """Put every row back that a folder's quarantine has.

    The rows are in a segment on the disk before their file goes: who is killed in between leaves them in both, and
    they are delivered twice. Lines that cannot be read are kept beside, in `*.unreadable`.

    Args:
        folder: of a spool; its sender may run.
        settle_s: what a sender may need between opening a file and its last byte.

    Raises:
        OSError: the rest stays where it is.
    """
    done = Requeued()
    claimed = [_claim(path) for path in sorted((folder / "quarantine").glob("*.jsonl"))]
    if claimed:
        time.sleep(settle_s)
    for path in claimed:
        _requeue_one(folder, path, done)
    return done


def _claim(path: Path) -> Path:
    """Give a file a name that no sender writes to, and that is still one of the quarantine."""
    if ".again-" in path.name:
        return path  # of one that was killed
    mine = path.with_name(f"{path.stem}.again-{secrets.token_hex(4)}.jsonl")
    path.rename(mine)
    return mine


def _requeue_one(folder: Path, path: Path, done: Requeued) -> None:
    frames: list[bytes] = []
    bad: list[bytes] = []
    rows = size = 0
    with path.open("rb") as lines:
        for line in lines:
            if (frame := _frame_of(line)) is None:
                bad.append(line)
                continue
            frames.append(frame)
            rows, size = rows + 1, size + len(frame)
            if size >= _SEGMENT_BYTES:
                _add_segment(folder, frames)
                frames, size = [], 0
    if frames:
        _add_segment(folder, frames)
    if bad:
        _write(path.with_suffix(".unreadable"), bad)
    _sync_folder(folder)
    path.unlink()
    done.rows += rows
    done.unreadable += len(bad)


def _add_segment(folder: Path, frames: list[bytes]) -> None:
    """Add a segment of a writer that is dead already, which a sender takes to its end at once: whole or not at all."""
    token = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
    hidden = folder / f".{token}-000001.seg"
    _write(hidden, frames)
    hidden.rename(folder / f"{token}-000001.seg")


def _frame_of(line: bytes) -> bytes | None:
    try:
        kept = json.loads(line)
        row = kept["row"]
        return row_frame("id", row["id"], dumps(row), kept.get("to"), kept.get("request"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _write(path: Path, lines: list[bytes]) -> None:
    handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
