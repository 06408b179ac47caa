"""Whose failure it is, and what is tried after it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from gateway.core.calls import Attempt, Deployment
from gateway.core.choosing import Plan
from gateway.core.policies import Trying
from gateway.core.trying import CALLERS, DEPLOYMENTS, REFUSED, TOO_LONG, Turns, pause_s, wait_s, whose
from gateway.errors import (
    CallerGone,
    DeadlineExceeded,
    GatewayError,
    InvalidRequest,
    ProviderFailed,
    ProviderInvalid,
    ProviderLimited,
    ProviderRefused,
    ProviderRejectedKey,
    ProviderStreamEnded,
    ProviderTimeout,
    ProviderUnreachable,
)

DOWN = ProviderFailed("down", status=503)
LIMITED = ProviderLimited("slow down", retry_after="2")
LONG = ProviderRefused("too long", code="context_length_exceeded")
FILTERED = ProviderRefused("no", code="content_filter")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        *((kind("x"), DEPLOYMENTS) for kind in (ProviderLimited, ProviderFailed, ProviderTimeout, ProviderInvalid)),
        *((kind("x"), DEPLOYMENTS) for kind in (ProviderUnreachable, ProviderStreamEnded, ProviderRejectedKey)),
        (ProviderRefused("pay", status=402), DEPLOYMENTS),
        *((ProviderRefused("x", status=status), CALLERS) for status in (400, 404, 409, 413, 422)),
        *((kind("x"), CALLERS) for kind in (InvalidRequest, DeadlineExceeded, CallerGone)),
        (LONG, TOO_LONG),
        (ProviderRefused("This model's maximum context length is 8192 tokens. However, …"), TOO_LONG),
        (ProviderRefused("prompt is too long: 210000 tokens > 200000 maximum"), TOO_LONG),
        (ProviderRefused("The input token count (9) exceeds the maximum number of tokens allowed (8)."), TOO_LONG),
        (ProviderRefused("prompt is too long", status=404), CALLERS),
        (FILTERED, REFUSED),
        (ProviderRefused("x", code="content_policy_violation"), REFUSED),
        (ProviderRefused("Your request was rejected as a result of our safety system."), REFUSED),
    ],
)
def test_each_failure_is_somebodys(error: GatewayError, kind: str) -> None:
    assert whose(error) == kind


def test_what_a_provider_wants_to_be_left_alone_for_is_read_in_each_form() -> None:
    now_s = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT, RFC 9110's own example
    assert wait_s(ProviderLimited("x", retry_after="2.5"), now_s) == 2.5
    assert wait_s(ProviderLimited("x", retry_after="9", retry_after_ms="250"), now_s) == 0.25
    assert wait_s(ProviderLimited("x", retry_after="Sun, 06 Nov 1994 08:49:40 GMT"), now_s) == 3.0
    assert wait_s(ProviderLimited("x", retry_after="Sun, 06 Nov 1994 08:49:30 GMT"), now_s) == 0.0
    assert wait_s(ProviderLimited("x", retry_after="Xxx, no date at all"), now_s) == 0.0
    assert wait_s(ProviderLimited("x"), now_s) == 0.0


@pytest.mark.parametrize(
    "date",
    [
        "Mon, 01 Jan 99999 00:00:00 GMT",
        "Mon, 01 Jan 999999999 00:00:00 GMT",
        "Mon, 01 Jan 0000 00:00:00 GMT",
        "Mon, 99 Jan 2026 99:99:99 GMT",
        "Mon, 01 Jan 0001 00:00:00 GMT",
    ],
)
def test_a_date_that_is_none_is_no_wait_and_no_fault(date: str) -> None:
    assert wait_s(ProviderLimited("x", retry_after=date), 4e9) == 0.0


def test_a_pause_is_drawn_up_to_a_bound_that_doubles_and_comes_behind_what_is_wanted() -> None:
    assert [pause_s(before, 0.0, 0.5) for before in range(6)] == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]
    assert pause_s(0, 2.0, 0.0) == 2.0
    assert pause_s(0, 2.0, 0.99) < 2.5


@dataclass
class Doors:
    """A gate that lets through all but `shut`, and has so many tries more for each deployment."""

    shut: set[str] = field(default_factory=set)
    budget: int = 100

    def closed(self, deployment: Deployment) -> bool:
        return self.admit(deployment)

    def admit(self, deployment: Deployment) -> bool:
        return deployment.model not in self.shut

    def spare(self, _deployment: Deployment) -> bool:
        self.budget -= 1
        return self.budget >= 0

    def again(self, deployment: Deployment) -> bool:
        return self.admit(deployment) and self.spare(deployment)


def attempts(*names: str) -> tuple[Attempt, ...]:
    """`m/a` is the deployment `a` of the name `m`."""
    return tuple(Attempt(Deployment("openai", name[2:]), name=name[0]) for name in names)


def story(
    plan: Plan, *errors: GatewayError, gate: Doors | None = None, once: bool = False, left_s: float = 60.0
) -> list[tuple[str, float]]:
    """Which deployments are tried when each failure comes in turn, and after which pause."""
    turns = Turns(plan, gate or Doors(), once=once)
    attempt = turns.first()
    told = [(attempt.deployment.model, 0.0)]
    for error in errors:
        turn = turns.after(attempt, error, 0.0, left_s, 0.5)
        if turn is None:
            break
        attempt = turn.attempt
        told.append((attempt.deployment.model, turn.pause_s))
    return told


def names(told: list[tuple[str, float]]) -> str:
    return "".join(name for name, _ in told)


ONE = Plan(attempts("m/a"), "ordered", Trying(retries=2))
TWO = Plan(attempts("m/a", "m/b"), "ordered", Trying(retries=1))
WITH_OTHERS = Plan(
    attempts("m/a", "m/b", "o/c", "p/d"),
    "ordered",
    Trying(retries=1),
    too_long=attempts("l/x", "l/y"),
    refused=attempts("r/z"),
)
MANY = [DOWN] * 20


def test_without_a_policy_each_is_tried_once_at_once() -> None:
    assert story(Plan(attempts("m/a", "m/b")), *MANY, gate=Doors({"a", "b"}, 0)) == [("a", 0.0), ("b", 0.0)]
    assert names(story(Plan(attempts("m/a")), *MANY)) == "a"


def test_the_only_one_is_asked_again_after_pauses_as_often_as_allowed() -> None:
    assert story(ONE, *MANY) == [("a", 0.0), ("a", 0.25), ("a", 0.5)]
    assert names(story(Plan(attempts("m/a"), "ordered", Trying(retries=0)), *MANY)) == "a"


def test_another_is_tried_at_once_and_the_first_again_only_then() -> None:
    assert story(TWO, *MANY) == [("a", 0.0), ("b", 0.0), ("a", 0.25)]


def test_the_names_behind_follow_when_all_of_the_first_has_failed() -> None:
    assert names(story(WITH_OTHERS, *MANY)) == "abacd"


def test_a_fault_of_the_request_is_tried_nowhere_else() -> None:
    assert names(story(WITH_OTHERS, ProviderRefused("bad"))) == "a"
    assert names(story(WITH_OTHERS, DOWN, ProviderRefused("bad", status=404))) == "ab"


def test_a_prompt_that_is_too_long_or_refused_goes_to_other_names_once() -> None:
    assert names(story(WITH_OTHERS, LONG, DOWN)) == "axy"
    assert names(story(WITH_OTHERS, LONG, LONG)) == "ax"
    assert names(story(WITH_OTHERS, DOWN, FILTERED, DOWN)) == "abz"
    assert names(story(TWO, LONG)) == "a"


def test_a_rejected_key_is_not_asked_again() -> None:
    rejected = ProviderRejectedKey("no")
    assert names(story(ONE, rejected)) == "a"
    assert names(story(TWO, rejected, DOWN, DOWN)) == "abb"
    assert names(story(TWO, ProviderRefused("pay", status=402), rejected)) == "ab"


def test_who_is_told_not_to_try_again_does_not() -> None:
    assert names(story(ONE, ProviderFailed("x", should_retry=False))) == "a"


def test_a_short_retry_after_is_obeyed_and_a_long_one_is_the_callers_to_obey() -> None:
    assert story(ONE, LIMITED) == [("a", 0.0), ("a", 2.25)]
    assert names(story(ONE, ProviderLimited("x", retry_after="30"))) == "a"
    assert names(story(ONE, LIMITED, left_s=2.0)) == "a", "not past the deadline"
    assert story(TWO, LIMITED, ProviderLimited("x", retry_after="1")) == [("a", 0.0), ("b", 0.0), ("b", 1.25)]


def test_nothing_is_begun_just_before_the_deadline() -> None:
    assert names(story(TWO, DOWN, left_s=0.05)) == "a"


def test_where_no_fallback_is_wanted_there_is_one_try() -> None:
    assert names(story(WITH_OTHERS, *MANY, once=True)) == "a"
    assert names(story(WITH_OTHERS, LONG, once=True)) == "a"


def test_a_first_try_is_never_refused() -> None:
    assert names(story(ONE, *MANY, gate=Doors({"a"}, 0))) == "a"
    assert names(story(TWO, *MANY, gate=Doors({"a", "b"}, 0))) == "a"


def test_one_that_is_not_let_through_is_tried_when_nothing_else_is_left_if_the_budget_has_a_try() -> None:
    assert names(story(WITH_OTHERS, *MANY, gate=Doors({"a"}))) == "bbcda"
    assert names(story(WITH_OTHERS, *MANY, gate=Doors({"a"}, 1))) == "bbcd"


def test_without_budget_nothing_is_asked_again_and_others_are_tried_all_the_same() -> None:
    assert names(story(WITH_OTHERS, *MANY, gate=Doors(budget=0))) == "abcd"


def test_there_is_more_to_try_as_long_as_another_deployment_is_well() -> None:
    turns = Turns(TWO, Doors())
    turns.first()
    assert turns.more
    for plan, gate, once in ((ONE, Doors(), False), (TWO, Doors({"b"}), False), (TWO, Doors(), True)):
        turns = Turns(plan, gate, once=once)
        turns.first()
        assert not turns.more
