"""Locks on the files of a spool's folder (flock): nobody waits for one, and it ends with its process, killed or not."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def take(path: Path) -> int | None:
    """Lock a file, which is made where there is none, for as long as the handle is open.

    Returns:
        The handle; None where another process has the lock.

    Raises:
        OSError: the file cannot be opened.
    """
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def is_taken(path: Path) -> bool:
    """Whether a living process has locked a file. Makes none, and holds its lock for an instant only."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
