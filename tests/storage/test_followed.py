"""Limits and budgets as each worker follows them, on every database."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert

from gateway.core.calls import Caller
from gateway.core.rules import LIMIT, Rule
from gateway.errors import StoreUnavailable
from gateway.storage import followed as module
from gateway.storage.accounts import Accounts
from gateway.storage.audit import By
from gateway.storage.database import Database
from gateway.storage.followed import FollowedRules
from gateway.storage.migrate import upgrade
from gateway.storage.rules import Rules
from gateway.storage.tables import rules

BOSS = By("boss")
RATE = {"name": "a minute", "measure": "requests", "most": 60, "period": "minute"}
CALLER = Caller("tok_1", "tok_1")
MODELS = ("fast", "openai/gpt")


def names(rules: tuple[Rule, ...]) -> list[str]:
    return [rule.name for rule in rules]


@pytest.fixture
def limits(opened: Callable[..., Database]) -> Rules:
    return Rules(opened(), LIMIT)


@pytest.fixture
def followed(opened: Callable[..., Database]) -> Iterator[FollowedRules]:
    made = FollowedRules(opened(), poll_s=3600)  # not started: the first call looks
    yield made
    made.close()


def test_what_is_there_at_the_first_call_holds(followed: FollowedRules, limits: Rules) -> None:
    limits.create({**RATE, "name": "all"}, BOSS)
    limits.create({**RATE, "name": "mine", "match": {"caller": "tok_1", "model": "openai/*"}}, BOSS)
    limits.create({**RATE, "name": "theirs", "match": {"caller": "tok_2"}}, BOSS)
    assert names(followed.of(CALLER, MODELS)) == ["all", "mine"]
    assert names(followed.of(CALLER, ("other",))) == ["all"]
    assert names(followed.about(CALLER)) == ["all", "mine"]


def test_every_change_is_seen_at_the_next_look(followed: FollowedRules, limits: Rules) -> None:
    assert followed.of(CALLER, MODELS) == ()
    made = limits.create(RATE, BOSS)
    assert followed.of(CALLER, MODELS) == ()
    followed.poll()
    assert followed.of(CALLER, MODELS) == (made.rule,)
    changed = limits.change(made.rule.id, BOSS, {"most": 5})
    followed.poll()
    assert followed.of(CALLER, MODELS) == (changed.rule,)
    limits.delete(made.rule.id, BOSS)
    followed.poll()
    assert followed.of(CALLER, MODELS) == ()


def test_a_look_that_finds_nothing_new_keeps_what_is_remembered(followed: FollowedRules, limits: Rules) -> None:
    limits.create(RATE, BOSS)
    followed.of(CALLER, MODELS)
    before = followed._known
    followed.poll()
    assert followed._known is before


def test_a_callers_project_is_known_by_the_name_that_it_has_now(
    followed: FollowedRules, limits: Rules, opened: Callable[..., Database]
) -> None:
    projects = Accounts(opened(), "project")
    shop = projects.create("shop", BOSS)
    limits.create({**RATE, "match": {"project": "shop"}}, BOSS)
    jwt = Caller("jwt_1", "jwtp_1", "jwt", project="shop")
    assert len(followed.of(jwt, MODELS)) == 1
    projects.create("another", BOSS)
    before = followed._known
    followed.poll()
    assert before is not None
    assert followed._known is not None
    assert followed._known.set is before.set, "names of others change nothing"
    projects.change(shop.id, BOSS, name="store")
    followed.poll()
    assert followed.of(jwt, MODELS) == ()
    assert len(followed.of(Caller("jwt_1", "jwtp_1", "jwt", project="store"), MODELS)) == 1


def test_the_settings_rules_come_first_and_stay(opened: Callable[..., Database], limits: Rules) -> None:
    own = Rule("set_rpm", LIMIT, "requests", 9, "minute", name="settings")
    followed = FollowedRules(opened(), [own], poll_s=3600)
    made = limits.create(RATE, BOSS)
    assert followed.of(CALLER, MODELS) == (own, made.rule)
    limits.delete(made.rule.id, BOSS)
    followed.poll()
    assert followed.of(CALLER, MODELS) == (own,)
    followed.close()


def test_a_change_is_felt_within_seconds_by_itself(opened: Callable[..., Database], limits: Rules) -> None:
    followed = FollowedRules(opened(), poll_s=0.05)
    threads = threading.active_count()
    assert followed.of(CALLER, MODELS) == ()
    assert threading.active_count() == threads + 1
    limits.create(RATE, BOSS)
    until_s = time.monotonic() + 10
    while not followed.of(CALLER, MODELS) and time.monotonic() < until_s:
        time.sleep(0.02)
    assert names(followed.of(CALLER, MODELS)) == ["a minute"]
    followed.close()
    followed.close()
    assert threading.active_count() == threads


def test_what_is_started_knows_the_rules_before_the_first_call(tmp_path: Path) -> None:
    place = tmp_path / "gateway.db"
    upgrade(place)
    made = Rules(Database(place), LIMIT).create(RATE, BOSS)
    threads = threading.active_count()
    followed = FollowedRules(Database(place, patience_s=0.1), poll_s=3600)
    assert threading.active_count() == threads, "none is there before the fork"
    followed.start()
    until_s = time.monotonic() + 10
    while followed._known is None:
        assert time.monotonic() < until_s
        time.sleep(0.01)
    place.unlink()
    assert followed.of(CALLER, MODELS) == (made.rule,)
    followed.close()
    assert threading.active_count() == threads


# The database is away.


def test_while_the_database_is_away_what_is_known_stands(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    place = tmp_path / "gateway.db"
    upgrade(place)
    made = Rules(Database(place), LIMIT).create(RATE, BOSS)
    followed = FollowedRules(Database(place, patience_s=0.1), poll_s=3600)
    assert followed.of(CALLER, MODELS) == (made.rule,)
    place.rename(tmp_path / "aside.db")
    for _ in range(3):
        followed.poll()
    assert followed.of(CALLER, MODELS) == (made.rule,)
    (tmp_path / "aside.db").rename(place)
    Rules(Database(place), LIMIT).delete(made.rule.id, BOSS)
    followed.poll()
    assert followed.of(CALLER, MODELS) == ()
    told = [record.message for record in caplog.records if record.name == "gateway.storage.followed"]
    assert told == ["limits and budgets cannot be read", "limits and budgets can be read again"]
    followed.close()


def test_at_a_start_with_the_database_away_nobody_can_say(tmp_path: Path) -> None:
    place, aside = tmp_path / "gateway.db", tmp_path / "aside.db"
    upgrade(aside)
    Rules(Database(aside), LIMIT).create(RATE, BOSS)
    followed = FollowedRules(Database(place, patience_s=0.1), poll_s=0.05)
    with pytest.raises(StoreUnavailable):
        followed.of(CALLER, MODELS)
    aside.rename(place)
    until_s = time.monotonic() + 10
    while True:
        try:
            assert names(followed.of(CALLER, MODELS)) == ["a minute"]
            break
        except StoreUnavailable:
            assert time.monotonic() < until_s
            time.sleep(0.02)
    followed.close()


def test_calls_that_come_at_once_to_a_database_that_is_away_do_not_wait_one_behind_the_other(tmp_path: Path) -> None:
    class Slow(Database):
        asked = 0

        def read(self, work):  # type: ignore[no-untyped-def]
            Slow.asked += 1
            time.sleep(0.2)
            return super().read(work)

    followed = FollowedRules(Slow(tmp_path / "none.db", patience_s=0.1), poll_s=60)
    refused: list[StoreUnavailable] = []

    def ask() -> None:
        try:
            followed.of(CALLER, MODELS)
        except StoreUnavailable as error:
            refused.append(error)

    began_s = time.monotonic()
    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(refused), Slow.asked) == (20, 1)
    assert time.monotonic() - began_s < 3
    followed.close()


def test_a_thread_that_has_ended_is_made_again(
    opened: Callable[..., Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = FollowedRules(opened(), poll_s=0.01)
    followed.of(CALLER, MODELS)
    first = followed._poller
    assert first is not None
    followed._closed.set()
    first.join(10)
    followed._closed.clear()
    monkeypatch.setattr(module, "_OVERDUE_S", 0.0)
    time.sleep(0.01)
    followed.of(CALLER, MODELS)
    assert followed._poller is not first
    assert followed._poller is not None
    assert followed._poller.is_alive()
    followed.close()


def test_ten_thousand_rules_are_read_in_a_moment(opened: Callable[..., Database]) -> None:
    database = opened(patience_s=30)
    row = {
        "kind": LIMIT,
        "name": "n",
        "measure": "tokens",
        "most": 5,
        "period": "day",
        "each": "[]",
        "made": 1.0,
        "made_by": "cli",
    }
    rows = [{**row, "id": f"lim_{number:012}", "caller": f"tok_{number}"} for number in range(10_000)]
    database.write(lambda connection: connection.execute(insert(rules), rows) and None)
    followed = FollowedRules(database, poll_s=3600)
    began_s = time.monotonic()
    assert [rule.id for rule in followed.of(CALLER, MODELS)] == ["lim_000000000001"]
    assert time.monotonic() - began_s < 5
    followed.close()
