"""Transactions in the driver's own words, on a file and on a server."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import SQLAlchemyError

from gateway.storage.database import Database, StorageFailed
from gateway.storage.driven import Asked, Driven

_NAMES = Asked("SELECT name FROM things ORDER BY id", ())
_HOSTILE = ["'); DROP TABLE things; --", "\\'", "%s", "%(name)s", "?", "()", "$1", ";COMMIT;", "E'\\x'"]
_PUT = "INSERT INTO things (id, name) VALUES (?, ?)"


@pytest.fixture
def database(opened: Callable[..., Database]) -> Database:
    made = opened()
    made.write(lambda it: it.exec_driver_sql("CREATE TABLE things (id bigint PRIMARY KEY, name text)") and None)
    return made


def names(driven: Driven) -> list[str]:
    return [name for (name,) in driven.ask(_NAMES)[0]]


def test_what_is_told_is_kept_and_seen_by_what_is_asked_next(database: Database) -> None:
    def work(driven: Driven) -> list[str]:
        driven.tell(_PUT, [(1, "one"), (2, "two")])
        driven.tell("UPDATE things SET name = ? WHERE id = ?", [("three", 2)])
        return names(driven)

    assert database.drive(work, alone_on=["a"]) == ["one", "three"]
    assert database.drive(names, alone_on=None) == ["one", "three"]


def test_what_is_only_told_is_kept(database: Database) -> None:
    database.drive(lambda it: it.tell(_PUT, [(1, "one")]), alone_on=[])
    assert database.drive(names, alone_on=None) == ["one"]


def test_each_of_what_is_asked_has_its_rows(database: Database) -> None:
    database.drive(lambda it: it.tell(_PUT, [(number, str(number)) for number in range(5)]), alone_on=[])
    some = Asked("SELECT id FROM things WHERE id IN () AND name IN () ORDER BY id", ((1, 2, 3), ("3", "2")))
    none = Asked("SELECT id FROM things WHERE id = ?", (9,))
    found = database.drive(lambda it: it.ask(some, none, _NAMES), alone_on=None)
    assert [[tuple(row) for row in rows] for rows in found] == [
        [(2,), (3,)],
        [],
        [("0",), ("1",), ("2",), ("3",), ("4",)],
    ]


@pytest.mark.parametrize("asks", [False, True], ids=["only told", "seen"])
def test_work_that_raises_leaves_nothing_behind(asks: bool, database: Database) -> None:
    def work(driven: Driven) -> None:
        driven.tell(_PUT, [(1, "one")])
        if asks:
            names(driven)
        raise LookupError

    with pytest.raises(LookupError):
        database.drive(work, alone_on=["a"])
    assert database.drive(names, alone_on=None) == []
    database.drive(lambda it: it.tell(_PUT, [(1, "two")]), alone_on=["a"])
    assert database.read(lambda it: it.exec_driver_sql("SELECT name FROM things").all()) == [("two",)]


def test_a_statement_that_fails_takes_all_with_it(database: Database) -> None:
    def work(driven: Driven) -> None:
        driven.tell(_PUT, [(1, "one")])
        driven.tell("INSERT INTO nothing_there VALUES (?)", [(1,)])
        driven.tell(_PUT, [(2, "two")])

    with pytest.raises(StorageFailed, match="not those of this release"):
        database.drive(work, alone_on=["a"])
    assert database.drive(names, alone_on=None) == []


def test_reading_sees_one_state_and_waits_for_nobody(database: Database, opened: Callable[..., Database]) -> None:
    def work(driven: Driven) -> tuple[list[str], list[str]]:
        before = names(driven)
        opened().drive(lambda it: it.tell(_PUT, [(1, "meanwhile")]), alone_on=["a"])
        return before, names(driven)

    assert database.drive(work, alone_on=None) == ([], [])
    assert database.drive(names, alone_on=None) == ["meanwhile"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")) | st.sampled_from(_HOSTILE),
        min_size=1,
        max_size=4,
        unique=True,
    )
)
def test_a_value_is_a_value_whatever_is_in_it(texts: list[str], database: Database) -> None:
    def work(driven: Driven) -> tuple[list[str], int]:
        driven.tell("DELETE FROM things", [()])
        driven.tell(_PUT, list(enumerate(texts)))
        ((found,),) = driven.ask(Asked("SELECT count(*) FROM things WHERE name IN ()", (tuple(texts),)))[0]
        return names(driven), found

    assert database.drive(work, alone_on=[]) == (texts, len(texts))


def test_a_fault_shows_neither_statement_nor_values(database: Database) -> None:
    with pytest.raises(StorageFailed) as caught:
        database.drive(
            lambda it: it.ask(Asked("SELECT secret_column FROM things WHERE name = ?", ("hunter2",))), alone_on=None
        )
    told = repr(caught.value) + repr(caught.value.__cause__)
    assert "hunter2" not in told
    assert "secret_column" not in told
    assert not isinstance(caught.value.__cause__, SQLAlchemyError)
