"""The database: real files, real processes that hold it, real faults."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, text

from gateway.storage.database import Database, StorageBusy, StorageFailed, upserting, vacuum
from gateway.storage.migrate import upgrade
from tests.storage.holding import held


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "data" / "gateway.db"
    upgrade(made)
    with sqlite3.connect(made) as connection:
        connection.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT)")
    connection.close()
    return made


def put(name: str, connection: Connection) -> None:
    connection.execute(text("INSERT INTO things (name) VALUES (:name)"), {"name": name})


def names(connection: Connection) -> list[str]:
    return list(connection.scalars(text("SELECT name FROM things ORDER BY id")))


# On both.


@pytest.fixture
def either(opened: Callable[..., Database]) -> Database:
    database = opened()
    database.write(lambda it: it.exec_driver_sql("CREATE TABLE things (id serial PRIMARY KEY, name text)") and None)
    return database


def add(name: str, connection: Connection) -> None:
    insert = "INSERT INTO things (id, name) VALUES ((SELECT count(*) FROM things), :name)"
    connection.execute(text(insert), {"name": name})


@pytest.mark.parametrize("alone_on", [None, [], ["a", "b"]], ids=["", "alone on nothing", "alone"])
def test_what_is_written_is_read(alone_on: list[str] | None, either: Database) -> None:
    either.write(lambda connection: add("one", connection), alone_on=alone_on)
    assert either.read(names) == ["one"]


@pytest.mark.parametrize("alone_on", [None, ["a"]], ids=["", "alone"])
def test_a_write_that_raises_leaves_nothing_behind(alone_on: list[str] | None, either: Database) -> None:
    def work(connection: Connection) -> None:
        add("one", connection)
        raise LookupError

    with pytest.raises(LookupError):
        either.write(work, alone_on=alone_on)
    assert either.read(names) == []


def test_a_read_sees_one_state(either: Database, opened: Callable[..., Database]) -> None:
    def work(connection: Connection) -> tuple[list[str], list[str]]:
        before = names(connection)
        opened().write(lambda other: add("meanwhile", other))
        return before, names(connection)

    assert either.read(work) == ([], [])
    assert either.read(names) == ["meanwhile"]


def test_an_upsert_says_whether_it_changed_a_row(either: Database) -> None:
    table = Table("things", MetaData(), Column("id", Integer, primary_key=True), Column("name", Text))

    def keep(name: str, connection: Connection) -> int:
        statement = upserting(connection, table)
        new = statement.excluded
        keep = statement.on_conflict_do_update(index_elements=["id"], set_={"name": name}, where=new.name != "no")
        return int(connection.execute(keep, {"id": 7, "name": name}).rowcount)

    assert [either.write(partial(keep, name)) for name in ("a", "b", "no")] == [1, 1, 0]
    assert either.read(names) == ["b"]


def test_a_database_without_tables_gives_no_sign_of_life(either: Database) -> None:
    either.check()
    either.write(lambda connection: connection.exec_driver_sql("DROP TABLE alembic_version") and None)
    with pytest.raises(StorageFailed, match="not those of this release"):
        either.check()


def test_what_is_released_opens_again(either: Database) -> None:
    for _ in range(2):
        either.hold()
        either.check()
        either.release()
    either.release()
    assert either.read(names) == []


# On a file.


def test_file_and_folder_are_this_users_alone(path: Path) -> None:
    def modes(connection: Connection) -> list[int]:
        put("one", connection)
        return [stat.S_IMODE(file.stat().st_mode) for file in sorted(path.parent.iterdir())]

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    found = Database(path).write(modes)
    assert len(found) == 4, "database, log, its index and the lock"
    assert set(found) == {0o600}


def test_every_connection_has_the_pragmas(path: Path) -> None:
    def ask(connection: Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "auto_vacuum", "busy_timeout")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]

    database = Database(path)
    for _ in range(2):
        *settings, busy_timeout_ms = database.read(ask)
        assert settings == ["wal", 1, 1, 2]
        assert isinstance(busy_timeout_ms, int)
        assert 0 < busy_timeout_ms <= 50


def test_nothing_is_open_between_operations(path: Path) -> None:
    database = Database(path)
    database.write(lambda connection: put("one", connection))
    open_files = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    assert [file for file in open_files if file.startswith(str(path))] == []


def test_a_write_waits_for_another_process(path: Path) -> None:
    database = Database(path)
    with held(path) as holder:
        assert holder.stdin is not None
        with pytest.raises(StorageBusy):
            Database(path, patience_s=0.1).write(lambda connection: put("refused", connection))
        assert database.read(names) == [], "readers do not wait"
        holder.stdin.write("\n")
        holder.stdin.flush()
        database.write(lambda connection: put("two", connection))
    assert database.read(names) == ["two"]


def test_patience_ends_about_when_it_should(path: Path) -> None:
    with held(path):
        began_s = time.monotonic()
        with pytest.raises(StorageBusy, match="others have held the database"):
            Database(path, patience_s=0.5).write(lambda connection: put("one", connection))
        assert 0.5 <= time.monotonic() - began_s < 2


def test_two_processes_that_write_lose_nothing(path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from sqlalchemy import text\n"
        "from gateway.storage.database import Database\n"
        "database = Database(Path(sys.argv[1]))\n"
        "for number in range(60):\n"
        "    put = text('INSERT INTO things (name) VALUES (:name)')\n"
        "    database.write(lambda connection: connection.execute(put, {'name': str(number)}) and None)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(path)]) for _ in range(2)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    assert sorted(map(int, Database(path).read(names))) == sorted([*range(60), *range(60)])


GEVENT = """
from gevent import monkey; monkey.patch_all()
import gevent, sys, time
from pathlib import Path
from sqlalchemy import text
from gateway.storage.database import Database, StorageBusy
database = Database(Path(sys.argv[1]), patience_s=1.5)
gaps, done = [], []
def tick():
    while not done:
        before = time.monotonic(); gevent.sleep(0.01); gaps.append(time.monotonic() - before)
def write():
    try:
        database.write(lambda connection: connection.execute(text("DELETE FROM things")) and None)
    except StorageBusy:
        return "busy"
ticker = gevent.spawn(tick)
writers = [gevent.spawn(write) for _ in range(8)]
gevent.joinall(writers); done.append(True); ticker.join()
print([writer.value for writer in writers].count("busy"), max(gaps), len(gaps))
"""


def test_the_hub_turns_while_the_database_is_locked(path: Path) -> None:
    with held(path):
        found = subprocess.run([sys.executable, "-c", GEVENT, str(path)], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    busy, longest_s, ticks = found.stdout.split()
    assert busy == "8", "all waited until their patience was at its end"
    assert float(longest_s) < 0.3
    assert int(ticks) > 30


def test_a_file_that_is_not_there_is_named_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="there is no such file"):
        Database(tmp_path / "none.db").read(names)
    assert list(tmp_path.iterdir()) == []


def test_a_path_may_have_any_characters(tmp_path: Path) -> None:
    path = tmp_path / "a b%20?mode=ro#é" / "gate way.db"
    upgrade(path)
    assert Database(path).read(lambda connection: connection.scalar(text("SELECT count(*) FROM traces"))) == 0


def test_a_fault_shows_neither_sql_nor_content(path: Path) -> None:
    wrong = text("INSERT INTO nowhere VALUES (:secret)")
    with pytest.raises(StorageFailed) as caught:
        Database(path).write(lambda connection: connection.execute(wrong, {"secret": "hunter2"}) and None)
    said = str(caught.value)
    assert "\n" not in said
    assert not any(word in said for word in ("hunter2", "INSERT", "nowhere"))
    assert caught.value.__suppress_context__


def test_free_pages_go_back_to_the_disk(path: Path) -> None:
    database = Database(path)
    database.write(lambda connection: [put("x" * 5000, connection) for _ in range(200)] and None)
    database.write(lambda connection: connection.execute(text("DELETE FROM things")) and None)
    before_bytes = path.stat().st_size
    assert database.write(vacuum)
    assert path.stat().st_size < before_bytes / 4
    assert not database.write(vacuum)


def test_a_damaged_file_is_said_to_be_damaged(path: Path) -> None:
    database = Database(path)
    database.write(lambda connection: [put("x" * 500, connection) for _ in range(200)] and None)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(StorageFailed, match="damaged"):
        database.read(names)


def test_a_full_disk_is_said_to_be_full(path: Path) -> None:
    script = (
        "import resource, signal, sys; from pathlib import Path; from sqlalchemy import text\n"
        "from gateway.storage.database import Database, StorageFailed\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "database = Database(Path(sys.argv[1]))\n"
        "large = text('INSERT INTO things (name) VALUES (zeroblob(900000))')\n"
        "try: database.write(lambda c: c.execute(large) and None)\n"
        "except StorageFailed as error: print(error)\n"
        "print(database.read(lambda c: c.execute(text('SELECT count(*) FROM things')).scalar_one()))\n"
    )
    found = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60)
    said, count = found.stdout.splitlines()
    assert "disk" in said
    assert count == "0"


def test_connections_that_stay_open_belong_to_the_file_that_is_there(path: Path, tmp_path: Path) -> None:
    database = Database(path)
    database.hold()
    try:
        database.write(partial(put, "one"))
        connections = []
        for _ in range(3):
            database.read(lambda it: connections.append(it.connection.dbapi_connection))
        assert len(set(map(id, connections))) == 1, "the next operation has the same"
        with pytest.raises(StorageFailed):
            database.write(lambda it: it.exec_driver_sql("INSERT INTO nothing VALUES (1)") and None)
        assert database.read(names) == ["one"]
        other = tmp_path / "other.db"
        with sqlite3.connect(other) as made:
            made.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT)")
        made.close()
        for name in ("-wal", "-shm"):
            path.with_name(path.name + name).unlink(missing_ok=True)
        os.replace(other, path)  # a backup that is put back
        database.write(partial(put, "two"))
    finally:
        database.release()
    with sqlite3.connect(path) as now:
        assert now.execute("SELECT name FROM things").fetchall() == [("two",)]
    now.close()
