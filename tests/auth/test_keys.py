"""Virtual keys as they come: remembered, revoked, unknown, hostile, and without a database."""

from __future__ import annotations

import dataclasses
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert

from gateway.auth import keys as module
from gateway.auth.keys import VirtualKeys
from gateway.core.calls import Caller
from gateway.core.keys import Pepper
from gateway.core.rights import Rights
from gateway.errors import StoreUnavailable
from gateway.secret import Secret
from gateway.storage.audit import By
from gateway.storage.database import Database, StorageBusy, StorageError, StorageFailed
from gateway.storage.directory import Directory
from gateway.storage.keys import Issued, NewKey
from gateway.storage.lookup import Changed, Found, KeyLookup
from gateway.storage.migrate import upgrade
from gateway.storage.tables import keys as table

BOSS = By("adm_boss")
PEPPER = Pepper(Secret("pepper-of-the-tests"))


class Counting(KeyLookup):
    """Counts what is asked of the database, and can be without one."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.found = self.polled = 0
        self.away: StorageError | None = None
        self.meanwhile: Callable[[], Any] = lambda: None

    def find(self, hashed: str, now_s: float) -> Found:
        self.found += 1
        if self.away is not None:
            raise self.away
        found = super().find(hashed, now_s)
        self.meanwhile()
        return found

    def changed(self, since: int) -> Changed:
        self.polled += 1
        if self.away is not None:
            raise self.away
        return super().changed(since)

    def used(self, times: Any) -> None:
        if self.away is not None:
            raise self.away
        super().used(times)


class Worker:
    """A worker's verifier over a database of keys. It polls when it is told to, where `poll_s` is long."""

    def __init__(self, path: Path, **how: Any) -> None:
        self.path = path
        self.lookup = Counting(Database(path))
        self.directory = Directory.of(Database(path), lambda: PEPPER)
        self.keys = VirtualKeys(self.lookup, lambda: PEPPER, **{"poll_s": 3600.0, **how})

    def make(self, **wanted: Any) -> Issued:
        return self.directory.keys.create(NewKey("a key", **wanted), BOSS)

    def verify(self, issued: Issued) -> Caller | None:
        return self.keys.verify(written(issued))


def written(issued: Issued) -> bytes:
    assert issued.secret is not None
    return issued.secret.reveal().encode()


def forged(id: str = "abcdef012345") -> bytes:
    """A key as a stranger would write one."""
    return Pepper(Secret("a stranger's")).key(id, secrets.token_bytes(32)).reveal().encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    upgrade(tmp_path / "gateway.db")
    return tmp_path / "gateway.db"


@pytest.fixture
def worker(path: Path) -> Iterator[Worker]:
    made = Worker(path)
    yield made
    made.keys.close()


# Known.


def test_a_key_is_a_caller_with_its_rights_and_owners(worker: Worker) -> None:
    project = worker.directory.projects.create("team", BOSS)
    user = worker.directory.users.create("ann", BOSS)
    rights = Rights(models=("openai/*",))
    made = worker.make(project=project.id, user=user.id, rights=rights, tags=("blue",))
    name = f"key_{made.key.id}"
    assert worker.verify(made) == Caller(
        *(name, project.id, "key", rights, made.key.id, "a key"),
        project="team",
        user="ann",
        tags=("blue",),
        project_id=project.id,
        user_id=user.id,
    )
    alone = worker.make()
    assert getattr(worker.verify(alone), "tenant", None) == f"key_{alone.key.id}"
    users = worker.make(user=user.id)
    assert getattr(worker.verify(users), "tenant", None) == user.id


def test_a_known_key_asks_the_database_nothing(worker: Worker) -> None:
    made = worker.make()
    for _ in range(100):
        assert worker.verify(made) is not None
    assert worker.lookup.found == 1


def test_of_many_requests_with_a_new_key_one_looks_it_up(worker: Worker) -> None:
    made, found = worker.make(), []
    worker.lookup.meanwhile = lambda: time.sleep(0.3)
    threads = [threading.Thread(target=lambda: found.append(worker.verify(made))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 20
    assert None not in found
    assert worker.lookup.found == 1


def test_both_secrets_of_a_rotated_key_are_known_until_the_old_one_ends(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = worker.make()
    assert worker.verify(old) is not None
    new = worker.directory.keys.rotate(old.key.id, BOSS, 60)
    worker.keys.poll()
    before, after = worker.verify(old), worker.verify(new)
    assert before is not None
    assert after is not None
    assert before == dataclasses.replace(after, expires_s=before.expires_s)
    assert before.expires_s == pytest.approx(time.time() + 60, abs=5)
    assert after.expires_s is None
    later_s = time.time() + 61
    monkeypatch.setattr(module.time, "time", lambda: later_s)
    assert worker.verify(old) is None, "no poll has told it so: it knows the end"
    assert worker.verify(new) is not None


def test_a_key_expires_at_its_time_without_a_word_from_the_database(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = worker.make(expires_s=time.time() + 60)
    assert worker.verify(made) is not None
    asked = worker.lookup.found + worker.lookup.polled
    later_s = time.time() + 61
    monkeypatch.setattr(module.time, "time", lambda: later_s)
    assert worker.verify(made) is None
    assert worker.lookup.found + worker.lookup.polled == asked


# Changed.


@pytest.mark.parametrize("change", ["disable", "delete", "rotate", "project"])
def test_what_is_revoked_is_felt_by_every_worker_within_moments(path: Path, change: str) -> None:
    workers = [Worker(path, poll_s=0.1) for _ in range(2)]
    directory = workers[0].directory
    project = directory.projects.create("team", BOSS)
    made = workers[0].make(project=project.id)
    assert all(worker.verify(made) is not None for worker in workers)
    {
        "disable": lambda: directory.keys.change(made.key.id, BOSS, {"disabled": True}),
        "delete": lambda: directory.keys.delete(made.key.id, BOSS),
        "rotate": lambda: directory.keys.rotate(made.key.id, BOSS, 0),
        "project": lambda: directory.projects.change(project.id, BOSS, disabled=True),
    }[change]()
    until_s = time.monotonic() + 4
    while any(worker.verify(made) is not None for worker in workers) and time.monotonic() < until_s:
        time.sleep(0.02)
    assert [worker.verify(made) for worker in workers] == [None, None]
    for worker in workers:
        worker.keys.close()


def test_what_is_enabled_again_is_known_again_though_it_was_remembered_as_unknown(worker: Worker) -> None:
    made = worker.make()
    worker.directory.keys.change(made.key.id, BOSS, {"disabled": True})
    assert worker.verify(made) is None
    worker.directory.keys.change(made.key.id, BOSS, {"disabled": False})
    worker.keys.poll()
    assert worker.verify(made) is not None


def test_only_keys_that_changed_are_looked_up_again(worker: Worker) -> None:
    one, other = worker.make(), worker.make()
    for made in (one, other):
        worker.verify(made)
    worker.directory.keys.change(one.key.id, BOSS, {"rights": Rights(models=("m",))})
    worker.keys.poll()
    before = worker.lookup.found
    assert getattr(worker.verify(one), "rights", None) == Rights(models=("m",))
    worker.verify(other)
    assert worker.lookup.found == before + 1


def test_a_project_of_thousands_that_is_stopped_costs_nobody_else_a_lookup(worker: Worker) -> None:
    large = worker.directory.projects.create("large", BOSS)
    row = {"name": "k", "rights": "{}", "tags": "[]", "made": 1.0, "made_by": "x", "disabled": False, "revision": 0}
    rows = [{"id": f"{number:012d}", "project": large.id, **row} for number in range(3_000)]
    Database(worker.path).write(lambda connection: connection.execute(insert(table), rows))
    theirs, another = worker.make(project=large.id), worker.make()
    assert worker.verify(theirs)
    assert worker.verify(another)
    found = worker.lookup.found
    worker.directory.projects.change(large.id, BOSS, disabled=True)
    worker.keys.poll()
    assert worker.verify(another) is not None
    assert worker.lookup.found == found
    assert worker.verify(theirs) is None


def test_a_key_that_is_revoked_while_it_is_looked_up_is_not_remembered_as_good(worker: Worker) -> None:
    first, made = worker.make(), worker.make()
    worker.verify(first)

    def revoke() -> None:
        worker.lookup.meanwhile = lambda: None
        worker.directory.keys.change(made.key.id, BOSS, {"disabled": True})
        worker.keys.poll()  # it forgets what it knows of the key before the lookup tells of it

    worker.lookup.meanwhile = revoke
    assert worker.verify(made) is None


def test_nothing_is_asked_while_no_key_is_remembered(path: Path) -> None:
    worker = Worker(path, poll_s=0.01)
    assert worker.keys.verify(forged()) is None
    time.sleep(0.2)
    assert (worker.lookup.found, worker.lookup.polled) == (0, 0)
    worker.keys.close()


# Unknown.


def test_a_guess_never_reaches_the_database(worker: Worker) -> None:
    made = worker.make()
    for _ in range(1000):
        assert worker.keys.verify(forged()) is None
        assert worker.keys.verify(forged(made.key.id)) is None
    assert worker.lookup.found == 0


def test_keys_that_are_gone_are_looked_up_now_and_then(worker: Worker) -> None:
    gone = PEPPER.key("abcdef012345", bytes(32)).reveal().encode()
    for _ in range(100):
        assert worker.keys.verify(gone) is None
    assert worker.lookup.found == 1


def test_lookups_have_a_bound_and_beyond_it_nobody_is_told_that_a_key_is_wrong(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.keys, "_allowance", module._Allowance(5))
    monkeypatch.setattr(module, "_MOST_UNKNOWN", 4)
    known = worker.make()
    assert worker.verify(known) is not None
    answers: list[object] = []
    for number in range(100):
        try:
            answers.append(worker.keys.verify(PEPPER.key(f"{number:012}", bytes(32)).reveal().encode()))
        except StoreUnavailable as error:
            answers.append(error.http_status)
    assert 9 <= answers.count(None) <= 20
    assert set(answers) == {None, 503}
    assert len(worker.keys._unknown) <= 4
    assert worker.verify(known) is not None, "who is known does not feel it"


def test_an_allowance_fills_again_with_time() -> None:
    allowance = module._Allowance(10)
    assert [allowance.take(100.0) for _ in range(21)] == [True] * 20 + [False]
    assert [allowance.take(100.125) for _ in range(2)] == [True, False]
    assert sum(allowance.take(1000.0) for _ in range(100)) == 20


def hostile(number: int) -> bytes:
    texts = ("'; drop table keys; --", '" or ""="', "\0", "é\u202e\U0001f511", "%00", "{{7*7}}", "../", "sk-gw-", "\\")
    text = texts[number % len(texts)].encode()
    shaped = forged(f"{number:012}")
    return (
        text * (number % 50),
        shaped[:-8] + (text * 8)[:8],
        b"sk-gw-" + (text * 70)[: len(shaped) - 6],
        shaped + text,
        bytes([number % 256]) * len(shaped),
    )[number % 5]


def test_ten_thousand_hostile_tokens_are_nobody_and_no_query_fails(worker: Worker) -> None:
    worker.verify(worker.make())
    asked = worker.lookup.found
    assert all(worker.keys.verify(hostile(number)) is None for number in range(10_000))
    assert worker.keys.verify(b"sk-gw-" + b"x" * (1 << 20)) is None
    assert worker.lookup.found == asked


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200))
def test_no_bytes_are_known_or_raise(credential: bytes) -> None:
    class Nobody(KeyLookup):
        def __init__(self) -> None:
            pass

        def find(self, hashed: str, now_s: float) -> Found:
            raise AssertionError("a guess was looked up")

    assert VirtualKeys(Nobody(), lambda: PEPPER).verify(credential) is None
    assert VirtualKeys(Nobody(), lambda: PEPPER).verify(b"sk-gw-" + credential) is None


# Without a database.


@pytest.mark.parametrize("why", [StorageBusy("held"), StorageFailed("gone")])
def test_known_keys_go_on_for_a_while_and_then_nobody_is_told_that_a_key_is_wrong(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, why: StorageError
) -> None:
    made, new = worker.make(), worker.make()
    assert worker.verify(made) is not None
    worker.lookup.away = why
    began_s = time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: began_s + 59)
    worker.keys.poll()
    assert worker.verify(made) is not None
    with pytest.raises(StoreUnavailable) as raised:
        worker.verify(new)
    assert (raised.value.http_status, raised.value.public_code) == (503, "store_unavailable")
    assert worker.keys.verify(forged()) is None, "a stranger is one without a database too"
    monkeypatch.setattr(module.time, "monotonic", lambda: began_s + 61)
    worker.keys.poll()
    with pytest.raises(StoreUnavailable):
        worker.verify(made)
    worker.lookup.away = None
    worker.keys.poll()
    assert worker.verify(made) is not None


def test_a_pepper_that_cannot_be_read_is_no_fault_of_the_key(path: Path) -> None:
    def none() -> Pepper:
        raise StorageFailed("key-pepper: Permission denied")

    with pytest.raises(StoreUnavailable):
        VirtualKeys(Counting(Database(path)), none).verify(forged())


def test_an_older_copy_of_the_database_makes_it_forget_everything(worker: Worker) -> None:
    made = worker.make()
    worker.verify(made)
    worker.keys._revision += 100
    worker.keys.poll()
    before = worker.lookup.found
    assert worker.verify(made) is not None
    assert worker.lookup.found == before + 1


# Used.


def test_the_last_use_is_written_down_at_the_end_and_not_with_the_call(worker: Worker) -> None:
    made = worker.make()
    worker.verify(made)
    assert worker.directory.keys.show(made.key.id).used_s is None
    worker.keys.close()
    used_s = worker.directory.keys.show(made.key.id).used_s
    assert used_s is not None
    assert abs(used_s - time.time()) < 60


def test_a_use_that_cannot_be_written_is_kept_for_later(worker: Worker) -> None:
    made = worker.make()
    worker.verify(made)
    worker.lookup.away = StorageBusy("held")
    worker.keys._note_uses()
    worker.lookup.away = None
    worker.keys._note_uses()
    assert worker.directory.keys.show(made.key.id).used_s is not None


def test_keys_show_nowhere(worker: Worker) -> None:
    made = worker.make()
    worker.verify(made)
    assert written(made).decode() not in repr(vars(worker.keys))
    assert written(made).decode() not in repr(made)
