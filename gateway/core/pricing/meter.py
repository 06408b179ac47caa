"""Which price counts, and the bill of an attempt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from gateway.core import prompts
from gateway.core.calls import Attempt, Bill, Call, Deployment
from gateway.core.endpoints import CHAT, TRANSCRIPTIONS, TRANSLATIONS
from gateway.core.pricing.kinds import TIERS
from gateway.core.pricing.price import EXACT, Price, lacks, parts_of, price_of, total
from gateway.core.usage import MOST_TOKENS, Usage, estimated, with_units

_NANO = Decimal("1e-9")

#: Prices of one deployment, by LiteLLM's names of them.
Own = tuple[tuple[str, str], ...]
#: A stream that breaks off may have told its usage before it said anything (Anthropic's `message_start`). Where its
#: texts alone make so many times as many tokens as were counted, these were not: no language has as few.
_FAR_FEWER = 2


def nano(cost_usd: Decimal) -> int:
    """Nano-dollars, rounded half up."""
    return int(cost_usd.quantize(_NANO, ROUND_HALF_UP, EXACT).scaleb(9, EXACT))


def micro(cost_usd: Decimal) -> int:
    """Micro-dollars, rounded up from the nano-dollars that the ledger keeps, so that budgets and ledger agree."""
    return (nano(cost_usd) + 999) // 1000


class Prices:
    """Prices by model name.

    Args:
        rows: LiteLLM's map, model name to row; an operator's rows stand over it.
        own: the operator's rows, in the same shape.
    """

    def __init__(self, rows: Mapping[str, Mapping[str, Any]], own: Mapping[str, Mapping[str, Any]] | None = None):
        self._rows = rows
        self._own = own or {}
        self._found: dict[tuple[str, str, Own], tuple[Price, str] | None] = {}

    def of(self, provider: str, model: str) -> Price | None:
        """The price of a model at a provider, or None where nobody knows it."""
        found = self.found(provider, model)
        return None if found is None else found[0]

    def found(self, provider: str, model: str, own: Own = ()) -> tuple[Price, str] | None:
        """The price of a model at a provider, and where it stands: `GATEWAY_PRICES: name` or `LiteLLM: name`.

        Args:
            provider: as LiteLLM names it.
            model: likewise.
            own: prices of one deployment (`Deployment.prices`), over those; then it stands in `the routes file`.
        """
        key = (provider, model, own)
        if key not in self._found:
            if len(self._found) > 4096:  # names come from callers
                self._found.clear()
            self._found[key] = self._find(provider, model) if not own else self._over(provider, model, own)
        return self._found[key]

    def _over(self, provider: str, model: str, own: Own) -> tuple[Price, str] | None:
        below: Mapping[str, Any] = next((row for row, _place in self._places(provider, model)), {})
        price = price_of({**below, **dict(own)}, provider)
        return None if price is None else (price, f"the routes file: {provider}/{model}")

    def owner(self, model: str) -> str | None:
        """The provider of a bare name, as LiteLLM's map has it; None where no row says."""
        row = self._own.get(model) or self._rows.get(model) or {}
        owner = row.get("litellm_provider") or self._rows.get(model, {}).get("litellm_provider")
        return owner if isinstance(owner, str) else None

    def wants(self, provider: str, model: str, own: Own = ()) -> str | None:
        """Say what a model needs so that calls of it can be priced; None where they can."""
        if (found := self.found(provider, model, own)) is None:
            return "no price"
        price, place = found
        modes = (row.get("mode") for row, _place in self._places(provider, model))
        missing = lacks(price, next((mode for mode in modes if mode), None))
        return f"no price of a {missing[0]} token in {place}" if missing else None

    def _find(self, provider: str, model: str) -> tuple[Price, str] | None:
        for row, place in self._places(provider, model):
            if (price := price_of(row, provider)) is not None:
                return price, place
        return None

    def _places(self, provider: str, model: str) -> Iterator[tuple[Mapping[str, Any], str]]:
        """The rows of a model at a provider, the one that counts first, and where each stands."""
        for rows, source in ((self._own, "GATEWAY_PRICES"), (self._rows, "LiteLLM")):
            for name in (f"{provider}/{model}", model):
                row = rows.get(name)
                if row is None or (rows is self._rows and not _is_of(provider, row)):
                    continue  # the bare name is another provider's model, with a price of its own
                yield row, f"{source}: {name}"


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
            attempt.bill = self.so_far(call, attempt)
        return attempt.bill

    def so_far(self, call: Call, attempt: Attempt) -> Bill:
        """Return the bill of what has come of an attempt, which may still be under way."""
        if not attempt.metered:
            return Bill()
        usage, guessed = _used(call, attempt)
        if usage is None:
            return Bill()
        found = self.price(attempt.deployment)
        if (
            found is not None
            and not usage.total
            and "character_in" in usage.units
            and parts_of(usage, found[0]) is None
        ):
            usage, guessed = prompts.spoken(int(usage.units["character_in"])), True
        if found is not None and found[0].searches and "web_search" not in usage.units:
            usage = with_units(usage, web_search=_cited(attempt))
        return _bill(usage, found, estimated=guessed)

    def cost(self, deployment: Deployment, usage: Usage) -> Decimal | None:
        """US dollars of so many tokens at a deployment; None where it has no price."""
        return _bill(usage, self.price(deployment), estimated=True).cost_usd

    def price(self, deployment: Deployment) -> tuple[Price, str] | None:
        """What is paid at a deployment, and where that stands; None where nobody knows it."""
        return self.prices.found(*deployment.priced_model, deployment.prices)

    def estimate(
        self, call: Call, deployment: Deployment, output_tokens: int, prompt_tokens: int | None = None
    ) -> Bill:
        """Return what a call would cost before it is made: its prompt guessed from its body, with no cache.

        Args:
            call: as it was asked.
            deployment: the one that would answer.
            output_tokens: how many it would say, over all choices.
            prompt_tokens: how many it is asked with; None guesses.

        Returns:
            A bill whose cost is None where the model has no price. It has the fee of a request, but no searches. Of
            the standard tier and one that the call asks for, the dearer counts: the provider may serve either. So does
            the dearer of tokens and other units (`prompts.expected`), for a model that has prices of both.
        """
        if prompt_tokens is None:
            prompt_tokens = prompts.prompt_tokens(call)
        prompt = min(max(prompt_tokens, 0), MOST_TOKENS)
        completion = min(max(output_tokens, 0), MOST_TOKENS)
        found = self.price(deployment)
        wanted = call.body.get("service_tier")
        tiers = dict.fromkeys((None, wanted if wanted in TIERS else None))
        usages = (one for tier in tiers for one in prompts.expected(call, prompt, completion, tier))
        bills = [_bill(one, found, estimated=True) for one in usages]
        return max(bills, key=lambda bill: -1 if bill.cost_usd is None else bill.cost_usd)


def _used(call: Call, attempt: Attempt) -> tuple[Usage | None, bool]:
    """What an attempt used, and whether that is a guess: of an answer that nobody counted, or only its beginning."""
    transcript = attempt.transcript
    told = transcript.usage
    counted = told is not None and bool(told.total or told.units)
    if not transcript.started or (counted and transcript.complete):
        return told, False
    endpoint, body = (call.endpoint, call.body) if attempt.sent is None else (CHAT, attempt.sent)
    said = transcript.said()
    if endpoint in (TRANSCRIPTIONS, TRANSLATIONS):
        guess = prompts.heard(len(said["text"]))
    else:
        guess = estimated(endpoint.asked_of(body), said)
    if told is None:
        return guess, True
    if not counted:
        return replace(told, prompt=guess.prompt, completion=guess.completion), True
    if not told.total or _FAR_FEWER * told.completion >= guess.completion:
        return told, False
    return replace(told, prompt=told.prompt or guess.prompt, completion=guess.completion), True


def _bill(usage: Usage, found: tuple[Price, str] | None, *, estimated: bool) -> Bill:
    priced = None if found is None else parts_of(usage, found[0])
    if found is None or priced is None:
        return Bill(usage, estimated)
    parts, unpriced = priced
    return Bill(usage, estimated, total(parts), parts, unpriced, found[1])


def _cited(attempt: Attempt) -> int:
    """One search where a chat of OpenAI's cites the web: its usage has no word of searches, and each call makes one."""
    if attempt.deployment.provider not in ("openai", "azure") or not isinstance(
        said := attempt.transcript.said(), list
    ):
        return 0
    messages = (choice.get("message") for choice in said if isinstance(choice, Mapping))
    notes = [message.get("annotations") for message in messages if isinstance(message, Mapping)]
    return int(any(_cites(note) for note in notes if isinstance(note, Sequence)))


def _cites(notes: Sequence[Any]) -> bool:
    return any(isinstance(note, Mapping) and note.get("type") == "url_citation" for note in notes)
