"""How the deployments are: told by attempts, shared by workers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from gateway.core.breaker import CLOSED, HALF_OPEN, OPEN
from gateway.core.calls import Attempt, Deployment
from gateway.core.policies import Policy, Trying
from gateway.core.routing import Alias, Catalogue, Reach, Target
from gateway.errors import (
    CallerGone,
    DeadlineExceeded,
    GatewayError,
    ProviderFailed,
    ProviderRefused,
    StoreUnavailable,
)
from gateway.health import Health
from gateway.secret import Secret
from gateway.storage.memory import MemoryCounters
from tests.builders import call

A = Deployment("openai", "a", api_key=Secret("k"))
RULES = Trying(allowed_fails=5, cooldown_s=5.0)
DOWN = ProviderFailed("down")


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Place:
    """Workers that share a store and a clock."""

    clock: Clock = field(default_factory=Clock)
    store: MemoryCounters = field(init=False)

    def __post_init__(self) -> None:
        self.store = MemoryCounters(lambda: self.clock.now_s + 5e8)

    def worker(self) -> Health:
        return Health(self.store, now_s=self.clock, wall_s=lambda: self.clock.now_s + 5e8, dice=lambda: 0.5)


def attempt_ends(health: Health, error: GatewayError | None, took_s: float = 0.0, **fields: object) -> None:
    """One attempt at `A`."""
    watching = health.watch(call(**fields), RULES)
    attempt = Attempt(A)
    watching.admit(A)
    watching.began(attempt, counted=True)
    health._now_s.now_s += took_s  # type: ignore[attr-defined]
    if error is None:
        watching.answered(attempt, stream=False)
    else:
        watching.failed(attempt, error)
    watching.ended(attempt)


def test_failures_open_a_breaker_and_the_first_answer_after_the_cooldown_closes_it() -> None:
    place = Place()
    here = place.worker()
    for _ in range(5):
        attempt_ends(here, DOWN)
    assert here.of(A).state == OPEN
    assert not here.of(A).usable
    place.clock.now_s += 5
    assert (here.of(A).state, here.of(A).probe) == (HALF_OPEN, True)
    attempt_ends(here, DOWN)
    assert (here.of(A).state, here.of(A).probe) == (HALF_OPEN, False)
    place.clock.now_s += 1.5
    attempt_ends(here, None)
    assert here.of(A).state == CLOSED


@pytest.mark.parametrize(
    ("error", "fields", "state"),
    [
        (ProviderRefused("bad"), {}, CLOSED),
        (ProviderRefused("pay", status=402), {}, OPEN),
        (CallerGone("left"), {}, CLOSED),
        (DeadlineExceeded("late"), {}, OPEN),
        (DeadlineExceeded("late"), {"hurried": True}, CLOSED),
    ],
)
def test_only_the_deployments_own_failures_count(error: GatewayError, fields: dict[str, object], state: str) -> None:
    here = Place().worker()
    for _ in range(25):
        attempt_ends(here, error, **fields)
    assert here.of(A).state == state


def test_a_refusal_shows_that_a_deployment_answers_again() -> None:
    place = Place()
    here = place.worker()
    for _ in range(5):
        attempt_ends(here, DOWN)
    place.clock.now_s += 5
    attempt_ends(here, ProviderRefused("bad"))
    assert here.of(A).state == CLOSED


def test_what_is_under_way_and_how_long_it_took_is_known() -> None:
    here = Place().worker()
    watching, attempt = here.watch(call(), RULES), Attempt(A)
    watching.began(attempt, counted=True)
    assert here.of(A).in_flight == 1
    watching.ended(attempt)
    watching.ended(attempt)
    assert here.of(A).in_flight == 0
    attempt_ends(here, None, took_s=2.0)
    assert here.of(A).whole_s == 2.0
    assert here.of(A).first_content_s is None


def test_calls_without_a_policy_are_not_watched() -> None:
    here = Place().worker()
    watching, attempt = here.watch(call(), None), Attempt(A)
    for _ in range(10):
        watching.began(attempt, counted=True)
        watching.failed(attempt, DOWN)
        watching.ended(attempt)
    assert here._known == {}


def test_a_call_is_the_only_probe_until_it_is_over() -> None:
    place = Place()
    here = place.worker()
    for _ in range(5):
        attempt_ends(here, DOWN)
    place.clock.now_s += 5
    one, other = here.watch(call(), RULES), here.watch(call(), RULES)
    assert one.admit(A)
    place.clock.now_s += 2
    assert not other.admit(A)
    attempt = Attempt(A)
    one.began(attempt, counted=True)
    one.failed(attempt, CallerGone("left"))
    one.ended(attempt)
    assert other.admit(A)


def test_tries_beyond_the_calls_are_bounded_for_each_deployment() -> None:
    here = Place().worker()
    watching = here.watch(call(), RULES)
    assert [watching.spare(A) for _ in range(5)] == [True] * 3 + [False] * 2
    assert watching.spare(Deployment("openai", "b"))
    for _ in range(100):
        attempt_ends(here, None)
    assert sum(watching.again(A) for _ in range(30)) == 7


def test_round_robin_takes_turns_and_a_look_takes_none() -> None:
    targets = tuple(Target("openai", name, Reach(Secret("k"))) for name in "ab")
    found = Catalogue(aliases={"m": Alias(targets, policy=Policy("round-robin"))})
    here = Place().worker()
    looked = [here.look(call("m"), found).attempts[0].deployment.model for _ in range(3)]
    planned = [here.plan(call("m"), found).attempts[0].deployment.model for _ in range(4)]
    assert (looked, planned) == (["a"] * 3, ["a", "b", "a", "b"])


def test_deployments_that_callers_made_up_are_forgotten() -> None:
    here = Place().worker()
    watching = here.watch(call(), RULES)
    for number in range(1500):
        watching.admit(Deployment("openai", f"m{number}"))
    assert len(here._known) == 1000
    assert Deployment("openai", "m1499") in here._known


# Several workers.


def test_a_breaker_that_opens_or_closes_in_one_worker_does_so_in_the_others() -> None:
    place = Place()
    one, other = place.worker(), place.worker()
    attempt_ends(other, None)
    for _ in range(5):
        attempt_ends(one, DOWN)
    one.exchange()
    other.exchange()
    assert other.of(A).state == OPEN
    place.clock.now_s += 5.01
    assert other.of(A).state == HALF_OPEN
    attempt_ends(other, None)
    other.exchange()
    assert one.of(A).state == HALF_OPEN
    one.exchange()
    assert one.of(A).state == CLOSED


def test_a_worker_that_first_hears_of_a_deployment_later_learns_it_as_well() -> None:
    place = Place()
    one, late = place.worker(), place.worker()
    for _ in range(5):
        attempt_ends(one, DOWN)
    one.exchange()
    attempt_ends(late, DOWN)
    late.exchange()
    assert late.of(A).state == OPEN


def test_a_reader_is_told_of_what_another_worker_alone_has_tried() -> None:
    place = Place()
    one, other = place.worker(), place.worker()
    for _ in range(5):
        attempt_ends(one, DOWN)
    one.exchange()
    spare = Deployment("openai", "spare")
    (there,) = other.told([A, spare])[A.name]
    assert (there.state, there.left_alone_s) == (OPEN, pytest.approx(5.0))
    assert [health.state for health in other.told([A, spare])[spare.name]] == [CLOSED]
    place.clock.now_s += 5.5
    assert [health.state for health in other.told([A])[A.name]] == [HALF_OPEN]
    attempt_ends(one, None)
    one.exchange()
    assert [health.state for health in other.told([A])[A.name]] == [CLOSED]
    assert one.told([])[A.name] == [one.of(A)]


def test_a_reader_is_told_what_is_known_while_the_store_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place()
    here = place.worker()
    attempt_ends(here, None)

    def away(_keys: Collection[str]) -> dict[str, str]:
        raise StoreUnavailable("away")

    monkeypatch.setattr(place.store, "fetch", away)
    assert list(here.told([Deployment("openai", "b"), A])) == [A.name]


def test_what_a_provider_last_said_of_its_limits_is_known() -> None:
    here = Place().worker()
    watching, said = here.watch(call(), RULES), {"x-provider-ratelimit-remaining-requests": "7"}
    for limits in (said, {}):
        attempt = Attempt(A, provider_headers=limits)
        watching.began(attempt, counted=True)
        watching.ended(attempt)
    assert here.of(A).limits == said


def test_what_the_store_has_forgotten_closes_nothing() -> None:
    place = Place()
    one, other = place.worker(), place.worker()
    attempt_ends(other, None)
    for _ in range(5):
        attempt_ends(one, DOWN)
    one.exchange()
    other.exchange()
    place.clock.now_s += 3600
    one.exchange()
    other.exchange()
    assert (one.of(A).state, other.of(A).state) == (HALF_OPEN, HALF_OPEN)


def test_two_that_tell_at_once_agree_in_the_end() -> None:
    place = Place()
    one, other = place.worker(), place.worker()
    for health in (one, other):
        for _ in range(5):
            attempt_ends(health, DOWN)
    for _ in range(3):
        one.exchange()
        other.exchange()
    assert (one.of(A).state, other.of(A).state) == (OPEN, OPEN)
    assert not any(known.untold for health in (one, other) for known in health._known.values())


class Away(MemoryCounters):
    """A store that does not answer."""

    asked = 0

    def fetch(self, keys: Collection[str]) -> dict[str, str]:
        self.asked += 1
        raise StoreUnavailable("away") from OSError("no route")


def test_of_all_workers_one_probes_a_deployment_within_a_second() -> None:
    place = Place()
    workers = [place.worker() for _ in range(3)]
    for _ in range(5):
        attempt_ends(workers[0], DOWN)
    for worker in workers[1:]:
        worker.watch(call(), RULES).began(Attempt(A), counted=True)
    for worker in workers:
        worker.exchange()
    place.clock.now_s += 5
    probed_s: list[float] = []
    for _ in range(40):
        for worker in workers:
            watching = worker.watch(call(), RULES)
            if watching.admit(A):
                probed_s.append(place.clock.now_s)
                probe = Attempt(A)
                watching.began(probe, counted=False)
                watching.failed(probe, DOWN)
                watching.ended(probe)
        place.clock.now_s += 0.25
    assert 5 <= len(probed_s) <= 10, "one a second for ten seconds at most, whoever sends it"
    assert min(later - before for before, later in pairwise(probed_s)) >= 1.0


def test_a_probe_that_could_not_be_asked_for_keeps_no_later_one_back(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place()
    here = place.worker()
    for _ in range(5):
        attempt_ends(here, DOWN)
    place.clock.now_s += 5

    def killed(*_: object) -> bool:
        raise InterruptedError("whoever did this work was killed")

    with monkeypatch.context() as patched:
        patched.setattr(place.store, "swap", killed)
        with pytest.raises(InterruptedError):
            here.watch(call(), RULES).admit(A)
    place.clock.now_s += 2
    assert here.watch(call(), RULES).admit(A)


def test_while_the_store_is_away_each_worker_probes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place()
    here, there = place.worker(), place.worker()
    for worker in (here, there):
        for _ in range(5):
            attempt_ends(worker, DOWN)

    def away(*_: object) -> bool:
        raise StoreUnavailable("away")

    monkeypatch.setattr(place.store, "swap", away)
    place.clock.now_s += 5
    assert here.watch(call(), RULES).admit(A)
    assert there.watch(call(), RULES).admit(A)


def test_while_the_store_is_away_each_worker_goes_by_what_it_sees(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, until: Callable[[Callable[[], bool]], None]
) -> None:
    monkeypatch.setattr("gateway.health._TELL_EVERY_S", 0.01)
    store = Away()
    here = Health(store)
    watching, attempt = here.watch(call(), RULES), Attempt(A)
    with caplog.at_level(logging.WARNING, "gateway.health"):
        here.start()
        here.start()
        for _ in range(5):
            watching.began(attempt, counted=True)
            watching.failed(attempt, DOWN)
            watching.ended(attempt)
        until(lambda: store.asked >= 3)
        here.close()
    assert here.of(A).state == OPEN
    assert [record.message for record in caplog.records].count("workers cannot tell one another of breakers") == 1


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    import time

    def wait(happened: Callable[[], bool]) -> None:
        end_s = time.monotonic() + 5
        while not happened():
            assert time.monotonic() < end_s
            time.sleep(0.01)

    return wait
