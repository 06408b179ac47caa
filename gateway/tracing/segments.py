"""A spool's folder, read: whose segments are there, how far they are delivered, and whether their writer lives."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from gateway.tracing import locks
from gateway.tracing.frames import Frame, scan
from gateway.tracing.room import write_grant

_NAME = re.compile(r"(\d{20}-[0-9a-f]{8})-(\d{6,})\.seg")
_CHUNK_BYTES = 256 << 10


class Segment:
    """One file of frames, opened for reading.

    Attributes:
        read_bytes: how far it has been read.
        acked_bytes: how far its rows are delivered; kept in the `.ack` file beside it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._ack_path = path.with_suffix(".ack")
        self._ack: int | None = None  # opened where it can be written: a full disk does not keep rows from being sent
        self.acked_bytes = acked_bytes(path, self.size_bytes)
        self.read_bytes = 0

    @property
    def size_bytes(self) -> int:
        """Its size now."""
        return os.fstat(self._handle).st_size

    def next(self) -> list[Frame | int] | None:
        """Read on, about a quarter of a megabyte at a time; what `frames.scan` finds, None where no whole line is."""
        want = _CHUNK_BYTES
        while True:
            buffer = os.pread(self._handle, want, self.read_bytes)
            if cut := buffer.rfind(b"\n") + 1:
                offset = self.read_bytes
                self.read_bytes += cut
                return list(scan(buffer[:cut], offset))
            if len(buffer) < want:
                return None
            want *= 4  # one line that is longer than that

    def skip_torn(self) -> bool:
        """Go behind a last line that has no end, which its writer will not finish. True where there is one."""
        torn = self.size_bytes > max(self.read_bytes, self.acked_bytes)
        self.read_bytes = max(self.read_bytes, self.size_bytes)
        return torn

    def ack(self) -> None:
        """Note that all that was read is delivered.

        Raises:
            OSError: it could not be written down; it stands for this process.
        """
        if self.read_bytes > self.acked_bytes:
            self.acked_bytes = self.read_bytes
            if self._ack is None:
                self._ack = os.open(self._ack_path, os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_CLOEXEC, 0o600)
            os.pwrite(self._ack, b"%020d" % self.acked_bytes, 0)

    def remove(self) -> None:
        """Delete it. The acknowledgement goes to the disk first: a row that was sent is not sent again."""
        if self._ack is not None:
            with suppress(OSError):
                os.fdatasync(self._ack)
        self.path.unlink(missing_ok=True)
        self._ack_path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Close its files."""
        os.close(self._handle)
        if self._ack is not None:
            os.close(self._ack)
            self._ack = None


class Writer:
    """One process that writes here, or wrote: its files, as its reader has them. Its token is in their names.

    Attributes:
        segments: by number, oldest first; those that are there and not removed yet.
    """

    def __init__(self, folder: Path, token: str) -> None:
        self.token = token
        self.segments: dict[int, Segment] = {}
        self._path = folder / f"{token}.live"
        self._live: int | None = None

    def is_dead(self) -> bool:
        """Whether the process has ended; from then on nobody adds to its segments."""
        if self._live is not None:
            return True
        self._live = locks.take(self._path)
        if self._live is None:
            return False
        with suppress(OSError):
            write_grant(self._live, 0)
        return True

    def remove(self) -> None:
        """Delete what is left of a dead writer."""
        for segment in self.segments.values():
            segment.remove()
        self.segments.clear()
        self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Close its files."""
        for segment in self.segments.values():
            segment.close()
        self.segments.clear()
        if self._live is not None:
            os.close(self._live)
            self._live = None


def acked_bytes(segment: Path, size_bytes: int) -> int:
    """How far a segment of that size is delivered, by the `.ack` file beside it."""
    try:
        text = segment.with_suffix(".ack").read_bytes()
    except OSError:
        return 0
    # one that tells of more than there is was made for another file, and one that is torn for none
    return int(text) if len(text) == 20 and text.isdigit() and int(text) <= size_bytes else 0


def named(folder: Path) -> Iterator[tuple[str, int, Path]]:
    """Give the token, number and path of each segment in a folder, by token and number."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    for name in names:
        if match := _NAME.fullmatch(name):
            yield match[1], int(match[2]), folder / name


def tidy(folder: Path) -> None:
    """Delete files beside no segment: what is left of a process that was killed between two of its steps.

    For who has the sender's lock. A `.live` file that is locked is a process that has no segment yet.
    """
    kept = {path.stem for _token, _number, path in named(folder)}
    tokens = {name.rpartition("-")[0] for name in kept}
    for path in (*folder.glob("*.ack"), *folder.glob("*.live")):
        if path.suffix == ".ack":
            if path.stem not in kept:
                path.unlink(missing_ok=True)
        elif path.stem not in tokens and not path.name.startswith("."):
            writer = Writer(folder, path.stem)
            if writer.is_dead() and not any(token == path.stem for token, _number, _path in named(folder)):
                writer.remove()
            writer.close()
