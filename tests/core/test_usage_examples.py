"""Usage as real providers report it, priced to the last digit."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from gateway.core.calls import Bill
from gateway.core.endpoints import CHAT, MESSAGES, RESPONSES
from gateway.core.pricing import Meter, Prices, micro
from tests.builders import attempt, call
from tests.core.usage_examples import EXAMPLES, Example

ENDPOINTS = {"chat": CHAT, "responses": RESPONSES, "messages": MESSAGES}


def billed(example: Example) -> Bill:
    """The bill of an answer with this usage."""
    endpoint, one = ENDPOINTS[example.wire], attempt("one/model")
    one.transcript = endpoint.transcript()
    answer = {
        "choices": [{"message": {"content": "a"}}],
        "status": "completed",
        "output": [{"type": kind} for kind in example.output],
        "content": [],
        "usage": example.usage,
        "service_tier": example.tier,
    }
    one.transcript.take(answer)
    prices = {key: str(Decimal(str(usd)) / 1_000_000) for key, usd in example.prices.items()}
    meter = Meter(Prices({}, {"one/model": {**prices, **example.each}}))
    return meter.bill(call(endpoint=endpoint), one)


def by_hand(example: Example) -> Decimal:
    """The sum in micro-dollars, as it is written."""
    products = (term.split("*") for term in example.sum.split("+"))
    return sum((Decimal(count.strip()) * Decimal(usd.strip()) for count, usd in products), Decimal(0))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one.name)
def test_a_providers_usage_costs_what_its_price_list_says(example: Example) -> None:
    bill = billed(example)
    assert bill.cost_usd is not None
    assert bill.cost_usd * 1_000_000 == by_hand(example)
    assert micro(bill.cost_usd) == math.ceil(by_hand(example))
    assert (bill.unpriced, bill.estimated) == ((), False)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one.name)
def test_the_lines_of_a_bill_are_those_of_the_sum(example: Example) -> None:
    """So a right sum of wrong parts is seen; a line that is free is no term of the sum."""
    terms = sorted(
        (Decimal(count), Decimal(usd)) for count, usd in (term.split("*") for term in example.sum.split("+"))
    )
    lines = [(Decimal(part.count), part.price_usd * 1_000_000) for part in billed(example).parts]
    assert sorted(lines) == terms


def test_there_are_enough_and_each_says_where_it_is_from() -> None:
    assert len({example.name for example in EXAMPLES}) == len(EXAMPLES) >= 40
    for example in EXAMPLES:
        assert example.shape.startswith("https://")
        assert example.source.startswith("https://")


def test_what_a_provider_says_it_costs_is_noted_and_not_taken() -> None:
    [example] = [one for one in EXAMPLES if one.name.startswith("openrouter")]
    bill = billed(example)
    assert bill.document()["claimed_usd"] == "0.95"
    assert bill.cost_usd == Decimal("0.000612")
