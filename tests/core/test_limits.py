"""From rules to claims, refusals, headers and charges."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from gateway.core.calls import Bill, Caller
from gateway.core.estimates import Estimate
from gateway.core.limits import (
    Part,
    Position,
    Used,
    charged,
    counted,
    dollars,
    duration,
    headers,
    limits_requests,
    parts,
    refusal,
    unpriced,
    used_by,
)
from gateway.core.rules import BUDGET, LIMIT, MICRO, PARALLEL, REQUESTS, TOKENS, USD, Match, Rule
from gateway.core.transcript import Usage
from gateway.core.windows import Standing
from gateway.errors import BudgetExceeded, LimitExceeded
from tests.builders import attempt

NOW_S = 1_795_700_000.0  # 2026-11-26T13:33:20Z
CALLER = Caller("key_k1", "p_1", "key", key_id="k1", project="Search", user="ada", project_id="p_1", user_id="u_1")
TOKEN = Caller("tok_1", "tok_1")
MODEL = "openai/gpt-test"
WANTED = Estimate(100, 50, stated=True)


def limit(measure: str = REQUESTS, most: int = 60, period: str | None = "minute", **more: Any) -> Rule:
    return Rule(more.pop("id", "lim_abcdefghijkl"), LIMIT, measure, most, period, **more)


def budget(measure: str = USD, most: int = 10 * MICRO, period: str = "month", **more: Any) -> Rule:
    return Rule(more.pop("id", "bud_abcdefghijkl"), BUDGET, measure, most, period, **more)


def part(rule: Rule, *, caller: Caller = CALLER, wanted: Estimate | None = WANTED, cost: int = MICRO) -> Part:
    [made] = parts([rule], caller, MODEL, wanted, cost, NOW_S)
    return made


# What a call claims.


@pytest.mark.parametrize(
    ("rule", "amount", "length_s"),
    [
        (limit(), 1, 60.0),
        (limit(period="day"), 1, 86_400.0),
        (limit(TOKENS, 1000), 150, 60.0),
        (limit(TOKENS, 1000, "day"), 150, 86_400.0),
        (limit(PARALLEL, 5, None), 1, None),
        (budget(), MICRO, None),
        (budget(TOKENS, 1000), 150, None),
    ],
)
def test_a_rule_takes_its_measure_of_a_call(rule: Rule, amount: int, length_s: float | None) -> None:
    claim = part(rule).claim
    assert (claim.amount, claim.limit, claim.window.length_s) == (amount, rule.most, length_s)
    assert claim.opened is (rule.kind == BUDGET)


def test_a_call_that_has_no_model_say_anything_claims_requests_alone() -> None:
    rules = [limit(), limit(TOKENS), limit(PARALLEL, 5, None), budget(), budget(TOKENS)]
    made = parts(rules, CALLER, MODEL, None, 0, NOW_S)
    assert [one.rule.measure for one in made] == [REQUESTS, PARALLEL]


@pytest.mark.parametrize(
    ("wanted", "amount"),
    [
        (Estimate(10, 256, stated=False), 200),
        (Estimate(250, 256, stated=False), 250),
        (Estimate(10, 256, stated=True), 266),
        (Estimate(10, 20, stated=False), 30),
    ],
)
def test_a_guess_alone_makes_no_call_larger_than_a_limit_of_tokens(wanted: Estimate, amount: int) -> None:
    assert part(limit(TOKENS, 200), wanted=wanted).claim.amount == amount
    assert part(budget(TOKENS, 200), wanted=wanted).claim.amount == wanted.tokens, "but a budget is not passed by it"


@pytest.mark.parametrize(
    ("each", "caller", "values"),
    [
        ((), CALLER, {}),
        (("key",), CALLER, {"key": "k1"}),
        (("user", "model"), CALLER, {"user": "u_1", "model": MODEL}),
        (("project", "caller"), CALLER, {"project": "p_1", "caller": "key_k1"}),
        (("key", "user", "project"), TOKEN, {"key": None, "user": None, "project": None}),
        (("user",), Caller("jwt_1", "t", "jwt", user="ada"), {"user": "ada"}),
    ],
)
def test_it_is_counted_for_whom_the_rule_says(
    each: tuple[str, ...], caller: Caller, values: Mapping[str, str | None]
) -> None:
    assert part(limit(each=each), caller=caller).each == values


def subjects(rule: Rule, *callers: Caller, model: str = MODEL, now_s: float = NOW_S) -> set[str]:
    return {one.claim.subject for each in callers for one in parts([rule], each, model, WANTED, 1, now_s)}


def test_names_with_slashes_and_long_ones_are_told_apart() -> None:
    tricky = [
        Caller("x", "t", user="a/b", project="c"),
        Caller("x", "t", user="a", project="b/c"),
        Caller("x", "t", user="a%2Fb", project="c"),
        Caller("x", "t", user="z" * 5000, project="c"),
        Caller("x", "t", user="z" * 5001, project="c"),
        Caller("x", "t", user="\0", project="\ud800"),
    ]
    found = subjects(limit(each=("user", "project")), *tricky)
    assert len(found) == len(tricky)
    every = budget(each=("key", "user", "project", "caller", "model"))
    assert all(len(one) <= 512 for one in subjects(every, *tricky, model="m" * 512))


def test_a_budgets_counter_is_named_by_its_period_and_by_what_it_counts() -> None:
    rule = budget(each=("key",))
    [here] = subjects(rule, CALLER)
    assert here.startswith("budget/bud_abcdefghijkl/k1/2026-11/")
    assert subjects(rule, CALLER, now_s=NOW_S + 31 * 86_400).isdisjoint({here})
    assert subjects(budget(each=("key",), most=7), CALLER) == {here}, "it goes on when more is allowed"
    for changed in (budget(TOKENS, each=("key",)), budget(each=("key",), match=Match(model="openai/*"))):
        assert subjects(changed, CALLER).isdisjoint({here})


def test_requests_a_minute_are_limited_by_limits_of_that_alone() -> None:
    others = [limit(period="day"), limit(TOKENS), budget(TOKENS)]
    assert not limits_requests(others)
    assert limits_requests([*others, limit()])


# What is charged.


def test_a_call_is_charged_for_all_its_attempts_and_rounded_up_once() -> None:
    first, second, third = attempt(), attempt(number=2), attempt(number=3)
    first.bill = Bill(Usage(10, 5), False, Decimal("0.0000005"))
    second.bill = Bill(Usage(10, 7), True, Decimal("0.0000006"))
    third.bill = Bill()
    assert used_by([first, second, third]) == Used(32, 2)
    assert used_by([attempt()]) == Used(0, 0)
    assert used_by([]) == Used(0, 0)


def test_each_measure_is_charged_with_its_own() -> None:
    used = Used(32, 7)
    rules = [limit(), limit(PARALLEL, 5, None), limit(TOKENS), budget(), budget(TOKENS)]
    assert [charged(part(rule), used) for rule in rules] == [1, 0, 32, 7, 32]


# Refusals.


def standing(used: int = 60, limit: int = 60, wait_s: float | None = 1.234, empty_s: float | None = 61.0) -> Standing:
    return Standing(used, limit, wait_s, empty_s)


FREE = Standing(1, 60, 0.0, 61.0)


def test_a_limit_says_its_name_how_it_stands_and_when_to_try_again() -> None:
    rule = limit(name="per caller", each=("caller",))
    refused, error = refusal([part(rule)], [standing()], NOW_S)
    assert refused.rule is rule
    assert isinstance(error, LimitExceeded)
    assert error.message == (
        "The limit 'per caller' (lim_abcdefghijkl) allows 60 requests a minute for each caller; 60 are taken. "
        "Try again in 1.234s."
    )
    assert (error.http_status, error.public_code, error.public_type) == (429, "rate_limit_exceeded", "rate_limit_error")
    assert (error.retry_after, error.retry_after_ms, error.should_retry) == ("2", "1234", True)
    assert error.refused_by == rule.id


def test_what_a_limit_never_has_room_for_is_not_to_be_tried_again() -> None:
    _, error = refusal([part(limit(TOKENS, 100))], [standing(0, 100, None)], NOW_S)
    assert "this call may take 150, which it never has room for" in error.message
    assert (error.retry_after, error.should_retry) == (None, False)
    _, error = refusal([part(limit(PARALLEL, 0, None))], [standing(0, 0, None)], NOW_S)
    assert error.should_retry is False


@pytest.mark.parametrize(
    ("rule", "amount", "said"),
    [
        (limit(), 60, "60 requests"),
        (limit(TOKENS, 100), 1_250_000, "1,250,000 tokens"),
        (limit(PARALLEL, 5, None), 5, "5 calls"),
    ],
)
def test_what_a_rule_counts_has_a_name(rule: Rule, amount: int, said: str) -> None:
    assert counted(rule, amount) == said


def test_of_calls_at_once_one_is_soon_over() -> None:
    _, error = refusal([part(limit(PARALLEL, 5, None))], [standing(5, 5, None, None)], NOW_S)
    assert "allows 5 calls at once; 5 are taken. Try again in 1s." in error.message
    assert (error.retry_after, error.retry_after_ms) == ("1", "1000")


def test_a_budget_says_how_much_and_when_its_period_ends() -> None:
    _, error = refusal([part(budget(name="team"))], [standing(9_500_000, 10 * MICRO, None, None)], NOW_S)
    assert isinstance(error, BudgetExceeded)
    assert error.message == (
        "The budget 'team' (bud_abcdefghijkl) has 10.00 USD: 9.50 USD are used or reserved, and this call may take "
        "1.00 USD. It ends at 2026-12-01T00:00:00Z."
    )
    assert (error.http_status, error.public_code, error.should_retry) == (429, "budget_exceeded", False)
    _, error = refusal([part(budget(TOKENS, 100, "total"))], [standing(100, 100, None, None)], NOW_S)
    assert error.message.endswith(
        "100 tokens are used or reserved, and this call may take 150 tokens. It is not renewed."
    )


@pytest.mark.parametrize(
    ("claimed", "standings", "longest"),
    [
        ([limit(id="a"), limit(id="b", period="day")], [standing(wait_s=50.0), standing(wait_s=700.0)], "b"),
        ([limit(id="a"), limit(id="b", period="day")], [standing(wait_s=50.0), FREE], "a"),
        (
            [limit(id="a", period="day"), budget(id="b", period="hour")],
            [standing(wait_s=9e4), standing(wait_s=None)],
            "a",
        ),
        ([budget(id="a", period="total"), budget(id="b")], [standing(wait_s=None), standing(wait_s=None)], "a"),
        ([limit(PARALLEL, 5, None, id="a"), limit(id="b")], [standing(wait_s=None), standing(wait_s=0.4)], "a"),
        ([limit(PARALLEL, 5, None, id="a"), limit(id="b")], [standing(wait_s=None), standing(wait_s=7.0)], "b"),
    ],
)
def test_a_refusal_names_the_rule_that_holds_longest(
    claimed: list[Rule], standings: list[Standing], longest: str
) -> None:
    _, error = refusal([part(rule) for rule in claimed], standings, NOW_S)
    assert error.refused_by == longest


def test_a_model_without_a_price_is_refused_where_money_is_counted() -> None:
    assert unpriced([limit(), budget(TOKENS)], MODEL) is None
    error = unpriced([limit(), budget(name="team")], MODEL)
    assert error is not None
    assert (error.http_status, error.public_code, error.should_retry) == (403, "model_not_priced", False)
    assert error.refused_by == "bud_abcdefghijkl"
    assert "'openai/gpt-test'" in error.message


# Headers.


def position(rule: Rule, one: Standing, *, admitted: bool = True, **more: Any) -> Position:
    return Position(part(rule, **more), one, admitted)


def told(*positions: Position, caller: Caller = CALLER, anthropic: bool = False) -> dict[str, str]:
    return headers(positions, caller, NOW_S, anthropic=anthropic)


def test_the_tightest_limit_of_each_measure_is_told() -> None:
    said = told(
        position(limit(), Standing(10, 60, 0.0, 12.5)),
        position(limit(period="day"), Standing(995, 1000, 0.0, 3600.0)),
        position(limit(TOKENS, 9000), Standing(150, 9000, 0.0, 0.25)),
        position(limit(PARALLEL, 1, None), Standing(1, 1, 0.0, None)),
    )
    assert said == {
        "x-ratelimit-limit-requests": "1000",
        "x-ratelimit-remaining-requests": "5",
        "x-ratelimit-reset-requests": "1h0m0s",
        "x-ratelimit-limit-tokens": "9000",
        "x-ratelimit-remaining-tokens": "8850",
        "x-ratelimit-reset-tokens": "250ms",
    }


def test_anthropics_names_have_times_of_day() -> None:
    assert told(position(limit(), Standing(10, 60, 0.0, 12.5)), anthropic=True) == {
        "anthropic-ratelimit-requests-limit": "60",
        "anthropic-ratelimit-requests-remaining": "50",
        "anthropic-ratelimit-requests-reset": "2026-11-26T13:33:33Z",
    }


def test_of_a_budget_nothing_is_told_before_its_soft_share() -> None:
    rule = budget(soft=0.8, name="équipe")
    assert told(position(rule, Standing(8_900_000, 10 * MICRO, 0.0, None))) == {}, "a tenth is this call's own"
    said = told(position(rule, Standing(9_390_000, 10 * MICRO, 0.0, None)))
    assert said == {"x-gateway-budget-warning": "%C3%A9quipe 83%"}
    said = told(position(rule, Standing(8 * MICRO, 10 * MICRO, None, None), admitted=False))
    assert said == {"x-gateway-budget-warning": "%C3%A9quipe 80%"}


def test_the_budget_that_is_used_most_is_the_one_that_is_warned_of() -> None:
    first, second = budget(soft=0.5, id="bud_1"), budget(soft=0.5, id="bud_2")
    stands = [Standing(7 * MICRO, 10 * MICRO, 0.0, None), Standing(9 * MICRO, 10 * MICRO, 0.0, None)]
    said = told(*(position(rule, one, cost=0) for rule, one in zip((first, second), stands, strict=True)))
    assert said == {"x-gateway-budget-warning": "bud_2 90%"}


@pytest.mark.parametrize(
    ("rule", "caller", "spend"),
    [
        (budget(each=("key",)), CALLER, "1.234567"),
        (budget(match=Match(key="k1")), CALLER, "1.234567"),
        (budget(each=("user",)), CALLER, None),
        (budget(TOKENS, each=("key",)), CALLER, None),
        (budget(each=("key",)), TOKEN, None),
    ],
)
def test_what_a_key_has_spent_is_told_where_its_money_is_counted(rule: Rule, caller: Caller, spend: str | None) -> None:
    said = told(position(rule, Standing(1_234_567, 10 * MICRO, 0.0, None), cost=0, caller=caller), caller=caller)
    assert said.get("x-gateway-key-spend") == spend
    assert ("x-gateway-key-spend" in said) is (spend is not None)


@pytest.mark.parametrize(
    ("span_s", "text"),
    [
        (0.0, "0s"), (0.0001, "1ms"), (0.012, "12ms"), (0.9994, "1s"), (1.0, "1s"), (1.5, "1.5s"), (60.0, "1m0s"),
        (360.0, "6m0s"), (61.234, "1m1.234s"), (86_340.0, "23h59m0s"), (-5.0, "0s"),
    ],
)  # fmt: skip
def test_a_span_is_written_as_openai_writes_it(span_s: float, text: str) -> None:
    assert duration(span_s) == text


@pytest.mark.parametrize(
    ("micro", "text"), [(0, "0.00"), (1, "0.000001"), (1_500_000, "1.50"), (10_000_000, "10.00"), (1_230_000, "1.23")]
)
def test_money_is_written_exactly(micro: int, text: str) -> None:
    assert dollars(micro) == text
