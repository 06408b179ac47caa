"""The price of one model: its row read, and asked for what a call used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import Any

from gateway.core.calls import BillPart
from gateway.core.pricing.kinds import (
    KINDS,
    MODES,
    RANGES,
    SEARCH_SIZES,
    SEARCH_UNIT,
    SEARCHES,
    amount,
    bounds,
    slots,
)
from gateway.core.usage import Usage

#: Where nothing that a row can hold is ever rounded: 30 digits behind the point, counts and prices before it.
EXACT = Context(prec=80)
_ZERO = Decimal(0)

#: xAI takes the higher price from that many tokens on, all others above them.
_FROM = frozenset(("xai",))
#: Who bills one search for a whole call, unless the row says `per_query` (Google's price list, "Grounding").
_ONCE = ("gemini", "vertex_ai")


@dataclass(frozen=True)
class Price:
    """What one unit of each kind costs, in USD.

    Attributes:
        rates: by kind, tier (empty for the standard) and the prompt's tokens from which on it counts (0 for all).
        searches: USD a search, by how much it looks at: `low`, `medium`, `high`.
        searches_once: a call pays one search, however many it made.
        modes: by what the rates of tokens are multiplied, by `Usage.modes`.
    """

    rates: Mapping[tuple[str, str, int], Decimal]
    searches: Mapping[str, Decimal] = field(default_factory=dict)
    searches_once: bool = False
    modes: Mapping[str, Decimal] = field(default_factory=dict)
    _resolved: dict[tuple[str, int], Mapping[str, Decimal]] = field(default_factory=dict, compare=False, repr=False)
    _steps: list[int] = field(default_factory=list, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Sort the lengths of prompts at which prices change."""
        self._steps.extend(sorted({above for _, _, above in self.rates}, reverse=True))

    def rate(self, kind: str, *, tier: str = "", prompt: int = 0) -> Decimal | None:
        """US dollars for one of a kind, in a call whose prompt has that many tokens; None where it has no price."""
        return self.at(tier, prompt).get(kind)

    def at(self, tier: str, prompt: int) -> Mapping[str, Decimal]:
        """The price of each kind in a call.

        Args:
            tier: the one that the provider says it served; empty for the standard one.
            prompt: all tokens of the prompt, cached ones included.
        """
        step = next((above for above in self._steps if prompt > above or above == 0), 0)
        found = self._resolved.get((tier, step))
        if found is None:
            found = self._resolved[tier, step] = self._resolve(tier, step)
        return found

    def _resolve(self, tier: str, step: int) -> Mapping[str, Decimal]:
        steps = [above for above in self._steps if above <= step]
        levels = [(named, above) for above in steps for named in dict.fromkeys((tier, ""))]
        found: dict[str, tuple[int, Decimal]] = {}
        for kind in KINDS.values():
            own = self._own(kind.name, levels)
            other = found.get(kind.else_as)
            if own is None or (other is not None and other[0] < own[0] and self._equal(kind.name, kind.else_as)):
                own = other
            if own is not None:
                found[kind.name] = own
        return {name: rate for name, (_, rate) in found.items()}

    def _own(self, kind: str, levels: Sequence[tuple[str, int]]) -> tuple[int, Decimal] | None:
        """The price that stands for a kind itself, and at which of the levels: the first that has one."""
        for number, (tier, above) in enumerate(levels):
            if (rate := self.rates.get((kind, tier, above))) is not None:
                return number, rate
        return None

    def _equal(self, kind: str, other: str) -> bool:
        """Whether a kind costs what the other does, and so follows it where only that has a price of its tier."""
        return self.rates.get((kind, "", 0)) == self.rates.get((other, "", 0))


def price_of(row: Mapping[str, Any], provider: str | None = None) -> Price | None:
    """Read a price from a row as LiteLLM's map has it (`input_cost_per_token` and its siblings, in USD).

    Args:
        row: the model's; a price in it that is no number or negative counts as none.
        provider: who serves the model, where the row does not say.

    Returns:
        None where the row has no price at all.
    """
    owner = str(row.get("litellm_provider") or provider or "")
    rates: dict[tuple[str, str, int], tuple[int, Decimal]] = {}
    for slot, value in slots(row):
        if (rate := amount(value)) is None:
            continue
        above = slot.above - 1 if slot.above and owner in _FROM else slot.above
        known = rates.get((slot.kind, slot.tier, above))
        if known is None or slot.place < known[0]:
            rates[slot.kind, slot.tier, above] = slot.place, rate
    read = {key: rate for key, (_, rate) in rates.items()}
    for key, rate in _ranges(row, read):
        read[key] = rate
    searches = dict(_searches(row.get(SEARCHES)))
    if not read and not searches:
        return None
    return Price(
        rates=read,
        searches=searches,
        searches_once=owner.startswith(_ONCE) and "claude" not in owner and row.get(SEARCH_UNIT) != "per_query",
        modes=dict(_modes(row.get(MODES))),
    )


def _ranges(
    row: Mapping[str, Any], base: Mapping[tuple[str, str, int], Decimal]
) -> Iterator[tuple[tuple[str, str, int], Decimal]]:
    """The prices of `tiered_pricing`, of which one range counts for a whole call; nothing of another is mixed in."""
    ranges = row.get(RANGES)
    if not isinstance(ranges, list):
        return
    for one in ranges:
        if not isinstance(one, Mapping) or (found := bounds(one)) is None:
            continue
        own = {slot.kind: rate for slot, value in slots(one) if (rate := amount(value)) is not None}
        if "prompt" not in own:
            continue
        completion = own.get("completion", base.get(("completion", "", 0)))
        for kind in KINDS.values():
            if kind.name in own:
                yield (kind.name, "", found[0]), own[kind.name]
            elif (kind.name, "", 0) in base and kind.else_as in ("prompt", "cached", "cache_write"):
                yield (kind.name, "", found[0]), own.get(kind.else_as, own["prompt"])
            elif (kind.name, "", 0) in base and kind.else_as == "completion" and completion is not None:
                yield (kind.name, "", found[0]), completion


def _searches(value: object) -> Iterator[tuple[str, Decimal]]:
    if isinstance(value, Mapping):
        for size in SEARCH_SIZES:
            if (rate := amount(value.get(f"search_context_size_{size}"))) is not None:
                yield size, rate


def _modes(value: object) -> Iterator[tuple[str, Decimal]]:
    if isinstance(value, Mapping):
        for name in ("us", "fast"):
            if factor := amount(value.get(name)):
                yield name, factor


def parts_of(usage: Usage, price: Price) -> tuple[tuple[BillPart, ...], tuple[str, ...]] | None:
    """Price one answer, part by part.

    Returns:
        The parts that cost something or are free, and the kinds besides tokens that have no price; None where tokens
        of a kind have none, or nothing that was used has one, so that nobody knows the cost.
    """
    rates, parts, unpriced = price.at(usage.tier or "", usage.prompt), [], []
    factor = None
    for mode in usage.modes:
        if mode in price.modes:
            factor = price.modes[mode] if factor is None else EXACT.multiply(factor, price.modes[mode])
    for kind, count in _tokens(usage):
        if not count:
            continue
        rate = rates.get(kind)
        if rate is None:
            return None
        if factor is not None:
            rate = EXACT.multiply(rate, factor)
        parts.append(BillPart(kind, count, rate, EXACT.multiply(count, rate)))
    if "request" in rates:
        parts.append(BillPart("request", 1, rates["request"], rates["request"]))
    for kind, units in usage.units.items():
        rate = _search_rate(usage, price) if kind == "web_search" else rates.get(kind)
        if rate is None:
            unpriced.append(kind)
            continue
        if kind in ("web_search", "maps_search") and price.searches_once:
            units = 1
        parts.append(BillPart(kind, units, rate, EXACT.multiply(units, rate)))
    return None if unpriced and not parts else (tuple(parts), tuple(unpriced))


def _tokens(usage: Usage) -> Iterator[tuple[str, int]]:
    yield (
        "prompt",
        usage.prompt - usage.cached - usage.cache_write - usage.audio_in - usage.image_in - usage.video_in,
    )
    yield (
        "completion",
        usage.completion - usage.reasoning - usage.audio_out - usage.image_out - usage.video_out,
    )
    yield "reasoning", usage.reasoning
    if usage.cached:
        yield "cached", usage.cached - usage.cached_audio - usage.cached_image
        yield "cached_audio", usage.cached_audio
        yield "cached_image", usage.cached_image
    if usage.cache_write:
        yield "cache_write", usage.cache_write - usage.cache_write_1h - usage.cache_write_12h
        yield "cache_write_1h", usage.cache_write_1h
        yield "cache_write_12h", usage.cache_write_12h
    yield "audio_in", usage.audio_in
    yield "image_in", usage.image_in
    yield "video_in", usage.video_in
    yield "audio_out", usage.audio_out
    yield "image_out", usage.image_out
    yield "video_out", usage.video_out


def _search_rate(usage: Usage, price: Price) -> Decimal | None:
    """The middle size counts where the provider tells none: nearly all have one price for all three."""
    searches = price.searches
    return searches.get(usage.search_size or "medium", next(iter(searches.values()), None))


def total(parts: tuple[BillPart, ...]) -> Decimal:
    """The sum of the parts, exact."""
    cost = _ZERO
    for part in parts:
        cost = EXACT.add(cost, part.amount_usd)
    return cost


def cost_usd(usage: Usage, price: Price) -> Decimal | None:
    """Price one answer.

    Args:
        usage: what it used.
        price: of the model.

    Returns:
        US dollars, exact and never negative; round only when showing it. None where tokens of a kind have no price.
    """
    found = parts_of(usage, price)
    return None if found is None else total(found[0])


def shown(price: Price) -> Iterator[tuple[str, str, int, Decimal]]:
    """Every price of a model: its kind (of searches `web_search` and the size), tier, length of prompts, and USD."""
    order = {name: place for place, name in enumerate(KINDS)}
    for (kind, tier, above), rate in sorted(
        price.rates.items(), key=lambda one: (one[0][2], one[0][1], order[one[0][0]])
    ):
        yield kind, tier, above, rate
    for size, rate in price.searches.items():
        yield f"web_search ({size})", "", 0, rate


def lacks(price: Price, mode: object = None) -> list[str]:
    """The kinds of `prompt` and `completion` that a model has no price for; `mode` is its row's, if it has one."""
    needed = ("prompt",) if mode == "embedding" else ("prompt", "completion")
    return [kind for kind in needed if price.rate(kind, prompt=1) is None]
