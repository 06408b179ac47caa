"""Owned objects: two tenants, hostile ids, other processes, and what goes when."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from gateway.storage.database import Database, StorageBusy, StorageError, StorageFailed
from gateway.storage.migrate import upgrade
from gateway.storage.owned import RESPONSE, Owned, OwnedByAnother, OwnedObjects, Unkeepable, _keep, room_bytes
from gateway.tracing.local import LocalTraces
from tests.storage.holding import held
from tests.storage.places import Place, told, wait_until_tidy
from tests.tracing.kept import piece, trace

NOW_S = 1_764_000_000.0
DAY_S = 86_400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An SQLite file, for what is SQLite's alone."""
    upgrade(tmp_path / "gateway.db")
    return tmp_path / "gateway.db"


_opened: list[Database] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    wait_until_tidy()
    while _opened:
        _opened.pop().release()


@pytest.fixture
def objects(place: Place) -> OwnedObjects:
    return kept_in(place)


def kept_in(place: Place, *, days: float = 30, keep_bytes: int = 1 << 28, patience_s: float = 2) -> OwnedObjects:
    return OwnedObjects(opened(place, patience_s), days, keep_bytes)


def opened(place: Place, patience_s: float = 2) -> Database:
    _opened.append(Database(place, patience_s=patience_s))
    return _opened[-1]


def owned(id: str = "resp_1", tenant: str = "tok_a", **fields: Any) -> Owned:
    given = {"kind": RESPONSE, "caller": tenant, "model": "fast", "provider": "openai", "deployment": "openai/gpt-test"}
    return Owned(**{**given, "id": id, "tenant": tenant, "made_s": NOW_S, **fields})


# Whose it is.


def test_its_tenant_finds_it_as_it_was_kept(objects: OwnedObjects) -> None:
    there = owned("resp_there", caller="alice")
    here = owned("resp_here", document='{"id": "resp_here"}', items="[]")
    for one in (there, here):
        objects.keep(one)
        assert objects.find(RESPONSE, one.id, "tok_a") == one
    assert (there.kept_here, here.kept_here) == (False, True)


def test_another_tenant_cannot_tell_it_from_one_that_is_not_there(objects: OwnedObjects) -> None:
    objects.keep(owned(document='{"secret": 1}'))
    assert objects.find(RESPONSE, "resp_1", "tok_b") is None
    assert objects.find(RESPONSE, "resp_2", "tok_b") is None
    assert objects.find("file", "resp_1", "tok_a") is None, "ids are of a kind"
    assert objects.remove(RESPONSE, "resp_1", "tok_b") is objects.remove(RESPONSE, "resp_2", "tok_b") is False
    assert objects.find(RESPONSE, "resp_1", "tok_a") is not None


def test_an_id_that_is_there_cannot_be_taken_over(objects: OwnedObjects) -> None:
    first = owned(document='{"secret": 1}')
    objects.keep(first)
    with pytest.raises(OwnedByAnother) as caught:
        objects.keep(owned(tenant="tok_b", document="{}"))
    assert isinstance(caught.value, StorageError)
    assert not any(word in str(caught.value) for word in ("tok_", "resp_1", "secret"))
    assert objects.find(RESPONSE, "resp_1", "tok_a") == first
    assert objects.find(RESPONSE, "resp_1", "tok_b") is None


def test_keeping_it_again_replaces_it(objects: OwnedObjects) -> None:
    objects.keep(owned(document='{"status": "in_progress"}'))
    newer = owned(document='{"status": "completed"}', model="slow", made_s=NOW_S + 1)
    for _ in range(2):
        objects.keep(newer)
    assert objects.find(RESPONSE, "resp_1", "tok_a") == newer


def test_of_all_who_claim_something_at_once_one_is_told_that_it_is_theirs(objects: OwnedObjects) -> None:
    told: list[bool] = []
    claiming = [threading.Thread(target=lambda: told.append(objects.claim(owned("resp_1")))) for _ in range(8)]
    for one in claiming:
        one.start()
    for one in claiming:
        one.join()
    assert sorted(told) == [False] * 7 + [True]
    assert not objects.claim(owned("resp_1", "tok_b")), "and nobody has it after them"
    assert objects.find(RESPONSE, "resp_1", "tok_a") == owned("resp_1")
    with pytest.raises(Unkeepable):
        objects.claim(owned(""))


def test_what_is_removed_is_gone_once(objects: OwnedObjects) -> None:
    objects.keep(owned())
    assert objects.remove(RESPONSE, "resp_1", "tok_a") is True
    assert objects.find(RESPONSE, "resp_1", "tok_a") is None
    assert objects.remove(RESPONSE, "resp_1", "tok_a") is False


def test_a_repr_shows_no_content() -> None:
    assert "hunter2" not in repr(owned(document='"hunter2"', items='"hunter2"'))


# What callers and providers may send.

HOSTILE = {
    "quotes": "resp_' OR ''='",
    "statements": "x'; DROP TABLE owned; --",
    "double quotes": 'resp_"1"',
    "patterns": "%",
    "other scripts": "réponse_回答_🦈",
    "directions": "\u202eresp_1",
    "combining": "e\u0301",
    "the longest": "x" * 1024,
    "the longest of other scripts": "🦈" * 256,
    "lines": "resp\r\n1",
}


@pytest.mark.parametrize("id", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_id_is_an_id_like_any_other(id: str, objects: OwnedObjects) -> None:
    objects.keep(owned("resp_1"))
    assert objects.find(RESPONSE, id, "tok_a") is None
    objects.keep(owned(id))
    assert objects.find(RESPONSE, id, "tok_a") == owned(id)
    assert objects.find(RESPONSE, id, "tok_b") is None
    assert objects.remove(RESPONSE, id, "tok_a")
    assert objects.find(RESPONSE, "resp_1", "tok_a") == owned("resp_1")


def test_ids_are_compared_by_their_characters(objects: OwnedObjects) -> None:
    objects.keep(owned("résp"))
    for other in ("RÉSP", "résp ", "résp\0", "re\u0301sp"):
        assert objects.find(RESPONSE, other, "tok_a") is None


UNKEEPABLE = {
    "empty": "",
    "1025": "x" * 1025,
    "1 MB": "x" * (1 << 20),
    "1026 bytes": "é" * 513,
    "half": "resp_\ud800",
    "NUL": "resp_1\0",
    "NUL alone": "\0",
}


@pytest.mark.parametrize("id", UNKEEPABLE.values(), ids=UNKEEPABLE)
def test_what_can_be_no_id_is_not_there_and_cannot_be_kept(id: str, objects: OwnedObjects) -> None:
    assert objects.find(RESPONSE, id, "tok_a") is None
    assert objects.remove(RESPONSE, id, "tok_a") is False
    with pytest.raises(Unkeepable) as caught:
        objects.keep(owned(id))
    assert len(str(caught.value)) < 100


def test_a_name_that_is_no_text_is_refused_and_a_document_keeps_its_meaning(objects: OwnedObjects) -> None:
    with pytest.raises(Unkeepable):
        objects.keep(owned(model="\udcff"))
    said = {"text": "half \ud83d of a shark 🦈 \\ud800"}
    objects.keep(owned(document=json.dumps(said, ensure_ascii=False)))
    found = objects.find(RESPONSE, "resp_1", "tok_a")
    assert found is not None
    assert found.document is not None
    assert json.loads(found.document) == said
    with pytest.raises(Unkeepable):
        objects.keep(owned(model="fast\0"))
    with pytest.raises(Unkeepable):
        objects.keep(owned(document='"\0"'))
    assert objects.find(RESPONSE, "resp_1", "tok_a") == found


# Other processes.

RACER = """
import sys
from gateway.storage.database import Database
from gateway.storage.owned import Owned, OwnedByAnother, OwnedObjects
from tests.storage.places import place_of
objects = OwnedObjects(Database(place_of(sys.argv[1]), patience_s=30), 30, 1 << 28)
won = 0
print("ready", flush=True); sys.stdin.readline()
for number in range(40):
    one = Owned("response", f"resp_{number}", sys.argv[2], "c", "m", "p", "p/m", 1764000000.0, sys.argv[2])
    try:
        objects.keep(one); won += 1
    except OwnedByAnother:
        pass
print(won)
"""


def test_of_two_processes_that_keep_one_id_at_once_one_has_it(place: Place, objects: OwnedObjects) -> None:
    tenants = ("tok_a", "tok_b")
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, told(place), tenant],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for tenant in tenants
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    won = [int(racer.communicate(timeout=60)[0]) for racer in racers]
    owners = Counter[str]()
    for number in range(40):
        found = [one for tenant in tenants if (one := objects.find(RESPONSE, f"resp_{number}", tenant))]
        assert len(found) == 1
        assert found[0].document == found[0].tenant, "no half of the other's"
        owners[found[0].tenant] += 1
    assert [owners[tenant] for tenant in tenants] == won


def test_a_database_that_another_process_holds_is_waited_for_within_the_bound(path: Path) -> None:
    objects = kept_in(path, patience_s=0.5)
    objects.keep(owned("resp_before"))
    wait_until_tidy()
    with held(path):
        for work in (
            lambda: objects.keep(owned()),
            lambda: objects.remove(RESPONSE, "resp_before", "tok_a"),
            lambda: objects.tidy(NOW_S),
        ):
            began_s = time.monotonic()
            with pytest.raises(StorageBusy):
                work()
            assert 0.5 <= time.monotonic() - began_s < 2.5
        assert objects.find(RESPONSE, "resp_before", "tok_a") is not None, "readers do not wait"
        assert objects.find(RESPONSE, "resp_1", "tok_a") is None


def test_a_damaged_database_is_said_to_be_one(path: Path) -> None:
    objects = kept_in(path)
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(StorageFailed):
        objects.keep(owned())
    with pytest.raises(StorageFailed):
        objects.find(RESPONSE, "resp_1", "tok_a")


GEVENT = """
from gevent import monkey; monkey.patch_all()
import gevent, sys, time
from gateway.storage.database import Database
from gateway.storage.owned import Owned, OwnedObjects
from tests.storage.places import place_of
objects = OwnedObjects(Database(place_of(sys.argv[1])), 30, 1 << 20)
objects.start(1764000000.0)
gaps, done = [], []
def tick():
    while not done:
        before = time.monotonic(); gevent.sleep(0.01); gaps.append(time.monotonic() - before)
ticker = gevent.spawn(tick)
def one(number):
    objects.keep(Owned("response", f"r{number}", "t", "c", "m", "p", "p/m", 1764000000.0 + number, "x" * 300_000))
    return objects.find("response", f"r{number}", "t") is not None
kept = [gevent.spawn(one, number) for number in range(12)]
gevent.joinall(kept); objects.tidy(1764000000.0); done.append(True); ticker.join()
found = [objects.find("response", f"r{number}", "t") for number in range(12)]
objects.close()
print(all(greenlet.value for greenlet in kept), sum(1 for one in found if not one.emptied), max(gaps))
"""


def test_the_hub_turns_while_objects_are_kept_and_tidied(place: Place) -> None:
    done = subprocess.run([sys.executable, "-c", GEVENT, told(place)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    all_found, left, longest_s = done.stdout.split()
    assert (all_found, left) == ("True", "3"), "1 MB holds three of 300 kB"
    assert float(longest_s) < 0.5


# What goes.


def test_what_is_kept_here_goes_by_age_and_what_a_provider_keeps_after_its_30_days(place: Place) -> None:
    objects = kept_in(place, days=2)
    for days in (1, 3, 29, 31):
        objects.keep(owned(f"here_{days}", made_s=NOW_S - days * DAY_S, document="{}"))
        objects.keep(owned(f"there_{days}", made_s=NOW_S - days * DAY_S))
    wait_until_tidy()
    objects.tidy(NOW_S)
    left = [f"{at}_{days}" for at in ("here", "there") for days in (1, 3, 29, 31)]
    assert [id for id in left if objects.find(RESPONSE, id, "tok_a")] == ["here_1", "there_1", "there_3", "there_29"]


def test_owners_are_known_for_as_long_as_documents_are_kept(place: Place) -> None:
    objects = kept_in(place, days=90)
    objects.keep(owned("resp_60", made_s=NOW_S - 60 * DAY_S))
    wait_until_tidy()
    assert objects.tidy(NOW_S) == 0
    assert objects.tidy(NOW_S + 31 * DAY_S) == 1


def test_0_days_keep_no_document_and_let_go_of_those_that_are_there(place: Place) -> None:
    kept_in(place).keep(owned("resp_old", document='{"secret": 1}'))
    off = kept_in(place, days=0)
    assert (off.keeps_documents, kept_in(place).keeps_documents) == (False, True)
    off.keep(owned("resp_here", document='{"secret": 2}'))
    off.keep(owned("resp_items", items="[]"))
    off.keep(owned("resp_there", made_s=NOW_S + 1))
    wait_until_tidy()
    found = {id: off.find(RESPONSE, id, "tok_a") for id in ("resp_old", "resp_here", "resp_items", "resp_there")}
    assert [id for id, one in found.items() if one] == ["resp_there"]


def test_above_their_size_the_oldest_documents_are_emptied_and_their_owners_stay(place: Place) -> None:
    objects = kept_in(place, keep_bytes=1000)
    for number in range(5):
        one = owned(f"resp_{number}", made_s=NOW_S + number, document="d" * 300, items="i" * 100)
        objects.keep(one)
    objects.keep(owned("resp_there", made_s=NOW_S - 1))
    wait_until_tidy()
    objects.tidy(NOW_S)
    found = [objects.find(RESPONSE, f"resp_{number}", "tok_a") for number in range(5)]
    assert [one is not None and one.emptied for one in found] == [True, True, True, False, False]
    assert found[0] == owned("resp_0", emptied=True)
    assert found[0].kept_here, "its provider need not be asked"
    assert found[4] == one
    assert objects.tidy(NOW_S) == 0, "once is enough"


def test_an_emptied_object_that_is_kept_again_stays_one(place: Place) -> None:
    objects = kept_in(place)
    objects.keep(owned(emptied=True))
    assert objects.find(RESPONSE, "resp_1", "tok_a") == owned(emptied=True)


def test_sizes_are_bytes_and_one_document_that_is_too_large_displaces_no_other(place: Place) -> None:
    objects = kept_in(place, keep_bytes=1000)
    small, large = owned("resp_small", document="{}"), owned("resp_large", document="é" * 501, made_s=NOW_S + 1)
    objects.keep(small)
    objects.keep(large)
    wait_until_tidy()
    objects.tidy(NOW_S)
    assert objects.find(RESPONSE, "resp_small", "tok_a") == small
    assert objects.find(RESPONSE, "resp_large", "tok_a") == replace(large, document=None, emptied=True)


def test_a_tidied_file_is_smaller(path: Path) -> None:
    objects = kept_in(path)
    empty_bytes = path.stat().st_size  # the tables alone
    for number in range(20):
        objects.keep(owned(f"resp_{number}", document="d" * 100_000))
    wait_until_tidy()
    before_bytes = path.stat().st_size
    assert before_bytes > empty_bytes + 1_000_000
    assert objects.tidy(NOW_S + 31 * DAY_S) == 20
    assert path.stat().st_size - empty_bytes < (before_bytes - empty_bytes) / 10


def test_tidying_never_holds_the_database_for_more_than_200_rows(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    objects, database = kept_in(place), opened(place)
    rows = [{"of": f"resp_{number}"} for number in range(450)]
    database.write(
        lambda connection: (
            connection.execute(
                text(
                    "INSERT INTO owned (kind, id, tenant, caller, model, provider, deployment, made, kept_here, bytes)"
                    " VALUES ('response', :of, 't', 'c', 'm', 'p', 'p/m', 1.0, FALSE, 0)"
                ),
                rows,
            )
            and None
        )
    )
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    assert objects.tidy(NOW_S) == 450
    assert len(pauses) >= 3


# When.


def test_keeping_does_not_wait_for_tidying_and_tidies_once_in_10_minutes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = kept_in(path)
    may_end, seen = threading.Event(), list[float]()
    clock = [1000.0]
    monkeypatch.setattr("gateway.storage.owned.time.monotonic", lambda: clock[0])

    def tidy(now_s: float) -> int:
        seen.append(now_s)
        assert may_end.wait(10)
        return 0

    monkeypatch.setattr(objects, "tidy", tidy)
    objects.keep(owned(made_s=NOW_S))
    clock[0] += 700
    objects.keep(owned(made_s=NOW_S + 1))
    may_end.set()
    wait_until_tidy()
    assert seen == [NOW_S], "the first does, and no second one beside it"
    clock[0] += 599
    objects.keep(owned(made_s=NOW_S + 2))
    wait_until_tidy()
    assert seen == [NOW_S]
    clock[0] += 2
    objects.keep(owned(made_s=NOW_S + 3))
    wait_until_tidy()
    assert seen == [NOW_S, NOW_S + 3]


def test_much_that_was_written_is_tidied_sooner(place: Place) -> None:
    objects = kept_in(place, keep_bytes=16_000)
    for number in range(40):
        objects.keep(owned(f"resp_{number}", made_s=NOW_S + number, document="d" * 1001))
        wait_until_tidy()
    whole = [
        one for n in range(40) if (one := objects.find(RESPONSE, f"resp_{n}", "tok_a")) is not None and not one.emptied
    ]
    assert len(whole) <= 17


def test_tidying_that_fails_is_a_line_in_the_log_and_no_failure(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    objects = kept_in(path)

    def fail(_now_s: float) -> int:
        raise StorageBusy("others have held the database")

    monkeypatch.setattr(objects, "tidy", fail)
    with caplog.at_level(logging.WARNING, "gateway"):
        objects.keep(owned())
        wait_until_tidy()
    assert "old stored objects were not deleted" in caplog.text
    assert objects.find(RESPONSE, "resp_1", "tok_a") is not None


# Beside traces.


@pytest.mark.parametrize(
    ("count", "document"), [(3000, None), (300, "d" * 1500), (300, "d" * 2000), (40, "d" * 100_000)]
)
def test_the_room_that_they_take_is_known_about(path: Path, count: int, document: str | None) -> None:
    database = Database(path)

    def used_bytes(connection: Any) -> int:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        return int(pages - connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()) * 4096

    before_bytes = database.read(used_bytes)
    ones = [owned(f"resp_{number:048}", "tok_12345678", document=document) for number in range(count)]
    database.write(lambda connection: sum(_keep(one, 1 << 30, connection) for one in ones))
    taken_bytes = database.read(used_bytes) - before_bytes
    assert database.read(room_bytes) == pytest.approx(taken_bytes, rel=0.25)


def test_stored_objects_push_out_no_trace(path: Path) -> None:
    database = Database(path)
    traces = LocalTraces(database, 14, 1 << 20)
    traces.deliver([piece(row) for number in range(20) for row in trace(number)])
    for number in range(30):
        kept_in(path).keep(owned(f"resp_{number}", document="d" * 100_000))
    wait_until_tidy()
    assert path.stat().st_size > 2 << 20
    assert traces.sweep() == 0
