"""Reads the routes file again when it has changed: what is right in it is taken, and what is wrong changes nothing."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from gateway.routes import Table
from gateway.settings import SettingsError

log = logging.getLogger(__name__)

#: A change is taken at the second look that sees it, so within twice this and the time that reading takes.
_EVERY_S = 0.4
#: Between the two looks of a start.
_SOON_S = 0.05

#: What `stat` says of a file: a change of its content shows in one of these, also where another file took its place.
Stamp = tuple[int, int, int, int]
#: What reading comes to: the table, or every fault.
Found = Table | list[str]


def stamp_of(path: Path) -> Stamp | None:
    """Return what tells one state of a file from another; None where there is no file to read."""
    try:
        found = os.stat(path)  # of the file itself, where links lead to it
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _here(work: Callable[[], Found]) -> Found:
    return work()


class RoutesFollower:
    """Follows one file from a thread of its own, in each process that serves.

    A file is read when it looks the same twice in a row, so that one is not read that is just being written. What was
    taken last stays in use for as long as the file has faults, or is gone.

    Args:
        path: the file.
        stamp: of the file (`stamp_of`) before it was read at the start.
        revision: of what was read then (`Table.revision`).
        read: reads it.
        take: puts what was read to use, in this order: its secrets are hidden, and then its deployments are called.
        count: is told of each reload, `ok` or `refused`.
        aside: runs what takes long where it holds up no call.
    """

    def __init__(
        self,
        path: Path,
        stamp: Stamp | None,
        revision: str,
        read: Callable[[], Table],
        take: Callable[[Table], None],
        count: Callable[[str], None] = lambda _result: None,
        aside: Callable[[Callable[[], Found]], Found] = _here,
    ) -> None:
        self._path = path
        self._seen = self._read_at = stamp
        self._revision = revision
        self._read = read
        self._take = take
        self._count = count
        self._aside = aside
        self._faults: tuple[str, ...] = ()
        self._closing: threading.Event | None = None

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong with the file as it is now; empty where it is the one in use."""
        return self._faults

    def open(self) -> None:
        """Look once, and then go on looking. After the fork: a process may start long after the file was first read."""
        if self._closing is not None:
            return
        self._closing = threading.Event()
        if stamp_of(self._path) != self._read_at:
            self._look()
            self._closing.wait(_SOON_S)
            self._look()
        threading.Thread(target=self._follow, args=(self._closing,), name="routes-follower", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        if self._closing is not None:
            self._closing.set()

    def _follow(self, closing: threading.Event) -> None:
        while not closing.wait(_EVERY_S):
            self._look()

    def _look(self) -> None:
        try:
            self.look()
        except Exception:
            self._faults = ("the gateway failed when it read the file",)
            self._count("refused")
            log.exception("the routes file could not be followed; it is read again when it has changed")

    def look(self) -> None:
        """Look at the file; read it where it has changed and is at rest."""
        stamp = stamp_of(self._path)
        settled, self._seen = stamp == self._seen, stamp
        if stamp == self._read_at or not settled:
            return
        found = self._aside(self._judged)
        if stamp_of(self._path) != stamp:
            return  # written while it was read: the next looks will see
        self._read_at = stamp
        if isinstance(found, Table):
            self._accept(found)
        else:
            self._refuse(tuple(found))

    def _judged(self) -> Found:
        try:
            return self._read()
        except SettingsError as error:
            return error.faults

    def _accept(self, table: Table) -> None:
        if table.revision != self._revision:
            self._take(table)
            self._revision = table.revision
            self._count("ok")
        elif self._faults:
            log.info("the routes file is again what is in use")
        self._faults = ()

    def _refuse(self, faults: tuple[str, ...]) -> None:
        if faults == self._faults:
            return
        self._faults = faults
        self._count("refused")
        log.error("the routes file cannot be used, so what it said before stays", extra={"fields": {"faults": faults}})
