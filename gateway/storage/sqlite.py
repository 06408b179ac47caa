"""A database in one SQLite file: short transactions, no wait that holds up anything else.

SQLite's own wait for a lock sleeps in C. Measured with the usual 5 s of `busy_timeout`, one writer that had to wait
froze gevent's hub for 2 s: its native threads sleep without a word to the hub. So `busy_timeout` is short, and the
long wait is `time.sleep` between tries, in the greenlet that asked.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from gateway.offload import offload
from gateway.storage.driven import Asked, Driven, Row
from gateway.storage.faults import StorageBusy, StorageError, StorageFailed

_Result = TypeVar("_Result")

_BUSY_TIMEOUT_MS = 20
#: A new connection takes as long as a short transaction.
_MOST_IDLE = 4
_IMMEDIATE = "gateway_begin_immediate"
_BEGIN, _BEGIN_ALONE = "BEGIN", "BEGIN IMMEDIATE"

#: Another process has what is needed, for a moment. PROTOCOL: two recover the same log at once.
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_REASONS = {
    sqlite3.SQLITE_ERROR: "its tables are not those of this release: the gateway brings them up to date when it starts",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_CORRUPT: "the database is damaged",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk does not read or write",
    sqlite3.SQLITE_NOTADB: "is not a database",
    sqlite3.SQLITE_PERM: "may not be opened",
    sqlite3.SQLITE_READONLY: "is read-only",
}


class SQLiteFile:
    """What `Database` does on a file. Each operation has a connection of its own, in the thread that runs it.

    A few stay open for the next operations while the file is held (`hold`), else none does: so nothing is open over a
    fork, and native threads and greenlets share no lock. The file is made by `migrate.upgrade`, never here.
    """

    def __init__(self, path: Path, patience_s: float) -> None:
        self.path = path.absolute()
        self.name = str(self.path)
        self._patience_s = patience_s
        self._address = ":memory:"
        self._held: sqlite3.Connection | None = None
        self._idle: list[tuple[Connection, tuple[int, int]]] = []
        self._engine = _engine(self._new)
        # SQLAlchemy asks its first connection for the dialect's facts under a lock, which native threads and
        # greenlets must not meet at: so it asks one here that touches no file.
        with self._engine.connect():
            pass
        self._address = f"{self.path.as_uri()}?mode=rw"

    def hold(self) -> None:
        """Keep one idle connection open; else a write takes 18 ms instead of 1.

        When the last connection closes, SQLite empties its log into the file. A file that cannot be opened now is left
        to the first operation, which says why.
        """
        with contextlib.suppress(sqlite3.Error):
            self._held = self._held or offload(self._open_idle)

    def _new(self) -> sqlite3.Connection:
        return sqlite3.connect(self._address, timeout=_BUSY_TIMEOUT_MS / 1000, uri=True, check_same_thread=False)

    def _open_idle(self) -> sqlite3.Connection:
        connection = self._new()
        connection.execute("PRAGMA schema_version").fetchone()  # only who has read has joined the log
        return connection

    def release(self) -> None:
        """Close it, and the others that are idle; safe to call again."""
        held, self._held = self._held, None
        if held is not None:
            offload(self._close_idle, held)

    def _close_idle(self, held: sqlite3.Connection) -> None:
        while (found := self._pop()) is not None:
            found[0].close()
        held.close()

    def read(self, work: Callable[[Connection], _Result]) -> _Result:
        """See `Database.read`."""
        return self._patiently(partial(_in_a_transaction, work, {_IMMEDIATE: False}))

    def write(self, work: Callable[[Connection], _Result], _alone_on: Sequence[str] | None) -> _Result:
        """See `Database.write`. Every transaction that writes is alone, whatever it is about."""
        return self._patiently(partial(_in_a_transaction, work, {_IMMEDIATE: True}))

    def drive(self, work: Callable[[Driven], _Result], alone_on: Sequence[str] | None) -> _Result:
        """See `Database.drive`."""
        return self._patiently(partial(_driven, work, _BEGIN if alone_on is None else _BEGIN_ALONE))

    def _patiently(self, work: Callable[[Connection], _Result]) -> _Result:
        until_s = time.monotonic() + self._patience_s
        while True:
            try:
                return offload(self._once, work)
            except StorageBusy:
                if time.monotonic() >= until_s:
                    raise
            time.sleep(random.uniform(0.005, 0.05))  # noqa: S311  # so that those who wait do not meet again

    def _once(self, work: Callable[[Connection], _Result]) -> _Result:
        try:
            connection, of = self._take()
            well = False
            try:
                result = work(connection)
                well = True
                return result
            finally:
                if well:
                    self._put(connection, of)
                else:
                    connection.close()
        except (SQLAlchemyError, sqlite3.Error) as error:
            # Not `from error`: SQLAlchemy's words have the statement, and a traceback would show them.
            raise self._said_of(error) from None

    def _take(self) -> tuple[Connection, tuple[int, int]]:
        """An idle connection to the file that is there now, or a new one, with what tells the file."""
        here = self._file()
        while (found := self._pop()) is not None:
            if found[1] == here:
                return found
            found[0].close()  # another file has taken its place: what is written to the old one is lost
        return self._engine.connect(), here

    def _pop(self) -> tuple[Connection, tuple[int, int]] | None:
        try:
            return self._idle.pop()
        except IndexError:  # another thread took the last one
            return None

    def _put(self, connection: Connection, of: tuple[int, int]) -> None:
        if self._held is not None and len(self._idle) < _MOST_IDLE:
            self._idle.append((connection, of))
        else:
            connection.close()

    def _file(self) -> tuple[int, int]:
        try:
            found = os.stat(self.path)
        except OSError:  # opening it says why
            return 0, 0
        return found.st_dev, found.st_ino

    def _said_of(self, error: SQLAlchemyError | sqlite3.Error) -> StorageError:
        cause = error.orig if isinstance(error, DBAPIError) else error
        code = getattr(cause, "sqlite_errorcode", None)
        if code is None:
            return StorageFailed(f"{self.path}: {type(cause).__name__}")
        if code & 0xFF in _BUSY:
            return StorageBusy(f"{self.path}: others have held the database for {self._patience_s:g} s")
        if code & 0xFF == sqlite3.SQLITE_CANTOPEN and not self.path.exists():
            return StorageFailed(f"{self.path}: there is no such file")
        return StorageFailed(f"{self.path}: {_REASONS.get(code & 0xFF, getattr(cause, 'sqlite_errorname', code))}")


class _Statements:
    """`Driven` on a file, where nothing has to be waited for."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def ask(self, *asked: Asked) -> Sequence[Sequence[Row]]:
        return [self._connection.execute(*one.written("?")).fetchall() for one in asked]

    def tell(self, statement: str, rows: Sequence[Row]) -> None:
        self._connection.executemany(statement, rows)


def _in_a_transaction(
    work: Callable[[Connection], _Result], options: dict[str, Any], connection: Connection
) -> _Result:
    with connection.execution_options(**options).begin():
        return work(connection)


def _driven(work: Callable[[Driven], _Result], begin: str, connection: Connection) -> _Result:
    raw: sqlite3.Connection = connection.connection.dbapi_connection  # type: ignore[assignment]  # of the pysqlite dialect
    raw.execute(begin)
    try:
        result = work(_Statements(raw))
        raw.execute("COMMIT")
    finally:
        if raw.in_transaction:
            raw.rollback()
    return result


def _engine(connect: Callable[[], sqlite3.Connection]) -> Engine:
    engine = sqlalchemy.create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # else Python begins transactions of its own, and late
    pragmas = [f"busy_timeout = {_BUSY_TIMEOUT_MS}", "journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"]
    if connection.execute("PRAGMA page_count").fetchone() == (0,):
        pragmas.insert(0, "auto_vacuum = INCREMENTAL")  # counts in a new file only; in others it waits for writers
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get(_IMMEDIATE, False)
    connection.exec_driver_sql(_BEGIN_ALONE if immediate else _BEGIN)
