"""What a call may use, guessed from its body."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.calls import Deployment
from gateway.core.endpoints import CHAT, COMPLETIONS, EMBEDDINGS, ENDPOINTS, MESSAGES, RESPONSES, Endpoint
from gateway.core.estimates import (
    Estimate,
    answers,
    estimate,
    largest_answer,
    likeliest_cost,
    micro_usd,
    prompt_tokens,
    stated_maximum,
)
from gateway.core.pricing import Meter, Prices
from gateway.core.windows import LARGEST_AMOUNT
from tests.builders import call

GPT = Deployment("openai", "gpt-test")


@pytest.mark.parametrize(
    ("body", "stated"),
    [
        ({}, None),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 8}, 8),
        ({"max_output_tokens": 9}, None),
        ({"max_output_tokens": 9, "max_tokens": 7}, 7),
        ({"max_tokens": 7, "max_completion_tokens": 8}, 8),
        ({"max_tokens": 0}, None),
        ({"max_tokens": -4}, None),
        ({"max_tokens": True}, None),
        ({"max_tokens": None}, None),
        ({"max_tokens": 10**30}, 1_000_000_000),
    ],
)
def test_a_callers_own_maximum_is_read(body: dict[str, Any], stated: int | None) -> None:
    assert stated_maximum(call(body=body)) == stated


@pytest.mark.parametrize(
    ("endpoint", "own"),
    [
        (CHAT, ("max_tokens", "max_completion_tokens")),
        (COMPLETIONS, ("max_tokens",)),
        (MESSAGES, ("max_tokens",)),
        (RESPONSES, ("max_output_tokens",)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_another_wire_calls_its_maximum_bounds_nothing(endpoint: Endpoint, own: tuple[str, ...]) -> None:
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        made = call(endpoint=endpoint, body={name: 1})
        assert stated_maximum(made) == (1 if name in own else None)
        assert estimate(made, 500).outputs == (1 if name in own else 500)


@pytest.mark.parametrize(
    ("endpoint", "body", "number"),
    [
        (None, {}, 1),
        (None, {"n": 3}, 3),
        (COMPLETIONS, {"prompt": "a", "n": 2, "best_of": 5}, 5),
        (COMPLETIONS, {"prompt": ["a", "b", "c"], "n": 2}, 6),
        (COMPLETIONS, {"prompt": [[1, 2], [3]]}, 2),
        (COMPLETIONS, {"prompt": [1, 2, 3]}, 1),
        (COMPLETIONS, {"prompt": []}, 1),
        (None, {"n": True}, 1),
    ],
)
def test_each_answer_that_is_generated_counts(endpoint: Endpoint | None, body: dict[str, Any], number: int) -> None:
    more = {} if endpoint is None else {"endpoint": endpoint}
    asked = call(body=body, **more)
    assert answers(asked) == number
    assert estimate(asked, 10).outputs == 10 * number


def test_a_stated_maximum_is_firm_and_a_guess_is_not() -> None:
    stated, guessed = estimate(call(text="x" * 400, body={"max_tokens": 20}), 256), estimate(call(text="x" * 400), 256)
    assert (stated.prompt, stated.outputs, stated.tokens, stated.firm) == (100, 20, 120, 120)
    assert (guessed.outputs, guessed.tokens, guessed.firm) == (256, 356, 100)


@pytest.mark.parametrize(
    ("endpoint", "body", "tokens"),
    [
        (None, {"messages": [{"role": "user", "content": "x" * 40}]}, 10),
        (None, {"messages": [{"role": "user", "content": "x" * 40}], "tools": [{"function": {"name": "y" * 40}}]}, 20),
        (MESSAGES, {"messages": [{"role": "user", "content": "x" * 40}], "system": "y" * 40}, 20),
        (RESPONSES, {"input": "x" * 40, "instructions": "y" * 40}, 20),
        (EMBEDDINGS, {"input": list(range(50))}, 50),
        (EMBEDDINGS, {"input": [[1, 2, 3], [4, 5]]}, 5),
        (EMBEDDINGS, {"input": ["x" * 40, "x" * 40]}, 20),
        (COMPLETIONS, {"prompt": "x" * 40}, 10),
        (None, {"messages": [{"role": "user", "content": [{"image_url": {"url": "data:x;base64," + "A" * 99}}]}]}, 0),
    ],
)
def test_the_prompt_is_all_that_the_model_reads(endpoint: Endpoint | None, body: dict[str, Any], tokens: int) -> None:
    more = {} if endpoint is None else {"endpoint": endpoint}
    asked = call(body=body, **more)
    assert prompt_tokens(asked) == tokens
    assert estimate(asked, 1).prompt == max(1, tokens)


def test_the_conversation_that_is_kept_here_is_part_of_the_prompt() -> None:
    asked = call(endpoint=RESPONSES, body={"input": "x" * 40}, history=[{"role": "user", "content": "y" * 80}])
    assert prompt_tokens(asked) == 30


@pytest.mark.parametrize("endpoint", [row for row in ENDPOINTS if row.metered and not row.asked], ids=lambda r: r.name)
def test_where_no_one_field_is_what_is_asked_all_of_them_are(endpoint: Endpoint) -> None:
    made = call(endpoint=endpoint)
    made.body = {"model": "m" * 400, "query": "q" * 40, "documents": ["d" * 40, {"text": "t" * 40}], "prompt": "p" * 40}
    assert prompt_tokens(made) == 40


def test_embeddings_have_no_answer_to_pay_for() -> None:
    assert estimate(call(endpoint=EMBEDDINGS, body={"input": "x" * 40}), 256) == Estimate(10, 0, stated=True)


def test_a_cost_is_that_of_the_price_list() -> None:
    row = {"litellm_provider": "openai", "input_cost_per_token": 2e-6, "output_cost_per_token": "0.00001"}
    meter = Meter(Prices({"openai/gpt-test": row}))
    assert likeliest_cost(meter, call(), GPT, Estimate(100, 50, stated=True)) == Decimal("0.0007")
    assert likeliest_cost(meter, call(), Deployment("openai", "another"), Estimate(1, 1, stated=True)) is None
    priced = Deployment("azure", "mine", priced_as=("openai", "gpt-test"))
    assert likeliest_cost(meter, call(), priced, Estimate(100, 50, stated=True)) == Decimal("0.0007")


@pytest.mark.parametrize(
    ("row", "most"),
    [
        ({"litellm_provider": "openai", "max_output_tokens": 16_384, "max_tokens": 128_000}, 16_384),
        ({"litellm_provider": "openai", "max_tokens": 4096}, 4096),
        ({"litellm_provider": "openai", "max_output_tokens": "many"}, None),
        ({"litellm_provider": "azure", "max_output_tokens": 16_384}, None),
        ({}, None),
    ],
)
def test_the_largest_answer_of_a_model_is_in_the_map(row: dict[str, Any], most: int | None) -> None:
    assert largest_answer({"gpt-test": row}, GPT) == most
    assert largest_answer({}, GPT) is None


@pytest.mark.parametrize(
    ("usd", "micro"),
    [("0", 0), ("0.0000000004", 0), ("0.0000000005", 1), ("0.000001", 1), ("0.0000010004", 1), ("0.0000010005", 2),
     ("1", 1_000_000), ("1e30", LARGEST_AMOUNT)],
)  # fmt: skip
def test_money_is_rounded_up_to_micro_dollars_from_nano_dollars(usd: str, micro: int) -> None:
    assert micro_usd(Decimal(usd)) == micro


@given(st.decimals(0, 1000, places=12, allow_nan=False))
def test_a_budget_counts_what_the_ledgers_sum_would_have(usd: Decimal) -> None:
    nano = int(usd * 10**9 + Decimal("0.5"))
    assert micro_usd(usd) == (nano + 999) // 1000
