"""How deployments are chosen, and what is tried when one fails: plain values, read from the routes file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: In which order the deployments of a name are tried.
ORDERED = "ordered"  # as they stand in the file
WEIGHTED = "weighted"  # by chance, each as often as its weight says
ROUND_ROBIN = "round-robin"
LEAST_BUSY = "least-busy"
LATENCY = "lowest-latency"
COST = "cheapest"
STRATEGIES = (ORDERED, WEIGHTED, ROUND_ROBIN, LEAST_BUSY, LATENCY, COST)

#: What a call may need of a model.
NEEDS = ("tools", "vision", "json_schema", "audio", "reasoning")


@dataclass(frozen=True)
class Condition:
    """Which calls a deployment is for: those that meet all of it; every call where nothing is set.

    Attributes:
        tags: the call has at least one of these.
        headers: the request has these headers, names in lower case; `*` in a value stands for any text.
        prompt_tokens: from how many estimated tokens of prompt to how many; None is no bound.
    """

    tags: frozenset[str] = frozenset()
    headers: Mapping[str, str] = field(default_factory=dict)
    prompt_tokens: tuple[int | None, int | None] = (None, None)


@dataclass(frozen=True)
class Policy:
    """What is done for the calls of one name.

    Attributes:
        strategy: of `STRATEGIES`, among the deployments of the same `order`.
        sticky: None, `key`, `user`, or `header:` and a name: calls of the same one go to the same deployment first.
        fallbacks: names that are tried when all deployments of this one have failed.
        context_window_fallbacks: instead of those, where the prompt was too long.
        content_policy_fallbacks: instead of those, where a content filter refused.
    """

    strategy: str = ORDERED
    sticky: str | None = None
    fallbacks: tuple[str, ...] = ()
    context_window_fallbacks: tuple[str, ...] = ()
    content_policy_fallbacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trying:
    """How often a call is tried, and when a deployment is left alone. Of all names.

    Attributes:
        retries: further tries of one deployment's kind of failure, before the fallbacks; 0 to 10.
        most_fallbacks: names behind the first one that are tried, at most.
        allowed_fails: failures in a row (or half of the last 20 calls) after which a deployment is left alone.
        cooldown_s: for how long, before one call may try it again.
        first_content_s: a stream without content for so long is tried elsewhere; None for no such bound.
        budget: tries beyond the first, as a share of the calls of the last 10 s; a few are always allowed.
    """

    retries: int = 2
    most_fallbacks: int = 5
    allowed_fails: int = 5
    cooldown_s: float = 5.0
    first_content_s: float | None = None
    budget: float = 0.1
