"""How much disk the undelivered traces of a folder may take, whoever writes them.

Each process holds a grant: bytes that it may still write. It is a number in the process's own `.live` file, which the
process keeps locked as long as it lives; so a grant ends with its process, killed or not. What may be granted is the
cap less the files that are there and less the grants of the living.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

#: What a process asks for at a time: a listing of the folder for each, some 200 calls apart.
GRANT_BYTES = 1 << 20
#: Kept free under the cap for what is written without asking: acknowledgements, the sender's state, void frames.
SLACK_BYTES = 256 << 10

_LOCK_TRIES = 100
#: A full folder is not listed for every call.
_ASK_AGAIN_S = 0.05


def used_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    total = 0
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                total += used_bytes(Path(entry)) if entry.is_dir(follow_symlinks=False) else entry.stat().st_size
    return total


def is_at(handle: int, path: str | Path) -> bool:
    """Whether an open file is the one at `path`; rows that go into one that was deleted or moved are lost unnoticed."""
    try:
        here, there = os.fstat(handle), os.lstat(path)
    except OSError:
        return False
    return (here.st_ino, here.st_dev) == (there.st_ino, there.st_dev)


class Room:
    """The room of one process in one folder. Not safe for threads: its spool has the lock.

    Args:
        folder: of the spool.
        cap_bytes: what all files in it may have together.
        live: the open `.live` file of this process.
        name: of that file.
    """

    def __init__(self, folder: Path, cap_bytes: int, live: int, name: str) -> None:
        self._folder = folder
        self._cap_bytes = cap_bytes
        self._live = live
        self._name = name
        self._free = 0
        self._full_until_s = 0.0
        self._refused_bytes = 0

    def has(self, need_bytes: int) -> bool:
        """Whether so many bytes can be written; asks for a further grant where it must.

        Raises:
            OSError: the folder cannot be read, or the grant not be written down.
        """
        if self._free >= need_bytes:
            return True
        now_s = time.monotonic()
        if now_s < self._full_until_s and need_bytes >= self._refused_bytes:
            return False
        if self._ask(need_bytes):
            return True
        self._full_until_s, self._refused_bytes = now_s + _ASK_AGAIN_S, need_bytes
        return False

    def spent(self, size_bytes: int) -> None:
        """So many bytes have been written."""
        self._free -= size_bytes

    def _ask(self, need_bytes: int) -> bool:
        lock = os.open(self._folder / "room.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            if not _locked(lock):
                return False
            granted = granted_bytes(self._folder, but=self._name)
            left = self._cap_bytes - SLACK_BYTES - used_bytes(self._folder) - granted
            if need_bytes > left:
                return False
            self._free = max(need_bytes, min(GRANT_BYTES, left))
            write_grant(self._live, self._free)
            return True
        finally:
            os.close(lock)


def granted_bytes(folder: Path, but: str | None = None) -> int:
    """Return what the living may still write, `but` for the owner of that `.live` file.

    Files that are still hidden are left alone: a look at one would keep its owner from locking it.
    """
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".live") and entry.name != but and not entry.name.startswith("."):
                with suppress(FileNotFoundError):
                    total += _grant_of(entry.path)
    return total


def write_grant(live: int, grant_bytes: int) -> None:
    """Write a grant down in an open `.live` file."""
    os.pwrite(live, b"%020d" % grant_bytes, 0)


def _grant_of(path: str) -> int:
    live = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(live, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return 0  # whoever held it is dead
    except BlockingIOError:
        text = os.pread(live, 20, 0)
        return int(text) if text.isdigit() else GRANT_BYTES if text else 0
    finally:
        os.close(live)


def _locked(lock: int) -> bool:
    """Lock a file that is never held for longer than a listing takes."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.002)
    return False
