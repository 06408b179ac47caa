"""Migrations: from nothing, twice at once, on what is no database, and when they fail."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, TextClause, text

import gateway.storage
from gateway.secret import Secret
from gateway.storage import migrate
from gateway.storage.database import Database, StorageBusy, StorageFailed
from gateway.storage.migrate import newest, upgrade
from gateway.storage.tables import REVISION, metadata
from gateway.tracing.local import LocalTraces
from tests.fakes.stores import PASSWORD
from tests.storage.places import Place, told
from tests.tracing.kept import piece, trace

PACKAGE = Path(gateway.storage.__file__).parent
NEWEST = REVISION
ALL_TABLES = {"alembic_version", *metadata.tables}


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def compare_to_code(place: Place) -> list[Any]:
    database = Database(place)
    try:
        return database.read(lambda connection: compare_metadata(MigrationContext.configure(connection), metadata))
    finally:
        database.release()


def test_the_migrations_make_the_tables_that_the_code_knows(place: Place) -> None:
    assert compare_to_code(place) == []
    upgrade(place)
    assert compare_to_code(place) == []


def kept(path: Path) -> tuple[dict[str, str], dict[str, list[Any]]]:
    """The tables and indexes of a file, word by word but for the spaces between, and the rows."""
    with closing(sqlite3.connect(path)) as connection:
        made = {
            name: " ".join((sql or "").split())
            for name, sql in connection.execute("SELECT name, sql FROM sqlite_master ORDER BY rowid")
        }
        rows = {name: connection.execute(f'SELECT * FROM "{name}"').fetchall() for name in tables(path)}
    return made, rows


def test_a_new_file_is_what_the_migrations_would_make_of_it(tmp_path: Path) -> None:
    at_once, by_steps = tmp_path / "at_once.db", tmp_path / "by_steps.db"
    upgrade(at_once)
    upgrade(by_steps, step_by_step=True)
    assert kept(at_once) == kept(by_steps)
    assert len(kept(at_once)[0]) > len(metadata.tables)
    with closing(sqlite3.connect(at_once)) as one, closing(sqlite3.connect(by_steps)) as other:
        for pragma in ("auto_vacuum", "journal_mode", "page_size"):
            assert one.execute(f"PRAGMA {pragma}").fetchone() == other.execute(f"PRAGMA {pragma}").fetchone()


def test_rows_of_an_older_release_are_still_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts, path = tmp_path / "scripts", tmp_path / "gateway.db"
    shutil.copytree(PACKAGE / "migrations", scripts)
    for newer in ("0002_owned", "0003_counters", "0004_keys", "0005_rules", "0006_usage", "0007_cache", "0008_rollups"):
        (scripts / "versions" / f"{newer}.py").unlink()
    monkeypatch.setattr(migrate, "_SCRIPTS", str(scripts))
    upgrade(path, step_by_step=True)
    assert tables(path) == {"alembic_version", "spans", "traces"}
    store, rows = LocalTraces(Database(path), 14, 1 << 30), [piece(row) for number in (1, 2) for row in trace(number)]
    with monkeypatch.context() as patch:
        patch.setattr(store, "sweep", lambda: 0)  # it asks for the tables of this release
        store.deliver(rows)
    monkeypatch.undo()
    upgrade(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(NEWEST,)]
        assert connection.execute("SELECT count(*) FROM spans").fetchone() == (4,)
        assert [row for (row,) in connection.execute("SELECT row FROM spans ORDER BY id")] == sorted(
            (piece.row.decode() for piece in rows), key=lambda row: json.loads(row)["id"]
        )
        assert connection.execute("SELECT count(*) FROM owned").fetchone() == (0,)
    assert compare_to_code(path) == []
    assert store.sweep() == 0


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_what_the_release_before_kept_of_days_and_names_is_made_anew(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    scripts = tmp_path / "scripts"
    place: Place = tmp_path / "gateway.db"
    if store == "postgres":
        place = request.getfixturevalue("empty_postgres_address")
    shutil.copytree(PACKAGE / "migrations", scripts)
    (scripts / "versions" / "0008_rollups.py").unlink()
    monkeypatch.setattr(migrate, "_SCRIPTS", str(scripts))
    upgrade(place, step_by_step=True)
    monkeypatch.undo()
    mark = "0123456789abcdef" * 4
    details = ('{"name": "a"}', f'{{"idempotency": "{mark}", "name": "a"}}')
    sums = ", ".join(["1"] * 11)
    database = Database(place)

    def fill(connection: Connection) -> None:
        for action, detail in zip(("change", "create"), details, strict=True):
            line = f"0, 'cli', '{action}', 'project', 'proj_1', '{detail}'"
            connection.execute(text_of(f"INSERT INTO audit (at, actor, action, kind, target, details) VALUES ({line})"))
        connection.execute(text_of(f"INSERT INTO usage_days VALUES ('hour', 20000, '=3', {sums})"))

    database.write(fill)
    upgrade(place)
    asked = "SELECT action, idempotency FROM audit ORDER BY seq"
    found = database.read(lambda connection: connection.exec_driver_sql(asked).all())
    assert [tuple(row) for row in found] == [("change", None), ("create", mark)]
    count = "SELECT (SELECT count(*) FROM usage_days) + (SELECT count(*) FROM usage_hours)"
    assert database.read(lambda connection: connection.exec_driver_sql(count).scalar_one()) == 0
    database.release()
    assert compare_to_code(place) == []


def text_of(statement: str) -> TextClause:
    """A statement as it stands: what looks like a parameter is none."""
    return text(statement.replace(":", "\\:"))


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    upgrade(path)
    before = path.read_bytes()
    upgrade(path)
    assert path.read_bytes() == before


def test_gateways_that_start_at_once_make_one_database(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from gateway.storage.migrate import upgrade; upgrade(Path(sys.argv[1]))"
    )
    path = tmp_path / "data" / "gateway.db"
    starts = [subprocess.Popen([sys.executable, "-c", script, str(path)]) for _ in range(2)]
    assert [start.wait(timeout=60) for start in starts] == [0, 0]
    assert tables(path) == ALL_TABLES


def test_gateways_that_start_at_once_make_the_tables_of_a_server_once(empty_postgres_address: Secret) -> None:
    script = (
        "import sys; from gateway.storage.migrate import upgrade; from tests.storage.places import place_of\n"
        "upgrade(place_of(sys.argv[1]))"
    )
    starts = [subprocess.Popen([sys.executable, "-c", script, told(empty_postgres_address)]) for _ in range(3)]
    assert [start.wait(timeout=60) for start in starts] == [0, 0, 0]
    assert compare_to_code(empty_postgres_address) == []


def test_tables_of_a_newer_release_on_a_server_are_left_alone(postgres_address: Secret) -> None:
    database = Database(postgres_address)
    database.write(lambda connection: connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'"))
    database.release()
    with pytest.raises(StorageFailed, match=r"\(9999\) are of a newer release"):
        upgrade(postgres_address)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("/gateway_", "/no_such_"), 'refuses: database "no_such_[0-9]+" does not exist'),
        ((PASSWORD, "another"), "refuses: password authentication failed"),
        (("127.0.0.1", "127.0.0.2"), "cannot be reached"),
    ],
    ids=["database", "password", "host"],
)
def test_a_server_that_cannot_be_used_is_named_without_its_password(
    wrong: tuple[str, str], said: str, postgres_address: Secret
) -> None:
    with pytest.raises(StorageFailed, match=said) as caught:
        upgrade(Secret(postgres_address.reveal().replace(*wrong)))
    assert PASSWORD not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_handle_stays_open(tmp_path: Path) -> None:
    upgrade(tmp_path / "gateway.db")
    open_files = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    assert [file for file in open_files if file.startswith(str(tmp_path))] == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed, match=r"file/data/gateway\.db: Not a directory"):
        upgrade(tmp_path / "file" / "data" / "gateway.db")


def test_what_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    path.write_bytes(b"a letter to a friend, which is long enough" * 100)
    before = path.read_bytes()
    with pytest.raises(StorageFailed, match="is not a database"):
        upgrade(path)
    assert path.read_bytes() == before


def test_a_damaged_database_is_not_migrated(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    upgrade(path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)
    with pytest.raises(StorageFailed, match="damaged"):
        upgrade(path)


def test_tables_of_a_newer_release_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    upgrade(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(StorageFailed, match=r"\(9999\) are of a newer release"):
        upgrade(path)
    assert path.read_bytes() == before


def test_a_lock_that_another_holds_is_waited_for_and_then_named(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    with migrate._alone(path.with_name("gateway.db.lock"), 1), pytest.raises(StorageBusy, match="has held the lock"):
        upgrade(path, patience_s=0.1)
    upgrade(path)


@pytest.mark.parametrize("last", ["op.execute('SELECT * FROM nowhere')", "raise CommandError('no\\nway')"])
def test_a_migration_that_fails_half_way_leaves_nothing(
    last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts, path = tmp_path / "scripts", tmp_path / "gateway.db"
    shutil.copytree(PACKAGE / "migrations", scripts)
    (scripts / "versions" / "9999_broken.py").write_text(
        "from alembic import op\nfrom alembic.util import CommandError\nfrom sqlalchemy import Column, Text\n"
        f"revision, down_revision = '9999', '{NEWEST}'\n"
        f"def upgrade():\n    op.create_table('half', Column('id', Text))\n    {last}\n"
    )
    monkeypatch.setattr(migrate, "_SCRIPTS", str(scripts))
    with pytest.raises(StorageFailed) as caught:
        upgrade(path, step_by_step=True)
    assert "\n" not in str(caught.value)
    assert tables(path) == set()
    monkeypatch.undo()
    upgrade(path)
    assert "traces" in tables(path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip("only root can mount")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_said_to_be_full(small_disk: Path) -> None:
    with pytest.raises(StorageFailed, match="the disk is full"):
        upgrade(small_disk / "gateway.db")


def test_the_wheel_has_the_migrations() -> None:
    names = [file.name for file in sorted(PACKAGE.glob("migrations/versions/0*.py"))]
    assert names == [
        *("0001_traces.py", "0002_owned.py", "0003_counters.py", "0004_keys.py", "0005_rules.py", "0006_usage.py"),
        "0007_cache.py",
        "0008_rollups.py",
    ]
    top = PACKAGE.parents[1]
    ignored = subprocess.run(
        ["git", "check-ignore", *PACKAGE.rglob("*.py")], cwd=top, capture_output=True, text=True, check=False
    )
    assert ignored.stdout == "", "hatch leaves out what git ignores"


def test_the_code_knows_the_newest_migration() -> None:
    assert newest() == REVISION


def test_a_new_file_and_tables_that_are_up_to_date_need_no_alembic(place: Place) -> None:
    if isinstance(place, Secret):
        upgrade(place)
    script = (
        "import sys; from gateway.storage.migrate import upgrade; from tests.storage.places import place_of\n"
        "upgrade(place_of(sys.argv[1])); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script, told(place)], check=False).returncode == 0
