"""What a call may use, said before it is made: tokens from its body, money from the price list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from gateway.core.calls import Call, Deployment
from gateway.core.endpoints import EMBEDDINGS
from gateway.core.pricing import Meter, micro
from gateway.core.prompts import prompt_tokens, stated_maximum
from gateway.core.usage import MOST_TOKENS
from gateway.core.windows import LARGEST_AMOUNT


@dataclass(frozen=True)
class Estimate:
    """Tokens that a call may use.

    Attributes:
        prompt: at least 1.
        outputs: of all the answers that it asks for.
        stated: `outputs` is the caller's own maximum, so no answer has more; else a guess.
    """

    prompt: int
    outputs: int
    stated: bool

    @property
    def tokens(self) -> int:
        """All of them."""
        return min(self.prompt + self.outputs, LARGEST_AMOUNT)

    @property
    def firm(self) -> int:
        """Those that are no guess."""
        return self.tokens if self.stated else self.prompt


def estimate(call: Call, likely: int) -> Estimate:
    """Say what a call may use.

    Args:
        call: whose body is read: a quarter of the bytes of its texts, and each token that it brings as a number.
        likely: the tokens of one answer, where the caller states no maximum.
    """
    prompt = max(1, prompt_tokens(call))
    if call.endpoint is EMBEDDINGS:
        return Estimate(prompt, 0, stated=True)
    maximum = stated_maximum(call)
    one = likely if maximum is None else maximum
    return Estimate(prompt, min(one * answers(call), MOST_TOKENS), stated=maximum is not None)


def answers(call: Call) -> int:
    """How many answers are generated: `n`, or `best_of` where that is more, for each prompt of a list."""
    each = max([1, *(number for name in ("n", "best_of") if type(number := call.body.get(name)) is int)])
    prompts = call.body.get("prompt") if call.endpoint.asked == "prompt" else None
    several = isinstance(prompts, list) and prompts and not isinstance(prompts[0], int)
    return each * (len(prompts) if several and isinstance(prompts, list) else 1)


def likeliest_cost(meter: Meter, call: Call, deployment: Deployment, expected: Estimate) -> Decimal | None:
    """What a call may cost at a deployment, US dollars; None where the model has no price."""
    return meter.estimate(call, deployment, expected.outputs, expected.prompt).cost_usd


def largest_answer(models: Mapping[str, Mapping[str, Any]], deployment: Deployment) -> int | None:
    """The most tokens that a model's answer can have, by LiteLLM's map; None where that does not say."""
    provider, model = deployment.priced_model
    for name in (f"{provider}/{model}", model):
        row = models.get(name, {})
        if str(row.get("litellm_provider", "")).startswith(provider):
            for field in ("max_output_tokens", "max_tokens"):
                if type(most := row.get(field)) is int and most > 0:
                    return most
    return None


def micro_usd(cost_usd: Decimal) -> int:
    """Turn US dollars into the whole micro-dollars that counters take (`pricing.micro`)."""
    return min(micro(cost_usd), LARGEST_AMOUNT)
