"""What people see who have signed in, by what is so now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.auth.code_flow import CodeFlow
from gateway.auth.issuer import IssuerKeys
from gateway.auth.sign_in import SignIn
from gateway.core.keys import Pepper
from gateway.core.people import AdminRule, Person
from gateway.core.rights import ADMIN, ALL, CALL, METRICS
from gateway.errors import NotPermitted
from gateway.secret import Secret
from gateway.storage.audit import By
from gateway.storage.database import Database
from gateway.storage.directory import Directory
from gateway.storage.keys import NewKey
from tests.fakes.stores import migrated

BOSS = By("tests")
ISSUER = "https://id.example/realms/one"
ANN = Person(ISSUER, "ann-1", "ann@example.com")
Made = Callable[[AdminRule], SignIn]


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    migrated(tmp_path / "gateway.db")
    database = Database(tmp_path / "gateway.db")
    yield Directory.of(database, lambda: Pepper(Secret("pepper-of-the-tests")))
    database.release()


@pytest.fixture
def signing_in(directory: Directory) -> Made:
    def make(rule: AdminRule) -> SignIn:
        keys = IssuerKeys(ISSUER, None, ("RS256",))
        flow = CodeFlow(ISSUER, "gateway", Secret("secret"), "openid email", ("RS256",), keys)
        return SignIn(flow, rule, directory.owners)

    return make


def test_an_admin_has_the_rights_of_the_admin_token_and_sees_all(signing_in: Made, directory: Directory) -> None:
    directory.users.create("ann@example.com", BOSS)
    reader = signing_in(AdminRule(frozenset({"ann@example.com"}))).reader(ANN)
    assert reader.callers is None
    assert reader.caller.rights.scopes == {ADMIN, METRICS}
    assert reader.caller.grants == ALL
    assert (reader.caller.id, reader.caller.user) == (ANN.id, "ann@example.com")


def test_a_user_may_nothing_but_look_at_what_their_keys_did(signing_in: Made, directory: Directory) -> None:
    user = directory.users.create("Ann@Example.com", BOSS)
    key = directory.keys.create(NewKey("one", user=user.id), BOSS).key.id
    reader = signing_in(AdminRule()).reader(ANN)
    assert reader.callers == (f"key_{key}",)
    rights = reader.caller.rights
    assert (rights.scopes, rights.allows(CALL), rights.allows_model("x"), rights.allows_endpoint("chat")) == (
        *(frozenset(), False, False, False),
    )
    assert (reader.caller.user_id, reader.caller.user, reader.caller.kind) == (user.id, "Ann@Example.com", "person")


@pytest.mark.parametrize(
    ("person", "why"),
    [
        (Person("https://other.example", "ann-1", "ann@example.com"), "another issuer"),
        (Person("https://other.example", "boss", "boss@example.com"), "another issuer"),
        (Person(ISSUER, "x"), "verified no e-mail address"),
        (Person(ISSUER, "x", "x@example.com"), "no user of this gateway has that name"),
        (Person(ISSUER, "x", "gone@example.com"), "disabled"),
    ],
)
def test_everybody_else_is_told_why_they_see_nothing(
    signing_in: Made, directory: Directory, person: Person, why: str
) -> None:
    directory.users.create("ann@example.com", BOSS)
    directory.users.change(directory.users.create("gone@example.com", BOSS).id, BOSS, disabled=True)
    with pytest.raises(NotPermitted, match=why):
        signing_in(AdminRule(frozenset({"boss@example.com"}))).reader(person)


def test_people_are_told_where_they_sign_in_by_the_issuers_host(signing_in: Made) -> None:
    assert signing_in(AdminRule()).place == "id.example"
