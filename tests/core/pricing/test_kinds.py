"""The keys of a row, and what is wrong with one."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.pricing import KINDS, faults
from gateway.core.pricing.kinds import Slot, amount, slots
from gateway.upstream import modelmap


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        ("input_cost_per_token", Slot("prompt")),
        ("input_cost_per_token_above_128k_tokens", Slot("prompt", above=128_000)),
        ("input_cost_per_token_above_272000_tokens_priority", Slot("prompt", "priority", 272_000)),
        ("input_cost_per_token_priority_above_200k_tokens", Slot("prompt", "priority", 200_000)),
        ("cache_creation_input_token_cost_above_1hr", Slot("cache_write_1h")),
        ("cache_creation_input_token_cost_above_1hr_above_200k_tokens", Slot("cache_write_1h", above=200_000)),
        ("output_cost_per_token_batches", Slot("completion", "batches")),
        ("input_cost_per_token_cache_hit", Slot("cached", place=1)),
    ],
)
def test_a_key_says_what_it_prices(key: str, slot: Slot) -> None:
    assert list(slots({key: 1})) == [(slot, 1)]


@pytest.mark.parametrize(
    "key",
    [
        *("cost", "input_cost_per_token_", "input_cost_per_token_slow", "my_input_cost_per_token", "max_tokens"),
        *("input_cost_per_token_flex_above_200k_tokens_flex", "ocr_cost_per_page", "search_context_cost_per_query"),
    ],
)
def test_another_key_prices_nothing_here(key: str) -> None:
    assert list(slots({key: 1})) == []


def test_each_kind_falls_back_to_one_above_it() -> None:
    seen: set[str] = set()
    for kind in KINDS.values():
        assert not kind.else_as or kind.else_as in seen, kind.name
        seen.add(kind.name)


@given(st.floats() | st.integers() | st.text() | st.none() | st.booleans() | st.decimals().map(str))
def test_an_amount_is_finite_and_not_negative_or_none(value: object) -> None:
    found = amount(value)
    assert found is None or (found.is_finite() and 0 <= found <= 1_000_000 and found.as_tuple().exponent >= -30)  # type: ignore[operator]


def test_an_amount_keeps_thirty_digits_behind_the_point() -> None:
    assert amount("1e-30") == Decimal("1e-30")
    assert amount("1.5e-30") == Decimal("2e-30")


# Faults.


def test_no_row_of_the_installed_map_has_a_fault() -> None:
    """So an operator can copy any of them."""
    assert {name: found for name, row in modelmap.read().items() if (found := list(faults(row)))} == {}


@pytest.mark.parametrize("bad", [-1e-6, float("nan"), "free", True, [], "-1", float("inf")])
def test_a_price_that_cannot_be_is_a_fault(bad: object) -> None:
    [fault] = faults({"input_cost_per_token": 1, "output_cost_per_token_flex": bad})
    assert fault == f"output_cost_per_token_flex is {bad!r}, and has to be a number of USD, 0 or more"
    [fault] = faults({"search_context_cost_per_query": {"search_context_size_low": bad}})
    assert fault.startswith("search_context_cost_per_query.search_context_size_low is ")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("input_cost_per_tokens", "input_cost_per_token"),
        ("output_cost_pre_token", "output_cost_per_token"),
        ("output_cost_per_token_prioriti", "output_cost_per_token_priority"),
        ("input_cost_per_token_above_256k_token", "input_cost_per_token_above_256k_tokens"),
        ("cache_read_input_tokens_cost", "cache_read_input_token_cost"),
        ("tierd_pricing", "tiered_pricing"),
    ],
)
def test_a_key_that_is_nearly_one_is_a_fault_that_names_it(key: str, meant: str) -> None:
    assert list(faults({key: 1})) == [f"{key} is no key that is known; is {meant} meant?"]


@pytest.mark.parametrize("key", ["mode", "litellm_provider", "ocr_cost_per_page", "note", "supports_vision"])
def test_a_key_that_is_like_none_is_let_pass(key: str) -> None:
    assert list(faults({key: "x"})) == []


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({}, "tiered_pricing is {}, and has to be a list of objects, each with a range"),
        ([], "tiered_pricing is [], and has to be a list of objects, each with a range"),
        ([{"input_cost_per_token": 1}], "tiered_pricing[0].range is None, and has to be two numbers of tokens"),
        ([{"range": [5, 1]}], "tiered_pricing[0].range is [5, 1], and has to be two numbers of tokens"),
        (
            [{"range": [0, 9], "input_cost_per_token": -1}],
            "tiered_pricing[0].input_cost_per_token is -1, and has to be a number of USD, 0 or more",
        ),
    ],
)
def test_a_range_that_cannot_be_is_a_fault(value: object, fault: str) -> None:
    assert list(faults({"tiered_pricing": value})) == [fault]


@pytest.mark.parametrize("value", [5, {}, [], {"low": 1}])
def test_prices_of_searches_that_cannot_be_are_a_fault(value: object) -> None:
    [fault] = faults({"search_context_cost_per_query": value})
    assert fault.startswith("search_context_cost_per_query")


def test_what_is_long_is_not_repeated_in_a_fault() -> None:
    [fault] = faults({"input_cost_per_token": "x" * 1000})
    assert len(fault) < 150
