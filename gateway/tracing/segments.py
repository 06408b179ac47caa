"""A spool's folder, read: whose segments are there, how far they are delivered, and whether their writer lives."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from gateway.tracing import locks
from gateway.tracing.frames import Frame, scan
from gateway.tracing.room import write_grant

_NAME = re.compile(r"(\d{20}-[0-9a-f]{8})-(\d{6,})\.seg")
_CHUNK_BYTES = 256 << 10
#: Longer than it takes to write a segment.
_ABANDONED_S = 3600.0
#: Nothing but a file is meant: a link leads elsewhere, and a named pipe would be waited for.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Unreadable(Exception):
    """A segment is there and does not let itself be read; `str()` says which, and why."""


class Segment:
    """One file of frames, for reading. No descriptor stays open: after a long outage there may be thousands.

    Attributes:
        read_bytes: how far it has been read.
        acked_bytes: how far its rows are delivered; kept in the `.ack` file beside it.

    Raises:
        FileNotFoundError: there is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ack_path = path.with_suffix(".ack")
        self._acks = False
        self.acked_bytes = acked_bytes(path, path.lstat().st_size)
        self.read_bytes = 0

    @property
    def size_bytes(self) -> int:
        """Its size now; 0 where it is gone."""
        try:
            return self.path.lstat().st_size
        except FileNotFoundError:
            return 0

    @property
    def changed_s(self) -> float:
        """When it was last written to, in seconds since the epoch; 0 where it is gone."""
        try:
            return self.path.lstat().st_mtime
        except FileNotFoundError:
            return 0.0

    def next(self) -> list[Frame | int] | None:
        """Read on, about a quarter of a megabyte at a time; what `frames.scan` finds, None where no whole line is.

        Raises:
            Unreadable: it has no right to, the disk has a fault, or that is no file.
        """
        try:
            handle = os.open(self.path, _READ)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            return self._next(handle)
        except OSError as error:
            raise self._unreadable(error) from error
        finally:
            os.close(handle)

    def _next(self, handle: int) -> list[Frame | int] | None:
        want = _CHUNK_BYTES
        while True:
            buffer = os.pread(handle, want, self.read_bytes)
            if cut := buffer.rfind(b"\n") + 1:
                offset = self.read_bytes
                self.read_bytes += cut
                return list(scan(buffer[:cut], offset))
            if len(buffer) < want:
                return None
            want *= 4  # one line that is longer than that

    def _unreadable(self, error: OSError) -> Unreadable:
        return Unreadable(f"{self.path}: {error.strerror or error}")

    def skip_torn(self) -> bool:
        """Go behind a last line that has no end, which its writer will not finish. True where there is one."""
        size_bytes = self.size_bytes
        torn = size_bytes > max(self.read_bytes, self.acked_bytes)
        self.read_bytes = max(self.read_bytes, size_bytes)
        return torn

    def ack(self) -> None:
        """Note that all that was read is delivered.

        Raises:
            OSError: it could not be written down; it stands for this process.
        """
        if self.read_bytes > self.acked_bytes:
            self.acked_bytes = self.read_bytes
            handle = os.open(self._ack_path, _WRITE if self._acks else _WRITE | os.O_TRUNC, 0o600)
            try:
                os.pwrite(handle, b"%020d" % self.acked_bytes, 0)
                self._acks = True
            finally:
                os.close(handle)

    def remove(self) -> None:
        """Delete it. The acknowledgement goes to the disk first: a row that was sent is not sent again."""
        if self._acks:
            with suppress(OSError):
                handle = os.open(self._ack_path, _READ)
                try:
                    os.fdatasync(handle)
                finally:
                    os.close(handle)
        self.path.unlink(missing_ok=True)
        self._ack_path.unlink(missing_ok=True)


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
        with suppress(OSError):  # one that cannot be asked may live
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
        """Close its file. What was read stays known."""
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


def opened(segment: Path) -> BinaryIO:
    """Open a segment for reading from outside. A link is not followed, and a named pipe is not waited for.

    Raises:
        OSError: it is gone, is no file, or may not be read.
    """
    return open(segment, "rb", opener=lambda path, _flags: os.open(path, _READ))


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
    for path in folder.glob(".*.seg"):  # of who was killed while rows were put back; they are in quarantine still
        with suppress(FileNotFoundError):
            if time.time() - path.lstat().st_mtime > _ABANDONED_S:
                path.unlink()
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
