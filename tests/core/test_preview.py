"""What a preview says of a plan, and of its price."""

from __future__ import annotations

from decimal import Decimal

import pytest

from gateway.core.breaker import OPEN, DeploymentHealth
from gateway.core.calls import Attempt, Deployment
from gateway.core.choosing import Plan
from gateway.core.preview import preview
from gateway.core.routing import Catalogue
from gateway.core.transcript import Usage
from tests.builders import call

RATES = {"cheap": 1, "dear": 5}


def price(deployment: Deployment, usage: Usage) -> Decimal | None:
    rate = RATES.get(deployment.model)
    return None if rate is None else rate * Decimal(usage.prompt + usage.completion)


def attempts(*models: str) -> tuple[Attempt, ...]:
    return tuple(Attempt(Deployment("openai", model), name="m", why="ordered") for model in models)


@pytest.mark.parametrize(
    ("models", "most", "whole"),
    [
        (("cheap", "dear"), 10, {"least": 100.0, "most": 550.0}),
        (("cheap",), 10, {"least": 100.0, "most": 110.0}),
        (("cheap", "free"), 10, None),
        (("cheap",), None, None),
    ],
)
def test_a_price_is_from_the_cheapest_prompt_to_the_dearest_answer_and_null_where_a_part_is_not_known(
    models: tuple[str, ...], most: int | None, whole: dict[str, float] | None
) -> None:
    made = call("m", "x" * 400, body={} if most is None else {"max_tokens": most})
    got = preview(made, Plan(attempts(*models)), Catalogue(), lambda _one: DeploymentHealth(), price)
    assert got["price_usd"] == whole


def test_each_attempt_has_its_reason_and_its_breaker() -> None:
    plan = Plan(attempts("cheap"), "ordered", too_long=attempts("dear"), left_out=(("x", "it has no tools"),))
    got = preview(call("m"), plan, Catalogue(), lambda _one: DeploymentHealth(OPEN), price)
    assert [(one["deployment"], one["why"], one["breaker"]) for one in got["attempts"]] == [
        ("openai/cheap", "ordered", "open")
    ]
    assert [one["deployment"] for one in got["if_too_long"]] == ["openai/dear"]
    assert (got["if_refused"], got["left_out"]) == ([], [{"name": "x", "why": "it has no tools"}])
