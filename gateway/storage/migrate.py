"""Makes the tables of this release: in a new file, in an older one, or on a server."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, insert, inspect

from gateway.secret import Secret
from gateway.storage.database import Database, StorageBusy, StorageFailed
from gateway.storage.tables import FIRST_ROWS, REVISION, alembic_version, metadata

_SCRIPTS = "gateway.storage:migrations"


def upgrade(place: Path | Secret, *, patience_s: float = 30.0, step_by_step: bool = False) -> None:
    """Run the migrations that a database lacks, having checked a file or made it. Nothing stays open.

    A new file gets at once what the migrations would leave in it.

    Two gateways may do so at once: one waits for the other. Either all migrations are kept or none.

    Args:
        place: as `Database` has it. The folder of a file is made too, for this user alone; a server's database has to
            be there, and its user has to be allowed to make tables in it.
        patience_s: how long to wait for others.
        step_by_step: run the migrations in a new file, too.

    Raises:
        StorageBusy: another process has held the database or its lock for `patience_s`.
        StorageFailed: the folder or the file cannot be made, it is damaged or no database, the server does not answer
            or refuses, its tables are of a newer release, the disk is full, or a migration failed.
    """
    if isinstance(place, Path):
        _upgrade_file(place.absolute(), patience_s, step_by_step=step_by_step)
        return
    database = Database(place, patience_s=patience_s)
    try:
        _migrate(database)
    finally:
        database.release()


def _upgrade_file(path: Path, patience_s: float, *, step_by_step: bool) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(path.with_name(path.name + ".lock"), patience_s):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            path.chmod(0o600)
            database = Database(path, patience_s=patience_s)
            database.read(lambda connection: _check(path, connection))
            if not step_by_step and database.read(_is_blank):
                database.write(_make)
            else:
                _migrate(database)
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror or type(error).__name__}") from None


@contextmanager
def _alone(lock: Path, patience_s: float) -> Iterator[None]:
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until_s = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # polled: a wait in C would hold up the hub
                break
            except BlockingIOError:
                if time.monotonic() >= until_s:
                    raise StorageBusy(f"{lock}: another process has held the lock for {patience_s:g} s") from None
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _check(path: Path, connection: Connection) -> None:
    found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if found != "ok":
        raise StorageFailed(f"{path}: the database is damaged")


def _is_blank(connection: Connection) -> bool:
    return connection.exec_driver_sql("SELECT 1 FROM sqlite_master LIMIT 1").first() is None


def _make(connection: Connection) -> None:
    """Make the tables of this release: Alembic and its steps are half of what a first start takes."""
    metadata.create_all(connection, checkfirst=False)
    alembic_version.create(connection)
    for table, rows in FIRST_ROWS:
        connection.execute(insert(table), rows)


def newest() -> str:
    """The newest migration of this release."""
    from alembic.config import Config  # noqa: PLC0415  # as below
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    return ScriptDirectory.from_config(config).get_current_head() or ""


def _is_newest(connection: Connection) -> bool:
    if not inspect(connection).has_table("alembic_version"):
        return False
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all() == [REVISION]


def _migrate(database: Database) -> None:
    if database.read(_is_newest):
        return
    # Alembic takes a moment to import, and only a start needs it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}

    def work(connection: Connection) -> None:
        newer = set(MigrationContext.configure(connection).get_current_heads()) - known
        if newer:
            raise StorageFailed(
                f"{database.name}: its tables ({', '.join(sorted(newer))}) are of a newer release of the gateway"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    try:
        database.write(work, alone_on=[_SCRIPTS])
    except CommandError as error:
        said = " ".join(str(error).split())
        raise StorageFailed(f"{database.name}: its tables cannot be brought up to date: {said}") from None
    finally:
        config.attributes.clear()
