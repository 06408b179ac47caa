"""Counters in tables: a database that does not answer, and what has ended."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from gateway.core.windows import Claim, Window
from gateway.errors import StoreUnavailable
from gateway.storage.counted import Used, Wanted
from gateway.storage.counters import Admission, Counters, Reservation, by_counter
from gateway.storage.database import Database, StorageBusy, StorageFailed
from gateway.storage.memory import MemoryCounters
from gateway.storage.migrate import upgrade
from gateway.storage.tabled import TableCounters
from gateway.storage.tables import counter_slots, counter_values, reservations
from tests.storage.holding import held
from tests.storage.stores import NOW_S, Clock, claim

_TURNS = itertools.count(1)

VERBS: dict[str, Callable[[Counters], object]] = {
    "reserve": lambda it: it.reserve([claim()], 45),
    "renew": lambda it: it.renew(["a"], 45),
    "add": lambda it: it.add("a", 1, 60),
    "swap": lambda it: it.swap("a", None, "x", 60),
}


@pytest.mark.parametrize("ask", VERBS.values(), ids=VERBS)
def test_a_file_that_another_process_holds_is_unavailable_within_the_bound_and_then_is_not(
    ask: Callable[[Counters], object], tmp_path: Path
) -> None:
    path = tmp_path / "gateway.db"
    upgrade(path)
    counters = TableCounters(Database(path, patience_s=0.4))
    with held(path):
        began_s = time.monotonic()
        with pytest.raises(StoreUnavailable) as caught:
            ask(counters)
        assert 0.4 <= time.monotonic() - began_s < 2
        assert isinstance(caught.value.__cause__, StorageBusy)
        assert str(path) not in str(caught.value), "that is for the operator"
        assert counters.get("a") == 0, "readers do not wait"
        assert counters.look([claim()])[0].used == 0
    ask(counters)


def test_a_database_that_is_away_is_told_once_in_10_s(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    counters = TableCounters(Database(tmp_path / "none.db"))
    with caplog.at_level(logging.WARNING, "gateway.storage"):
        for _ in range(5):
            with pytest.raises(StoreUnavailable) as caught:
                counters.get("a")
            assert isinstance(caught.value.__cause__, StorageFailed)
    assert [record.message for record in caplog.records] == ["the store of limits did not answer"]


@pytest.fixture
def database(opened: Callable[..., Database]) -> Database:
    return opened(patience_s=10)


def rows(database: Database) -> list[int]:
    tables = (counter_slots, reservations, counter_values)
    return database.read(
        lambda it: [it.execute(select(func.count()).select_from(table)).scalar_one() for table in tables]
    )


def test_what_has_ended_goes(database: Database) -> None:
    clock = Clock()
    counters = TableCounters(database, clock)
    for number in range(4):
        made = counters.reserve([claim(3, None, f"key/{number}"), claim(1, None, f"key/{number}/p", None)], 45)
        assert made.reservation is not None
        if number % 2:
            counters.settle(made.reservation, [2, 0])
        counters.add(f"n{number}", 1, 100)
        counters.swap(f"t{number}", None, "x", 100)
        clock.now_s += 1
    assert rows(database) == [8, 4, 10]
    assert counters.tidy() == 0
    clock.now_s += 50
    assert counters.tidy() == 4, "what was reserved and never settled"
    assert rows(database)[1] == 0
    assert [one.used for one in counters.look([claim(subject="key/0/p", length_s=None), claim(subject="key/1")])] == [
        0,
        2,
    ]
    clock.now_s += 101
    counters.tidy()
    assert rows(database) == [4, 0, 0], "windows without end are kept for a day after their last use, also at 0"
    clock.now_s += 86_400
    counters.tidy()
    assert rows(database) == [0, 0, 0]
    counters.tidy()
    assert rows(database) == [0, 0, 0]


def test_more_than_a_batch_goes_too(database: Database) -> None:
    clock = Clock()
    counters = TableCounters(database, clock)
    for number in range(120):
        counters.reserve([claim(1, None, f"{number}/{of}") for of in range(5)], 45)
    clock.now_s += 86_400
    assert counters.tidy() == 600, "what was counted goes with what was reserved"
    assert rows(database) == [0, 0, 0]


def test_tidying_comes_by_itself_once_a_minute_beside_the_calls(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, seen = [1000.0], threading.Event()
    monkeypatch.setattr("gateway.storage.tabled.time.monotonic", lambda: clock[0])
    counters = TableCounters(database)
    monkeypatch.setattr(counters, "tidy", seen.set)
    counters.add("a", 1, 60)
    clock[0] += 59
    counters.reserve([claim()], 45)
    assert not seen.wait(0.1)
    clock[0] += 2
    counters.add("a", 1, 60)
    assert seen.wait(5)


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
def test_calls_on_different_keys_do_not_wait_for_each_other_on_a_server(opened: Callable[..., Database]) -> None:
    slow, fast = opened(patience_s=10), opened(patience_s=0.5)
    begun, may_end = threading.Event(), threading.Event()

    def hold(_connection: object) -> None:
        begun.set()
        may_end.wait(10)

    holder = threading.Thread(target=lambda: slow.write(hold, alone_on=[claim(subject="key/1").counter]))
    holder.start()
    assert begun.wait(10)
    counters = TableCounters(fast)
    assert counters.reserve([claim(subject="key/2")], 45).reservation is not None
    with pytest.raises(StoreUnavailable):
        counters.reserve([claim(subject="key/2"), claim(subject="key/1")], 45)
    may_end.set()
    holder.join(10)
    assert counters.reserve([claim(subject="key/1")], 45).reservation is not None


_AMOUNTS = st.integers(0, 6)
_ASKED = st.tuples(
    st.just("reserve"),
    st.lists(st.tuples(st.integers(0, 2), _AMOUNTS), min_size=1, max_size=2, unique_by=lambda of: of[0]),
) | st.tuples(st.just("settle"), st.tuples(st.integers(0, 20), st.lists(_AMOUNTS, min_size=2, max_size=2)))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    turns=st.lists(st.tuples(st.lists(_ASKED, min_size=1, max_size=6), st.sampled_from([0.0, 3.0, 70.0])), max_size=6)
)
def test_what_is_done_in_one_turn_is_what_one_after_the_other_would_have_done(turns: Any, database: Database) -> None:
    clock, number = Clock(NOW_S + 1e6 * next(_TURNS)), next(_TURNS)
    counters, model = TableCounters(database, clock), MemoryCounters(clock)
    held: list[tuple[Reservation, Reservation]] = []
    for asked, later_s in turns:
        wanted: list[Wanted | Used] = []
        expected: list[Admission | bool] = []
        known = list(held)
        for verb, given_ in asked:
            if verb == "reserve":
                # two windows, and one without end that has to be opened and is not
                claims = [
                    Claim(f"{number}/{of}", Window((60.0, 5.0, None)[of], 1e7), amount, 10, opened=of == 2)
                    for of, amount in given_
                ]
                wanted.append(Wanted(tuple(claims), 45_000))
                expected.append(model.reserve(claims, 45))
            elif known:
                mine, other = known[given_[0] % len(known)]
                amounts = given_[1][: len(mine.claims)]
                wanted.append(Used(mine, by_counter(mine, amounts)))
                expected.append(model.settle(other, amounts))
        if not wanted:
            continue
        for got, right in zip(counters._turn(wanted), expected, strict=True):
            if isinstance(right, bool) or isinstance(got, bool):
                assert got == right
                continue
            assert got.standings == right.standings
            assert (got.reservation is None) == (right.reservation is None)
            if got.reservation is not None and right.reservation is not None:
                held.append((got.reservation, right.reservation))
        clock.now_s += later_s


def test_calls_that_come_at_once_share_transactions(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    counters, written = TableCounters(database), list[int]()
    drive = database.drive
    monkeypatch.setattr(
        database, "drive", lambda *args, **more: (written.append(1), time.sleep(0.05), drive(*args, **more))[2]
    )
    answers: list[Admission] = []
    threads = [threading.Thread(target=lambda: answers.append(counters.reserve([claim(1, 10)], 45))) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(answer.reservation is not None for answer in answers) == 10
    assert len(written) <= 8, "one that begins, and turns of 32"
