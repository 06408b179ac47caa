"""What an answer costs, to the last digit."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.pricing import Price, Prices, cost_usd, price_of
from gateway.core.providers import PROVIDERS
from gateway.core.routing import listed
from gateway.core.transcript import MOST_TOKENS, Usage
from gateway.upstream import modelmap
from tests.builders import catalogue

JSON = dict[str, Any]


def row(prompt: object = 1e-6, completion: object = 2e-6, provider: str = "openai", **more: object) -> JSON:
    return {
        "input_cost_per_token": prompt,
        "output_cost_per_token": completion,
        "litellm_provider": provider,
        **more,
    }


# One answer.


def test_a_cost_is_exact() -> None:
    price = price_of(row(1.5e-07, 6e-07))
    assert price is not None
    assert cost_usd(Usage(prompt=3, completion=7), price) == Decimal("0.00000465")


def test_a_tenth_added_a_million_times_is_no_more_than_it_should_be() -> None:
    price = price_of(row(0.1, 0.1))
    assert price is not None
    assert cost_usd(Usage(prompt=1_000_000), price) == Decimal(100_000)


def test_cached_and_written_tokens_are_part_of_the_prompt_and_have_their_own_price() -> None:
    price = Price(prompt=Decimal(10), completion=Decimal(100), cached=Decimal(1), cache_write=Decimal(12))
    usage = Usage(prompt=10, completion=2, cached=4, cache_write=3)
    assert cost_usd(usage, price) == 3 * 10 + 4 * 1 + 3 * 12 + 2 * 100


def test_without_a_price_of_their_own_they_cost_what_the_prompt_costs() -> None:
    price = Price(prompt=Decimal(10), completion=Decimal(100))
    assert cost_usd(Usage(prompt=10, cached=4, cache_write=3), price) == 100


def test_a_cached_token_may_be_free() -> None:
    price = price_of(row(1, 1, cache_read_input_token_cost=0))
    assert price is not None
    assert cost_usd(Usage(prompt=5, cached=5), price) == 0


@given(*[st.integers(0, MOST_TOKENS)] * 2, st.floats(0, 1), st.floats(0, 1))
@settings(deadline=None)
def test_no_answer_has_a_negative_cost(prompt: int, completion: int, one: float, other: float) -> None:
    price = price_of(row(one, other))
    assert price is not None
    assert cost_usd(Usage(prompt, completion, cached=prompt // 2, cache_write=prompt - prompt // 2), price) >= 0


# One row.


@pytest.mark.parametrize("bad", [-1e-6, float("nan"), float("inf"), "free", "NaN", "-1", None, True, [], {}])
def test_a_row_with_a_price_that_cannot_be_is_no_price(bad: object) -> None:
    assert price_of(row(prompt=bad)) is None
    assert price_of(row(completion=bad)) is None


@pytest.mark.parametrize("bad", [-1e-6, float("nan"), "free", True])
def test_a_price_of_cached_tokens_that_cannot_be_counts_as_none(bad: object) -> None:
    got = price_of(row(cache_read_input_token_cost=bad, cache_creation_input_token_cost=bad))
    assert got == Price(Decimal("0.000001"), Decimal("0.000002"))


def test_a_row_without_token_prices_is_no_price() -> None:
    assert price_of({"output_cost_per_image": 0.04}) is None


def test_a_price_may_be_written_as_text() -> None:
    assert price_of(row("0.000001", "1e-6")) == Price(Decimal("0.000001"), Decimal("0.000001"))


# Many rows.


def test_the_full_name_comes_before_the_bare_one() -> None:
    prices = Prices({"groq/m": row(1, provider="groq"), "m": row(2, provider="groq")})
    assert prices.of("groq", "m") == Price(Decimal(1), Decimal("0.000002"))


def test_a_bare_name_of_the_provider_itself_has_its_price() -> None:
    price = Prices({"m": row(3)}).of("openai", "m")
    assert price is not None
    assert price.prompt == 3


@pytest.mark.parametrize("owner", ["bedrock_converse", "bedrock-x", "bedrock"])
def test_the_maps_spellings_of_a_provider_count_as_it(owner: str) -> None:
    assert Prices({"m": row(provider=owner)}).of("bedrock", "m") is not None


@pytest.mark.parametrize("owner", ["openai", "bedrockish", "", "azure_ai"])
def test_another_providers_bare_name_is_not_its_price(owner: str) -> None:
    assert Prices({"m": row(provider=owner)}).of("bedrock", "m") is None


def test_a_model_that_nobody_prices_has_no_price_and_not_zero() -> None:
    prices = Prices(modelmap.read())
    assert prices.of("openai", "no-such-model") is None
    assert prices.of("nobody", "gpt-4o") is None


def test_the_operators_price_stands_over_litellms() -> None:
    rows, own = {"m": row(1)}, {"m": {"input_cost_per_token": 9, "output_cost_per_token": 9}}
    price = Prices(rows, own).of("openai", "m")
    assert price is not None
    assert price.prompt == 9


def test_an_operators_row_without_a_usable_price_leaves_litellms() -> None:
    price = Prices({"m": row(1)}, {"m": row(-1)}).of("openai", "m")
    assert price is not None
    assert price.prompt == 1


def test_names_of_callers_do_not_fill_the_memory() -> None:
    prices = Prices({"m": row(1)})
    for number in range(5000):
        assert prices.of("openai", f"m{number}") is None
    assert len(prices._found) <= 4097
    assert prices.of("openai", "m") is not None


def test_every_model_that_is_listed_has_a_price_where_its_row_has_one() -> None:
    """Over the whole map of the installed LiteLLM, with every provider set up."""
    rows = modelmap.read()
    prices, found = Prices(rows), catalogue(*PROVIDERS, models=rows)
    for name, provider in listed(found, frozenset({"chat"})):
        row = rows.get(name) or rows.get(name.removeprefix(f"{provider}/")) or {}
        model = name.removeprefix(f"{provider}/")
        assert (prices.of(provider, model) is None) == (price_of(row) is None), name
