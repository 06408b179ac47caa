"""Limits and budgets as they are managed, on every database."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from gateway.core.keys import Pepper
from gateway.core.rights import ALL
from gateway.core.rules import BUDGET, LIMIT, Match
from gateway.errors import Conflict, GatewayError, InvalidRequest, ObjectNotFound
from gateway.secret import Secret
from gateway.storage import rules as module
from gateway.storage.audit import Audit, By
from gateway.storage.database import Database
from gateway.storage.directory import Directory
from gateway.storage.keys import NewKey
from gateway.storage.revision import RULES, revision
from gateway.storage.rules import Rules
from tests.storage.stores import NOW_S, Clock

JSON = dict[str, Any]

BOSS = By("boss", ALL, "req_1")
SPEND: JSON = {"name": "shop", "measure": "usd", "most": "12.5", "period": "month"}
RATE: JSON = {"name": "a minute", "measure": "requests", "most": 60, "period": "minute"}


class Office:
    """A database, and those who manage it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = Clock()
        self.directory = Directory.of(database, lambda: Pepper(Secret("pepper")))
        self.limits, self.budgets = (Rules(database, kind, clock=self.clock) for kind in (LIMIT, BUDGET))

    def key(self, **wanted: Any) -> str:
        return self.directory.keys.create(NewKey("k", **wanted), BOSS).key.id

    def revision(self) -> int:
        return self.database.read(lambda connection: revision(connection, RULES))

    def audited(self, **of: Any) -> list[tuple[str, str, JSON]]:
        """What was done of rules, oldest first."""
        lines = [line for line in Audit(self.database).page(**of).items if line.kind in (LIMIT, BUDGET)]
        return [(line.action, line.target, dict(line.details)) for line in lines[::-1]]


@pytest.fixture
def office(opened: Callable[..., Database]) -> Office:
    return Office(opened())


def test_a_budget_is_made_shown_changed_and_deleted(office: Office) -> None:
    project = office.directory.projects.create("the shop", BOSS)
    more = {"each": ["key"], "soft": 0.8, "webhook": "https://hooks.example.com/T1/canary"}
    made = office.budgets.create({**SPEND, **more, "match": {"project": project.id, "model": "openai/*"}}, BOSS)
    assert made.rule.id.startswith("bud_")
    assert len(made.rule.id) == 16
    assert (made.made_s, made.made_by, made.rule.most) == (NOW_S, "boss", 12_500_000)
    assert made.rule.match == Match(project=project.id, model="openai/*")
    assert office.budgets.show(made.rule.id) == made

    changed = office.budgets.change(made.rule.id, BOSS, {"most": 20, "webhook": None})
    assert changed.rule.document() == {**made.rule.document(), "most": "20", "webhook": None}
    assert office.budgets.show(made.rule.id) == changed
    assert office.budgets.change(made.rule.id, BOSS, {"most": "20.0"}) == changed, "nothing is different"

    office.budgets.delete(made.rule.id, BOSS)
    for gone in (
        lambda: office.budgets.show(made.rule.id),
        lambda: office.budgets.change(made.rule.id, BOSS, {"most": 1}),
        lambda: office.budgets.delete(made.rule.id, BOSS),
    ):
        with pytest.raises(ObjectNotFound, match="no such budget"):
            gone()
    assert [action for action, _, _ in office.audited(target=made.rule.id)] == ["create", "change", "delete"]
    details = [details for _, _, details in office.audited()]
    assert details[1] == {"most": "20", "webhook": None}
    assert details[2]["most"] == "20"
    assert details[0].items() >= {"name": "shop", "most": "12.5", "each": ["key"], "soft": 0.8}.items()


def test_a_change_that_cannot_be_leaves_all_as_it_was(office: Office) -> None:
    made = office.limits.create(RATE, BOSS)
    before = (office.revision(), office.audited())
    for changes in ({"most": -1}, {"period": "day"}, {"soft": 0.5}, {"name": ""}):
        with pytest.raises(InvalidRequest):
            office.limits.change(made.rule.id, BOSS, changes)
    assert (office.revision(), office.audited()) == before
    assert office.limits.show(made.rule.id) == made


def test_the_audit_has_the_host_of_a_webhook_and_a_sign_of_its_change_alone(office: Office) -> None:
    hook = "https://hooks.example.com/T1/canary?token=canary"
    made = office.budgets.create({**SPEND, "soft": 0.5, "webhook": hook}, BOSS)
    office.budgets.change(made.rule.id, BOSS, {"webhook": hook + "2"})
    office.budgets.delete(made.rule.id, BOSS)
    told = [details["webhook"] for _, _, details in office.audited()]
    assert [text.split(" ")[0] for text in told] == ["https://hooks.example.com/…"] * 3
    assert told[0] != told[1] == told[2]
    assert "canary" not in json.dumps(office.audited())


def test_a_rule_is_about_who_is_there(office: Office) -> None:
    user, project = office.directory.users.create("ann", BOSS), office.directory.projects.create("shop", BOSS)
    key = office.key()
    for match, kept in (
        ({"key": key}, Match(key=key)),
        ({"user": "ann"}, Match(user=user.id)),
        ({"user": user.id, "project": "shop"}, Match(user=user.id, project=project.id)),
        ({"caller": "tok_nobody", "model": "*"}, Match(caller="tok_nobody", model="*")),
    ):
        assert office.limits.create({**RATE, "match": match}, BOSS).rule.match == kept
    before = office.audited()
    for name, wanted in (("key", "abcdefabcdef"), ("user", "shop"), ("project", "ann"), ("project", "é")):
        with pytest.raises(ObjectNotFound, match=f"There is no such {name}: '{wanted}'") as caught:
            office.limits.create({**RATE, "match": {name: wanted}}, BOSS)
        assert caught.value.param == f"match.{name}"
    assert office.audited() == before


def test_an_id_comes_before_a_name_that_is_spelt_like_it(office: Office) -> None:
    first = office.directory.projects.create("first", BOSS)
    office.directory.projects.create(first.id, BOSS)
    assert office.limits.create({**RATE, "match": {"project": first.id}}, BOSS).rule.match.project == first.id


def test_a_rule_of_a_deleted_key_stays_and_no_new_one_is_made(office: Office) -> None:
    key = office.key()
    made = office.limits.create({**RATE, "match": {"key": key}}, BOSS)
    office.directory.keys.delete(key, BOSS)
    assert office.limits.page(key=key).items == [made]
    with pytest.raises(Conflict, match="This key is deleted"):
        office.limits.create({**RATE, "match": {"key": key}}, BOSS)


def test_limits_and_budgets_are_told_apart(office: Office) -> None:
    limit, budget = office.limits.create(RATE, BOSS), office.budgets.create(SPEND, BOSS)
    assert office.limits.page().items == [limit]
    assert office.budgets.page().items == [budget]
    with pytest.raises(ObjectNotFound):
        office.limits.show(budget.rule.id)
    with pytest.raises(ObjectNotFound):
        office.budgets.delete(limit.rule.id, BOSS)
    with pytest.raises(InvalidRequest):
        office.limits.create(SPEND, BOSS)


@pytest.mark.parametrize("id", ["", "lim_", "lim_" + "A" * 12, "lim_\0aaaaaaaaaaa", "é" * 16, "x" * 3000, "nobody"])
def test_what_can_be_no_id_is_not_found(office: Office, id: str) -> None:
    with pytest.raises(ObjectNotFound):
        office.limits.show(id)


def test_pages_are_newest_first_and_have_each_rule_once(office: Office) -> None:
    made = []
    for number in range(7):
        office.clock.now_s = NOW_S + number // 3  # some are of one moment
        made.append(office.limits.create({**RATE, "name": f"n{number}"}, BOSS).rule)
    found, after = [], None
    while True:
        page = office.limits.page(after=after, limit=2)
        found += [kept.rule for kept in page.items]
        if not page.more:
            break
        after = found[-1].id
    assert sorted(found, key=lambda one: one.name) == made
    assert [one.name[1] for one in found][:1] == ["6"]
    assert {one.name for one in found[1:4]} == {"n3", "n4", "n5"}
    with pytest.raises(ObjectNotFound):
        office.limits.page(after="lim_" + "a" * 12)


def test_a_list_is_of_whom_one_asks_for_by_id_or_name(office: Office) -> None:
    user, project, key = office.directory.users.create("ann", BOSS), None, office.key()
    project = office.directory.projects.create("shop", BOSS)
    office.limits.create(RATE, BOSS)
    ids = {
        name: office.limits.create({**RATE, "match": {name: wanted}}, BOSS).rule.id
        for name, wanted in (("key", key), ("user", user.id), ("project", project.id))
    }
    for name, asked in (
        *(("key", key), ("user", user.id), ("user", "ann"), ("project", project.id), ("project", "shop")),
    ):
        assert [kept.rule.id for kept in office.limits.page(**{name: asked}).items] == [ids[name]], (name, asked)
    for nobody in ("nobody", "a\0b", "é"):
        assert office.limits.page(project=nobody).items in ([], ())
    assert list(office.limits.page(project="shop", user="ann").items) == []


# Requests that come again.


def test_a_request_that_comes_again_makes_nothing_again(office: Office) -> None:
    office.directory.projects.create("shop", BOSS)
    asked = {**SPEND, "match": {"project": "shop"}}
    made = office.budgets.create(asked, BOSS, "one")
    assert office.budgets.create(asked, BOSS, "one") == made
    assert len(office.budgets.page().items) == len(office.audited()) == 1
    assert office.budgets.create(asked, By("other"), "one").rule.id != made.rule.id
    with pytest.raises(Conflict, match="Another request had this idempotency key"):
        office.budgets.create({**asked, "most": 1}, BOSS, "one")
    office.budgets.delete(made.rule.id, BOSS)
    with pytest.raises(Conflict, match="What this request made is deleted"):
        office.budgets.create(asked, BOSS, "one")
    with pytest.raises(InvalidRequest):
        office.budgets.create(asked, BOSS, "")


def test_many_that_come_at_once_under_one_name_make_one(place: Any, opened: Callable[..., Database]) -> None:
    made: list[str] = []

    def create() -> None:
        made.append(Rules(opened(place, patience_s=20), LIMIT).create(RATE, BOSS, "one").rule.id)

    threads = [threading.Thread(target=create) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(set(made))) == (6, 1)


# Bounds.


def test_no_more_are_made_than_workers_can_hold(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_RULES", 2)
    first = office.limits.create(RATE, BOSS)
    office.budgets.create(SPEND, BOSS)
    with pytest.raises(Conflict, match="There are 2 limits and budgets"):
        office.limits.create(RATE, BOSS)
    office.limits.delete(first.rule.id, BOSS)
    office.limits.create(RATE, BOSS)


def test_every_change_has_a_revision_of_its_own_and_a_refusal_none(office: Office) -> None:
    seen = [office.revision()]
    made = office.limits.create(RATE, BOSS)
    seen.append(office.revision())
    office.limits.change(made.rule.id, BOSS, {"most": 5})
    seen.append(office.revision())
    office.limits.delete(made.rule.id, BOSS)
    seen.append(office.revision())
    assert seen == sorted(set(seen))
    with pytest.raises(GatewayError):
        office.limits.delete(made.rule.id, BOSS)
    assert office.revision() == seen[-1]


def test_the_largest_amount_and_the_longest_names_are_kept(office: Office) -> None:
    wanted = {**SPEND, "name": "é" * 256, "most": 10**9, "soft": 0.1 + 0.2, "match": {"caller": "x" * 256}}
    made = office.budgets.create(wanted, BOSS)
    assert office.budgets.show(made.rule.id) == made
    assert made.rule.most == 10**15
