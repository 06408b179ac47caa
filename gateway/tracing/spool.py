"""Traces on disk, from the moment a call begins until its rows are delivered.

A row is in the spool before the caller sees the end of its answer. Files of one process (its *token* begins their
names) in a folder that is one destination's:

    TOKEN.live          locked while the process lives; holds its grant (room.py)
    TOKEN-NNNNNN.seg    frames, only ever added to (frames.py)
    TOKEN-NNNNNN.ack    how far the sender has delivered it

A call that is still open when a segment is full is begun again in the next one, so each segment can be read alone.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gateway.core.calls import Parent
from gateway.errors import TraceBackpressure
from gateway.offload import offload
from gateway.tracing.backlog import Backlog, look
from gateway.tracing.complaints import Complaints
from gateway.tracing.delivery import Counts
from gateway.tracing.frames import cut, dumps, row_frame, void_frame
from gateway.tracing.record import Record
from gateway.tracing.room import Room, is_at

JSON = dict[str, Any]

log = logging.getLogger(__name__)

SEGMENT_BYTES = 8 << 20
#: A segment that is not full is closed after this long, so that delivered prompts do not stay on the disk.
_SEGMENT_S = 300.0
#: Room kept for the rows of a call beyond its own body, which they hold twice (root and LLM span), where no admitted
#: call may lose its rows. Longer answers are cut.
HEADROOM_BYTES = 96 << 10
_SYNC_S = 0.2
#: How often it is looked whether the segment is still where it was made, besides whenever a call ends.
_SEEN_S = 0.05
#: How often a folder that cannot be written to is tried again.
_TRY_AGAIN_S = 1.0
#: Calls whose rows were dropped, kept in memory while not even that can be written.
_MOST_VOIDS = 1000


class Mail(Protocol):
    """Who delivers what is in the folder: `tracing.sender.Sender`."""

    def start(self) -> None:
        """Begin to deliver, in a thread."""

    def finish(self, token: str | None, timeout_s: float, *, insist: bool) -> int:
        """Deliver what is left of `token`, within `timeout_s`, and stop. Returns the bytes that stay."""


@dataclass
class _Begun:
    """A call under way: its begin frame, to be written again in the next segment, and the room kept for it."""

    frame: bytes
    headroom_bytes: int


@dataclass
class _Open:
    """What is held of the folder.

    `segment` is -1 where the last one could not be written to; `path` is its, where it was last seen at `seen_s`.
    """

    token: str
    live: int
    room: Room
    segment: int = -1
    path: str = ""
    seen_s: float = 0.0
    live_path: str = ""
    number: int = 0
    size_bytes: int = 0
    opened_s: float = field(default_factory=time.monotonic)

    def leave_segment(self) -> None:
        """Close the segment; nothing more is written to it."""
        handle, self.segment = self.segment, -1
        if handle >= 0:
            with suppress(OSError):
                os.close(handle)


class Spool:
    """A sink (tracing.Sink) that keeps traces on disk until a sender has delivered them.

    Args:
        folder: of one destination; may be shared by any number of processes and gateways.
        mail: delivers what is in it.
        name: of the destination.
        cap_bytes: the most that the folder may take.
        refuse: whether calls are refused when there is no room (with room kept for those already admitted); else
            rows are dropped and counted.
        fsync: `interval`, `always` or `off`.
        place: where rows go whose caller names no place of its own; None leaves it to the destination.
        counts: of this sink.
        headroom_bytes: kept for the rows of each call beyond its own body, where calls are refused without room.
    """

    def __init__(
        self,
        folder: Path,
        mail: Mail,
        *,
        name: str = "traces",
        cap_bytes: int,
        refuse: bool = False,
        fsync: str = "interval",
        place: JSON | None = None,
        counts: Counts | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        headroom_bytes: int = HEADROOM_BYTES,
    ) -> None:
        self.name = name
        self.folder = folder
        self._mail = mail
        self._cap_bytes = cap_bytes
        self._refuse = refuse
        self._fsync = fsync
        self._place = place
        self._counts = counts or Counts()
        self._headroom_bytes = headroom_bytes
        self._segment_bytes = min(segment_bytes, max(cap_bytes // 8, 64 << 10))
        self._lock = threading.Lock()
        self._open: _Open | None = None
        self._begun: dict[str, _Begun] = {}
        self._promised_bytes = 0
        self._voids: list[bytes] = []
        self._dirty = False
        self._closed = False
        self._stopped = threading.Event()
        self._broken_until_s = 0.0
        self._complaints = Complaints(log)
        self.dropped_rows = 0

    def start(self) -> None:
        """Open the folder in this process, and start the sender (tracing.Sink)."""
        with self._lock:
            self._ready()
        if self._fsync == "interval":
            threading.Thread(target=self._sync_now_and_then, name="spool-sync", daemon=True).start()
        self._mail.start()

    def begin(self, row: JSON, parent: Parent | None, body_bytes: int) -> None:
        """Note that a call has begun (tracing.Sink).

        Raises:
            TraceBackpressure: its trace could not be kept, and the policy is to refuse.
        """
        id, request = row["id"], _request_of(row)
        begun = _Begun(
            row_frame("begin", id, dumps(row), self._to(parent), request),
            self._headroom_bytes + 2 * body_bytes if self._refuse else 0,
        )
        with self._lock:
            # where the segment is gone, what has begun is written again as soon as that is seen
            kept = self._append(begun.frame, begun.headroom_bytes, _SEEN_S)
            if kept:
                self._begun[id] = begun
                self._promised_bytes += begun.headroom_bytes
        if not kept and self._refuse:
            raise TraceBackpressure("The gateway cannot keep traces now; send the request again later.")

    def write(self, record: Record) -> None:
        """Keep the rows of a trace, in one write (tracing.Sink)."""
        to, rows, lines = self._to(record.parent), record.rows, record.encoded
        root = rows[-1]
        frames = _framed(rows, lines, to)
        with self._lock:
            begun = self._begun.pop(root["id"], None)
            if begun is not None:
                self._promised_bytes -= begun.headroom_bytes
            kept = self._append(frames)
            if not kept and begun is not None and begun.headroom_bytes:
                around = len(_framed(rows, [b""] * len(rows), to))
                shares = (begun.headroom_bytes - around) // len(rows)
                kept = self._append(_framed(rows, [cut(line, shares) for line in lines], to))
            if not kept:
                self._drop(root, len(rows), begun is not None)
        if kept and self._fsync == "always":
            self._sync()

    def _to(self, parent: Parent | None) -> JSON | None:
        if parent is None or (parent.object_id is None and not parent.object_name):
            return self._place
        if parent.object_id is None:
            return {"project_name": parent.object_name}
        kinds = {"experiment": "experiment_id", "playground_logs": "prompt_session_id"}
        return {kinds.get(parent.object_type, "project_id"): parent.object_id}

    # Under the lock.

    def _append(self, frames: bytes, headroom_bytes: int = 0, last_seen_s: float = 0.0) -> bool:
        """Write frames where there is room; False where they are not kept."""
        try:
            opened = self._ready(last_seen_s)
            if opened is None or not opened.room.has(len(frames) + self._promised_bytes + headroom_bytes):
                return False
            self._turn_page(opened, len(frames) + headroom_bytes)
            self._put(opened, frames)
        except OSError as error:
            self._broken(error)
            return False
        return True

    def _broken(self, error: OSError) -> None:
        """The folder cannot be written to: leave the segment as it is, and try again in a while."""
        self._broken_until_s = time.monotonic() + _TRY_AGAIN_S
        self._complaints.say("traces cannot be kept in %s: %s", self.folder, error.strerror or error)
        if self._open is not None:
            self._open.leave_segment()

    def _ready(self, last_seen_s: float = 0.0) -> _Open | None:
        """Open the folder; None where that is not possible now. Not looked for where it was seen `last_seen_s` ago."""
        opened = self._open
        now_s = time.monotonic()
        if opened is not None and opened.segment >= 0:
            if now_s - opened.seen_s < last_seen_s:
                return opened
            if is_at(opened.segment, opened.path):
                opened.seen_s = now_s
                return opened
        if now_s < self._broken_until_s:
            return None
        try:
            if opened is None or not is_at(opened.live, opened.live_path):  # else it seems dead
                self._open = None
                if opened is not None:
                    self._forget(opened)
                opened = self._open = self._enter()
            else:
                self._next_segment(opened)
            if again := b"".join([*(begun.frame for begun in self._begun.values()), *self._voids]):
                self._put(opened, again)
            self._voids.clear()
        except OSError as error:
            self._broken(error)
            return None
        return opened

    def _enter(self) -> _Open:
        _make_private(self.folder)
        token = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        hidden = self.folder / f".{token}.live"
        live = os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(live, fcntl.LOCK_EX | fcntl.LOCK_NB)  # before anybody can see it
            os.rename(hidden, self.folder / f"{token}.live")
            opened = _Open(token, live, Room(self.folder, self._cap_bytes, live, f"{token}.live"))
            opened.live_path = str(self.folder / f"{token}.live")
            self._next_segment(opened)
        except OSError:
            os.close(live)
            hidden.unlink(missing_ok=True)
            (self.folder / f"{token}.live").unlink(missing_ok=True)
            raise
        return opened

    def _next_segment(self, opened: _Open) -> None:
        opened.number += 1
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        opened.path = str(self.folder / f"{opened.token}-{opened.number:06d}.seg")
        before, opened.segment = opened.segment, os.open(opened.path, flags, 0o600)
        opened.size_bytes, opened.opened_s = 0, time.monotonic()
        if before >= 0:
            os.close(before)

    def _turn_page(self, opened: _Open, next_bytes: int) -> None:
        """Go on in a new segment where this one is full or old; `next_bytes` must have room after that."""
        old = opened.size_bytes > 0 and time.monotonic() - opened.opened_s > _SEGMENT_S
        if not old and (opened.size_bytes == 0 or opened.size_bytes + next_bytes <= self._segment_bytes):
            return
        again = b"".join(begun.frame for begun in self._begun.values())
        if len(again) > self._segment_bytes // 2 or not opened.room.has(len(again) + next_bytes + self._promised_bytes):
            return  # rather a long segment than calls that are begun nowhere
        if self._fsync != "off":
            self._sync()
        self._next_segment(opened)
        if again:
            self._put(opened, again)

    def _put(self, opened: _Open, frames: bytes) -> None:
        try:
            written = os.write(opened.segment, frames)
            while written < len(frames):
                written += os.write(opened.segment, memoryview(frames)[written:])
        except OSError:
            # no reader takes a line without its LF, so what came through of this one can be taken back
            with suppress(OSError):
                os.ftruncate(opened.segment, opened.size_bytes)
            opened.leave_segment()  # a reader may be behind what was taken back: go on in a new one
            if opened.size_bytes == 0:  # on a disk that is full there would be one more of these each second
                with suppress(OSError):
                    os.unlink(opened.path)
            raise
        opened.size_bytes += len(frames)
        opened.room.spent(len(frames))
        self._dirty = True

    def _forget(self, opened: _Open) -> None:
        opened.leave_segment()
        with suppress(OSError):
            os.close(opened.live)

    def _drop(self, root: JSON, rows: int, begun: bool) -> None:
        self.dropped_rows += rows
        self._counts.dropped(rows)
        self._complaints.say("no room for traces in %s: %d rows dropped so far", self.folder, self.dropped_rows)
        if not begun:
            return
        note = void_frame(root["id"], rows, root["metrics"]["end"])
        if self._open is not None and self._open.segment >= 0:
            try:
                self._put(self._open, note)  # within the slack
                return
            except OSError as error:
                self._broken(error)
        if len(self._voids) < _MOST_VOIDS:
            self._voids.append(note)  # else the call would seem to have been interrupted

    # Durability.

    def _sync_now_and_then(self) -> None:
        while not self._stopped.wait(_SYNC_S):
            if self._dirty:
                self._sync()

    def _sync(self) -> None:
        """Force to the disk what was written so far. Blocks the thread that calls, and no other."""
        opened = self._open
        if opened is None or opened.segment < 0:
            return
        self._dirty = False
        try:
            handle = os.dup(opened.segment)  # the segment may be closed meanwhile
            try:
                offload(os.fdatasync, handle)
            finally:
                os.close(handle)
        except OSError as error:
            self._complaints.say("traces cannot be forced to the disk: %s", error.strerror or error)

    def close(self, timeout_s: float, *, insist: bool = False) -> None:
        """Have the rest delivered (tracing.Sink).

        What is not delivered in time stays on the disk for the next start. What is still open then was interrupted. A
        process that is about to end may still turn calls away: their rows go to a segment that begins after this one
        and waits for another sender, or the next start.
        """
        if self._closed:
            return
        self._stopped.set()
        if self._fsync != "off":
            self._sync()
        with self._lock:
            opened, self._open, self._closed = self._open, None, True
            self._begun.clear()
            self._promised_bytes = 0
            if opened is not None:
                self._forget(opened)  # with the lock on `.live` goes the word that this process lives
        left_bytes = self._mail.finish(opened.token if opened else None, timeout_s, insist=insist)
        if left_bytes:
            log.warning("%d bytes of traces stay in %s and are delivered after the next start", left_bytes, self.folder)

    def backlog(self) -> Backlog:
        """What waits in the folder (tracing.Sink)."""
        try:
            return look(self.name, self.folder, self._cap_bytes)
        except OSError as error:  # another user's folder, say: readiness and metrics are to tell of it, not to fail
            self._complaints.say("traces in %s cannot be looked at: %s", self.folder, error.strerror or error)
            return Backlog(self.name, self.folder, self._cap_bytes, listed=False)


def _make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for this user alone."""
    if not folder.is_dir():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _framed(rows: Sequence[JSON], lines: Sequence[bytes], to: JSON | None) -> bytes:
    """The frames of a trace, its root last."""
    frames = [row_frame("id", row["id"], line, to) for row, line in zip(rows[:-1], lines[:-1], strict=True)]
    frames.append(row_frame("id", rows[-1]["id"], lines[-1], to, _request_of(rows[-1])))
    return b"".join(frames)


def _request_of(row: JSON) -> str | None:
    """The request's id, where the row is a root."""
    metadata = row.get("metadata")
    if row.get("span_attributes", {}).get("type") != "task" or not isinstance(metadata, dict):
        return None
    request = metadata.get("request_id")
    return request if isinstance(request, str) else None
