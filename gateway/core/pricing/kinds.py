"""What is priced, and the keys that it is priced under: rows as LiteLLM's map of models has them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any

from gateway.core.spelling import nearest
from gateway.core.usage import MOST_TOKENS

#: No price of anything comes near it, in USD.
_MOST_USD = 1_000_000
#: Digits behind the point that a price may have; what a float has beyond 15 in all is noise of its binary form.
_PLACES = Decimal("1e-30")


@dataclass(frozen=True)
class Kind:
    """One thing that can be billed.

    Attributes:
        name: in bills.
        keys: of a row; the first that stands there counts.
        unit: what one of it is.
        else_as: the kind whose price counts where this one has none; empty where it then has no price.
    """

    name: str
    keys: tuple[str, ...]
    unit: str = "token"
    else_as: str = ""


#: Whatever a kind falls back to stands above it.
KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("prompt", ("input_cost_per_token",)),
        Kind("cached", ("cache_read_input_token_cost", "input_cost_per_token_cache_hit"), else_as="prompt"),
        Kind("cached_audio", ("cache_read_input_audio_token_cost",), else_as="cached"),
        Kind("cached_image", ("cache_read_input_image_token_cost",), else_as="cached"),
        Kind("cache_write", ("cache_creation_input_token_cost",), else_as="prompt"),
        Kind("cache_write_1h", ("cache_creation_input_token_cost_above_1hr",), else_as="cache_write"),
        Kind("cache_write_12h", ("cache_creation_input_token_cost_above_12hr",), else_as="cache_write"),
        Kind("audio_in", ("input_cost_per_audio_token",), else_as="prompt"),
        Kind("image_in", ("input_cost_per_image_token",), else_as="prompt"),
        Kind("video_in", ("input_cost_per_video_token",), else_as="prompt"),
        Kind("completion", ("output_cost_per_token",)),
        Kind("reasoning", ("output_cost_per_reasoning_token",), else_as="completion"),
        Kind("audio_out", ("output_cost_per_audio_token",), else_as="completion"),
        Kind("image_out", ("output_cost_per_image_token",), else_as="completion"),
        Kind("video_out", ("output_cost_per_video_token",), else_as="completion"),
        Kind("citation", ("citation_cost_per_token",)),
        Kind("request", ("input_cost_per_request",), "request"),
        Kind("query", ("input_cost_per_query",), "query"),
        Kind("web_search", ("search_context_cost_per_query",), "search"),
        Kind("maps_search", ("google_maps_grounding_cost_per_query",), "search"),
        Kind("character_in", ("input_cost_per_character",), "character"),
        Kind("character_out", ("output_cost_per_character",), "character"),
        Kind("second_in", ("input_cost_per_second",), "second"),
        Kind("second_out", ("output_cost_per_second",), "second"),
        Kind("audio_second_in", ("input_cost_per_audio_per_second",), "second"),
        Kind("video_second_in", ("input_cost_per_video_per_second",), "second"),
        Kind("video_second_out", ("output_cost_per_video_per_second",), "second"),
        Kind("image", ("input_cost_per_image",), "image"),
        Kind("image_made", ("output_cost_per_image",), "image"),
        Kind("pixel_in", ("input_cost_per_pixel",), "pixel"),
        Kind("pixel_out", ("output_cost_per_pixel",), "pixel"),
    )
}

#: Tiers of service that have prices of their own (`core.usage.Usage.tier`), as they end a key.
TIERS = ("batches", "priority", "flex", "balanced", "ultrafast")
SEARCH_SIZES = ("low", "medium", "high")

SEARCHES = "search_context_cost_per_query"
_SIZE_KEYS = frozenset(f"search_context_size_{size}" for size in SEARCH_SIZES)
RANGES = "tiered_pricing"
MODES = "provider_specific_entry"
SEARCH_UNIT = "web_search_billing_unit"

_BY_KEY = {key: (kind.name, place) for kind in KINDS.values() for place, key in enumerate(kind.keys)}
_ABOVE = r"(?:_above_(?P<above>\d{1,9})(?P<thousands>k?)_tokens)?"
_KEY = re.compile(
    rf"(?P<key>{'|'.join(sorted(map(re.escape, _BY_KEY), key=len, reverse=True))})"
    rf"(?:_(?P<early>{'|'.join(TIERS)}))?{_ABOVE}(?:_(?P<tier>{'|'.join(TIERS)}))?"
)


@dataclass(frozen=True)
class Slot:
    """Where in a price one key of a row belongs.

    Attributes:
        kind: a name of `KINDS`.
        tier: of `TIERS`; empty for the standard one.
        above: it counts for prompts of more tokens than this; 0 for all.
        place: among the keys of its kind; lower ones come first.
    """

    kind: str
    tier: str = ""
    above: int = 0
    place: int = 0


@cache
def _slot_of(key: str) -> Slot | None:
    found = _KEY.fullmatch(key)
    if found is None or (found["early"] and found["tier"]):
        return None
    kind, place = _BY_KEY[found["key"]]
    above = int(found["above"] or 0) * (1000 if found["thousands"] else 1)
    return Slot(kind, found["early"] or found["tier"] or "", above, place)


def slots(row: Mapping[str, Any]) -> Iterator[tuple[Slot, object]]:
    """The prices of a row as they stand there, but for those of searches and ranges."""
    for key, value in row.items():
        if value is not None and "cost" in key and key != SEARCHES and (slot := _slot_of(key)) is not None:
            yield slot, value


def amount(value: object) -> Decimal | None:
    """Read a price in USD; None where it is none: negative, not finite, no number or text of one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        value = f"{value:.15g}"
    try:
        found = Decimal(value)
    except (InvalidOperation, ValueError):
        return None
    if not found.is_finite() or not 0 <= found <= _MOST_USD:
        return None
    return found if found.as_tuple().exponent >= -30 else found.quantize(_PLACES)  # type: ignore[operator]


@cache
def _known() -> tuple[str, ...]:
    keys = [*_BY_KEY, RANGES]
    grown = [f"{key}{above}" for key in _BY_KEY for above in ("", "_above_200k_tokens")]
    return (*keys, *(f"{key}{tier}" for key in grown for tier in ("", *(f"_{tier}" for tier in TIERS))))


_NUMBER = re.compile(r"\d+k?(?=_token)")


def faults(row: Mapping[str, Any]) -> Iterator[str]:
    """Say what is wrong with an operator's row, each fault with its key.

    A key that is not known here is none, unless it looks like one misspelt: LiteLLM's map has many more.
    """
    for key, value in row.items():
        if key == SEARCHES:
            yield from _search_faults(value)
        elif key == RANGES:
            yield from _range_faults(value)
        elif _slot_of(key) is not None:
            if value is not None and amount(value) is None:
                yield f"{key} is {_shown(value)}, and has to be a number of USD, 0 or more"
        elif (near := _meant(key)) is not None:
            yield f"{key} is no key that is known; is {near} meant?"


@cache
def _meant(key: str) -> str | None:
    """The key that one is nearly, whatever the length of prompts in it."""
    near = nearest(_NUMBER.sub("200k", key), _known())
    return near if near is None else near.replace("200k", (_NUMBER.findall(key) or ["200k"])[0])


def _search_faults(value: object) -> Iterator[str]:
    sizes = value if isinstance(value, Mapping) else {}
    if not sizes:
        yield f"{SEARCHES} is {_shown(value)}, and has to be an object with search_context_size_low, _medium and _high"
    for name, price in sizes.items():
        if name not in _SIZE_KEYS:
            yield f"{SEARCHES}.{name} is no size of searches"
        elif amount(price) is None:
            yield f"{SEARCHES}.{name} is {_shown(price)}, and has to be a number of USD, 0 or more"


def _range_faults(value: object) -> Iterator[str]:
    if not isinstance(value, list) or not value or not all(isinstance(one, Mapping) for one in value):
        yield f"{RANGES} is {_shown(value)}, and has to be a list of objects, each with a range"
        return
    for number, one in enumerate(value):
        place = f"{RANGES}[{number}]"
        if bounds(one) is None and "max_results_range" not in one:  # by results, of searches that are no model's
            yield f"{place}.range is {_shown(one.get('range'))}, and has to be two numbers of tokens"
        yield from (f"{place}.{fault}" for fault in faults({k: v for k, v in one.items() if k != "range"}))


def bounds(one: Mapping[str, Any]) -> tuple[int, int] | None:
    """The range of one of `tiered_pricing`: more tokens than the first, and no more than the second."""
    found = one.get("range")
    if not isinstance(found, list | tuple) or len(found) != 2:
        return None
    low, high = found
    if isinstance(low, bool) or not isinstance(low, int | float) or not isinstance(high, int | float):
        return None
    return (int(low), int(min(high, MOST_TOKENS))) if 0 <= low < min(high, MOST_TOKENS) else None


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."
