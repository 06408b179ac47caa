"""What would become of a call: the plan, why, and what it may cost; for those who ask before they call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from gateway.core import routing
from gateway.core.breaker import DeploymentHealth
from gateway.core.calls import Attempt, Call, Deployment
from gateway.core.choosing import Plan, Price
from gateway.core.endpoint import Endpoint
from gateway.core.endpoints import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES
from gateway.core.needs import Facts
from gateway.core.routing import Catalogue
from gateway.core.usage import Usage

JSON = dict[str, Any]


def preview(
    call: Call, plan: Plan, catalogue: Catalogue, health: Callable[[Deployment], DeploymentHealth], price: Price
) -> JSON:
    """Describe the plan of a call.

    Args:
        call: what would be asked.
        plan: what would be tried for it.
        catalogue: for what is known of the models.
        health: how a deployment is now.
        price: US dollars of so many tokens at a deployment.

    Returns:
        JSON. Prices are US dollars: from the prompt alone at the cheapest deployment to the prompt and the longest
        answer at the dearest; null where one of them has no price, or nobody knows how long an answer may be.
    """
    facts = Facts(call)

    def told(attempts: Iterable[Attempt]) -> list[JSON]:
        return [
            {
                "deployment": one.deployment.name,
                "name": one.name or call.model,
                "why": one.why,
                "breaker": health(one.deployment).state,
                "price_usd": _range(*_prices(one.deployment, facts, catalogue, price)),
            }
            for one in attempts
        ]

    bounds = [_prices(one.deployment, facts, catalogue, price) for one in plan.attempts]
    least = [low for low, _ in bounds if low is not None]
    most = [high for _, high in bounds if high is not None]
    whole = len(least) == len(most) == len(bounds)
    return {
        "object": "preflight",
        "model": call.model,
        "routed_by": plan.strategy,
        "attempts": told(plan.attempts),
        "if_too_long": told(plan.too_long),
        "if_refused": told(plan.refused),
        "left_out": [{"name": name, "why": why} for name, why in plan.left_out],
        "needs": sorted(facts.needs),
        "prompt_tokens": facts.prompt_tokens,
        "most_output_tokens": facts.most_output,
        "price_usd": _range(min(least), max(most)) if whole else None,
    }


def endpoint_of(asked: JSON, catalogue: Catalogue, *, anthropic: bool) -> Endpoint:
    """Say which operation a body is of, by its fields and by what the model does.

    Args:
        asked: the body.
        catalogue: for what is known of the model.
        anthropic: it came with a header of Anthropic's own.
    """
    if "prompt" in asked:
        return COMPLETIONS
    if "input" in asked:
        name = asked["model"].strip()
        found = routing.alias_of(name, catalogue)
        row = catalogue.models.get(name) or catalogue.models.get(name.partition("/")[2]) or {}
        mode = found[0].mode if found is not None else row.get("mode")
        return EMBEDDINGS if mode == "embedding" else RESPONSES
    return MESSAGES if anthropic else CHAT


def _prices(
    deployment: Deployment, facts: Facts, catalogue: Catalogue, price: Price
) -> tuple[Decimal | None, Decimal | None]:
    """The price of the prompt alone, and of the prompt with the longest answer."""
    most = facts.most_output
    if most is None:
        known = catalogue.row_of(deployment).get("max_output_tokens")
        most = known if isinstance(known, int) else None
    least = price(deployment, Usage(facts.prompt_tokens, 0))
    if most is None and price(deployment, Usage(0, 1)) == 0:
        most = 0  # however long it is
    return least, None if most is None else price(deployment, Usage(facts.prompt_tokens, most))


def _range(least: Decimal | None, most: Decimal | None) -> JSON | None:
    if least is None or most is None:
        return None
    return {"least": float(least), "most": float(most)}
