"""What the ledger says of a call: sums over its attempts, exact, and nothing that nobody knows."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from gateway.core.calls import Attempt, Bill, Caller, Outcome, Remembered
from gateway.core.ledger import MOST_NANO, cost_usd, entry, nano, opening, summary
from gateway.core.transcript import Usage
from gateway.errors import CallerGone, ProviderTimeout
from tests.builders import attempt, call

NOW_S = 1_764_000_000.0


def tried(*names: str) -> list[Attempt]:
    made = [attempt(name, number=number) for number, name in enumerate(names, 1)]
    for one in made:
        one.started_s, one.ended_s = NOW_S, NOW_S + 2
    return made


def ended(attempts: list[Attempt], status: int = 200, **fields: Any) -> Outcome:
    return Outcome(status, attempts, NOW_S + 3, **fields)


@pytest.mark.parametrize(
    ("usd", "expected"),
    [
        ("0", 0),
        ("0.0000000004", 0),
        ("0.0000000005", 1),
        ("0.0000000014999", 1),
        ("0.0000000025", 3),
        ("12.000000001", 12_000_000_001),
        ("1000000", MOST_NANO),
        ("1e30", MOST_NANO),
    ],
)
def test_dollars_become_nano_dollars_rounded_half_up_and_bounded(usd: str, expected: int) -> None:
    assert nano(Decimal(usd)) == expected


def test_attempts_are_added_up_before_they_are_rounded() -> None:
    third = Bill(Usage(1, 1), cost_usd=Decimal("0.0000000003"))
    assert cost_usd([third, third]) == Decimal("0.0000000006")
    facts = entry(call(), ["openai/a"], ended(tried("openai/a", "openai/a")), [third, third])
    assert facts["cost_nano"] == 1


def test_an_attempt_that_used_something_without_a_price_leaves_the_cost_unknown() -> None:
    priced, unpriced, nothing = Bill(Usage(1), cost_usd=Decimal(1)), Bill(Usage(1)), Bill()
    assert cost_usd([priced, unpriced]) is None
    assert cost_usd([nothing, priced]) == 1
    assert cost_usd([nothing]) == 0
    facts = entry(call(), ["openai/a"], ended(tried("openai/a")), [unpriced])
    assert (facts["cost_nano"], facts["total_tokens"]) == (None, 1)


def test_a_failed_attempt_that_used_tokens_counts_and_has_its_own_bill() -> None:
    attempts = tried("openai/a", "anthropic/b")
    attempts[0].error = ProviderTimeout("late")
    attempts[1].first_content_s = NOW_S + 0.5
    bills = [
        Bill(Usage(prompt=10, completion=4, cached=2, reasoning=1), estimated=True, cost_usd=Decimal("0.001")),
        Bill(Usage(prompt=10, completion=7, cache_write=3), cost_usd=Decimal("0.002")),
    ]
    facts = entry(call("fast", tags=["x"]), ["openai/a", "anthropic/b"], ended(attempts), bills)
    names = ("prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
    assert [facts[name] for name in names] == [20, 11, 2, 3, 1]
    assert (facts["total_tokens"], facts["cost_nano"], facts["estimated"]) == (31, 3_000_000, True)
    assert (facts["provider"], facts["deployment"], facts["attempts"]) == ("anthropic", "anthropic/b", 2)
    assert facts["time_to_first_token_s"] == 0.5
    assert [(one["attempt"], one["deployment"], one["cost_usd"]) for one in facts["price"]] == [
        (1, "openai/a", "0.001"),
        (2, "anthropic/b", "0.002"),
    ]


def test_a_call_that_nobody_answered_has_no_tokens_and_costs_nothing() -> None:
    [one] = attempts = tried("openai/a")
    one.error = error = ProviderTimeout("late")
    facts = entry(call(), ["openai/a"], ended(attempts, error.http_status, error=error), [Bill()])
    assert (facts["status"], facts["cost_nano"], facts.get("prompt_tokens")) == (error.http_status, 0, None)
    assert facts["error_code"] == (error.public_code or error.public_type)
    assert facts["price"] is None
    none = entry(call(), [], ended([], 503, error=error), [])
    assert (none["attempts"], none["cost_nano"], none.get("deployment")) == (0, 0, None)


def test_a_caller_that_left_is_told_apart() -> None:
    gone = CallerGone("gone")
    facts = entry(call(), ["openai/a"], ended(tried("openai/a"), error=gone, caller_gone=True), [Bill()])
    assert facts["caller_gone"] is True


def test_it_says_who_called_and_what_for() -> None:
    caller = Caller(
        "key_abc", "proj_1", "key", key_id="abc", project="shop", project_id="proj_1", user="ann", user_id="user_1"
    )
    facts = opening(call("fast", caller=caller, stream=True, tags=("a", "b")), ["openai/x", "groq/y"])
    assert facts == {
        "operation": "chat",
        "caller": "key_abc",
        "caller_kind": "key",
        "tenant": "proj_1",
        "key_id": "abc",
        "project_id": "proj_1",
        "project": "shop",
        "user_id": "user_1",
        "user": "ann",
        "tags": ["a", "b"],
        "model": "fast",
        "planned": ["openai/x", "groq/y"],
        "stream": True,
    }


def test_names_that_a_provider_makes_up_are_cut() -> None:
    [one] = attempts = tried("openai/a")
    one.transcript.add({"model": "m" * 10_000, "choices": []})
    assert len(entry(call(), ["openai/a"], ended(attempts), [Bill()])["served_model"]) == 512


def test_a_line_of_the_log_says_who_answered_how_much_and_how_dear() -> None:
    attempts = tried("openai/a", f"anthropic/{'b' * 300}")
    attempts[1].first_content_s = NOW_S + 0.5
    bills = [Bill(), Bill(Usage(prompt=10, completion=7), cost_usd=Decimal("0.002"))]
    assert summary(ended(attempts), bills) == {
        "deployment": f"anthropic/{'b' * 246}",
        "attempts": 2,
        "prompt_tokens": 10,
        "completion_tokens": 7,
        "cost_usd": 0.002,
        "time_to_first_token_ms": 500.0,
    }


def test_a_line_of_the_log_says_nothing_that_nobody_knows() -> None:
    assert summary(ended([]), []) == {}
    unpriced = summary(ended(tried("openai/a")), [Bill(Usage(1))])
    assert unpriced == {"deployment": "openai/a", "attempts": 1, "prompt_tokens": 1, "completion_tokens": 0}
    hit = Remembered(tried("openai/a")[0], 3.0)
    assert summary(ended([], remembered=hit), []) == {"deployment": "openai/a", "cached": True}
