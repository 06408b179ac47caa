"""Moves what the gateway keeps from one database to another: to a server, when a second host comes."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Table, delete, func, insert, select, text

from gateway.secret import Secret
from gateway.storage.database import Database, StorageFailed
from gateway.storage.migrate import newest, upgrade
from gateway.storage.tables import LOCAL, SEEDED, metadata

_ROWS = 500
_PATIENCE_S = 30.0


def copy(source: Path | Secret, target: Path | Secret) -> dict[str, int]:
    """Copy every row of the shared tables; local traces stay where they are.

    The target's tables are made, or brought up to date, first. The source is seen in one state, and not changed; what
    is written to it meanwhile is not copied. The target has all rows or, where anything fails, none.

    Args:
        source: a database with the tables of this release.
        target: one without rows in the shared tables; they are locked until the copy is done.

    Returns:
        How many rows each table got, counted in the target.

    Raises:
        StorageBusy: others held one of the two for 30 s.
        StorageFailed: one of them cannot be used, the source's tables are not those of this release, the target has
            rows, or does not have as many as were sent.
    """
    upgrade(target)
    old, new = Database(source, patience_s=_PATIENCE_S), Database(target, patience_s=_PATIENCE_S)
    try:
        return old.read(lambda reading: new.write(lambda writing: _copy(old.name, reading, new.name, writing)))
    finally:
        old.release()
        new.release()


def _copy(source: str, reading: Connection, target: str, writing: Connection) -> dict[str, int]:
    found = reading.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    if found != [newest()]:
        raise StorageFailed(f"{source}: its tables are of another release: run `gateway db upgrade` where it is used")
    tables = [table for table in metadata.sorted_tables if table.name not in LOCAL]
    if writing.dialect.name == "postgresql":
        writing.execute(text(f"LOCK TABLE {', '.join(table.name for table in tables)} IN ACCESS EXCLUSIVE MODE"))
    for table in tables:
        if table.name in SEEDED:
            writing.execute(delete(table))  # the source has these rows too
        elif rows := _count(table, writing):
            raise StorageFailed(f"{target}: {table.name} has {rows} rows; only an empty database is copied to")
    copied = {}
    for table in tables:
        sent = 0
        for batch in reading.execution_options(yield_per=_ROWS).execute(select(table)).partitions():
            writing.execute(insert(table), [dict(row._mapping) for row in batch])
            sent += len(batch)
        copied[table.name] = _count(table, writing)
        if copied[table.name] != sent:
            raise StorageFailed(f"{target}: {table.name} has {copied[table.name]} rows, and {sent} were sent")
    return copied


def _count(table: Table, connection: Connection) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())
