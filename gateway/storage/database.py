"""The gateway's database: an SQLite file by default, a Postgres server where several hosts share one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import sqlite

from gateway.secret import Secret
from gateway.storage.driven import Driven
from gateway.storage.faults import StorageBusy, StorageError, StorageFailed
from gateway.storage.sqlite import SQLiteFile

__all__ = ["Database", "StorageBusy", "StorageError", "StorageFailed", "upserting", "vacuum"]

_Result = TypeVar("_Result")

_VACUUM_PAGES = 2_000


class _Place(Protocol):
    name: str

    def hold(self) -> None: ...
    def release(self) -> None: ...
    def read(self, work: Callable[[Connection], _Result]) -> _Result: ...
    def write(self, work: Callable[[Connection], _Result], alone_on: Sequence[str] | None) -> _Result: ...
    def drive(self, work: Callable[[Driven], _Result], alone_on: Sequence[str] | None) -> _Result: ...


class Database:
    """One database; it works in short transactions, and none of its waits holds up another call.

    Making it connects to nothing, so it may be made before the fork. What is asked of it after the fork may come from
    any thread or greenlet.

    Args:
        place: an SQLite file, or the address of a Postgres database (`postgresql+psycopg://user:password@host/name`).
            Its tables are made by `migrate.upgrade`, never here.
        patience_s: how long to try where others hold the database.

    Attributes:
        name: the file or the address, without user and password; what errors begin with.

    Raises:
        StorageFailed: the address cannot be read.
    """

    def __init__(self, place: Path | Secret, *, patience_s: float = 5.0) -> None:
        self._place: _Place
        if isinstance(place, Path):
            self._place = SQLiteFile(place, patience_s)
        else:
            from gateway.storage.postgres import PostgresServer  # noqa: PLC0415  # psycopg is not needed for a file

            self._place = PostgresServer(place, patience_s)
        self.name = self._place.name

    def hold(self) -> None:
        """Keep what makes operations fast at hand, after the fork; safe to call again."""
        self._place.hold()

    def release(self) -> None:
        """Close what is open; safe to call again, and a later operation opens it anew."""
        self._place.release()

    def check(self) -> None:
        """Ask it for a sign of life.

        Raises:
            StorageBusy: others held it, or all connections, for longer than `patience_s`.
            StorageFailed: it gives none, or has no tables.
        """
        self.read(lambda connection: connection.exec_driver_sql("SELECT version_num FROM alembic_version").all())

    def read(self, work: Callable[[Connection], _Result]) -> _Result:
        """Run `work` in one transaction that sees one state of the database.

        Args:
            work: may run more than once, as in `write`.

        Raises:
            StorageBusy: others held it, or all connections, for longer than `patience_s`.
            StorageFailed: it cannot be read.
        """
        return self._place.read(work)

    def write(self, work: Callable[[Connection], _Result], *, alone_on: Sequence[str] | None = None) -> _Result:
        """Run `work` in one transaction, which is kept whole or, where anything is raised, not at all.

        Transactions that write have an effect as if they ran one after the other: on SQLite they do, on Postgres they
        are SERIALIZABLE, and begun again where they met.

        Args:
            work: may run more than once, since the transaction may have to be begun again.
            alone_on: names of what it reads and writes, where nobody else does without naming it. They are waited for
                instead, and each statement sees what is kept by then; for rows that many write at once.

        Raises:
            StorageBusy: others held it, or all connections, for longer than `patience_s`.
            StorageFailed: it cannot be written. Where the connection broke in the commit itself, it may have been.
        """
        return self._place.write(work, alone_on)

    def drive(self, work: Callable[[Driven], _Result], *, alone_on: Sequence[str] | None) -> _Result:
        """Run `work` in one transaction as `read` or `write` do, in the driver's own words.

        Args:
            work: may run more than once. On a server nothing is waited for before it asks, not even what it is to be
                alone on: what it works out before that may be old.
            alone_on: see `write`. None: it only reads.

        Raises:
            StorageBusy, StorageFailed: see `write`.
        """
        return self._place.drive(work, alone_on)


def upserting(connection: Connection, table: Table) -> Any:
    """Begin an `INSERT … ON CONFLICT` in the words of the connection's database; its result has a `rowcount`."""
    statement = inserting(connection.dialect.name, table)
    return statement.execution_options(preserve_rowcount=True)  # else SQLAlchemy gives -1 for psycopg's inserts


def inserting(dialect: str, table: Table) -> Any:
    """Begin an `INSERT … ON CONFLICT` in the words of a dialect: `postgresql` or `sqlite`."""
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql  # noqa: PLC0415  # not needed for a file, and slow to import

        return postgresql.insert(table)
    return sqlite.insert(table)


def vacuum(connection: Connection) -> bool:
    """Give some free pages back to the disk, within a `Database.write`.

    False: there were none, or the database does so by itself, as Postgres does.
    """
    if connection.dialect.name != "sqlite":
        return False
    free = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
    if free == 0 or connection.exec_driver_sql("PRAGMA auto_vacuum").scalar_one() != 2:
        return False
    # Python runs a statement without columns for one step, and each step of this one frees one page.
    for _ in range(min(free, _VACUUM_PAGES)):
        connection.exec_driver_sql("PRAGMA incremental_vacuum(1)")
    return bool(connection.exec_driver_sql("PRAGMA freelist_count").scalar_one() < free)
