"""Virtual keys: made once, told once, changed, rotated, deleted; and what is kept of them."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select

from gateway.core.keys import Pepper
from gateway.core.rights import ADMIN, CALL, Rights
from gateway.errors import Conflict, InvalidRequest, ObjectNotFound, RightsExceeded
from gateway.secret import Secret
from gateway.storage.accounts import Accounts
from gateway.storage.audit import Audit, By
from gateway.storage.database import Database
from gateway.storage.keys import Issued, Keys, NewKey
from gateway.storage.lookup import Found, KeyLookup
from gateway.storage.migrate import upgrade
from gateway.storage.tables import metadata

NOW_S = 1_764_000_000.0
BOSS = By("adm_boss", request_id="req_1")
PEPPER = Pepper(Secret("pepper-of-the-tests"))


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database with the tables of this release and nothing in them, of each kind."""
    at: Path | Secret = tmp_path / "gateway.db"
    if request.param == "postgres":
        at = request.getfixturevalue("postgres_address")
    else:
        upgrade(at)
    made = Database(at, patience_s=5)
    yield made
    made.release()


class Place:
    """Everything that is kept about keys, and a clock to turn."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now_s = NOW_S
        self.pepper = PEPPER
        self.keys = Keys(database, lambda: self.pepper, clock=lambda: self.now_s)
        self.projects = Accounts(database, "project", clock=lambda: self.now_s)
        self.users = Accounts(database, "user", clock=lambda: self.now_s)
        self.audit = Audit(database)
        self.lookup = KeyLookup(database)

    def make(self, name: str = "a key", *, by: By = BOSS, idempotency: str | None = None, **wanted: Any) -> Issued:
        self.now_s += 1
        return self.keys.create(NewKey(name, **wanted), by, idempotency)

    def found(self, issued: Issued) -> Found:
        assert issued.secret is not None
        return self.lookup.find(self.pepper.hashed(issued.secret.reveal().encode()), self.now_s)

    def good(self, issued: Issued) -> bool:
        return self.found(issued).key is not None

    def text(self) -> str:
        """All that is in the database."""

        def work(connection: Connection) -> str:
            return "\n".join(
                repr(tuple(row)) for table in metadata.tables.values() for row in connection.execute(select(table))
            )

        return self.database.read(work)


@pytest.fixture
def place(database: Database) -> Place:
    return Place(database)


# Made and told once.


def test_a_key_is_found_by_what_was_told_once_and_shown_without_it(place: Place) -> None:
    made = place.make("for tests", tags=("a", "b"), rights=Rights(models=("openai/*",)))
    found = place.found(made)
    assert found.key is not None
    assert found.key == made.key == place.keys.show(made.key.id)
    assert (made.key.name, made.key.tags, made.key.made_by) == ("for tests", ("a", "b"), "adm_boss")
    assert made.key.rights == Rights(models=("openai/*",))
    assert made.key.made_s == place.now_s
    assert made.key.state(place.now_s) == "active"
    assert (found.until_s, made.key.ends_s) == (None, (None,))


def test_no_part_of_a_secret_is_kept(place: Place) -> None:
    made = place.make()
    assert made.secret is not None
    secret = made.secret.reveal().rpartition("-")[2]
    kept = place.text()
    assert made.key.id in kept
    assert not any(secret[start : start + 6] in kept for start in range(len(secret) - 5))


def test_the_same_request_makes_one_key_and_tells_it_once(place: Place) -> None:
    first = place.make(idempotency="mine")
    again = place.make(idempotency="mine")
    assert again.key == first.key
    assert again.secret is None
    assert len(place.keys.page().items) == 1
    assert place.good(first)
    with pytest.raises(Conflict):
        place.make("another", idempotency="mine")
    assert place.make(idempotency="mine", by=By("adm_other")).key.id != first.key.id, "names are of who gives them"


@pytest.mark.parametrize("mark", ["", "x" * 256])
def test_an_idempotency_key_has_bounds(place: Place, mark: str) -> None:
    with pytest.raises(InvalidRequest):
        place.make(idempotency=mark)


def test_requests_of_one_name_at_once_make_one_key(place: Place) -> None:
    made: list[Issued] = []
    threads = [
        threading.Thread(target=lambda: made.append(place.keys.create(NewKey("one"), BOSS, "at once")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len({issued.key.id for issued in made}) == 1
    assert len(made) == 8
    assert sum(issued.secret is not None for issued in made) == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 257}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "half a \ud800 pair"}, "name"),
        ({"name": " a"}, "name"),
        ({"tags": ("",)}, "tags"),
        ({"tags": ("a\nb",)}, "tags"),
        ({"rights": Rights(frozenset({"root"}))}, "scopes"),
        ({"rights": Rights(models=("a\0b",))}, "models"),
        ({"expires_s": NOW_S - 1}, "expires"),
        ({"expires_s": float("nan")}, "expires"),
        ({"expires_s": float("inf")}, "expires"),
    ],
)
def test_a_field_that_cannot_be_used_is_named_and_nothing_is_made(
    place: Place, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        place.make(**fields)
    assert raised.value.param == param
    assert place.keys.page(deleted=True).items == []


@pytest.mark.parametrize("field", ["project", "user", "parent"])
@pytest.mark.parametrize("id", ["proj_nobody", "", "a\0b", "\ud800", "'; drop table keys; --"])
def test_a_key_belongs_to_what_is_there(place: Place, field: str, id: str) -> None:
    with pytest.raises(ObjectNotFound):
        place.make(**{field: id})


# Shown.


def test_keys_come_in_pages_newest_first(place: Place) -> None:
    made = [place.make(f"key {number}").key.id for number in range(7)]
    place.now_s -= 1  # two of one moment
    made.append(place.make("of the same moment").key.id)
    seen: list[str] = []
    after, more = None, True
    while more:
        page = place.keys.page(after=after, limit=3)
        seen += [key.id for key in page.items]
        more, after = page.more, seen[-1]
    assert sorted(seen) == sorted(made)
    assert seen[2:] == made[:6][::-1]


def test_keys_are_listed_by_project_user_and_parent(place: Place) -> None:
    project, user = place.projects.create("team", BOSS), place.users.create("ann@example.com", BOSS)
    theirs = place.make(project=project.id, user=user.id).key
    other = place.make(parent=theirs.id, project=project.id).key
    place.make()
    assert (theirs.project_name, theirs.user_name) == ("team", "ann@example.com")
    assert [key.id for key in place.keys.page(project=project.id).items] == [other.id, theirs.id]
    assert [key.id for key in place.keys.page(parent=theirs.id).items] == [other.id]
    assert (other.project, other.user) == (project.id, user.id), "what it does not say is its parent's"
    assert place.keys.page(user="user_nobody").items == []


@pytest.mark.parametrize("id", ["", "nobody000000", "a\0b", "\0", "\ud800", "é", "' or 1=1 --", "%", "x" * 10_000])
def test_a_list_of_what_nobody_can_be_is_empty(place: Place, id: str) -> None:
    place.make(project=place.projects.create("shop", BOSS).id, user=place.users.create("ann", BOSS).id)
    for field in ("project", "user", "parent"):
        assert place.keys.page(**{field: id}).items == []  # type: ignore[arg-type]
    for field in ("kind", "target"):
        assert place.audit.page(**{field: id}).items == []  # type: ignore[arg-type]


@pytest.mark.parametrize("id", ["", "nobody000000", "a\0b", "\ud800", "' or 1=1 --", "x" * 10_000])
def test_what_is_not_there_is_not_found(place: Place, id: str) -> None:
    asked: list[Callable[[], object]] = [
        lambda: place.keys.show(id),
        lambda: place.keys.change(id, BOSS, {"disabled": True}),
        lambda: place.keys.rotate(id, BOSS),
        lambda: place.keys.delete(id, BOSS),
        lambda: place.keys.page(after=id),
        lambda: place.projects.show(id),
        lambda: place.users.change(id, BOSS, disabled=True),
    ]
    for ask in asked:
        with pytest.raises(ObjectNotFound):
            ask()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable() and text.strip() == text))
def test_every_name_that_may_be_given_is_kept_as_it_is(place: Place, name: str) -> None:
    assert place.keys.show(place.make(name, tags=(name,)).key.id).name == name


# Changed.


def test_a_disabled_key_is_of_no_use_until_it_is_enabled(place: Place) -> None:
    made = place.make()
    assert place.keys.change(made.key.id, BOSS, {"disabled": True}).state(NOW_S) == "disabled"
    assert not place.good(made)
    place.keys.change(made.key.id, BOSS, {"disabled": False})
    assert place.good(made)


def test_a_key_expires_at_its_time_and_can_be_given_another(place: Place) -> None:
    made = place.make(expires_s=NOW_S + 100)
    assert place.found(made).until_s == NOW_S + 100
    place.now_s = NOW_S + 99.9
    assert place.good(made)
    place.now_s = NOW_S + 100
    assert not place.good(made)
    place.keys.change(made.key.id, BOSS, {"expires_s": None})
    assert place.good(made)
    place.keys.change(made.key.id, BOSS, {"expires_s": place.now_s})
    assert not place.good(made)


def test_a_change_is_seen_by_its_revision_and_what_is_the_same_is_no_change(place: Place) -> None:
    made, other = place.make(), place.make()
    at = place.lookup.changed(0).revision
    assert place.lookup.changed(at).ids == frozenset()
    place.keys.change(made.key.id, BOSS, {"name": "new", "tags": ["x"], "rights": Rights(models=("m",))})
    changed = place.lookup.changed(at)
    assert changed.ids == {made.key.id}
    found = place.found(made).key
    assert found is not None
    assert (found.name, found.tags, found.rights.models) == ("new", ("x",), ("m",))
    place.keys.change(other.key.id, BOSS, {"disabled": False})
    assert place.lookup.changed(changed.revision).ids == frozenset()
    assert place.lookup.changed(changed.revision + 100).ids is None, "an older copy was put in its place"


def test_a_project_or_user_that_is_disabled_stops_its_keys_and_those_that_hang_from_them(place: Place) -> None:
    for accounts, kind in ((place.projects, "project"), (place.users, "user")):
        account = accounts.create("team", BOSS)
        above = place.make(**{kind: account.id})
        below = place.make(parent=above.key.id)
        apart = place.make()
        at = place.lookup.changed(0).revision
        accounts.change(account.id, BOSS, disabled=True)
        assert place.lookup.changed(at).ids == {above.key.id, below.key.id}
        assert [place.good(one) for one in (above, below, apart)] == [False, False, True]
        accounts.change(account.id, BOSS, disabled=False)
        assert place.good(below)


def test_a_name_of_a_project_is_taken_once(place: Place) -> None:
    first, second = place.projects.create("team", BOSS), place.projects.create("other", BOSS)
    place.users.create("team", BOSS)
    with pytest.raises(Conflict):
        place.projects.create("team", BOSS)
    with pytest.raises(Conflict):
        place.projects.change(second.id, BOSS, name="team")
    assert place.projects.change(first.id, BOSS, name="team").name == "team"
    assert {account.name for account in place.projects.page().items} == {"team", "other"}
    page = place.projects.page(limit=1)
    assert page.more
    rest = place.projects.page(after=page.items[0].id)
    assert {page.items[0].id, rest.items[0].id} == {first.id, second.id}


# Rotated.


def test_both_secrets_are_good_until_the_overlap_ends(place: Place) -> None:
    first = place.make()
    second = place.keys.rotate(first.key.id, BOSS, 60)
    assert second.key.id == first.key.id
    assert (place.good(first), place.good(second)) == (True, True)
    assert place.found(first).until_s == place.now_s + 60
    assert sorted(second.key.ends_s, key=str) == [place.now_s + 60, None]
    place.now_s += 60
    assert (place.good(first), place.good(second)) == (False, True)
    assert place.keys.show(first.key.id).ends_s == (None,)


def test_a_rotation_without_overlap_ends_the_old_secret_at_once(place: Place) -> None:
    first = place.make()
    second = place.keys.rotate(first.key.id, BOSS, 60)
    third = place.keys.rotate(first.key.id, BOSS, 0)
    assert [place.good(one) for one in (first, second, third)] == [False, False, True]


def test_a_second_rotation_lets_no_older_secret_live_longer(place: Place) -> None:
    first = place.make()
    second = place.keys.rotate(first.key.id, BOSS, 60)
    place.keys.rotate(first.key.id, BOSS, 3600)
    place.now_s += 61
    assert (place.good(first), place.good(second)) == (False, True)


def test_a_key_has_few_secrets_however_often_it_is_rotated(place: Place) -> None:
    made = [place.make()]
    for _ in range(8):
        place.now_s += 1
        made.append(place.keys.rotate(made[0].key.id, BOSS, 3600))
    assert [place.good(one) for one in made] == [False] * 4 + [True] * 5


@pytest.mark.parametrize("overlap_s", [-1, 30 * 86_400 + 1, float("nan")])
def test_an_overlap_has_bounds(place: Place, overlap_s: float) -> None:
    made = place.make()
    with pytest.raises(InvalidRequest):
        place.keys.rotate(made.key.id, BOSS, overlap_s)


def test_a_lost_pepper_makes_keys_unknown_until_they_are_rotated(place: Place) -> None:
    made, other = place.make(), place.make()
    assert place.keys.lost() == 0
    place.pepper = Pepper(Secret("another"))
    assert not place.good(made)
    assert place.keys.lost() == 2
    assert place.keys.show(made.key.id).state(place.now_s) == "lost"
    again = place.keys.rotate(made.key.id, BOSS)
    assert again.key.state(place.now_s) == "active"
    assert place.good(again)
    assert place.keys.lost() == 1
    place.pepper = PEPPER
    assert (place.good(made), place.good(other)) == (False, True)


# Deleted.


def test_a_deleted_key_is_gone_for_good_and_can_still_be_seen(place: Place) -> None:
    made = place.make()
    place.keys.rotate(made.key.id, BOSS)
    place.keys.delete(made.key.id, BOSS)
    assert not place.good(made)
    assert place.keys.page().items == []
    assert [key.id for key in place.keys.page(deleted=True).items] == [made.key.id]
    assert place.keys.show(made.key.id).state(place.now_s) == "deleted"
    for again in (
        lambda: place.keys.delete(made.key.id, BOSS),
        lambda: place.keys.rotate(made.key.id, BOSS),
        lambda: place.keys.change(made.key.id, BOSS, {"disabled": False}),
        lambda: place.make(parent=made.key.id),
    ):
        with pytest.raises(Conflict):
            again()


# Who may give what.


def test_nobody_gives_a_key_more_than_they_may(place: Place) -> None:
    less = By("key_less", Rights(frozenset({CALL, ADMIN}), models=("openai/*",)))
    mine = place.make(by=less, rights=Rights(models=("openai/gpt-*",)))
    boss = place.make(rights=Rights(frozenset({CALL, ADMIN})))
    for refused in (
        lambda: place.make(by=less),
        lambda: place.keys.change(mine.key.id, less, {"rights": Rights()}),
        lambda: place.keys.rotate(boss.key.id, less),
        lambda: place.keys.change(boss.key.id, less, {"disabled": True}),
        lambda: place.keys.delete(boss.key.id, less),
    ):
        with pytest.raises(RightsExceeded):
            refused()
    assert place.good(boss)
    assert place.good(mine)


@pytest.mark.parametrize("kind", ["project", "user"])
def test_nobody_stops_or_resumes_a_key_by_its_owner_that_has_more_than_they_may_give(place: Place, kind: str) -> None:
    less = By("key_less", Rights(frozenset({CALL, ADMIN}), models=("openai/*",)))
    accounts: Accounts = getattr(place, f"{kind}s")
    account = accounts.create("shop", BOSS)
    mine = place.make(rights=Rights(models=("openai/gpt-*",)), **{kind: account.id})
    assert accounts.change(account.id, less, disabled=True).disabled
    assert not accounts.change(account.id, less, disabled=False).disabled

    wide = place.make(**{kind: account.id})
    with pytest.raises(RightsExceeded):
        accounts.change(account.id, less, disabled=True)
    assert place.good(wide)
    assert place.good(mine)
    accounts.change(account.id, BOSS, disabled=True)
    with pytest.raises(RightsExceeded):
        accounts.change(account.id, less, name="renamed", disabled=False)
    assert accounts.show(account.id).name == "shop"
    assert not place.good(wide)
    assert accounts.change(account.id, less, name="renamed").disabled, "a name stops nobody"
    place.keys.delete(wide.key.id, BOSS)
    assert not accounts.change(account.id, less, disabled=False).disabled, "a deleted key cannot come back"


def test_a_key_that_hangs_from_another_has_no_more_rights_and_no_longer_life(place: Place) -> None:
    above = place.make(rights=Rights(models=("openai/*",)), expires_s=NOW_S + 500)
    with pytest.raises(RightsExceeded):
        place.make(parent=above.key.id)
    below = place.make(parent=above.key.id, rights=Rights(models=("openai/gpt-*",)), expires_s=NOW_S + 900)
    with pytest.raises(RightsExceeded, match=below.key.id):
        place.keys.change(above.key.id, BOSS, {"rights": Rights(models=("openai/o*",))})
    with pytest.raises(RightsExceeded):
        place.keys.change(below.key.id, BOSS, {"rights": Rights()})
    assert place.found(below).until_s == NOW_S + 500
    at = place.lookup.changed(0).revision
    place.keys.change(above.key.id, BOSS, {"disabled": True})
    assert place.lookup.changed(at).ids == {above.key.id, below.key.id}
    assert not place.good(below)
    place.keys.change(above.key.id, BOSS, {"disabled": False})
    assert place.good(below)
    place.keys.delete(above.key.id, BOSS)
    assert not place.good(below)


def test_only_few_keys_hang_from_one_another_and_all_feel_a_change_of_the_first(place: Place) -> None:
    line = [place.make()]
    for _ in range(3):
        line.append(place.make(parent=line[-1].key.id))
    with pytest.raises(InvalidRequest):
        place.make(parent=line[-1].key.id)
    at = place.lookup.changed(0).revision
    place.keys.change(line[0].key.id, BOSS, {"disabled": True})
    assert place.lookup.changed(at).ids == {issued.key.id for issued in line}
    assert [place.good(one) for one in line] == [False] * 4


# Used.


def test_the_last_use_is_known_to_the_minute(place: Place) -> None:
    made = place.make()
    at = place.lookup.changed(0).revision
    place.lookup.used({})
    place.lookup.used({made.key.id: NOW_S + 5, "nobody000000": NOW_S})
    place.lookup.used({made.key.id: NOW_S + 64})
    assert place.keys.show(made.key.id).used_s == NOW_S + 5
    place.lookup.used({made.key.id: NOW_S + 65})
    assert place.keys.show(made.key.id).used_s == NOW_S + 65
    assert place.lookup.changed(at).ids == frozenset(), "to be used is no change"


# Audited.


def test_every_change_is_in_the_audit_and_no_secret_is(place: Place) -> None:
    project = place.projects.create("team", BOSS)
    made = place.make("named", project=project.id)
    place.keys.change(made.key.id, BOSS, {"rights": Rights(models=("m",)), "disabled": True})
    place.keys.rotate(made.key.id, BOSS, 60)
    place.keys.delete(made.key.id, BOSS)
    place.projects.change(project.id, BOSS, disabled=True)
    lines = place.audit.page().items
    assert [(line.action, line.kind) for line in lines] == [
        ("change", "project"),
        ("delete", "key"),
        ("rotate", "key"),
        ("change", "key"),
        ("create", "key"),
        ("create", "project"),
    ]
    assert {(line.actor, line.request_id) for line in lines} == {("adm_boss", "req_1")}
    assert lines[3].details == {"rights": Rights(models=("m",)).document(), "disabled": True}
    assert lines[4].details["name"] == "named"
    assert not re.search("sk-gw-", repr(lines))
    mine = place.audit.page(kind="key", target=made.key.id, limit=2)
    assert mine.more
    assert [
        line.action for line in place.audit.page(kind="key", target=made.key.id, before=mine.items[1].seq).items
    ] == [
        "change",
        "create",
    ]


def test_what_is_refused_leaves_no_trace_of_a_change(place: Place) -> None:
    made = place.make()
    before = place.text()
    with pytest.raises(RightsExceeded):
        place.keys.change(made.key.id, By("key_less", Rights(models=())), {"disabled": True})
    place.projects.create("team", BOSS)
    with pytest.raises(Conflict):
        place.projects.create("team", BOSS)
    after = place.text()
    assert "key_less" not in after
    assert made.key.id in before
    assert after.count("'create', 'project'") == 1


# What the API adds: some of the rights, and accounts that are asked for twice.


def test_lists_of_rights_that_are_not_named_stay_as_they_are_by_then(place: Place) -> None:
    id = place.make(rights=Rights(models=("demo/*",), endpoints=("chat",))).key.id
    place.keys.change(id, BOSS, {"rights": {"models": ["openai/*"]}})
    assert place.keys.change(id, BOSS, {"rights": {}}).rights == Rights(models=("openai/*",), endpoints=("chat",))
    with pytest.raises(InvalidRequest):
        place.keys.change(id, BOSS, {"rights": {"modles": []}})
    narrow = By("adm_narrow", Rights(frozenset({CALL}), models=("openai/*",)))
    with pytest.raises(RightsExceeded):
        place.keys.change(id, narrow, {"rights": {"models": ["*"]}})


@pytest.mark.parametrize("kind", ["projects", "users"])
def test_an_account_that_is_asked_for_twice_under_one_name_is_made_once(place: Place, kind: str) -> None:
    accounts: Accounts = getattr(place, kind)
    first = accounts.create("a", BOSS, "one")
    renamed = accounts.change(first.id, BOSS, name="b")
    assert accounts.create("a", BOSS, "one") == renamed
    with pytest.raises(Conflict):
        accounts.create("c", BOSS, "one")
    other = place.users if kind == "projects" else place.projects
    assert other.create("a", BOSS, "one").id != first.id
    assert accounts.create("a", By("somebody else"), "one").id != first.id
    for mark in ("", "x" * 256):
        with pytest.raises(InvalidRequest):
            accounts.create("d", BOSS, mark)
    # a name that looks like what is kept of a request's name is none
    [kept] = {
        line.details["idempotency"] for line in place.audit.page(target=first.id).items if line.action == "create"
    }
    accounts.create(f'"idempotency": "{kept}"', BOSS)
    assert accounts.create("a", BOSS, "one") == renamed
