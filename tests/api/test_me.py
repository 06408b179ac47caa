"""What a key says of itself to whoever holds it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.rights import ALL, UNLIMITED, Rights
from gateway.storage.audit import By
from tests.builders import TOKEN
from tests.managed import ADMIN_TOKEN, BOSS, Managed, text


@pytest.fixture
def managed(tmp_path: Path) -> Iterator[Managed]:
    made = Managed(tmp_path)
    yield made
    made.close()


def test_a_static_token_and_the_admins_are_told_what_they_may(managed: Managed) -> None:
    mine = managed.got("GET", "/v1/me", key=TOKEN)
    assert mine.items() >= {"object": "caller", "kind": "token", "state": "active", "expires": None}.items()
    assert mine["rights"] == UNLIMITED.document()
    admins = managed.got("GET", "/v1/me", key=ADMIN_TOKEN)
    assert (admins["kind"], admins["rights"]["scopes"]) == ("admin", ["admin", "metrics"])
    assert admins["rights"] != ALL.document(), "what it may itself, not what it may give"
    for said in (mine, admins):
        assert (said["key"], said["key_name"], said["project"], said["user"], said["tags"]) == (None,) * 4 + ([],)


def test_a_virtual_key_is_told_whose_it_is_and_when_it_ends(managed: Managed) -> None:
    project = managed.directory.projects.create("shop", BOSS)
    user = managed.directory.users.create("ann", BOSS)
    ends_s = time.time() + 60
    rights = Rights(frozenset(), models=("demo/*",))
    issued = managed.make("till", project=project.id, user=user.id, tags=("t",), expires_s=ends_s, rights=rights)
    assert managed.got("GET", "/v1/me", key=text(issued)) == {
        "object": "caller",
        "id": f"key_{issued.key.id}",
        "kind": "key",
        "key": issued.key.id,
        "key_name": "till",
        "project": "shop",
        "user": "ann",
        "tags": ["t"],
        "rights": rights.document(),
        "state": "active",
        "expires": ends_s,
        "limits": [],
        "budgets": [],
    }
    assert managed.got("GET", "/me", key=text(issued))["key"] == issued.key.id


def test_the_end_is_the_first_of_all_that_end_it(managed: Managed) -> None:
    parent = managed.make("parent", expires_s=time.time() + 60)
    child = managed.make("child", parent=parent.key.id, expires_s=time.time() + 6000)
    assert managed.got("GET", "/v1/me", key=text(child))["expires"] == parent.key.expires_s
    turned = managed.make("turned")
    managed.directory.keys.rotate(turned.key.id, BOSS, 30)
    assert managed.got("GET", "/v1/me", key=text(turned))["expires"] == pytest.approx(time.time() + 30, abs=5)


def test_the_state_is_newer_than_what_a_worker_goes_by(managed: Managed) -> None:
    issued = managed.make()
    assert managed.got("GET", "/v1/me", key=text(issued))["state"] == "active"
    managed.directory.keys.change(issued.key.id, By("tests"), {"disabled": True})
    answer = managed.ask("GET", "/v1/me", key=text(issued))
    # the poll may have been quicker, and then it is nobody's any more
    assert answer.status_code == 401 or (answer.json is not None and answer.json["state"] == "disabled")


def test_while_the_store_is_away_only_a_virtual_key_waits(managed: Managed) -> None:
    issued = managed.make()
    managed.got("GET", "/v1/me", key=text(issued))
    Path(managed.database.name).rename(Path(managed.database.name).with_name("aside.db"))
    refused = managed.ask("GET", "/v1/me", key=text(issued))
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    mine = managed.got("GET", "/v1/me", key=TOKEN)
    assert (mine["limits"], mine["budgets"]) == ([], []), "what is known stands"


def test_what_a_caller_is_held_to_is_null_where_nobody_can_say(managed: Managed) -> None:
    Path(managed.database.name).rename(Path(managed.database.name).with_name("aside.db"))
    mine = managed.got("GET", "/v1/me", key=TOKEN)
    assert (mine["limits"], mine["budgets"]) == (None, None)


def test_a_rule_is_told_without_its_standing_where_the_counters_do_not_say(managed: Managed) -> None:
    managed.directory.limits.create({"name": "a", "measure": "tokens", "most": 5, "period": "day"}, BOSS)
    managed.standings.away = True
    [limit] = managed.got("GET", "/v1/me", key=TOKEN)["limits"]
    assert (limit["name"], limit["standing"]) == ("a", None)


def test_who_is_not_known_is_told_nothing(managed: Managed) -> None:
    assert managed.got("GET", "/v1/me", key="nobody", status=401)["error"]["code"] == "invalid_api_key"
