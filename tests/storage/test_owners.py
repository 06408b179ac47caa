"""Users by their addresses, and the keys that are theirs, in every database."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.core.keys import Pepper
from gateway.secret import Secret
from gateway.storage import owners
from gateway.storage.audit import By
from gateway.storage.database import Database
from gateway.storage.directory import Directory
from gateway.storage.keys import NewKey

BOSS = By("tests")


@pytest.fixture
def directory(opened: Callable[..., Database]) -> Directory:
    return Directory.of(opened(), lambda: Pepper(Secret("pepper-of-the-tests")))


def make(directory: Directory, name: str, **wanted: str) -> str:
    return directory.keys.create(NewKey(name, **wanted), BOSS).key.id  # type: ignore[arg-type]


def test_a_user_is_found_by_their_address_in_any_case_with_their_keys_alone(directory: Directory) -> None:
    ann = directory.users.create("Ann@Example.com", BOSS)
    bob = directory.users.create("bob@example.com", BOSS)
    make(directory, "nobody's")
    first = make(directory, "first", user=ann.id)
    make(directory, "of another", user=bob.id)
    below = make(directory, "below", parent=first)
    directory.keys.delete(below, BOSS)
    found = directory.owners.of_email("ann@example.com")
    assert found is not None
    assert (found.id, found.name, found.disabled) == (ann.id, "Ann@Example.com", False)
    assert set(found.keys) == {first, below}, "also those that hang from theirs, and those that are gone"
    directory.users.change(ann.id, BOSS, disabled=True)
    found = directory.owners.of_email("ann@example.com")
    assert found is not None
    assert found.disabled


@pytest.mark.parametrize("email", ["nobody@example.com", "%", "ann_example.com", "ann@example.co", ""])
def test_an_address_that_no_user_has_is_nobodys(directory: Directory, email: str) -> None:
    directory.users.create("ann@example.com", BOSS)
    assert directory.owners.of_email(email) is None


def test_an_address_that_two_users_have_is_nobodys(directory: Directory) -> None:
    directory.users.create("ann@example.com", BOSS)
    directory.users.create("ANN@example.com", BOSS)
    assert directory.owners.of_email("ann@example.com") is None


def test_the_newest_keys_are_told_first_and_not_more_than_a_query_can_name(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "MOST_KEYS", 2)
    ann = directory.users.create("ann@example.com", BOSS)
    made = [make(directory, name, user=ann.id) for name in ("one", "two", "three")]
    found = directory.owners.of_email("ann@example.com")
    assert found is not None
    assert found.keys == (made[2], made[1])


def test_a_sign_in_is_in_the_audit(directory: Directory) -> None:
    directory.audit.note_sign_in(By("oidc_0123", request_id="req_1"), {"email": "ann@example.com"})
    [line] = directory.audit.page(kind="session", target="oidc_0123").items
    assert (line.actor, line.action, line.request_id) == ("oidc_0123", "sign_in", "req_1")
    assert line.details == {"email": "ann@example.com"}
