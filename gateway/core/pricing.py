"""What an answer costs, exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from gateway.core.calls import Attempt, Bill, Call
from gateway.core.endpoints import CHAT
from gateway.core.transcript import Usage, estimated


@dataclass(frozen=True)
class Price:
    """US dollars per token, by kind. None: that kind has no price of its own and costs what `prompt` costs."""

    prompt: Decimal
    completion: Decimal
    cached: Decimal | None = None
    cache_write: Decimal | None = None


def price_of(row: Mapping[str, Any]) -> Price | None:
    """Read a price from a row of LiteLLM's map (`input_cost_per_token` and its siblings, USD per token).

    Returns:
        None where the row has no token prices, or one that is no number, or a negative one.
    """
    prompt = _amount(row.get("input_cost_per_token"))
    completion = _amount(row.get("output_cost_per_token"))
    if prompt is None or completion is None:
        return None
    return Price(
        prompt=prompt,
        completion=completion,
        cached=_amount(row.get("cache_read_input_token_cost")),
        cache_write=_amount(row.get("cache_creation_input_token_cost")),
    )


def cost_usd(usage: Usage, price: Price) -> Decimal:
    """Price one answer.

    Args:
        usage: token counts; `cached` and `cache_write` are part of `prompt`, not on top of it.
        price: US dollars per token.

    Returns:
        US dollars, exact and never negative; round only when showing it.
    """
    plain = usage.prompt - usage.cached - usage.cache_write
    return (
        plain * price.prompt
        + usage.cached * (price.prompt if price.cached is None else price.cached)
        + usage.cache_write * (price.prompt if price.cache_write is None else price.cache_write)
        + usage.completion * price.completion
    )


def _amount(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and amount >= 0 else None


class Prices:
    """Prices by model name.

    Args:
        rows: LiteLLM's map, model name to row; an operator's rows stand over it.
        own: the operator's rows, in the same shape.
    """

    def __init__(self, rows: Mapping[str, Mapping[str, Any]], own: Mapping[str, Mapping[str, Any]] | None = None):
        self._rows = rows
        self._own = own or {}
        self._found: dict[tuple[str, str], Price | None] = {}

    def of(self, provider: str, model: str) -> Price | None:
        """The price of a model at a provider, or None where nobody knows it."""
        key = (provider, model)
        if key not in self._found:
            if len(self._found) > 4096:  # names come from callers
                self._found.clear()
            self._found[key] = self._find(provider, model)
        return self._found[key]

    def _find(self, provider: str, model: str) -> Price | None:
        for rows in (self._own, self._rows):
            for name in (f"{provider}/{model}", model):
                row = rows.get(name)
                if row is None or (rows is self._rows and not _is_of(provider, row)):
                    continue  # the bare name is another provider's model, with a price of its own
                if (price := price_of(row)) is not None:
                    return price
        return None


def _is_of(provider: str, row: Mapping[str, Any]) -> bool:
    owner = str(row.get("litellm_provider", ""))
    return owner == provider or owner.startswith((f"{provider}_", f"{provider}-"))


class Meter:
    """Says what attempts used and what that costs.

    Args:
        prices: where a price is looked up.
    """

    def __init__(self, prices: Prices) -> None:
        self.prices = prices

    def bill(self, call: Call, attempt: Attempt) -> Bill:
        """Return the bill of an attempt that has ended; made once, and kept at the attempt."""
        if attempt.bill is None:
            attempt.bill = self._made(call, attempt)
        return attempt.bill

    def _made(self, call: Call, attempt: Attempt) -> Bill:
        if not attempt.metered:
            return Bill()
        usage = attempt.transcript.usage
        guessed = usage is None and attempt.transcript.started
        if guessed:
            endpoint, body = (call.endpoint, call.body) if attempt.sent is None else (CHAT, attempt.sent)
            usage = estimated(endpoint.asked_of(body), attempt.transcript.said())
        if usage is None:
            return Bill()
        deployment = attempt.deployment
        price = self.prices.of(*(deployment.priced_as or (deployment.provider, deployment.model)))
        return Bill(usage, guessed, None if price is None else cost_usd(usage, price))
