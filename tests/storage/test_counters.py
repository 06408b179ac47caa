"""What every store of counters does, against the real stores: memory, SQLite, Postgres, Redis and Valkey."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.windows import LARGEST_AMOUNT, Claim, Window
from gateway.secret import Secret
from gateway.storage.counters import Counters, Reservation
from gateway.storage.memory import MemoryCounters
from gateway.storage.migrate import upgrade
from tests.fakes.stores import Redis
from tests.storage.stores import NOW_S, Clock, claim, open_counters

LEASE_S = 45.0
_SUBJECTS = itertools.count()


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


#: For what a store of one process does not do, or is the measure of.
shared = pytest.mark.parametrize("address", ["sqlite", "postgres", "redis", "valkey"], indirect=True)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counters(address: str, clock: Clock) -> Iterator[Counters]:
    """The store, by a clock that the test sets."""
    made = open_counters(address, clock)
    made.start()
    yield made
    made.close()


@pytest.fixture
def by_its_own_clock(address: str) -> Iterator[Counters]:
    made = open_counters(address)
    made.start()
    yield made
    made.close()


def used(counters: Counters, *claims: Claim) -> list[int]:
    return [one.used for one in counters.look(claims)]


def reserved(counters: Counters, *claims: Claim, lease_s: float = LEASE_S) -> Reservation:
    made = counters.reserve(claims, lease_s).reservation
    assert made is not None
    return made


# Reserving.


def test_a_limit_of_10_lets_10_through(counters: Counters) -> None:
    answers = [counters.reserve([claim()], LEASE_S) for _ in range(12)]
    assert [answer.reservation is not None for answer in answers] == [True] * 10 + [False] * 2
    assert [answer.standings[0].used for answer in answers] == [*range(1, 11), 10, 10]
    assert answers[3].standings[0].remaining == 6


def test_each_subject_and_each_window_is_counted_for_itself(counters: Counters) -> None:
    claims = [claim(1), claim(2, subject="key/2"), claim(3, length_s=3600), claim(4, length_s=None)]
    reserved(counters, *claims)
    reserved(counters, claim(5))
    assert used(counters, *claims) == [6, 2, 3, 4]


def test_of_several_claims_all_are_counted_or_none(counters: Counters) -> None:
    roomy, narrow = claim(5, 100), claim(5, 12, "key/1/tokens")
    for _ in range(2):
        reserved(counters, roomy, narrow)
    refused = counters.reserve([roomy, narrow], LEASE_S)
    assert refused.reservation is None
    assert [one.wait_s for one in refused.standings] == [0.0, pytest.approx(61.0, abs=1.0)]
    assert used(counters, roomy, narrow) == [10, 10]


def test_what_has_no_limit_is_counted(counters: Counters) -> None:
    for _ in range(3):
        standing = counters.reserve([claim(7, None)], LEASE_S).standings[0]
    assert (standing.used, standing.limit, standing.remaining, standing.wait_s) == (21, None, None, 0.0)


def test_a_limit_of_0_lets_nothing_through_and_an_amount_of_0_always_fits(counters: Counters) -> None:
    assert counters.reserve([claim(1, 0)], LEASE_S).reservation is None
    reserved(counters, claim(0, 0))


def test_an_amount_above_the_limit_is_not_worth_waiting_for(counters: Counters) -> None:
    answer = counters.reserve([claim(11)], LEASE_S)
    assert answer.reservation is None
    assert answer.standings[0].wait_s is None


def test_after_the_wait_that_is_told_there_is_room_and_not_before(counters: Counters, clock: Clock) -> None:
    for _ in range(10):
        counters.settle(reserved(counters, claim()), [1])
        clock.now_s += 2.5
    wait_s = counters.reserve([claim(2)], LEASE_S).standings[0].wait_s
    assert wait_s is not None
    assert 30 < wait_s < 61
    clock.now_s += wait_s - 0.002
    assert counters.reserve([claim(2)], LEASE_S).reservation is None
    clock.now_s += 0.002
    reserved(counters, claim(2))


def test_a_window_is_empty_when_it_was_said_to_be(counters: Counters, clock: Clock) -> None:
    made = reserved(counters, claim(4))
    counters.settle(made, [4])
    (standing,) = counters.look([claim()])
    assert standing.empty_s == pytest.approx(61.0, abs=1.0)
    clock.now_s += standing.empty_s or 0
    assert counters.look([claim()])[0].used == 0
    assert counters.look([claim()])[0].empty_s == 0.0


def test_amounts_are_exact_up_to_the_largest(counters: Counters) -> None:
    large = claim(LARGEST_AMOUNT - 1, LARGEST_AMOUNT, length_s=None)
    made = reserved(counters, large)
    assert counters.reserve([claim(2, LARGEST_AMOUNT, length_s=None)], LEASE_S).reservation is None
    reserved(counters, claim(1, LARGEST_AMOUNT, length_s=None))
    assert used(counters, large) == [LARGEST_AMOUNT]
    counters.settle(made, [LARGEST_AMOUNT - 2])
    assert used(counters, large) == [LARGEST_AMOUNT - 1]


@pytest.mark.parametrize("subject", ["a'b\"c", "x|60x1", "%s {0} \\", "клю́ч🦈", "a\r\nb", "k" * 512])
def test_a_subject_may_have_any_characters(subject: str, counters: Counters) -> None:
    made = reserved(counters, claim(3, subject=subject))
    assert used(counters, claim(subject=subject), claim(subject="x")) == [3, 0]
    counters.settle(made, [1])
    assert used(counters, claim(subject=subject)) == [1]
    assert counters.add(subject, 1, 60) == counters.get(subject) == 1
    assert counters.swap(subject, None, subject, 60)
    assert counters.fetch([subject, "x"]) == {subject: subject}


# Settling.


def test_the_real_amounts_take_the_place_of_the_reserved_ones(counters: Counters) -> None:
    claims = [claim(5, 100, "tokens"), claim(1, 100, "requests"), claim(3, 100, "parallel", None)]
    made = reserved(counters, *claims)
    assert counters.settle(made, [8, 1, 0])
    assert used(counters, *claims) == [8, 1, 0]


def test_settling_again_changes_nothing(counters: Counters) -> None:
    made = reserved(counters, claim(5))
    assert counters.settle(made, [2]) is True
    assert counters.settle(made, [9]) is False
    assert used(counters, claim()) == [2]


def test_what_comes_on_top_is_counted_though_it_is_above_the_limit(counters: Counters) -> None:
    counters.settle(reserved(counters, claim(5)), [25])
    assert used(counters, claim()) == [25]
    assert counters.look([claim()])[0].remaining == 0
    assert counters.reserve([claim()], LEASE_S).reservation is None


def test_what_was_reserved_too_much_goes_from_where_it_was_counted(counters: Counters, clock: Clock) -> None:
    made = reserved(counters, claim(10))
    clock.now_s += 30
    counters.settle(made, [4])
    reserved(counters, claim(6))
    clock.now_s += 31.5
    assert used(counters, claim()) == [6], "the 4 were counted when the call came"


def test_a_call_that_ends_after_its_window_leaves_no_trace_in_it(counters: Counters, clock: Clock) -> None:
    made = reserved(counters, claim(10))
    for _ in range(4):
        clock.now_s += 30
        assert counters.renew([made.id], LEASE_S) == {made.id}
    assert used(counters, claim()) == [0]
    assert counters.settle(made, [7])
    assert used(counters, claim()) == [0]


# Counters that are opened.


def opened(amount: int = 1, limit: int | None = 10, subject: str = "budget/1") -> Claim:
    return Claim(subject, Window(None), amount, limit, opened=True)


@pytest.mark.parametrize("limit", [10, None])
def test_a_counter_that_has_to_be_opened_has_no_room_before(counters: Counters, limit: int | None) -> None:
    refused = counters.reserve([claim(), opened(0, limit)], LEASE_S)
    assert refused.reservation is None
    assert [one.missing for one in refused.standings] == [False, True]
    assert refused.standings[1].wait_s is None
    assert used(counters, claim()) == [0], "and the claim beside it is not counted"
    assert counters.open(opened(), 7) is True
    assert counters.open(opened(), 0) is False, "it is there"
    answer = counters.reserve([opened(3, limit)], LEASE_S)
    assert answer.reservation is not None
    assert (answer.standings[0].used, answer.standings[0].missing) == (10, False)
    assert counters.look([opened()])[0].used == 10


def test_a_counter_opened_with_0_stays_open(counters: Counters) -> None:
    assert counters.open(opened(), 0)
    counters.settle(reserved(counters, opened(4)), [0])
    assert counters.look([opened()])[0].missing is False
    assert counters.open(opened(), 9) is False
    assert counters.reserve([opened(10)], LEASE_S).reservation is not None


def test_settling_makes_no_counter_that_has_to_be_opened(counters: Counters) -> None:
    never = Reservation("0" * 32, (opened(4), claim(4)))
    assert counters.settle(never, [3, 3]) is True
    assert counters.look([opened()])[0].missing is True
    assert used(counters, claim()) == [3]


def test_an_opened_counter_is_charged_after_the_lease_as_well(counters: Counters, clock: Clock) -> None:
    counters.open(opened(), 2)
    made = reserved(counters, opened(5))
    clock.now_s += LEASE_S + 1
    assert counters.settle(made, [4])
    assert used(counters, opened()) == [6]


def test_a_counter_that_is_forgotten_has_to_be_opened_anew(address: str) -> None:
    now = Clock(time.time())
    counters = open_counters(address, now)
    brief = Claim("budget/brief", Window(None, 0.3), 1, 10, opened=True)
    assert counters.open(brief, 5)
    time.sleep(0.35)
    now.now_s += 0.35
    assert counters.look([brief])[0].missing is True
    assert counters.open(brief, 6)
    assert counters.look([brief])[0].used == 6
    counters.close()


def test_of_many_that_open_at_once_one_does(by_its_own_clock: Counters) -> None:
    gate, won = threading.Barrier(12), list[bool]()

    def ask(amount: int) -> None:
        gate.wait()
        won.append(by_its_own_clock.open(opened(), amount))

    threads = [threading.Thread(target=ask, args=(5,)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(won), sum(won)) == (12, 1)
    assert used(by_its_own_clock, opened()) == [5]


# Leases.


def test_what_is_not_settled_is_taken_back_when_its_lease_ends(counters: Counters, clock: Clock) -> None:
    claims = [claim(5), claim(1, subject="parallel", length_s=None)]
    reserved(counters, *claims)
    clock.now_s += LEASE_S - 0.01
    assert used(counters, *claims) == [5, 1]
    clock.now_s += 0.02
    answer = counters.reserve([claim(10), claim(10, subject="parallel", length_s=None)], LEASE_S)
    assert answer.reservation is not None


def test_settling_after_the_lease_still_charges(counters: Counters, clock: Clock) -> None:
    made = reserved(counters, claim(5, length_s=None))
    clock.now_s += LEASE_S + 1
    assert used(counters, claim(length_s=None)) == [0]
    assert counters.settle(made, [3]) is True
    assert used(counters, claim(length_s=None)) == [3]
    assert counters.settle(made, [3]) is False


def test_a_renewed_lease_runs_anew_and_one_that_has_ended_cannot_be_renewed(counters: Counters, clock: Clock) -> None:
    kept, lost, over = (reserved(counters, claim(subject="p", length_s=None)) for _ in range(3))
    counters.settle(over, [0])
    clock.now_s += LEASE_S - 1
    assert counters.renew([kept.id, over.id, "another"], LEASE_S) == {kept.id}
    clock.now_s += LEASE_S - 1
    assert counters.renew([kept.id, lost.id], LEASE_S) == {kept.id}
    assert used(counters, claim(subject="p", length_s=None)) == [1]
    assert counters.renew([], LEASE_S) == set()


def test_many_leases_are_renewed_in_one_call(counters: Counters) -> None:
    ids = {reserved(counters, claim(1, None, f"key/{number % 7}")).id for number in range(450)}
    assert counters.renew(ids, LEASE_S) == ids


# Clocks.


def test_a_clock_that_is_set_back_frees_nothing_and_holds_nothing_for_longer(counters: Counters, clock: Clock) -> None:
    counters.settle(reserved(counters, claim(6)), [6])
    lost = reserved(counters, claim(2))
    clock.now_s -= 3600
    assert used(counters, claim()) == [8]
    assert counters.reserve([claim(3)], LEASE_S).reservation is None
    made = reserved(counters, claim(2))
    counters.settle(made, [1])
    assert used(counters, claim()) == [9]
    assert counters.renew([lost.id], LEASE_S) == {lost.id}
    clock.now_s += LEASE_S + 0.01
    assert used(counters, claim()) in ([7], [9])  # a store may find out when it is asked to reserve
    clock.now_s += 16.5
    reserved(counters, claim(10))


def test_a_lease_given_before_the_clock_was_set_back_ends(counters: Counters, clock: Clock) -> None:
    reserved(counters, claim(10, length_s=None))
    clock.now_s -= 86_400
    assert counters.reserve([claim(length_s=None)], LEASE_S).reservation is None
    clock.now_s += 600.01
    reserved(counters, claim(10, length_s=None))


def test_taking_back_after_the_clock_was_set_back_goes_below_no_0(counters: Counters, clock: Clock) -> None:
    made = reserved(counters, claim(5))
    clock.now_s -= 7200
    reserved(counters, claim(1))
    counters.settle(made, [0])
    assert used(counters, claim()) == [1]
    assert counters.look([claim()])[0].remaining == 9


# Against a model.

#: A window of 0 s stands for one without end that has to be opened.
_SHAPES = st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([1.0, 60.0, None, 0.0]))
_CLAIM = st.tuples(_SHAPES, st.integers(0, 6), st.one_of(st.none(), st.integers(0, 12)))
_STEP = st.one_of(
    st.tuples(st.just("reserve"), st.lists(_CLAIM, min_size=1, max_size=3, unique_by=lambda one: one[0])),
    st.tuples(st.just("settle"), st.tuples(st.integers(0, 5), st.lists(st.integers(0, 9), min_size=3, max_size=3))),
    st.tuples(st.just("renew"), st.just(None)),
    st.tuples(st.just("open"), st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 5))),
    st.tuples(st.just("pass"), st.sampled_from([0.0, 0.017, 0.3, 1.0, 7.0, 46.0, 61.0, -3.0, -90.0])),
)


@shared
@pytest.mark.parametrize("length_s", [60.0, None])
def test_a_claim_of_nothing_ends_like_any_other_and_breaks_nothing(
    length_s: float | None, counters: Counters, clock: Clock
) -> None:
    window = Window(length_s, 1e6)
    of = f"nothing/{length_s}"
    held = counters.reserve([Claim(of, window, 3)], 600.0).reservation
    assert held is not None
    free = counters.reserve([Claim(of, window, 0)], LEASE_S).reservation
    assert free is not None
    clock.now_s += LEASE_S + 1
    after = counters.reserve([Claim(of, window, 1)], LEASE_S)
    assert after.reservation is not None
    assert after.standings[0].used == 4
    assert counters.settle(free, [0])


def _claim_of(subject: str, length_s: float | None, amount: int, limit: int | None) -> Claim:
    if length_s == 0:
        return Claim(f"{subject}/opened", Window(None, 1e7), amount, limit, opened=True)
    return Claim(subject, Window(length_s, 1e7), amount, limit)


@shared
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(_STEP, min_size=1, max_size=25))
def test_it_does_what_the_memory_of_one_process_does(steps: list[Any], counters: Counters, clock: Clock) -> None:
    clock.now_s += 1e6
    model, mine, settled_s, number = MemoryCounters(clock), [], dict[str, float](), next(_SUBJECTS)
    for verb, given_ in steps:
        if verb == "pass":
            clock.now_s += given_
        elif verb == "reserve":
            claims = [_claim_of(f"{number}/{of}", at, much, most) for (of, at), much, most in given_]
            pair = counters.reserve(claims, LEASE_S), model.reserve(claims, LEASE_S)
            assert pair[0].standings == pair[1].standings
            assert (pair[0].reservation is None) == (pair[1].reservation is None)
            if pair[0].reservation is not None and pair[1].reservation is not None:
                mine.append((pair[0].reservation, pair[1].reservation))
        elif verb == "open":
            wanted = _claim_of(f"{number}/{given_[0]}", 0.0, 0, None)
            assert counters.open(wanted, given_[1]) == model.open(wanted, given_[1])
        elif verb == "settle" and mine:
            one, other = mine[given_[0] % len(mine)]
            amounts = given_[1][: len(one.claims)]
            if abs(clock.now_s - settled_s.setdefault(one.id, clock.now_s)) > 50:
                continue  # that it was settled is known for a minute, and Redis' minutes are its own
            assert counters.settle(one, amounts) == model.settle(other, amounts)
        elif verb == "renew" and mine:
            renewed = counters.renew([one.id for one, _ in mine], LEASE_S)
            others = model.renew([other.id for _, other in mine], LEASE_S)
            assert [one.id in renewed for one, _ in mine] == [other.id in others for _, other in mine]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gaps=st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.04, 0.2, 0.5, 0.99, 1.0, 1.02]), max_size=50))
def test_no_span_of_a_windows_length_ever_has_more_than_the_limit(
    gaps: list[float], counters: Counters, clock: Clock
) -> None:
    clock.now_s += 1e6
    subject, admitted = f"span/{next(_SUBJECTS)}", list[float]()
    for gap_s in gaps:
        clock.now_s += gap_s
        wanted = claim(1, 3, subject, 1.0)
        if counters.reserve([wanted], LEASE_S).reservation is not None:
            admitted.append(clock.now_s)
        else:
            within = [at_s for at_s in admitted if at_s > clock.now_s - 1.05]
            assert len(within) >= 3, "and none is refused for longer than a slot or two too much"
    for first, last in zip(admitted, admitted[3:], strict=False):
        assert last - first >= 0.9989, "the clock is read in milliseconds"


# At once.


def test_many_threads_reserve_from_10_and_10_have_it(by_its_own_clock: Counters) -> None:
    counters, gate, had = by_its_own_clock, threading.Barrier(24), list[bool]()

    def ask() -> None:
        gate.wait()
        for _ in range(4):
            had.append(counters.reserve([claim(), claim(1, None, "all")], LEASE_S).reservation is not None)

    threads = [threading.Thread(target=ask) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(had), sum(had)) == (96, 10)
    assert used(counters, claim(), claim(1, None, "all")) == [10, 10]


RACER = """
import sys
from tests.storage.stores import claim, open_counters
counters = open_counters(sys.argv[1])
counters.start()
counters.get("warm")
print("ready", flush=True); sys.stdin.readline()
claims = [claim(1, 10, "race"), claim(2, 10_000, "race/tokens", None)]
if sys.argv[2] == "1":
    claims.reverse()
kept = [one for _ in range(30) if (one := counters.reserve(claims, 45).reservation)]
for one in kept:
    counters.settle(one, [{"race": 1}.get(each.subject, 3) for each in one.claims])
total = sum(counters.add("race", 1, 600) > 0 for _ in range(50))
print(len(kept), total)
counters.close()
"""


@shared
def test_processes_reserve_from_10_and_10_have_it(address: str, by_its_own_clock: Counters) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, address, str(number % 2)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    told = [racer.communicate(timeout=120)[0].split() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    assert sum(int(kept) for kept, _ in told) == 10
    assert used(by_its_own_clock, claim(1, 10, "race"), claim(1, None, "race/tokens", None)) == [10, 30]
    assert by_its_own_clock.get("race") == 100


def test_the_store_has_a_clock_of_its_own(by_its_own_clock: Counters) -> None:
    made = reserved(by_its_own_clock, claim(10, length_s=0.6), lease_s=0.3)
    assert by_its_own_clock.reserve([claim(length_s=0.6)], 1).reservation is None
    time.sleep(0.32)
    assert by_its_own_clock.renew([made.id], 1) == set()
    held = reserved(by_its_own_clock, claim(10, length_s=0.6), lease_s=5)
    assert by_its_own_clock.renew([held.id], 5) == {held.id}
    time.sleep(0.62)
    reserved(by_its_own_clock, claim(10, length_s=0.6))


# Numbers and values.


def test_a_number_grows_and_is_0_before(counters: Counters) -> None:
    assert counters.get("n") == 0
    assert [counters.add("n", amount, 60) for amount in (5, 0, -7, LARGEST_AMOUNT)] == [5, 5, -2, LARGEST_AMOUNT - 2]
    assert counters.get("n") == LARGEST_AMOUNT - 2
    assert counters.get("other") == 0


def test_a_number_ends_counted_from_the_first_time(by_its_own_clock: Counters) -> None:
    by_its_own_clock.add("n", 1, 0.5)
    time.sleep(0.3)
    assert by_its_own_clock.add("n", 1, 0.5) == 2
    time.sleep(0.22)
    assert by_its_own_clock.get("n") == 0
    assert by_its_own_clock.add("n", 1, 0.5) == 1


def test_a_value_is_published_by_who_knows_the_one_before(counters: Counters) -> None:
    assert counters.fetch(["b", "c"]) == {}
    assert counters.swap("b", "closed", "open", 60) is False
    assert counters.swap("b", None, "closed", 60) is True
    assert counters.swap("b", None, "open", 60) is False
    assert counters.swap("b", "open", "half", 60) is False
    assert counters.swap("b", "closed", "open", 60) is True
    assert counters.swap("c", None, "", 60) is True
    assert counters.fetch(["b", "c", "d"]) == {"b": "open", "c": ""}
    assert counters.swap("c", None, "x", 60) is False, "an empty value is one"
    assert counters.swap("b", "open", None, 60) is True
    assert counters.fetch(["b"]) == {}
    assert counters.fetch([]) == {}


def test_a_value_is_forgotten_in_time(by_its_own_clock: Counters) -> None:
    assert by_its_own_clock.swap("b", None, "open", 0.3)
    assert by_its_own_clock.fetch(["b"]) == {"b": "open"}
    time.sleep(0.32)
    assert by_its_own_clock.fetch(["b"]) == {}
    assert by_its_own_clock.swap("b", None, "closed", 60)


def test_a_number_and_a_value_of_one_name_are_two(counters: Counters) -> None:
    counters.add("k", 3, 60)
    assert counters.swap("k", None, "text", 60)
    assert (counters.get("k"), counters.fetch(["k"])) == (3, {"k": "text"})


def test_of_many_that_swap_at_once_one_does(by_its_own_clock: Counters) -> None:
    gate, won = threading.Barrier(12), list[bool]()

    def ask(name: str) -> None:
        gate.wait()
        won.append(by_its_own_clock.swap("b", None, name, 60))

    threads = [threading.Thread(target=ask, args=(str(number),)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(won), sum(won)) == (12, 1)


# What is no use to ask.

MADE = Reservation("id", (claim(), claim(subject="b")))
WRONG: dict[str, Callable[[Counters], object]] = {
    "no claim": lambda it: it.reserve([], 45),
    "one counter twice": lambda it: it.reserve([claim(1), claim(2)], 45),
    "looking at nothing": lambda it: it.look([]),
    "opening what nobody wants opened": lambda it: it.open(claim(), 1),
    "opening with less than nothing": lambda it: it.open(Claim("a", Window(None), 1, opened=True), -1),
    "no lease": lambda it: it.reserve([claim()], 0),
    "too long a lease": lambda it: it.reserve([claim()], 600.1),
    "no number for a lease": lambda it: it.renew(["a"], float("nan")),
    "too few amounts": lambda it: it.settle(MADE, [1]),
    "a negative amount": lambda it: it.settle(MADE, [1, -1]),
    "a fraction": lambda it: it.settle(MADE, [1, 0.5]),  # type: ignore[list-item]
    "an empty key": lambda it: it.add("", 1, 60),
    "a key with NUL": lambda it: it.get("a\0"),
    "half a pair": lambda it: it.fetch(["\ud800"]),
    "too long a key": lambda it: it.swap("k" * 513, None, "x", 60),
    "too large an amount": lambda it: it.add("a", LARGEST_AMOUNT + 1, 60),
    "no time": lambda it: it.add("a", 1, 0),
    "too large a value": lambda it: it.swap("a", None, "é" * 32_769, 60),
    "a value with NUL": lambda it: it.swap("a", None, "\0", 60),
}


@pytest.mark.parametrize("ask", WRONG.values(), ids=WRONG)
def test_what_makes_no_sense_is_refused_before_the_store_sees_it(
    ask: Callable[[Counters], object], counters: Counters
) -> None:
    with pytest.raises(ValueError, match=r"."):
        ask(counters)


def test_it_gives_a_sign_of_life(counters: Counters) -> None:
    counters.check()


def test_it_may_be_started_and_closed_twice(address: str) -> None:
    made = open_counters(address, lambda: NOW_S)
    for _ in range(2):
        made.start()
    assert made.add("a", 1, 60) == 1
    for _ in range(2):
        made.close()
