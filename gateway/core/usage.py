"""What an answer used, as providers report it: every shape of `usage` is read here into one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

#: A provider's claim beyond this is nonsense: no context window comes near it.
MOST_TOKENS = 1_000_000_000
#: The same of money that a provider says it takes for one answer, in USD.
_MOST_USD = 1_000_000
#: A tick of xAI's `cost_in_usd_ticks`.
_USD_PER_TICK = Decimal("1e-10")

#: Fields of messages and choices whose texts are names or media, no prompt and no answer.
_NO_TEXT = frozenset(
    {
        *("role", "type", "id", "tool_call_id", "finish_reason", "url", "data", "file_data", "logprobs"),
        *("tool_use_id", "stop_reason", "signature", "encrypted_content", "media_type"),
    }
)
#: A data URL says within so many characters how it is written.
_LONGEST_DATA_HEAD = 256

#: The words of providers for how a call was served, by the tier that prices are for; others are the standard.
_TIERS = {
    "priority": "priority",
    "fast": "priority",
    "flex": "flex",
    "batch": "batches",
    "balanced": "balanced",
    "ultrafast": "ultrafast",
}
_SEARCH_SIZES = frozenset(("low", "medium", "high"))

#: Units besides tokens, by the fields of `prompt_tokens_details` that LiteLLM tells them in.
_DETAIL_UNITS = {
    "web_search_requests": "web_search",
    "google_maps_grounding_requests": "maps_search",
    "character_count": "character_in",
    "image_count": "image",
    "video_length_seconds": "video_second_in",
    "audio_length_seconds": "audio_second_in",
    "query_count": "query",
}
_DETAILS = frozenset(_DETAIL_UNITS)
#: Fields that few providers have: where none of them is, nobody has to look for each.
_RARE = frozenset(
    {
        *("server_tool_use", "server_side_tool_usage_details", "num_search_queries", "search_context_size"),
        *("citation_tokens", "prompt_audio_seconds", "inference_geo", "speed", "cost", "cost_in_usd_ticks"),
    }
)
_NO_MEDIA = (0, 0, 0)
_COUNTS = frozenset(("prompt_tokens", "completion_tokens", "total_tokens"))
_USUAL = _COUNTS | {"prompt_tokens_details", "completion_tokens_details"}
_USUAL_ASKED = frozenset(("cached_tokens", "audio_tokens"))
_USUAL_SAID = frozenset(
    ("reasoning_tokens", "audio_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens")
)


@dataclass(frozen=True)
class Usage:
    """What one answer used. Counts are whole numbers from 0 to `MOST_TOKENS`.

    OpenAI's convention: `prompt` and `completion` are sums. Parts of `prompt`, which do not overlap: `cached`,
    `cache_write`, `audio_in`, `image_in`, `video_in`; of `completion`: `reasoning`, `audio_out`, `image_out`,
    `video_out`. The rest of each is plain text.

    Attributes:
        cached: read from the provider's cache, of which `cached_audio` and `cached_image` are parts.
        cache_write: written to it, of which `cache_write_1h` and `cache_write_12h` are to live longer than usual.
        units: what is billed besides tokens, by kind (`pricing.KINDS`): searches, seconds, images.
        tier: `priority`, `flex`, `batches`, `balanced` or `ultrafast`, where the provider says that it served that.
        search_size: `low`, `medium` or `high`, where the provider says so of its searches.
        modes: ways to serve a call that multiply its price: `us` (kept in that country), `fast`.
        claimed_usd: what the provider says that it costs; for the record, it decides nothing.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    cached_audio: int = 0
    cached_image: int = 0
    cache_write_1h: int = 0
    cache_write_12h: int = 0
    audio_in: int = 0
    image_in: int = 0
    video_in: int = 0
    audio_out: int = 0
    image_out: int = 0
    video_out: int = 0
    units: Mapping[str, int | Decimal] = field(default_factory=dict, hash=False)
    tier: str | None = None
    search_size: str | None = None
    modes: tuple[str, ...] = ()
    claimed_usd: Decimal | None = None

    @property
    def total(self) -> int:
        """All tokens."""
        return self.prompt + self.completion


def usage_of(claimed: object, service_tier: object = None) -> Usage | None:
    """Read the `usage` of a chat completion, a completion or embeddings, whatever a provider put in it.

    OpenAI's API reference ("The chat completion object") has the shape. What others add to it: Anthropic's and
    LiteLLM's fields of cache writes, DeepSeek's `prompt_cache_hit_tokens`, Moonshot's `cached_tokens`, Perplexity's
    citations and searches, xAI's searches.

    Args:
        claimed: the provider's object.
        service_tier: what stands beside it in the answer.

    Returns:
        None where there is no usage at all.
    """
    if not (claimed := _mapping(claimed)):
        return None
    usual = _usual(claimed, service_tier)
    return _any_usage(claimed, service_tier) if usual is None else usual


def _any_usage(claimed: Mapping[str, Any], service_tier: object) -> Usage:
    asked, said = _mapping(claimed.get("prompt_tokens_details")), _mapping(claimed.get("completion_tokens_details"))
    prompt, completion = count_of(claimed.get("prompt_tokens")), count_of(claimed.get("completion_tokens"))
    reasoning = count_of(said.get("reasoning_tokens")) or count_of(claimed.get("reasoning_tokens"))
    # xAI and Perplexity count it beside the completion: the sum says so, or the size of Perplexity's own field
    beside = count_of(claimed.get("total_tokens")) == prompt + completion + reasoning
    if reasoning and (beside or count_of(claimed.get("reasoning_tokens")) > completion):
        completion = min(completion + reasoning, MOST_TOKENS)
    lived = _mapping(asked.get("cache_creation_token_details")) or _mapping(claimed.get("cache_creation"))
    return _made(
        claimed,
        prompt=prompt,
        completion=completion,
        cached=_first(
            *(asked.get("cached_tokens"), claimed.get("cache_read_input_tokens")),
            *(claimed.get("prompt_cache_hit_tokens"), claimed.get("cached_tokens")),
        ),
        cache_write=_first(
            *(asked.get("cache_write_tokens"), asked.get("cache_creation_tokens")),
            claimed.get("cache_creation_input_tokens"),
        ),
        reasoning=reasoning,
        lived=lived,
        asked=asked,
        said=said,
        tier=service_tier,
    )


def _usual(claimed: Mapping[str, Any], tier: object) -> Usage | None:
    """Read the usage of nearly every answer, OpenAI's own, in half the time; None for whatever has more or is odd."""
    if not _COUNTS <= claimed.keys() <= _USUAL:
        return None
    asked, said = claimed.get("prompt_tokens_details"), claimed.get("completion_tokens_details")
    cached = heard = reasoning = spoken = 0
    if asked is not None:
        if asked.__class__ is not dict or not asked.keys() <= _USUAL_ASKED:
            return None
        cached, heard = asked.get("cached_tokens", 0), asked.get("audio_tokens", 0)
    if said is not None:
        if said.__class__ is not dict or not said.keys() <= _USUAL_SAID:
            return None
        reasoning, spoken = said.get("reasoning_tokens", 0), said.get("audio_tokens", 0)
    prompt, completion = claimed["prompt_tokens"], claimed["completion_tokens"]
    for count in (prompt, completion, cached, heard, reasoning, spoken):
        if count.__class__ is not int or not 0 <= count <= MOST_TOKENS:
            return None
    if claimed["total_tokens"] != prompt + completion or cached + heard > prompt or reasoning + spoken > completion:
        return None
    tier = _TIERS.get(tier) if isinstance(tier, str) else None
    if not (cached or heard or reasoning or spoken):
        return Usage(prompt, completion, tier=tier)
    return Usage(prompt, completion, cached, reasoning=reasoning, audio_in=heard, audio_out=spoken, tier=tier)


def usage_of_responses(claimed: object, service_tier: object = None) -> Usage | None:
    """Read the `usage` of a Response (OpenAI's API reference, "The response object"), whatever a provider put in it.

    Args:
        claimed: the provider's object.
        service_tier: what stands beside it in the answer.

    Returns:
        None where there is no usage at all.
    """
    if not isinstance(claimed, Mapping) or not claimed:
        return None
    asked, said = _mapping(claimed.get("input_tokens_details")), _mapping(claimed.get("output_tokens_details"))
    return _made(
        claimed,
        prompt=count_of(claimed.get("input_tokens")),
        completion=count_of(claimed.get("output_tokens")),
        cached=count_of(asked.get("cached_tokens")),
        cache_write=_first(asked.get("cache_write_tokens"), asked.get("cache_creation_tokens")),
        reasoning=count_of(said.get("reasoning_tokens")),
        lived=_mapping(asked.get("cache_creation_token_details")),
        asked=asked,
        said=said,
        tier=service_tier,
    )


def usage_of_messages(claimed: object) -> Usage | None:
    """Read the `usage` of Anthropic's Messages (API reference, "Create a Message"), whatever a provider put in it.

    Anthropic counts cached input beside `input_tokens`; here it is part of the prompt.

    Returns:
        None where there is no usage at all.
    """
    if not isinstance(claimed, Mapping) or not claimed:
        return None
    plain, completion = count_of(claimed.get("input_tokens")), count_of(claimed.get("output_tokens"))
    lived = _mapping(claimed.get("cache_creation"))
    read = count_of(claimed.get("cache_read_input_tokens"))
    written = count_of(claimed.get("cache_creation_input_tokens")) or sum(map(count_of, lived.values()))
    return _made(
        claimed,
        prompt=min(plain + read + written, MOST_TOKENS),
        completion=completion,
        cached=read,
        cache_write=written,
        reasoning=count_of(_mapping(claimed.get("output_tokens_details")).get("thinking_tokens")),
        lived=lived,
        asked={},
        said={},
        tier=None,
    )


def _made(
    claimed: Mapping[str, Any],
    *,
    prompt: int,
    completion: int,
    cached: int,
    cache_write: int,
    reasoning: int,
    lived: Mapping[str, Any],
    asked: Mapping[str, Any],
    said: Mapping[str, Any],
    tier: object,
) -> Usage:
    """Fit what was claimed together: no part is larger than what is left of its sum."""
    held = asked.get("cached_tokens_details")
    audio, image, _ = _media(held) if isinstance(held, Mapping) else _NO_MEDIA
    heard, seen, watched = _media(asked)
    cached, cache_write, heard, seen, watched = _fitted(
        prompt, (cached, cache_write, max(0, heard - audio), max(0, seen - image), watched)
    )
    reasoning, spoken, drawn, filmed = _fitted(completion, (reasoning, *_media(said)))
    cached_audio, cached_image = _fitted(cached, (audio, image)) if held else (0, 0)
    hour, half_day = _fitted(
        cache_write,
        [count_of(lived.get(f"ephemeral_{ttl}_input_tokens")) for ttl in ("1h", "12h")] if lived else (0, 0),
    )
    tier = tier or claimed.get("service_tier")
    more = not _RARE.isdisjoint(claimed)
    return Usage(
        prompt=prompt,
        completion=completion,
        cached=cached,
        cache_write=cache_write,
        reasoning=reasoning,
        cached_audio=cached_audio,
        cached_image=cached_image,
        cache_write_1h=hour,
        cache_write_12h=half_day,
        audio_in=heard,
        image_in=seen,
        video_in=watched,
        audio_out=spoken,
        image_out=drawn,
        video_out=filmed,
        units=_units(claimed, asked) if more or not _DETAILS.isdisjoint(asked) else {},
        tier=_TIERS.get(tier) if isinstance(tier, str) else None,
        search_size=_search_size(claimed.get("search_context_size")) if more else None,
        modes=_modes(claimed) if more else (),
        claimed_usd=_claimed_usd(claimed) if more else None,
    )


def _media(details: Mapping[str, Any]) -> tuple[int, int, int]:
    """Tokens of audio, images and video."""
    if not details:
        return _NO_MEDIA
    count = details.get
    return count_of(count("audio_tokens")), count_of(count("image_tokens")), count_of(count("video_tokens"))


def _fitted(whole: int, parts: Sequence[int]) -> Sequence[int]:
    if sum(parts) <= whole:
        return parts
    fitted = []
    for part in parts:
        fitted.append(min(part, whole))
        whole -= fitted[-1]
    return fitted


def _units(claimed: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, int | Decimal]:
    units: dict[str, int | Decimal] = {}
    for name, kind in _DETAIL_UNITS.items() if asked else ():
        if amount := _amount(asked.get(name)):
            units[kind] = amount
    tools, served = _mapping(claimed.get("server_tool_use")), _mapping(claimed.get("server_side_tool_usage_details"))
    searches = (
        tools.get("web_search_requests"),
        served.get("web_search_calls"),
        claimed.get("num_search_queries"),
        # Perplexity's plain models search once for every call, and tell only how much they looked at
        1 if _search_size(claimed.get("search_context_size")) else 0,
    )
    if "web_search" not in units and (count := _first(*searches)):
        units["web_search"] = count
    if count := count_of(claimed.get("citation_tokens")):
        units["citation"] = count
    if seconds := _amount(claimed.get("prompt_audio_seconds")):
        units["audio_second_in"] = seconds
    return units


def _search_size(claimed: object) -> str | None:
    return claimed if isinstance(claimed, str) and claimed in _SEARCH_SIZES else None


def _modes(claimed: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(word for word in (claimed.get("inference_geo"), claimed.get("speed")) if word in ("us", "fast"))


def _claimed_usd(claimed: Mapping[str, Any]) -> Decimal | None:
    """OpenRouter's `cost`, Perplexity's `cost.total_cost`, xAI's `cost_in_usd_ticks`."""
    cost = claimed.get("cost")
    if isinstance(cost, Mapping):
        cost = cost.get("total_cost")
    amount = _finite(cost)
    if amount is None and (ticks := _finite(claimed.get("cost_in_usd_ticks"))) is not None:
        amount = ticks * _USD_PER_TICK
    return amount if amount is not None and 0 <= amount <= _MOST_USD else None


def _first(*claims: object) -> int:
    """The first count that is not 0."""
    for claim in claims:  # a loop: a generator costs as much as all of these looks
        if claim is not None and (count := count_of(claim)):
            return count
    return 0


def count_of(value: object) -> int:
    """Read a count; 0 where there is none, and never beyond `MOST_TOKENS`."""
    if value is None:  # nearly every one: there are more names for counts than a provider knows
        return 0
    if value.__class__ is int and 0 <= value <= MOST_TOKENS:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return 0
    return int(min(max(value, 0), MOST_TOKENS))


def _amount(value: object) -> int | Decimal:
    """A count that need not be whole (seconds), to a millionth."""
    found = _finite(value)
    if found is None or found <= 0:
        return 0
    if found >= MOST_TOKENS:
        return MOST_TOKENS
    found = round(found, 6)
    return int(found) if found == int(found) else found


def _finite(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int):
        return Decimal(max(-MOST_TOKENS, min(value, 10**20)))
    return Decimal(repr(value)) if math.isfinite(value) and abs(value) < 10**20 else None


def _mapping(value: object) -> Mapping[str, Any]:
    if value is None or value.__class__ is dict:  # told at once; a look at what a class is costs ten times as much
        return value or {}
    return value if isinstance(value, Mapping) else {}


def with_units(usage: Usage, **units: int) -> Usage:
    """The same usage and these units, of the kinds that it does not tell of itself; counts of 0 are none."""
    more = {kind: count for kind, count in units.items() if count and kind not in usage.units}
    return replace(usage, units={**usage.units, **more}) if more else usage


def estimated(asked: object, said: object) -> Usage:
    """Guess the tokens of an answer that came without usage: a quarter of the bytes of every text.

    English has about four bytes a token, and so have code and, at three bytes a character, Chinese. A list of whole
    numbers is a text as tokens. Media count nothing.

    Args:
        asked: the messages.
        said: the choices.
    """
    return Usage(prompt=(_text_bytes(asked) + 3) // 4, completion=(_text_bytes(said) + 3) // 4)


def _text_bytes(value: object) -> int:
    if isinstance(value, str):
        if value.startswith("data:") and ";base64," in value[:_LONGEST_DATA_HEAD]:
            return 0
        return len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
    if isinstance(value, Mapping):
        return sum(_text_bytes(item) for name, item in value.items() if name not in _NO_TEXT)
    if isinstance(value, list):
        if value and all(item.__class__ is int for item in value):
            return 4 * len(value)
        return sum(map(_text_bytes, value))
    return 0
