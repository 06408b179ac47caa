"""`gateway db`: the tables are made and moved, and what cannot be done is said."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway import cli
from gateway.secret import Secret
from gateway.storage.migrate import newest
from tests.fakes.stores import PASSWORD


def test_upgrade_makes_the_file_and_the_tables_of_the_server(
    place: Path,
    empty_postgres_address: Secret,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["db", "upgrade"]) == 0
    file = f"{place}/.gateway/gateway.db has the tables of this release ({newest()})\n"
    assert capsys.readouterr().out == file
    monkeypatch.setenv("DATABASE_URL", empty_postgres_address.reveal())
    for _ in range(2):
        assert cli.main(["db", "upgrade"]) == 0
        told = capsys.readouterr().out
        assert told.startswith(f"{file}postgresql+psycopg://127.0.0.1:")
        assert PASSWORD not in told


def test_copy_moves_the_data_folder_to_the_database_that_is_set(
    place: Path,
    empty_postgres_address: Secret,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cli.main(["db", "upgrade"])
    with closing(sqlite3.connect(place / ".gateway/gateway.db")) as connection, connection:
        connection.execute("INSERT INTO counter_values (key, number, ends_ms) VALUES ('n|a', 7, 1)")
    capsys.readouterr()
    monkeypatch.setenv("DATABASE_URL", empty_postgres_address.reveal())
    assert cli.main(["db", "copy"]) == 0
    assert "counter_values: 1 rows\n" in capsys.readouterr().out
    assert cli.main(["db", "copy"]) == 1
    told = capsys.readouterr().err
    assert "counter_values has 1 rows; only an empty database is copied to; nothing was copied" in told
    assert PASSWORD not in told
    back = [*("--from", empty_postgres_address.reveal()), *("--to", f"sqlite:///{place}/back.db")]
    assert cli.main(["db", "copy", *back]) == 0
    with closing(sqlite3.connect(place / "back.db")) as connection:
        assert connection.execute("SELECT key, number FROM counter_values").fetchall() == [("n|a", 7)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["copy"], "name the database to copy to"),
        (["copy", "--to", "mysql://u:hunter2@h/n"], "an address is sqlite:///FILE, or it must begin with postgresql"),
        (["copy", "--to", "sqlite:///"], "an address is sqlite:///FILE"),
        (["copy", "--from", "postgresql://u:hunter2@host", "--to", "sqlite:///x"], "names no database"),
    ],
)
def test_an_address_that_is_none_is_said_without_its_password(
    arguments: list[str], said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["db", *arguments]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "hunter2" not in told
    assert list(place.iterdir()) == []


def test_a_server_that_cannot_be_used_is_said(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://u:hunter2@127.0.0.2:9/name")
    assert cli.main(["db", "upgrade"]) == 1
    told = capsys.readouterr()
    assert "postgresql://127.0.0.2:9/name: the server cannot be reached" in told.err
    assert "hunter2" not in told.err + told.out
    assert cli.main(["check"]) == 0
    assert "database: postgresql+psycopg://127.0.0.2:9/name\n" in capsys.readouterr().out
