"""When a deployment is left alone, how often it is tried beyond its calls, and what averages say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.breaker import CLOSED, HALF_OPEN, OPEN, Average, Breaker, RetryBudget
from gateway.core.policies import Trying

RULES = Trying(allowed_fails=5, cooldown_s=5.0)


def opened(at_s: float = 100.0) -> Breaker:
    breaker = Breaker()
    assert [breaker.failed(at_s, RULES) for _ in range(5)] == [False] * 4 + [True]
    return breaker


def test_so_many_failures_in_a_row_open_it_and_a_success_between_begins_anew() -> None:
    breaker = Breaker()
    for _ in range(4):
        assert not breaker.failed(1.0, RULES)
    breaker.succeeded(1.0, 1.0)
    for _ in range(4):
        assert not breaker.failed(1.0, RULES)
    assert breaker.state(1.0) == CLOSED
    assert breaker.failed(1.0, RULES)
    assert breaker.state(1.0) == OPEN


def test_half_of_the_last_twenty_open_it_however_they_are_spread() -> None:
    breaker, rules = Breaker(), Trying(allowed_fails=100)
    for number in range(19):
        if number % 2:
            breaker.succeeded(1.0, 1.0)
        else:
            assert not breaker.failed(1.0, rules), "fewer than twenty tell nothing"
    breaker.succeeded(1.0, 1.0)
    assert breaker.failed(1.0, rules)


@pytest.mark.parametrize("allowed", [1, 5, 20, 1000])
def test_it_opens_within_twenty_failures_whatever_is_allowed(allowed: int) -> None:
    breaker = Breaker()
    assert any(breaker.failed(1.0, Trying(allowed_fails=allowed)) for _ in range(20))


def test_after_the_cooldown_one_call_at_a_time_may_probe_and_one_a_second() -> None:
    breaker = opened(100.0)
    assert not breaker.admit(104.9)
    assert breaker.state(105.0) == HALF_OPEN
    assert breaker.admit(105.0)
    assert not breaker.admit(105.0), "a probe is under way"
    assert not breaker.admit(107.0), "it still is"
    breaker.released()
    assert breaker.admit(107.0)
    breaker.released()
    assert not breaker.admit(108.1), "hardly a second later"
    assert breaker.admit(108.2)


def test_a_probe_that_succeeds_closes_it_and_one_that_fails_waits_a_second_alone() -> None:
    breaker = opened(100.0)
    assert breaker.admit(105.0)
    assert not breaker.failed(105.1, RULES)
    breaker.released()
    assert not breaker.admit(105.5)
    assert breaker.admit(106.3)
    breaker.succeeded(106.1, 106.0)
    assert breaker.state(106.1) == CLOSED
    assert not breaker.failed(106.2, RULES), "what was before does not count any more"


def test_a_call_that_was_sent_before_it_opened_does_not_close_it() -> None:
    breaker = opened(100.0)
    breaker.succeeded(101.0, 99.0)
    assert breaker.state(101.0) == OPEN
    breaker.succeeded(101.0, 100.5)
    assert breaker.state(101.0) == CLOSED


def test_a_probe_of_which_nothing_is_heard_holds_up_the_others_for_half_a_minute_at_most() -> None:
    breaker = opened(100.0)
    assert breaker.admit(105.0)
    assert not breaker.admit(134.9)
    assert breaker.admit(135.0)


def test_three_tries_more_are_always_allowed_and_then_a_tenth_of_the_calls() -> None:
    budget = RetryBudget()
    assert [budget.take(1.0, 0.1) for _ in range(4)] == [True, True, True, False]
    for _ in range(100):
        budget.call(2.0)
    assert sum(budget.take(2.0, 0.1) for _ in range(50)) == 10 - 3
    assert not budget.take(10.9, 0.1)
    assert budget.take(11.0, 0.1), "the first three are ten seconds old"


def test_a_budget_of_nothing_allows_nothing() -> None:
    assert not RetryBudget().take(1.0, 0.0)


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 40), st.integers(0, 40)), max_size=60))
def test_no_try_is_taken_beyond_the_share_or_the_few(steps: list[tuple[float, int, int]]) -> None:
    budget, now_s = RetryBudget(), 0.0
    seen: list[tuple[int, int, int]] = []
    for gap_s, calls, asked in steps:
        now_s += gap_s
        for _ in range(calls):
            budget.call(now_s)
        taken = sum(budget.take(now_s, 0.1) for _ in range(asked))
        seen.append((int(now_s), calls, taken))
        window = [one for one in seen if one[0] > int(now_s) - 10]
        allowed = max(3, 0.1 * sum(one[1] for one in window))
        held = sum(one[2] for one in window)
        assert not taken or held <= allowed
        assert taken == asked or held + 1 > allowed, "what is allowed is given"
    always = 3 * (int(now_s) // 10 + 1)
    assert sum(one[2] for one in seen) <= 0.1 * sum(one[1] for one in seen) + always


def test_an_average_follows_what_is_new() -> None:
    average = Average()
    assert average.value is None
    average.add(1.0)
    assert average.value == 1.0
    for _ in range(20):
        average.add(3.0)
    assert average.value == pytest.approx(3.0, abs=0.01)


def test_with_no_time_to_be_left_alone_it_never_opens() -> None:
    breaker = Breaker()
    assert not any(breaker.failed(1.0, Trying(allowed_fails=1, cooldown_s=0.0)) for _ in range(50))
    assert breaker.state(1.0) == CLOSED
