"""What every store of the cache does, against the real stores: memory, SQLite, Postgres, Redis and Valkey."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.secret import Secret
from gateway.storage.answers import (
    ENTRY_BYTES,
    Answers,
    Claim,
    Holdings,
    KeptAnswer,
    MemoryAnswers,
    compressed,
    uncompressed,
)
from gateway.storage.answers_redis import RedisAnswers
from gateway.storage.answers_table import TableAnswers
from gateway.storage.database import Database
from gateway.storage.faults import StorageError, StorageFailed
from gateway.storage.migrate import upgrade
from tests.fakes.stores import Redis
from tests.storage.places import wait_until_tidy

LARGEST_BYTES = 1 << 20
ROOM_BYTES = 8 << 20
BINARY = bytes(range(256)) * 8 + "ünï".encode()


class Shifted:
    """The clock of the machine, which a test moves on; Redis goes by its own."""

    def __init__(self) -> None:
        self.by_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.by_s


@pytest.fixture
def clock() -> Shifted:
    return Shifted()


def open_answers(place: str, clock: Shifted, room_bytes: int = ROOM_BYTES) -> Answers:
    """Open the store at a place; it is more patient than in a gateway."""
    if place == "memory:":
        return MemoryAnswers(room_bytes, clock)
    if place.startswith("redis://"):
        return RedisAnswers(Secret(place), LARGEST_BYTES, clock, timeout_s=10.0)
    database = Database(Secret(place) if "://" in place else Path(place), patience_s=10.0)
    return TableAnswers(database, room_bytes, LARGEST_BYTES, clock)


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis", "valkey"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the store is; it is empty."""
    if request.param in ("redis", "valkey"):
        server: Redis = request.getfixturevalue("redis_servers")[request.param]
        with server.client() as client:
            client.flushall()
        return server.url
    if request.param == "postgres":
        made: Secret = request.getfixturevalue("postgres_address")
        return made.reveal()
    if request.param == "sqlite":
        upgrade(tmp_path / "gateway.db")
        return str(tmp_path / "gateway.db")
    return "memory:"


@pytest.fixture
def answers(address: str, clock: Shifted) -> Iterator[Answers]:
    made = open_answers(address, clock)
    made.start()
    yield made
    wait_until_tidy()
    made.close()


def kept(digest: str, content: bytes = b"said", tenant: str = "tok_1", ttl_s: float = 60.0) -> KeptAnswer:
    now_s = time.time()
    return KeptAnswer(tenant, digest.ljust(64, "0"), now_s, now_s + ttl_s, content)


@pytest.mark.parametrize("content", [b"short", BINARY, b"x" * 100_000], ids=["short", "binary", "long"])
def test_what_is_kept_is_found_as_it_was(answers: Answers, content: bytes) -> None:
    one = kept("a", content)
    answers.keep(one)
    assert answers.find("tok_1", [one.digest]) == one


def test_the_first_that_is_there_is_found(answers: Answers) -> None:
    first, second = kept("a", b"first"), kept("b", b"second")
    assert answers.find("tok_1", [first.digest, second.digest]) is None
    answers.keep(second)
    assert answers.find("tok_1", [first.digest, second.digest]) == second
    answers.keep(first)
    assert answers.find("tok_1", [first.digest, second.digest]) == first
    assert answers.find("tok_1", [second.digest, first.digest]) == second


def test_another_tenant_finds_nothing(answers: Answers) -> None:
    one = kept("a")
    answers.keep(one)
    for tenant in ("tok_2", "tok_", "tok_*", "*", ""):
        assert answers.find(tenant, [one.digest]) is None
        assert answers.clear(tenant) == 0
    assert answers.find("tok_1", [one.digest]) == one


def test_a_later_answer_takes_the_place_of_the_first(answers: Answers) -> None:
    answers.keep(kept("a", b"first"))
    later = kept("a", b"later")
    answers.keep(later)
    assert answers.find("tok_1", [later.digest]) == later
    assert answers.holdings().answers == 1


def test_what_is_past_its_time_is_not_found(answers: Answers, clock: Shifted) -> None:
    one = kept("a", ttl_s=60)
    answers.keep(one)
    clock.by_s = 59
    assert answers.find("tok_1", [one.digest]) is not None
    clock.by_s = 61
    assert answers.find("tok_1", [one.digest]) is None


def test_all_of_a_tenant_are_forgotten_and_no_others(answers: Answers) -> None:
    mine = [kept(f"a{number}") for number in range(3)]
    other = kept("b", tenant="a*[b]?:")
    for one in (*mine, other):
        answers.keep(one)
    assert answers.clear("tok_1") == 3
    assert [answers.find("tok_1", [one.digest]) for one in mine] == [None] * 3
    assert answers.find("a*[b]?:", [other.digest]) == other
    assert answers.clear() == 1
    assert answers.holdings() == Holdings(0, 0)


def test_each_clearing_is_told_to_those_who_have_copies(answers: Answers) -> None:
    told = [answers.clearing()]
    answers.keep(kept("a"))
    assert answers.clearing() == told[0]
    for tenant in (None, "tok_9", None):
        answers.clear(tenant)
        told.append(answers.clearing())
    assert answers.clearing() == told[-1]
    assert len(set(told)) == 4
    assert answers.holdings() == Holdings(0, 0)


def test_it_says_how_much_it_keeps(answers: Answers) -> None:
    for number in range(3):
        answers.keep(kept(f"a{number}", b"x" * 100))
    answers.keep(kept("b", b"x" * 50_000, tenant="tok_2"))
    all_of_it, of_one = answers.holdings(), answers.holdings("tok_1")
    assert (all_of_it.answers, of_one.answers) == (4, 3)
    assert 300 <= of_one.size_bytes <= 300 + 3 * 20
    assert of_one.size_bytes < all_of_it.size_bytes <= of_one.size_bytes + 50_000


@pytest.mark.parametrize("address", ["sqlite", "postgres", "redis", "valkey"], indirect=True)
def test_another_process_finds_it_too(answers: Answers, address: str, clock: Shifted) -> None:
    one = kept("a", BINARY)
    answers.keep(one)
    other = open_answers(address, clock)
    other.start()
    assert other.find("tok_1", [one.digest]) == one
    other.close()


DIGEST = "c".ljust(64, "0")
MINE, THEIRS = Claim("tok_1", DIGEST, "worker1-7", "f" * 64), Claim("tok_1", DIGEST, "worker2-1")


def test_one_makes_an_answer_and_the_others_are_told_who(answers: Answers) -> None:
    assert answers.claim(MINE, [DIGEST], 30) == MINE
    assert answers.claim(THEIRS, [DIGEST], 30) == MINE, "with its fingerprint"
    assert answers.claim(MINE, [DIGEST], 30) == MINE, "who asks again has it still"
    other = Claim("tok_1", "d".ljust(64, "0"), "worker2-2")
    assert answers.claim(other, [other.digest], 30) == other


def test_of_many_who_claim_at_once_one_is_told_to_make_it(answers: Answers) -> None:
    wanted = [Claim("tok_1", DIGEST, f"worker-{number}") for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        told = set(pool.map(lambda one: answers.claim(one, [DIGEST], 30), wanted))
    assert len(told) == 1
    assert told <= set(wanted)


def test_an_answer_is_found_in_the_place_of_a_claim_to_make_it(answers: Answers) -> None:
    assert answers.claim(MINE, [DIGEST], 30) == MINE
    assert answers.find("tok_1", [DIGEST]) is None
    one = kept("c")
    answers.keep(one, MINE)
    second = kept("b", b"second")
    answers.keep(second)
    assert answers.claim(THEIRS, [DIGEST, second.digest], 30) == one
    assert answers.claim(THEIRS, [second.digest, DIGEST], 30) == second
    assert answers.clear() == 2
    assert answers.claim(THEIRS, [DIGEST], 30) == THEIRS, "keeping it gave up the claim"


def test_a_claim_that_is_given_up_is_free_and_nobody_gives_up_anothers(answers: Answers) -> None:
    answers.claim(MINE, [DIGEST], 30)
    answers.release(THEIRS)
    answers.keep(kept("b"), THEIRS)
    assert answers.claim(THEIRS, [DIGEST], 30) == MINE
    answers.release(MINE)
    answers.release(MINE)
    assert answers.claim(THEIRS, [DIGEST], 30) == THEIRS


def test_a_claim_ends_with_its_lease_and_not_before_where_it_is_renewed(answers: Answers) -> None:
    """In real time, since servers go by their own clock."""
    lease_s = 1.0
    answers.claim(MINE, [DIGEST], lease_s)
    began_s = time.monotonic()
    while time.monotonic() - began_s < 2 * lease_s:
        answers.renew([MINE, THEIRS], lease_s)
        time.sleep(0.05)
    assert answers.claim(THEIRS, [DIGEST], lease_s) == MINE
    time.sleep(lease_s + 0.1)
    assert answers.claim(THEIRS, [DIGEST], lease_s) == THEIRS
    answers.renew([MINE], lease_s)
    answers.release(MINE)
    assert answers.claim(MINE, [DIGEST], lease_s) == THEIRS, "who comes too late has lost it"


def test_claims_are_no_answers(answers: Answers, clock: Shifted) -> None:
    answers.claim(MINE, [DIGEST], 30)
    assert answers.holdings() == Holdings(0, 0)
    assert answers.clear() == answers.clear("tok_1") == 0
    assert answers.claim(THEIRS, [DIGEST], 30) == MINE


@pytest.mark.parametrize("address", ["sqlite", "postgres"], indirect=True)
def test_a_claim_from_before_the_clock_was_set_back_holds_nobody_up(answers: Answers, clock: Shifted) -> None:
    clock.by_s = 3600
    answers.claim(MINE, [DIGEST], 10)
    clock.by_s = 0
    assert answers.claim(THEIRS, [DIGEST], 10) == THEIRS


@pytest.mark.parametrize("address", ["redis", "valkey"], indirect=True)
def test_a_server_forgets_by_itself(answers: Answers, address: str) -> None:
    answers.keep(kept("a", ttl_s=0.2))
    end_s = time.monotonic() + 10
    while answers.holdings().answers:
        assert time.monotonic() < end_s
        time.sleep(0.05)


@pytest.mark.parametrize("address", ["sqlite", "postgres"], indirect=True)
def test_a_table_lets_go_of_what_has_ended_and_of_the_oldest(address: str, clock: Shifted) -> None:
    made = open_answers(address, clock, room_bytes=10 * (1000 + ENTRY_BYTES))
    assert isinstance(made, TableAnswers)
    now_s = time.time()
    chance = [bytes((number * 7 + place * place) % 251 for place in range(400)) for number in range(30)]
    for number, content in enumerate(chance):
        ends_s = now_s + (10 if number % 2 else 1000)
        made.keep(KeptAnswer("tok_1", f"{number:064}", now_s + number, ends_s, content))
    wait_until_tidy()
    clock.by_s = 20
    made.tidy()
    left = [number for number in range(30) if made.find("tok_1", [f"{number:064}"])]
    assert set(left) <= set(range(0, 30, 2)), "what has ended is gone"
    assert left == list(range(0, 30, 2))[-len(left) :], "the oldest went first"
    assert 0 < made.holdings().size_bytes + ENTRY_BYTES * len(left) <= 10 * (1000 + ENTRY_BYTES)
    made.close()


def test_memory_makes_room_by_what_was_asked_for_longest_ago(clock: Shifted) -> None:
    made = MemoryAnswers(3 * (1000 + ENTRY_BYTES), clock)
    digests = []
    for number in range(3):
        one = kept(f"{number}", b"x" * 1000)
        made.keep(one)
        digests.append(one.digest)
    assert made.find("tok_1", digests[:1]) is not None
    made.keep(kept("9", b"x" * 1000))
    assert [made.find("tok_1", [digest]) is not None for digest in digests] == [True, False, True]
    made.keep(kept("8", b"x" * 10_000))
    assert made.holdings().answers == 3, "one that is larger than the room drives nobody out"


@pytest.mark.parametrize("address", ["sqlite", "postgres", "redis"], indirect=True)
def test_a_damaged_answer_is_told_and_not_given(answers: Answers, address: str, clock: Shifted) -> None:
    large = kept("a", b"x" * (LARGEST_BYTES + 1))
    answers.keep(large)  # by a gateway that keeps larger ones
    with pytest.raises(StorageFailed, match="damaged"):
        answers.find("tok_1", [large.digest])


@pytest.mark.parametrize("stored", [b"", b"1", b"1abc", b"2abc", compressed(b"x" * 5000)[:-3]])
def test_what_is_no_content_of_ours_is_refused(stored: bytes) -> None:
    with pytest.raises(StorageError):
        uncompressed(stored, LARGEST_BYTES)


@pytest.mark.parametrize("content", [b"", b"a", b"a" * 511, b"a" * 512, BINARY * 10])
def test_compressing_loses_nothing(content: bytes) -> None:
    assert uncompressed(compressed(content), LARGEST_BYTES) == content


def test_long_texts_get_smaller() -> None:
    assert len(compressed(b"the same again, " * 1000)) < 1000


def test_a_store_that_is_away_says_so(tmp_path: Path, clock: Shifted) -> None:
    for place in (str(tmp_path / "nothing.db"), "redis://127.0.0.1:1/0"):
        made = open_answers(place, clock)
        for work in (
            lambda made=made: made.find("tok_1", ["0"]),
            lambda made=made: made.keep(kept("a")),
            lambda made=made: made.claim(MINE, [DIGEST], 1),
        ):
            with pytest.raises(StorageError):
                work()
        made.close()
