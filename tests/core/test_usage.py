"""Reading what providers counted, in all their shapes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.usage import (
    MOST_TOKENS,
    Usage,
    estimated,
    usage_of,
    usage_of_messages,
    usage_of_responses,
    with_units,
)

JSON = dict[str, Any]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


# Chat completions.


def test_usage_is_read_with_its_parts() -> None:
    assert usage_of(
        {
            "prompt_tokens": 10,
            "completion_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 4, "cache_creation_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 5},
        }
    ) == Usage(10, 7, 4, 3, 5)


counts = st.integers(-1, 12) | st.none() | st.booleans() | st.just(2.0)
details = st.dictionaries(
    st.sampled_from(
        ("cached_tokens", "audio_tokens", "reasoning_tokens", "accepted_prediction_tokens", "image_tokens")
    ),
    counts,
)
usual = st.fixed_dictionaries(
    {"prompt_tokens": counts, "completion_tokens": counts, "total_tokens": st.integers(0, 24)},
    optional={"prompt_tokens_details": details | st.none(), "completion_tokens_details": details | st.none()},
)


@given(claimed=usual, tier=st.sampled_from((None, "default", "flex", 3)))
def test_the_usual_shape_is_read_as_one_with_a_strange_field_more(claimed: JSON, tier: object) -> None:
    assert usage_of(claimed, tier) == usage_of({**claimed, "strange": 1}, tier)


def test_openais_own_usage_is_read() -> None:
    asked, said = {"cached_tokens": 4, "audio_tokens": 1}, {"reasoning_tokens": 5, "audio_tokens": 1}
    whole = {"prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 17}
    read = usage_of({**whole, "prompt_tokens_details": asked, "completion_tokens_details": said}, "flex")
    assert read == Usage(10, 7, 4, reasoning=5, audio_in=1, audio_out=1, tier="flex")


def test_anthropics_names_of_the_cached_parts_are_read() -> None:
    claimed = {"prompt_tokens": 10, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 3}
    assert usage_of(claimed) == Usage(prompt=10, cached=2, cache_write=3)


@pytest.mark.parametrize("claimed", [None, {}, [], "10", 10])
def test_no_usage_is_none_and_not_zero(claimed: object) -> None:
    assert usage_of(claimed) is None


@pytest.mark.parametrize(
    ("claimed", "counted"),
    [
        (-5, 0),
        (10**30, MOST_TOKENS),
        (float("inf"), MOST_TOKENS),
        (float("-inf"), 0),
        (float("nan"), 0),
        (True, 0),
        ("12", 0),
        (None, 0),
        ([1], 0),
        (12.9, 12),
    ],
)
def test_a_count_that_cannot_be_is_clamped(claimed: object, counted: int) -> None:
    assert usage_of({"prompt_tokens": claimed}) == Usage(prompt=counted)
    assert usage_of({"completion_tokens": claimed}) == Usage(completion=counted)


def test_parts_are_never_more_than_the_whole() -> None:
    got = usage_of(
        {
            "prompt_tokens": 10,
            "completion_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 8, "cache_creation_tokens": 8},
            "completion_tokens_details": {"reasoning_tokens": 9},
        }
    )
    assert got == Usage(10, 3, cached=8, cache_write=2, reasoning=3)
    assert got.total == 13


# Whatever is claimed.

counts = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.integers())
parts = counts | st.dictionaries(
    st.sampled_from(
        [
            *(
                "cached_tokens",
                "cache_write_tokens",
                "audio_tokens",
                "image_tokens",
                "video_tokens",
                "reasoning_tokens",
            ),
            *("ephemeral_1h_input_tokens", "ephemeral_12h_input_tokens", "thinking_tokens", "web_search_requests"),
            *("web_search_calls", "total_cost", "video_length_seconds"),
        ]
    ),
    counts,
)
claims = st.dictionaries(
    st.sampled_from(
        [
            *(
                "prompt_tokens",
                "completion_tokens",
                "total_tokens",
                "input_tokens",
                "output_tokens",
                "reasoning_tokens",
            ),
            *("cache_read_input_tokens", "cache_creation_input_tokens", "prompt_cache_hit_tokens", "citation_tokens"),
            *("prompt_tokens_details", "completion_tokens_details", "input_tokens_details", "output_tokens_details"),
            *("cache_creation", "server_tool_use", "server_side_tool_usage_details", "num_search_queries", "cost"),
            *("search_context_size", "service_tier", "inference_geo", "cost_in_usd_ticks", "prompt_audio_seconds"),
        ]
    ),
    parts | st.fixed_dictionaries({"cached_tokens": counts, "cached_tokens_details": parts}),
    min_size=1,
)


@settings(deadline=None, max_examples=300)
@given(claims, parts)
def test_every_claim_gives_parts_that_fit_into_their_sums(claimed: JSON, service_tier: Any) -> None:
    for got in (usage_of(claimed, service_tier), usage_of_responses(claimed, service_tier), usage_of_messages(claimed)):
        assert got is not None
        counted = [value for value in vars(got).values() if isinstance(value, int)]
        assert all(0 <= count <= MOST_TOKENS for count in counted)
        assert len(counted) == 15
        assert got.cached + got.cache_write + got.audio_in + got.image_in + got.video_in <= got.prompt
        assert got.reasoning + got.audio_out + got.image_out + got.video_out <= got.completion
        assert got.cached_audio + got.cached_image <= got.cached
        assert got.cache_write_1h + got.cache_write_12h <= got.cache_write
        assert all(0 < count <= MOST_TOKENS for count in got.units.values())
        assert got.claimed_usd is None or got.claimed_usd >= 0


# Where nobody counted.


def test_an_estimate_is_a_quarter_of_the_bytes_of_what_was_said() -> None:
    asked = [{"role": "user", "content": [{"type": "text", "text": "x" * 40}]}, {"role": "user", "content": "中" * 4}]
    said = [{"index": 0, "message": {"role": "assistant", "content": "y" * 10, "refusal": None}}]
    assert estimated(asked, said) == Usage(prompt=13, completion=3)


@pytest.mark.parametrize("head", ["data:image/png;base64,", "data:;base64,", "data:audio/wav;rate=8000;base64,"])
def test_media_count_nothing_wherever_they_stand(head: str) -> None:
    asked = [{"type": "input_image", "image_url": head + "A" * 4000}, {"type": "input_text", "text": "data: 12345"}]
    assert estimated(asked, None) == Usage(prompt=(len("data: 12345") + 3) // 4)


def test_names_and_media_count_nothing() -> None:
    image = {"type": "image_url", "image_url": {"url": "x" * 1000}}
    audio = {"type": "input_audio", "input_audio": {"data": "x" * 1000, "format": ""}}
    assert estimated([{"role": "user", "content": [image, audio]}], None) == Usage()


def test_signatures_and_reasons_of_anthropics_wire_count_nothing() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "x" * 1000}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "image", "source": source}]}
    thought = {"type": "thinking", "thinking": "hmmm", "signature": "x" * 1000}
    said = {"role": "assistant", "content": [thought], "stop_reason": "end_turn"}
    assert estimated([{"role": "user", "content": [result]}], said) == Usage(completion=1)


def test_arguments_of_tools_count() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "x" * 7}}
    assert estimated(None, [{"message": {"tool_calls": [call]}}]).completion == 2


@settings(deadline=None, max_examples=60)
@given(json_values, json_values)
def test_an_estimate_is_never_negative_whatever_was_said(asked: Any, said: Any) -> None:
    got = estimated(asked, said)
    assert got.prompt >= 0
    assert got.completion >= 0


def test_tokens_as_numbers_count_one_each() -> None:
    assert estimated([1, 2, 3], None) == Usage(prompt=3)
    assert estimated([[1, 2], [3]], None) == Usage(prompt=3)


# What some providers add.


@pytest.mark.parametrize(
    "claimed",
    [
        {"prompt_tokens_details": {"cached_tokens": 6}},
        {"prompt_cache_hit_tokens": 6, "prompt_cache_miss_tokens": 4},
        {"cached_tokens": 6},
        {"cache_read_input_tokens": 6},
    ],
)
def test_each_providers_word_for_cached_tokens_is_read(claimed: JSON) -> None:
    assert usage_of({"prompt_tokens": 10, "completion_tokens": 1, **claimed}) == Usage(10, 1, cached=6)


def test_cached_audio_is_part_of_the_cached_tokens_and_not_of_the_audio_that_is_left() -> None:
    details = {"cached_tokens": 6, "audio_tokens": 5, "cached_tokens_details": {"audio_tokens": 4, "text_tokens": 2}}
    got = usage_of({"prompt_tokens": 10, "prompt_tokens_details": details})
    assert got == Usage(prompt=10, cached=6, cached_audio=4, audio_in=1)


def test_reasoning_beside_the_completion_is_added_where_the_total_says_so() -> None:
    claimed = {"prompt_tokens": 37, "completion_tokens": 530, "completion_tokens_details": {"reasoning_tokens": 233}}
    assert usage_of({**claimed, "total_tokens": 800}) == Usage(37, 763, reasoning=233)
    assert usage_of({**claimed, "total_tokens": 567}) == Usage(37, 530, reasoning=233)
    assert usage_of(claimed) == Usage(37, 530, reasoning=233)


def test_cache_writes_are_told_apart_by_how_long_they_live() -> None:
    lived = {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6}
    counted = {"cache_creation_input_tokens": 10, "cache_creation": lived}
    assert usage_of_messages({"input_tokens": 1, **counted}) == Usage(prompt=11, cache_write=10, cache_write_1h=6)
    translated = {"cache_creation_tokens": 10, "cache_creation_token_details": lived}
    got = usage_of({"prompt_tokens": 11, "prompt_tokens_details": translated})
    assert got == Usage(prompt=11, cache_write=10, cache_write_1h=6)


def test_cache_writes_that_are_told_by_their_lives_alone_are_counted() -> None:
    got = usage_of_messages({"input_tokens": 1, "cache_creation": {"ephemeral_1h_input_tokens": 6}})
    assert got == Usage(prompt=7, cache_write=6, cache_write_1h=6)


@pytest.mark.parametrize(
    ("told", "tier"),
    [
        *(("priority", "priority"), ("flex", "flex"), ("batch", "batches"), ("default", None), ("standard", None)),
        *(("on_demand", None), ("auto", None), (None, None), (7, None), (["flex"], None), ("of my own", None)),
    ],
)
def test_the_tier_is_the_one_that_was_served(told: Any, tier: str | None) -> None:
    for got in (usage_of({"prompt_tokens": 1}, told), usage_of_responses({"input_tokens": 1}, told)):
        assert got is not None
        assert got.tier == tier
    got = usage_of_messages({"input_tokens": 1, "service_tier": told})
    assert got is not None
    assert got.tier == tier


@pytest.mark.parametrize(
    ("claimed", "searches"),
    [
        ({"server_tool_use": {"web_search_requests": 2}}, 2),
        ({"prompt_tokens_details": {"web_search_requests": 3}}, 3),
        ({"server_side_tool_usage_details": {"web_search_calls": 4}}, 4),
        ({"num_search_queries": 5, "search_context_size": "low"}, 5),
        ({"search_context_size": "low"}, 1),
    ],
)
def test_searches_are_counted_in_each_providers_words(claimed: JSON, searches: int) -> None:
    got = usage_of({"prompt_tokens": 1, **claimed})
    assert got is not None
    assert got.units == {"web_search": searches}


def test_a_unit_that_is_told_is_not_counted_again() -> None:
    told = Usage(units={"web_search": 2})
    assert with_units(told, web_search=5) == told
    assert with_units(Usage(), web_search=5).units == {"web_search": 5}
    assert with_units(Usage(), web_search=0) == Usage()


@pytest.mark.parametrize(
    ("claimed", "usd"),
    [
        ({"cost": 0.00123}, "0.00123"),
        ({"cost": {"total_cost": 0.006}}, "0.006"),
        ({"cost_in_usd_ticks": 37_756_000}, "0.0037756"),
        ({"cost": -1}, None),
        ({"cost": "free"}, None),
        ({"cost": float("inf")}, None),
    ],
)
def test_what_a_provider_says_that_it_takes_is_noted(claimed: JSON, usd: str | None) -> None:
    got = usage_of({"prompt_tokens": 1, **claimed})
    assert got is not None
    assert got.claimed_usd == (None if usd is None else Decimal(usd))


def test_a_country_and_a_speed_are_modes() -> None:
    got = usage_of_messages({"input_tokens": 1, "inference_geo": "us", "speed": "fast"})
    assert got is not None
    assert got.modes == ("us", "fast")
    got = usage_of_messages({"input_tokens": 1, "inference_geo": "global", "speed": "standard"})
    assert got is not None
    assert got.modes == ()
