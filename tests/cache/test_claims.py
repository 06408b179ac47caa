"""Calls of several workers that share one answer: who makes it, who waits, and what becomes of them where it fails."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import pytest

from gateway.core.cachekey import Wish
from gateway.core.calls import CALLER_GONE, DEADLINE, Call, Caller
from gateway.errors import CallerGone, DeadlineExceeded, GatewayError, NameReused, ProviderFailed
from gateway.storage.answers import Claim, KeptAnswer, MemoryAnswers
from gateway.storage.faults import StorageFailed
from tests.builders import ROLE, call, delta, finish, says
from tests.cache.test_cache import ALWAYS, MODEL, Gate, Running, at_once, drained, joined

DOWN = ProviderFailed("down", provider="openai")


class Shared(MemoryAnswers):
    """A store of all workers that can be away, and that tells what is claimed and given up."""

    def __init__(self) -> None:
        super().__init__(8 << 20)
        self.away = False
        self.claims: list[tuple[Claim, KeptAnswer | Claim]] = []
        self.renewed = 0

    def _up(self) -> None:
        if self.away:
            raise StorageFailed("the store is away")

    def find(self, tenant: str, digests: Sequence[str]) -> KeptAnswer | None:
        self._up()
        return super().find(tenant, digests)

    def claim(self, wanted: Claim, digests: Sequence[str], lease_s: float) -> KeptAnswer | Claim:
        self._up()
        found = super().claim(wanted, digests, lease_s)
        self.claims.append((wanted, found))
        return found

    def renew(self, claims: Collection[Claim], lease_s: float) -> None:
        self._up()
        self.renewed += len(claims)
        super().renew(claims, lease_s)

    def release(self, claim: Claim) -> None:
        self._up()
        super().release(claim)

    def keep(self, answer: KeptAnswer, claim: Claim | None = None) -> None:
        self._up()
        super().keep(answer, claim)

    @property
    def waits(self) -> bool:
        """Whether a worker was told to wait for another."""
        return any(isinstance(found, Claim) and found != wanted for wanted, found in self.claims)

    @property
    def held(self) -> int:
        """How many claims there are now."""
        return len(self._claims)


@pytest.fixture
def shared() -> Shared:
    return Shared()


@pytest.fixture
def worker(shared: Shared) -> Iterator[Callable[..., Running]]:
    """Makes workers over one store; each has a provider of its own, so it shows who asked."""
    made: list[Running] = []

    def make(*scripts: Any, **more: Any) -> Running:
        made.append(Running(*scripts, shared=shared, **more))
        return made[-1]

    yield make
    for one in made:
        one.gateway.close(0.1)


def named(text: str = "hi", *, stream: bool = False, **more: Any) -> Call:
    return call(MODEL, text, stream=stream, name="order-1", **more)


def wait_for(what: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 10
    while not what():
        assert time.monotonic() < end_s
        time.sleep(0.01)


@pytest.mark.parametrize("made", [named, lambda **more: call(MODEL, cache=ALWAYS, **more)], ids=["named", "cacheable"])
def test_two_workers_make_one_call(worker: Callable[..., Running], shared: Shared, made: Callable[..., Call]) -> None:
    gate = Gate()
    one, other = worker([ROLE, delta("a"), gate, delta("b"), finish()]), worker(says("never"))
    leading, led = at_once(1, lambda: drained(one.gateway.run(made())))
    assert gate.reached.wait(10)
    following, got = at_once(5, lambda: drained(other.gateway.run(made())))
    wait_for(lambda: shared.waits)
    gate.open.set()
    joined(leading + following)
    assert set(got) == set(led)
    assert b'"ab"' in led[0]
    assert (one.calls, other.calls) == (1, 0)
    assert other.counted("shared") == 5
    assert other.counted("miss") == 0
    assert [root["metadata"]["attempts"] for root in other.traced.roots] == [0] * 5
    assert shared.held == 0


def test_a_named_stream_is_told_again_by_the_other_worker_and_says_that_it_lives(
    worker: Callable[..., Running], shared: Shared
) -> None:
    gate = Gate()
    one, other = worker([ROLE, delta("a"), gate, delta("b"), finish()]), worker(says("never"))
    leading, led = at_once(1, lambda: drained(one.gateway.run(named(stream=True))))
    assert gate.reached.wait(10)
    reply = other.gateway.run(named(stream=True))
    assert next(reply) is None, "0.2 s without a word"
    assert reply.headers()["idempotent-replayed"] == "true"
    gate.open.set()
    assert drained(reply) == (joined(leading), led[0])[1]
    assert (one.calls, other.calls) == (1, 0)


def test_a_stream_without_a_name_waits_for_no_other_worker(worker: Callable[..., Running], shared: Shared) -> None:
    gate = Gate()
    one, other = worker([ROLE, delta("a"), gate, finish()]), worker(says("own"))
    leading, _ = at_once(1, lambda: drained(one.ask(stream=True)))
    assert gate.reached.wait(10)
    assert b'"own"' in drained(other.ask(stream=True))
    assert shared.claims == []
    gate.open.set()
    joined(leading)


@pytest.mark.parametrize("other_one", [{"text": "else"}, {"stream": True}])
def test_another_request_of_the_name_is_refused_while_it_is_made_elsewhere(
    worker: Callable[..., Running], other_one: dict[str, Any]
) -> None:
    gate = Gate()
    one, other = worker([ROLE, delta("a"), gate, finish()]), worker(says("never"))
    leading, led = at_once(1, lambda: drained(one.gateway.run(named())))
    assert gate.reached.wait(10)
    began_s = time.monotonic()
    with pytest.raises(NameReused):
        drained(other.gateway.run(named(**other_one)))
    assert time.monotonic() - began_s < 5
    gate.open.set()
    joined(leading)
    assert b'"a"' in led[0]
    assert other.calls == 0


def test_where_who_made_it_fails_who_waits_tries_itself(worker: Callable[..., Running], shared: Shared) -> None:
    gate = Gate()

    def fail(_call: Call) -> None:
        raise DOWN

    one, other = worker([gate, fail]), worker(says("b"))
    leading, led = at_once(1, lambda: drained(one.gateway.run(named())))
    assert gate.reached.wait(10)
    following, got = at_once(3, lambda: drained(other.gateway.run(named())))
    wait_for(lambda: shared.waits)
    gate.open.set()
    joined(leading + following)
    assert isinstance(led[0], ProviderFailed)
    assert (one.calls, other.calls) == (1, 1)
    assert len(set(got)) == 1
    assert b'"b"' in got[0]
    assert shared.held == 0


def test_an_answer_that_is_too_large_to_be_kept_holds_nobody_up(worker: Callable[..., Running], shared: Shared) -> None:
    gate = Gate()
    one, other = worker([ROLE, gate, delta("a" * 5000), finish()], largest_bytes=4000), worker(says("b"))
    leading, _ = at_once(1, lambda: drained(one.gateway.run(named())))
    assert gate.reached.wait(10)
    following, got = at_once(1, lambda: drained(other.gateway.run(named())))
    wait_for(lambda: shared.waits)
    gate.open.set()
    began_s = time.monotonic()
    joined(leading + following)
    assert time.monotonic() - began_s < 5, "it is given up, and does not just end"
    assert b'"b"' in got[0]


def test_who_waits_ends_at_its_own_deadline_and_those_behind_it_go_on_waiting(
    worker: Callable[..., Running], shared: Shared
) -> None:
    gate = Gate()
    one, other = worker([ROLE, delta("a"), gate, finish()]), worker(says("never"))
    leading, led = at_once(1, lambda: drained(one.gateway.run(named())))
    assert gate.reached.wait(10)
    first = named()
    waiting, told = at_once(1, lambda: drained(other.gateway.run(first)))
    wait_for(lambda: shared.waits)
    following, got = at_once(3, lambda: drained(other.gateway.run(named())))
    time.sleep(0.2)
    first.cancellation.abort(DEADLINE)
    joined(waiting)
    assert isinstance(told[0], DeadlineExceeded)
    time.sleep(0.2)
    assert got == []
    gate.open.set()
    joined(leading + following)
    assert got == led * 3
    assert other.calls == 0


def test_a_stream_whose_caller_leaves_while_it_waits_asks_nobody(
    worker: Callable[..., Running], shared: Shared
) -> None:
    gate = Gate()
    one, other = worker([ROLE, delta("a"), gate, finish()]), worker(says("never"))
    leading, led = at_once(1, lambda: drained(one.gateway.run(named(stream=True))))
    assert gate.reached.wait(10)
    reply = other.gateway.run(named(stream=True))
    following, got = at_once(1, lambda: drained(other.gateway.run(named(stream=True))))
    time.sleep(0.2)
    assert next(reply) is None
    reply.close()
    gate.open.set()
    joined(leading + following)
    assert got == led
    assert other.calls == 0
    assert [root["metadata"]["caller_gone"] for root in other.traced.roots] == [True, False]


def test_a_claim_is_renewed_while_its_answer_is_made(worker: Callable[..., Running], shared: Shared) -> None:
    gate = Gate()
    one, other = worker([ROLE, delta("a"), gate, finish()], lease_s=0.6), worker(says("never"), lease_s=0.6)
    leading, led = at_once(1, lambda: drained(one.gateway.run(named())))
    assert gate.reached.wait(10)
    following, got = at_once(1, lambda: drained(other.gateway.run(named())))
    wait_for(lambda: shared.renewed > 8)
    gate.open.set()
    joined(leading + following)
    assert got == led
    assert other.calls == 0


def test_the_claim_of_a_worker_that_was_killed_ends(worker: Callable[..., Running], shared: Shared) -> None:
    """It stands there, and nobody renews it."""
    gate = Gate()
    dead, other = worker([gate, *says("never")]), worker(says("b"), lease_s=0.5)
    leading, _ = at_once(1, lambda: drained(dead.gateway.run(named())))
    assert gate.reached.wait(10)
    for held in list(dead.cache.claims._held):
        dead.cache.claims.kept(held)  # so that it is not renewed, nor given up
    [(claim, _)] = shared.claims
    shared.renew([claim], 0.5)
    began_s = time.monotonic()
    assert b'"b"' in drained(other.gateway.run(named()))
    assert 0.3 < time.monotonic() - began_s < 5
    gate.open.set()
    joined(leading)


def test_a_store_that_goes_away_is_a_miss_and_never_an_error(worker: Callable[..., Running], shared: Shared) -> None:
    shared.away = True
    one = worker(says("a"))
    began_s = time.monotonic()
    assert b'"a"' in drained(one.gateway.run(named()))
    assert b'"a"' in drained(one.ask())
    assert time.monotonic() - began_s < 3


def test_a_store_that_goes_away_meanwhile_is_waited_for_as_long_as_a_lease(
    worker: Callable[..., Running], shared: Shared
) -> None:
    gate = Gate()
    one, other = worker([ROLE, delta("a"), gate, finish()], lease_s=1), worker(says("b"), lease_s=1)
    leading, led = at_once(1, lambda: drained(one.gateway.run(named())))
    assert gate.reached.wait(10)
    following, got = at_once(1, lambda: drained(other.gateway.run(named())))
    wait_for(lambda: shared.waits)
    shared.away = True
    began_s = time.monotonic()
    joined(following)
    assert 0.5 < time.monotonic() - began_s < 5
    assert b'"b"' in got[0]
    gate.open.set()
    joined(leading)
    assert b'"a"' in led[0]


def test_a_claim_that_came_too_late_for_who_asked_is_given_up(worker: Callable[..., Running], shared: Shared) -> None:
    class Late(Shared):
        def claim(self, wanted: Claim, digests: Sequence[str], lease_s: float) -> KeptAnswer | Claim:
            time.sleep(0.3)
            return super().claim(wanted, digests, lease_s)

    late = Late()
    one = Running(says("a"), shared=late)
    try:
        assert b'"a"' in drained(one.ask())
        wait_for(lambda: len(late.claims) == 1 and late.held == 0)
    finally:
        one.gateway.close(0.1)


def test_who_gives_itself_less_time_claims_nothing_for_others(worker: Callable[..., Running], shared: Shared) -> None:
    one = worker(says("a"))
    drained(one.ask(hurried=True))
    assert shared.claims == []
    drained(one.ask(Wish(reads=False), text="new"))
    assert shared.claims == []


def test_a_store_that_hangs_holds_nobody_up_beyond_its_deadline(shared: Shared) -> None:
    class Hanging(Shared):
        def claim(self, wanted: Claim, digests: Sequence[str], lease_s: float) -> KeptAnswer | Claim:
            time.sleep(1.5)
            return super().claim(wanted, digests, lease_s)

    hanging = Hanging()
    one = Running(says("a"), shared=hanging)
    try:
        began_s = time.monotonic()
        with contextlib.suppress(GatewayError):
            drained(one.gateway.run(named(deadline_s=began_s + 0.2)))
        assert time.monotonic() - began_s < 0.8
        wait_for(lambda: len(hanging.claims) >= 1 and hanging.held == 0)
    finally:
        one.gateway.close(0.1)


def test_who_wants_a_young_answer_waits_for_none(worker: Callable[..., Running], shared: Shared) -> None:
    gate = Gate()
    one, other = worker([ROLE, delta("a"), gate, finish()]), worker(says("young"))
    leading, _ = at_once(1, lambda: drained(one.ask()))
    assert gate.reached.wait(10)
    assert b'"young"' in drained(other.ask(Wish(max_age_s=0)))
    gate.open.set()
    joined(leading)


def test_no_other_tenant_waits_for_it(worker: Callable[..., Running], shared: Shared) -> None:
    gate = Gate()
    one, other = worker([ROLE, delta("a"), gate, finish()]), worker(says("b"))
    leading, _ = at_once(1, lambda: drained(one.gateway.run(named())))
    assert gate.reached.wait(10)
    assert b'"b"' in drained(other.gateway.run(named("else", caller=Caller("tok_2", "tok_2"))))
    gate.open.set()
    joined(leading)


def test_an_answer_whose_caller_has_left_is_had_by_who_waits_elsewhere(
    worker: Callable[..., Running], shared: Shared
) -> None:
    gate = Gate()
    one, other = worker([ROLE, delta("a"), gate, finish()]), worker(says("never"))
    asked = named()
    leading, led = at_once(1, lambda: drained(one.gateway.run(asked)))
    assert gate.reached.wait(10)
    following, got = at_once(1, lambda: drained(other.gateway.run(named())))
    wait_for(lambda: shared.waits)
    asked.cancellation.abort(CALLER_GONE)
    time.sleep(0.1)
    gate.open.set()
    joined(leading + following)
    assert isinstance(led[0], CallerGone)
    assert not isinstance(got[0], GatewayError)
    assert b'"a"' in got[0]
    assert other.calls == 0
