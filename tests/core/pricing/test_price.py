"""What an answer costs, to the last digit."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.pricing import Price, cost_usd, lacks, parts_of, price_of, shown
from gateway.core.pricing.price import total
from gateway.core.usage import MOST_TOKENS, Usage, usage_of, usage_of_messages
from gateway.upstream import modelmap
from tests.core.test_usage import claims

JSON = dict[str, Any]


def row(prompt: object = 1e-6, completion: object = 2e-6, provider: str = "openai", **more: object) -> JSON:
    return {
        "input_cost_per_token": prompt,
        "output_cost_per_token": completion,
        "litellm_provider": provider,
        **more,
    }


def price(**fields: Any) -> Price:
    found = price_of(row(**fields))
    assert found is not None
    return found


# One answer.


def test_a_cost_is_exact() -> None:
    assert cost_usd(Usage(prompt=3, completion=7), price(prompt=1.5e-07, completion=6e-07)) == Decimal("0.00000465")


def test_a_tenth_added_a_million_times_is_no_more_than_it_should_be() -> None:
    assert cost_usd(Usage(prompt=1_000_000), price(prompt=0.1, completion=0.1)) == Decimal(100_000)


def test_what_is_noise_in_a_float_is_no_part_of_the_price() -> None:
    assert cost_usd(Usage(prompt=1), price(prompt=1.0000000000000001e-07)) == Decimal("0.0000001")


def test_cached_and_written_tokens_are_part_of_the_prompt_and_have_their_own_price() -> None:
    own = price(prompt=10, completion=100, cache_read_input_token_cost=1, cache_creation_input_token_cost=12)
    usage = Usage(prompt=10, completion=2, cached=4, cache_write=3)
    assert cost_usd(usage, own) == 3 * 10 + 4 * 1 + 3 * 12 + 2 * 100


def test_without_a_price_of_their_own_they_cost_what_the_prompt_costs() -> None:
    assert cost_usd(Usage(prompt=10, cached=4, cache_write=3), price(prompt=10)) == 100


def test_a_write_that_lives_longer_has_its_own_price() -> None:
    own = price(prompt=1, cache_creation_input_token_cost=10, cache_creation_input_token_cost_above_1hr=100)
    assert cost_usd(Usage(prompt=6, cache_write=5, cache_write_1h=2), own) == 1 + 3 * 10 + 2 * 100
    assert cost_usd(Usage(prompt=6, cache_write=5, cache_write_12h=2), own) == 1 + 5 * 10


def test_a_cached_token_may_be_free() -> None:
    assert cost_usd(Usage(prompt=5, cached=5), price(prompt=1, cache_read_input_token_cost=0)) == 0


def test_audio_images_and_video_have_their_own_prices_on_both_sides() -> None:
    kinds = {
        **dict.fromkeys(("input_cost_per_audio_token", "output_cost_per_audio_token"), 100),
        **dict.fromkeys(("input_cost_per_image_token", "output_cost_per_image_token"), 1000),
        **dict.fromkeys(("input_cost_per_video_token", "output_cost_per_video_token"), 10_000),
    }
    own = price(prompt=1, completion=10, **kinds)
    assert cost_usd(Usage(prompt=10, audio_in=1, image_in=2, video_in=3), own) == 4 + 100 + 2000 + 30_000
    assert cost_usd(Usage(completion=10, audio_out=1, image_out=2, video_out=3), own) == 40 + 100 + 2000 + 30_000
    assert cost_usd(Usage(prompt=10, audio_in=1, image_in=2), price(prompt=7)) == 70


def test_reasoning_has_its_own_price_or_that_of_the_completion() -> None:
    usage = Usage(completion=10, reasoning=4)
    assert cost_usd(usage, price(completion=1, output_cost_per_reasoning_token=5)) == 6 + 20
    assert cost_usd(usage, price(completion=1)) == 10


def test_a_request_has_its_fee_once() -> None:
    assert cost_usd(Usage(prompt=1), price(prompt=1, input_cost_per_request=5)) == 6


def test_tokens_that_have_no_price_make_the_cost_unknown_and_not_nothing() -> None:
    embedding = price_of({"input_cost_per_token": 1})
    assert embedding is not None
    assert cost_usd(Usage(prompt=2), embedding) == 2
    assert cost_usd(Usage(prompt=2, completion=1), embedding) is None
    assert lacks(embedding) == ["completion"]


def test_a_unit_that_has_no_price_is_named() -> None:
    got = parts_of(Usage(prompt=1, units={"web_search": 2, "citation": 3}), price(prompt=1, citation_cost_per_token=5))
    assert got is not None
    parts, unpriced = got
    assert [(part.kind, part.amount_usd) for part in parts] == [("prompt", 1), ("citation", 15)]
    assert unpriced == ("web_search",)


# Searches.

SIZES = {f"search_context_size_{size}": usd for size, usd in (("low", 1), ("medium", 10), ("high", 100))}


@pytest.mark.parametrize(("size", "usd"), [("low", 2), (None, 20), ("medium", 20), ("high", 200)])
def test_a_search_costs_by_how_much_it_looks_at(size: str | None, usd: int) -> None:
    own = price(search_context_cost_per_query=SIZES)
    assert cost_usd(Usage(units={"web_search": 2}, search_size=size), own) == usd


@pytest.mark.parametrize(
    ("provider", "more", "usd"),
    [
        ("gemini", {}, 10),
        ("vertex_ai-language-models", {}, 10),
        ("gemini", {"web_search_billing_unit": "per_query"}, 30),
        ("vertex_ai-anthropic_models", {"web_search_billing_unit": "per_query"}, 30),
        ("anthropic", {}, 30),
    ],
)
def test_google_bills_a_call_that_searched_once_where_its_row_does_not_say_otherwise(
    provider: str, more: JSON, usd: int
) -> None:
    own = price(provider=provider, search_context_cost_per_query=SIZES, **more)
    assert cost_usd(Usage(units={"web_search": 3}), own) == usd


# Long prompts.


@pytest.mark.parametrize(("prompt", "each"), [(200_000, 1), (200_001, 2), (272_001, 3)])
def test_a_long_prompt_costs_more_from_the_first_token_on(prompt: int, each: int) -> None:
    above = {"input_cost_per_token_above_200k_tokens": 2, "input_cost_per_token_above_272000_tokens": 3}
    assert cost_usd(Usage(prompt=prompt), price(prompt=1, **above)) == prompt * each


def test_the_cached_part_counts_for_the_length_and_follows_its_own_price() -> None:
    own = price(
        prompt=10,
        completion=1,
        cache_read_input_token_cost=1,
        input_cost_per_token_above_200k_tokens=20,
        output_cost_per_token_above_200k_tokens=2,
        cache_read_input_token_cost_above_200k_tokens=2,
    )
    usage = Usage(prompt=200_001, completion=5, cached=200_000)
    assert cost_usd(usage, own) == 20 + 200_000 * 2 + 5 * 2


def test_what_has_no_price_for_long_prompts_keeps_its_own() -> None:
    own = price(prompt=10, completion=5, cache_read_input_token_cost=1, input_cost_per_token_above_200k_tokens=20)
    assert cost_usd(Usage(prompt=200_002, completion=3, cached=200_001), own) == 20 + 200_001 + 15


def test_xai_takes_the_higher_price_from_its_number_of_tokens_on() -> None:
    above = {"input_cost_per_token_above_200k_tokens": 2}
    assert cost_usd(Usage(prompt=200_000), price(prompt=1, provider="xai", **above)) == 400_000
    assert cost_usd(Usage(prompt=199_999), price(prompt=1, provider="xai", **above)) == 199_999
    assert cost_usd(Usage(prompt=200_000), price(prompt=1, provider="openai", **above)) == 200_000


RANGES = [
    {"input_cost_per_token": 1, "output_cost_per_token": 10, "range": [0, 1000.0]},
    {"input_cost_per_token": 2, "output_cost_per_token": 20, "cache_read_input_token_cost": 1, "range": [1000, 9000]},
]


@pytest.mark.parametrize(
    ("prompt", "usd"), [(0, 10), (1, 11), (1000, 1010), (1001, 2022), (9000, 18_020), (99_000, 198_020)]
)
def test_one_range_counts_for_a_whole_call_and_the_last_beyond_it(prompt: int, usd: int) -> None:
    own = price_of({"tiered_pricing": RANGES})
    assert own is not None
    assert cost_usd(Usage(prompt=prompt, completion=1), own) == usd


def test_a_range_may_reach_beyond_a_million_tokens() -> None:
    far = [{"input_cost_per_token": 1, "range": [0, 9]}, {"input_cost_per_token": 2, "range": [9, 1_050_000]}]
    own = price_of({"tiered_pricing": far})
    assert own is not None
    assert own.rate("prompt", prompt=10) == 2


def test_a_range_takes_nothing_from_outside_but_the_price_of_what_is_said() -> None:
    base = {"output_cost_per_token": 7, "cache_read_input_token_cost": 100, "output_cost_per_reasoning_token": 50}
    own = price_of({**base, "tiered_pricing": [{"input_cost_per_token": 2, "range": [0, 10]}]})
    assert own is not None
    assert cost_usd(Usage(prompt=5, cached=3, completion=2, reasoning=1), own) == 10 + 14


# Tiers of service.


def test_the_tier_that_was_served_has_its_own_prices() -> None:
    own = price(prompt=10, completion=20, input_cost_per_token_flex=5, output_cost_per_token_flex=8)
    usage = {"prompt": 2, "completion": 1}
    assert cost_usd(Usage(**usage), own) == 40
    assert cost_usd(Usage(**usage, tier="flex"), own) == 18
    assert cost_usd(Usage(**usage, tier="priority"), own) == 40


def test_a_tier_is_priced_by_length_too_and_by_the_standard_where_it_has_no_price_for_that() -> None:
    own = price(
        prompt=1,
        input_cost_per_token_priority=2,
        input_cost_per_token_above_200k_tokens=10,
        input_cost_per_token_above_200k_tokens_flex=5,
        input_cost_per_token_flex=0.5,
    )
    long = Usage(prompt=200_001)
    assert own.rate("prompt", tier="priority", prompt=long.prompt) == 10
    assert own.rate("prompt", tier="flex", prompt=long.prompt) == 5
    assert own.rate("prompt", tier="flex", prompt=1) == Decimal("0.5")


def test_both_orders_of_tier_and_length_in_a_key_are_read() -> None:
    own = price(input_cost_per_token_priority_above_200k_tokens=9)
    assert own.rate("prompt", tier="priority", prompt=200_001) == 9


def test_reasoning_that_costs_what_the_completion_costs_follows_it_into_a_tier() -> None:
    own = price(completion=2, output_cost_per_reasoning_token=2, output_cost_per_token_priority=5)
    assert own.rate("reasoning", tier="priority") == 5
    own = price(completion=2, output_cost_per_reasoning_token=3, output_cost_per_token_priority=5)
    assert own.rate("reasoning", tier="priority") == 3


def test_a_mode_multiplies_the_tokens_alone() -> None:
    modes = {"provider_specific_entry": {"us": 1.1, "fast": 2, "bedrock_invocation_schema": "titan_v2"}}
    own = price(prompt=10, search_context_cost_per_query=SIZES, **modes)
    assert cost_usd(Usage(prompt=1, units={"web_search": 1}, modes=("us",)), own) == 11 + 10
    assert cost_usd(Usage(prompt=1, modes=("us", "fast")), own) == 22
    assert cost_usd(Usage(prompt=1), own) == 10


# One row.


@pytest.mark.parametrize("bad", [-1e-6, float("nan"), float("inf"), "free", "NaN", "-1", None, True, [], {}, 10**9])
def test_a_price_that_cannot_be_is_none(bad: object) -> None:
    assert price_of(row(prompt=bad, completion=bad)) is None
    assert price(prompt=1, cache_read_input_token_cost=bad) == price(prompt=1)
    assert price(prompt=1, search_context_cost_per_query={"search_context_size_low": bad}) == price(prompt=1)


def test_a_row_without_a_price_is_none() -> None:
    assert price_of({"litellm_provider": "openai", "mode": "chat", "max_tokens": 5}) is None


def test_a_price_may_be_written_as_text() -> None:
    assert price(prompt="0.000001", completion="1e-6") == price(prompt=1e-6, completion=1e-6)


def test_the_older_name_of_a_price_counts_where_the_newer_is_not() -> None:
    assert price(input_cost_per_token_cache_hit=5).rate("cached") == 5
    assert price(input_cost_per_token_cache_hit=5, cache_read_input_token_cost=6).rate("cached") == 6
    assert price(cache_read_input_token_cost=6, input_cost_per_token_cache_hit=5).rate("cached") == 6


def test_units_of_other_operations_are_kept() -> None:
    own = price_of({"input_cost_per_second": 0.0001, "output_cost_per_image": 0.04, "input_cost_per_character": 1e-6})
    assert own is not None
    usage = Usage(units={"second_in": Decimal("2.5"), "image_made": 2, "character_in": 100})
    assert cost_usd(usage, own) == Decimal("0.00025") + Decimal("0.08") + Decimal("0.0001")


def test_every_price_is_shown() -> None:
    long = {"input_cost_per_token_above_200k_tokens_flex": 3}
    assert list(shown(price(prompt=1, completion=2, search_context_cost_per_query=SIZES, **long))) == [
        ("prompt", "", 0, 1),
        ("completion", "", 0, 2),
        ("prompt", "flex", 200_000, 3),
        ("web_search (low)", "", 0, 1),
        ("web_search (medium)", "", 0, 10),
        ("web_search (high)", "", 0, 100),
    ]


# Whatever comes.

rates = st.floats(0, 1) | st.decimals(0, 1000, places=20).map(str)
rows = st.fixed_dictionaries(
    {"input_cost_per_token": rates, "output_cost_per_token": rates},
    optional=dict.fromkeys(
        (
            *("cache_read_input_token_cost", "cache_creation_input_token_cost_above_1hr", "input_cost_per_request"),
            *("output_cost_per_reasoning_token", "input_cost_per_token_above_128k_tokens", "citation_cost_per_token"),
            *("input_cost_per_token_priority", "output_cost_per_audio_token", "input_cost_per_video_per_second"),
        ),
        rates,
    ),
)


@given(rows, claims, st.sampled_from(["priority", "default", None]))
@settings(deadline=None, max_examples=200)
def test_the_parts_add_up_to_the_cost_and_none_is_negative(found: JSON, claimed: JSON, tier: str | None) -> None:
    own = price_of({**found, "provider_specific_entry": {"us": 1.1}})
    assert own is not None
    for usage in (usage_of(claimed, tier), usage_of_messages(claimed)):
        assert usage is not None
        priced = parts_of(usage, own)
        if priced is None:  # nothing that was used has a price
            assert (usage.total, bool(usage.units)) == (0, True)
            continue
        parts, _ = priced
        assert all(part.amount_usd >= 0 and part.price_usd >= 0 and part.count > 0 for part in parts)
        assert all(Fraction(part.amount_usd) == Fraction(part.count) * Fraction(part.price_usd) for part in parts)
        assert Fraction(total(parts)) == sum(Fraction(part.amount_usd) for part in parts)
        counted = sum(part.count for part in parts if part.kind in own.at("", 0) and part.kind not in usage.units)
        assert counted - ("request" in own.at("", 0)) == usage.total <= 2 * MOST_TOKENS


def test_every_row_of_the_installed_map_that_has_a_price_is_read() -> None:
    """A key that is new in the map and prices tokens would be missed: each is a kind, or known to be none."""
    unread = {
        name
        for name, one in modelmap.read().items()
        if price_of(one) is None and any(key.startswith(("input_cost_per_", "output_cost_per_")) for key in one)
    }
    others = ("output_cost_per_second_", "output_cost_per_image_", "input_cost_per_text_message")
    for name in unread:
        keys = [key for key in modelmap.read()[name] if "cost" in key and modelmap.read()[name][key] is not None]
        assert all(key.startswith(others) for key in keys), (name, keys)


def test_what_was_used_and_has_no_price_at_all_is_not_free() -> None:
    price = price_of(row(1, 2))
    assert price is not None
    spoken = Usage(units={"character_in": 40})
    assert cost_usd(spoken, price) is None
    assert cost_usd(Usage(prompt=3, units={"character_in": 40}), price) == 3
