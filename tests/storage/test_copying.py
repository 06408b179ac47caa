"""Copying a database to a server: all of it, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select, text

from gateway.core.rules import BUDGET
from gateway.secret import Secret
from gateway.storage import copying
from gateway.storage.accounts import Accounts
from gateway.storage.audit import By
from gateway.storage.copying import copy
from gateway.storage.database import Database, StorageFailed
from gateway.storage.migrate import upgrade
from gateway.storage.owned import RESPONSE, Owned, OwnedObjects
from gateway.storage.rules import Rules
from gateway.storage.tabled import TableCounters
from gateway.storage.tables import LOCAL, metadata, owned, revisions
from gateway.tracing.local import LocalTraces
from tests.fakes.stores import Postgres
from tests.storage.places import Place, wait_until_tidy
from tests.storage.stores import claim
from tests.tracing.kept import piece, trace

MONEY = {"name": "a month", "measure": "usd", "most": "1000000000", "period": "month"}


def one(number: int) -> Owned:
    given = ("tok_a", "tok_a", "fast", "openai", "openai/gpt-test", 1_764_000_000.25 + number)
    return Owned(RESPONSE, f"resp_{number}", *given, '{"a": "é 🦈 \\u0000"}' if number % 2 else None)


def fill(place: Place) -> None:
    database = Database(place)
    OwnedObjects(database, 30, 1 << 28).keep(*(one(number) for number in range(1203)))
    Accounts(database, "project").create("a project", By("cli"))
    Rules(database, BUDGET).create({**MONEY, "match": {"project": "a project"}}, By("cli"))
    counters = TableCounters(database)
    counters.reserve([claim(5), claim(7, 2**50 // 2, "key/1/usd", None)], 600)
    counters.add("n", 3, 3600)
    counters.swap("t", None, "text", 3600)
    wait_until_tidy()
    database.release()


def counts(place: Place) -> dict[str, int]:
    database = Database(place)

    def work(connection: Connection) -> dict[str, int]:
        found = {
            name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for name, table in metadata.tables.items()
        }
        untouched = set(connection.execute(select(revisions.c.number)).scalars()) == {0}
        return found | ({revisions.name: 0} if untouched else {})  # its rows are the migrations'

    try:
        return database.read(work)
    finally:
        database.release()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.db"
    upgrade(path)
    fill(path)
    LocalTraces(Database(path), 10_000, 1 << 30).deliver([piece(row) for row in trace(1)])
    return path


def test_a_copy_has_every_row_but_the_local_traces(source: Path, empty_postgres_address: Secret) -> None:
    copied = copy(source, empty_postgres_address)
    before, after = counts(source), counts(empty_postgres_address)
    assert before["owned"] == 1203
    assert before["spans"] > 0
    assert after == before | dict.fromkeys(LOCAL, 0)
    assert copied == {name: rows for name, rows in before.items() if name not in LOCAL}
    database = Database(empty_postgres_address)
    objects, counters = OwnedObjects(database, 10_000, 1 << 28), TableCounters(database)
    assert objects.find(RESPONSE, "resp_1", "tok_a") == one(1)
    assert objects.find(RESPONSE, "resp_1202", "tok_a") == one(1202)
    assert [at.used for at in counters.look([claim(), claim(1, None, "key/1/usd", None)])] == [5, 7]
    assert [kept.rule.most for kept in Rules(database, BUDGET).page(project="a project").items] == [10**15]
    assert (counters.get("n"), counters.fetch(["t"])) == (3, {"t": "text"})
    wait_until_tidy()
    database.release()


def test_and_the_way_back(postgres_address: Secret, tmp_path: Path) -> None:
    fill(postgres_address)
    copy(postgres_address, tmp_path / "back.db")
    assert counts(tmp_path / "back.db") == counts(postgres_address)


def test_a_database_with_rows_is_not_copied_to(source: Path, postgres_address: Secret) -> None:
    database = Database(postgres_address)
    OwnedObjects(database, 10_000, 1 << 28).keep(one(7))
    wait_until_tidy()
    database.release()
    with pytest.raises(StorageFailed, match="owned has 1 rows; only an empty database is copied to"):
        copy(source, postgres_address)
    assert counts(postgres_address)["owned"] == 1
    assert sum(counts(postgres_address).values()) == 1


def test_a_copy_that_fails_half_way_leaves_nothing(source: Path, postgres_address: Secret, postgres: Postgres) -> None:
    name = postgres_address.reveal().rpartition("/")[2]
    with postgres.connect(name) as connection:
        connection.execute("ALTER TABLE owned ADD CHECK (id <> 'resp_900')")
    with pytest.raises(StorageFailed, match="SQLSTATE 23514"):
        copy(source, postgres_address)
    assert sum(counts(postgres_address).values()) == 0


def test_a_target_that_loses_rows_is_noticed_and_keeps_none(
    source: Path, postgres_address: Secret, postgres: Postgres
) -> None:
    name = postgres_address.reveal().rpartition("/")[2]
    with postgres.connect(name) as connection:
        connection.execute("CREATE RULE lossy AS ON INSERT TO owned WHERE NEW.id = 'resp_9' DO INSTEAD NOTHING")
    with pytest.raises(StorageFailed, match="owned has 1202 rows, and 1203 were sent"):
        copy(source, postgres_address)
    assert sum(counts(postgres_address).values()) == 0


def test_tables_of_another_release_are_not_copied(source: Path, empty_postgres_address: Secret) -> None:
    Database(source).write(lambda it: it.execute(text("UPDATE alembic_version SET version_num = '0001'")) and None)
    with pytest.raises(StorageFailed, match="are of another release"):
        copy(source, empty_postgres_address)


def test_a_source_that_is_not_there_is_named_and_not_made(tmp_path: Path, empty_postgres_address: Secret) -> None:
    with pytest.raises(StorageFailed, match="there is no such file"):
        copy(tmp_path / "none.db", empty_postgres_address)
    assert not (tmp_path / "none.db").exists()


def test_nobody_writes_to_the_target_meanwhile(
    source: Path, postgres_address: Secret, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, count, tried = postgres_address.reveal().rpartition("/")[2], copying._count, list[str]()

    def count_and_try(table: object, connection: Connection) -> int:
        with postgres.connect(name) as other:
            other.execute("SET lock_timeout = '50ms'")
            try:
                other.execute("INSERT INTO counter_values (key, ends_ms) VALUES ('x', 1)")
            except Exception as error:  # noqa: BLE001
                tried.append(type(error).__name__)
        return count(table, connection)  # type: ignore[arg-type]

    monkeypatch.setattr(copying, "_count", count_and_try)
    copy(source, postgres_address)
    assert set(tried) == {"LockNotAvailable"}


def test_the_tables_that_stay_are_tables_and_others_are_copied() -> None:
    assert set(metadata.tables) >= LOCAL
    assert owned.name not in LOCAL
