"""What the sender writes down beside the segments: how it fares, what was delivered, what was put aside."""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.tracing.delivery import Piece
from gateway.tracing.frames import dumps
from gateway.tracing.room import SLACK_BYTES, granted_bytes, used_bytes

JSON = dict[str, Any]

log = logging.getLogger(__name__)

_SAVE_EACH_S = 1.0
#: A caller chooses where its rows go, and so whether they are refused: half of the spool is for the others' rows.
_QUARANTINE_SHARE = 2
_RECEIPT_BYTES = 16
#: How long it is known what was delivered.
KEEP_RECEIPTS_S = 7 * 86_400.0
_PRUNE_EACH_S = 60.0
_MOST_RECEIPT_BYTES = 64 << 20


class State:
    """How the sender of a folder fares, in `sender.json`: written by the sender, read by whoever asks.

    Attributes:
        trouble: why nothing can be delivered now, or None.
        since_s: since when, in seconds since the epoch.
        refused: the destination said that the gateway may not.
        sent, quarantined, dropped, damaged, interrupted: counts since the folder was made.
    """

    _KEPT = ("trouble", "since_s", "refused", "sent", "quarantined", "dropped", "damaged", "interrupted", "delivered_s")

    def __init__(self, folder: Path) -> None:
        self._path = folder / "sender.json"
        self._saved: JSON = {}
        self._saved_s = 0.0
        self.trouble: str | None = None
        self.since_s: float | None = None
        self.refused = False
        self.delivered_s: float | None = None
        self.sent = self.quarantined = self.dropped = self.damaged = self.interrupted = 0

    def load(self) -> None:
        """Go on counting where the last sender stopped."""
        found = read_state(self._path.parent)
        for name in ("sent", "quarantined", "dropped", "damaged", "interrupted"):
            if isinstance(count := found.get(name), int):
                setattr(self, name, count)

    def sent_some(self, rows: int) -> None:
        """Rows were delivered: whatever the trouble was, it is over."""
        over = self.trouble is not None
        self.sent += rows
        self.delivered_s = time.time()
        self.trouble, self.since_s, self.refused = None, None, False
        if over:
            self.save()

    def failed(self, why: str, *, refused: bool) -> None:
        """Nothing can be delivered now."""
        new = self.trouble is None
        self.since_s = time.time() if new else self.since_s
        self.trouble, self.refused = why, refused
        if new:
            self.save()

    def tick(self) -> None:
        """Save what has changed, at most once a second."""
        if time.monotonic() - self._saved_s > _SAVE_EACH_S:
            self.save()

    def save(self) -> None:
        """Write it down, whole or not at all."""
        facts = {name: getattr(self, name) for name in self._KEPT}
        if facts == self._saved:
            return
        hidden = self._path.with_name(".sender.json")
        try:
            hidden.touch(mode=0o600)
            hidden.write_bytes(dumps({**facts, "pid": os.getpid()}))
            hidden.replace(self._path)
        except OSError as error:
            log.debug("the sender's state cannot be written: %s", error)
            return
        self._saved, self._saved_s = facts, time.monotonic()


def read_state(folder: Path) -> JSON:
    """Return what the sender of a folder said last; empty where there was none."""
    try:
        found = json.loads((folder / "sender.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class Quarantine:
    """Rows that the destination refuses for good, in `quarantine/<day>.jsonl`."""

    def __init__(self, folder: Path, cap_bytes: int) -> None:
        self._folder = folder / "quarantine"
        self._spool = folder
        self._cap_bytes = cap_bytes

    def add(self, piece: Piece, why: str) -> bool:
        """Keep a row; False where there is no room for it.

        Raises:
            OSError: it cannot be written.
        """
        about = {"at": datetime.now(UTC).isoformat(), "why": why, "request": piece.request, "to": piece.to}
        line = b'%s,"row":%s}\n' % (dumps(about)[:-1], piece.row)
        if used_bytes(self._folder) + len(line) > self._cap_bytes // _QUARANTINE_SHARE:
            return False
        taken = used_bytes(self._spool) + granted_bytes(self._spool)
        if taken + len(line) > self._cap_bytes - SLACK_BYTES // 2:
            return False
        self._folder.mkdir(mode=0o700, exist_ok=True)
        name = datetime.now(UTC).strftime("%Y-%m-%d.jsonl")
        handle = os.open(self._folder / name, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        before = os.fstat(handle).st_size
        try:
            if os.write(handle, line) < len(line):  # the disk is full
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(handle)
        except OSError:
            with suppress(OSError):
                os.ftruncate(handle, before)  # the next row is not to hang on half of this one
            raise
        finally:
            os.close(handle)
        return True


def put_aside(folder: Path) -> Iterator[tuple[Path, JSON]]:
    """Give each row in a folder's quarantine with the file that it is in; what cannot be read is left out."""
    for path in sorted((folder / "quarantine").glob("*.jsonl")):
        with suppress(FileNotFoundError), path.open("rb") as lines:  # put back meanwhile
            for line in lines:
                with suppress(ValueError, RecursionError):
                    if isinstance(found := json.loads(line), dict):
                        yield path, found


class Receipts:
    """The ids of the requests whose roots were delivered, 16 bytes each, in `receipts/<day>`: for `traces verify`."""

    def __init__(self, folder: Path, cap_bytes: int) -> None:
        self._folder = folder / "receipts"
        self._most_bytes = min(_MOST_RECEIPT_BYTES, cap_bytes // 16)
        self._pruned_s = 0.0

    def add(self, requests: Sequence[str]) -> None:
        """Note that these are delivered."""
        ids = b"".join(map(_packed, requests))
        if not ids:
            return
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            name = datetime.now(UTC).strftime("%Y-%m-%d")
            handle = os.open(self._folder / name, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                if spare := os.fstat(handle).st_size % _RECEIPT_BYTES:  # half an id would spoil all that follow
                    os.ftruncate(handle, os.fstat(handle).st_size - spare)
                os.write(handle, ids)
            finally:
                os.close(handle)
            self._prune()
        except OSError as error:
            log.debug("receipts cannot be written: %s", error)

    def _prune(self) -> None:
        if time.monotonic() - self._pruned_s < _PRUNE_EACH_S:
            return
        self._pruned_s = time.monotonic()
        files = sorted(self._folder.iterdir(), reverse=True)
        total = 0
        for path in files:
            facts = path.stat()
            total += facts.st_size
            if total > self._most_bytes or time.time() - facts.st_mtime > KEEP_RECEIPTS_S:
                path.unlink(missing_ok=True)


def receipts(folder: Path) -> set[str]:
    """Return the ids of the requests whose traces were delivered, as far back as is known."""
    found: set[str] = set()
    for path in sorted((folder / "receipts").glob("*")):
        try:
            ids = path.read_bytes()
        except FileNotFoundError:
            continue  # too old, and deleted meanwhile
        found.update(
            f"req_{ids[at : at + _RECEIPT_BYTES].hex()}"
            for at in range(0, len(ids) - _RECEIPT_BYTES + 1, _RECEIPT_BYTES)
        )
    return found


def _packed(request: str) -> bytes:
    """The 16 bytes of an id of ours; nothing for another."""
    try:
        packed = bytes.fromhex(request.removeprefix("req_"))
    except ValueError:
        return b""
    return packed if len(packed) == _RECEIPT_BYTES else b""
