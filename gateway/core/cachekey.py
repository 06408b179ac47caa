"""What may be answered from what was answered before, and the key that such an answer is found by.

The cache is exact: one byte that could change an answer is another key. The tenant is the first part of each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.core.responses import references_of
from gateway.errors import InvalidRequest

#: How much is cached: `auto` what a provider would say again, `always` whatever may be.
NEVER, AUTO, ALWAYS = "never", "auto", "always"
MODES = (AUTO, ALWAYS, NEVER)

#: Longer than a week no answer is kept.
LONGEST_TTL_S = 7 * 86_400

USE_HEADER, TTL_HEADER, NAME_HEADER = "x-bt-use-cache", "x-bt-cache-ttl", "idempotency-key"

#: How long the answer of a request that its caller has named is kept, and how long a name may be.
NAMED_TTL_S = 86_400
_LONGEST_NAME = 255

#: How an answer was asked for: at once, as a stream, as a stream whose last chunk has the usage.
WHOLE, STREAM, STREAM_WITH_USAGE = "whole", "stream", "stream+usage"

#: Operations whose answers are kept, and their fields that say nothing of the answer: labels, and hints for a
#: provider's own cache. Responses repeat theirs in the answer, so there each of them counts.
_LABELS: Mapping[str, frozenset[str]] = {
    "chat": frozenset(
        (
            *("user", "metadata", "safety_identifier"),
            *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
        )
    ),
    "completions": frozenset(("user",)),
    "embeddings": frozenset(("user",)),
    "messages": frozenset(("metadata",)),
    "responses": frozenset(),
}

#: Kinds of tools that the caller runs itself; all others act at the provider, and may find something new each time.
_CALLERS_TOOLS = frozenset((None, "function", "custom"))


@dataclass(frozen=True)
class Wish:
    """What a caller wants of the cache, from its headers and the gateway's settings.

    Attributes:
        use: one of `MODES`.
        ttl_s: how long its answer is kept, from 1 s to `LONGEST_TTL_S`.
        reads: an answer of before will do (no `no-cache`).
        keeps: its answer may be kept, and shared with who asks the same meanwhile (no `no-store`).
        max_age_s: how old an answer may be; None for any age.
        min_fresh_s: for how long it has to be kept yet.
        only: it wants a kept answer or none (`only-if-cached`).
    """

    use: str = ALWAYS
    ttl_s: int = 3600
    reads: bool = True
    keeps: bool = True
    max_age_s: int | None = None
    min_fresh_s: int = 0
    only: bool = False

    def takes(self, age_s: float, left_s: float) -> bool:
        """Whether an answer will do that is so old and is kept for so long yet, in seconds."""
        return self.reads and (self.max_age_s is None or age_s <= self.max_age_s) and left_s >= self.min_fresh_s


def wish_of(header: Callable[[str], str | None], use: str, ttl_s: int) -> Wish | None:
    """Read what a caller wants of the cache.

    `Cache-Control` narrows what is used (RFC 9111, section 5.2.1) and switches nothing on. `max-stale` and
    `no-transform` change nothing: what is past its time is not kept, and nothing is transformed.

    Args:
        header: returns a header's value or None.
        use: one of `MODES`, where the caller names none.
        ttl_s: likewise.

    Returns:
        None where the cache has no part in the call.

    Raises:
        InvalidRequest: a header of the gateway's own says what it cannot.
    """
    if (asked := header(USE_HEADER)) is not None:
        use = asked.strip().lower()
        if use not in MODES:
            raise InvalidRequest(f"{USE_HEADER} must be one of {', '.join(MODES)}.", param=USE_HEADER)
    if (asked := header(TTL_HEADER)) is not None:
        ttl_s = _ttl_s(asked.strip())
    directives = _directives(header("cache-control") or "")
    only = "only-if-cached" in directives
    if use == NEVER and not only:
        return None
    return Wish(
        use=use,
        ttl_s=ttl_s,
        reads="no-cache" not in directives,
        keeps="no-store" not in directives,
        max_age_s=_seconds(directives["max-age"]) if "max-age" in directives else None,
        min_fresh_s=_seconds(directives.get("min-fresh", "0"), LONGEST_TTL_S + 1),
        only=only,
    )


def name_of(header: Callable[[str], str | None], operation: str) -> str | None:
    """Read the name that a caller gives to a request, so that it is answered once however often it comes.

    Args:
        header: returns a header's value or None.
        operation: the name of its row in `ENDPOINTS`.

    Returns:
        None where there is none, or where the operation's requests have none.

    Raises:
        InvalidRequest: it is empty, too long, or has other characters than visible ASCII and blanks.
    """
    if operation not in _LABELS or (name := header(NAME_HEADER)) is None:
        return None
    if not (0 < len(name) <= _LONGEST_NAME and name.isascii() and name.isprintable()):
        raise InvalidRequest(f"Idempotency-Key must have 1 to {_LONGEST_NAME} characters.", param=NAME_HEADER)
    return name


def named(
    tenant: str, operation: str, name: str, form: str, query: str, body: Mapping[str, Any], raw: bytes | None
) -> tuple[str, str]:
    """Make the key of a named request's answer, and what tells another request of the same name apart.

    Args:
        tenant: whose name it is.
        operation: the name of its row in `ENDPOINTS`.
        name: of `name_of`.
        form: how the answer is asked for.
        query: what travels on of the request's query.
        body: as the caller sent it.
        raw: the text that the body was read from, where that is too large to be written anew; else None.

    Returns:
        SHA-256, 64 hex digits each.
    """
    asked = raw if raw is not None else _canonical(body)
    fingerprint = hashlib.sha256(_canonical([form, query]) + asked).hexdigest()
    return hashlib.sha256(_canonical(["named", tenant, operation, name])).hexdigest(), fingerprint


def _ttl_s(text: str) -> int:
    ttl_s = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= ttl_s <= LONGEST_TTL_S:
        raise InvalidRequest(f"{TTL_HEADER} must be whole seconds, from 1 to {LONGEST_TTL_S}.", param=TTL_HEADER)
    return ttl_s


def _directives(header: str) -> dict[str, str]:
    """The directives by their names in lower case; of one that stands there twice the first counts."""
    found: dict[str, str] = {}
    for part in header.split(","):
        name, _, value = part.partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    return found


def _seconds(text: str, otherwise_s: int = 0) -> int:
    """Delta-seconds (RFC 9111, section 1.2.2). What is none counts as what lets the least through."""
    if not (text.isascii() and text.isdigit()):
        return otherwise_s
    return int(text) if len(text) < 10 else 2**31


def may_be_kept(operation: str, body: Mapping[str, Any]) -> bool:
    """Whether an answer can stand for another one at all: nothing is stored for it elsewhere, and it has no history.

    Args:
        operation: the name of its row in `ENDPOINTS`.
        body: as the caller sent it.
    """
    if operation not in _LABELS:
        return False
    if operation == "responses":
        keeps_state = any(body.get(name) for name in ("previous_response_id", "conversation", "background"))
        return body.get("store") is False and not keeps_state and not references_of(body)
    return not body.get("store") and not body.get("container")


def repeats(operation: str, body: Mapping[str, Any]) -> bool:
    """Whether the caller asks for what a provider would say again: no chance, no tools that look around."""
    if operation == "embeddings":
        return True
    if body.get("web_search_options") or body.get("mcp_servers"):
        return False
    tools = body.get("tools")
    if isinstance(tools, list) and any(_kind(tool) not in _CALLERS_TOOLS for tool in tools):
        return False
    temperature, seed = body.get("temperature"), body.get("seed")
    cold = isinstance(temperature, int | float) and not isinstance(temperature, bool) and temperature == 0
    return cold or (isinstance(seed, int) and not isinstance(seed, bool))


def _kind(tool: object) -> object:
    return tool.get("type") if isinstance(tool, Mapping) else None


def applies(wish: Wish, operation: str, body: Mapping[str, Any]) -> bool:
    """Whether the cache has a part in a call that wishes so."""
    if wish.use == NEVER or not may_be_kept(operation, body):
        return False
    return wish.use == ALWAYS or repeats(operation, body)


def form_of(*, stream: bool, usage_asked: bool, named_events: bool) -> str:
    """How an answer is asked for; in a stream of named events the usage is always told."""
    if not stream:
        return WHOLE
    return STREAM_WITH_USAGE if usage_asked and not named_events else STREAM


def forms_that_do(operation: str, form: str, body: Mapping[str, Any]) -> tuple[str, ...]:
    """The forms of kept answers that can be told in the one that is asked for, which comes first.

    Only chats are told anew, and none with logprobs, which stand beside what is joined.
    """
    if operation != "chat" or body.get("logprobs"):
        return (form,)
    return (form, *(other for other in (WHOLE, STREAM_WITH_USAGE, STREAM) if other != form))


def digests(
    tenant: str,
    operation: str,
    model: str,
    deployment: tuple[str, str | None, str | None],
    body: Mapping[str, Any],
    forms: tuple[str, ...],
    *,
    query: str = "",
    headers: Mapping[str, str] | None = None,
    revision: str = "",
) -> tuple[str, ...]:
    """Make the keys of a call's answer, one for each form.

    Args:
        tenant: whose answer it is.
        operation: the name of its row in `ENDPOINTS`.
        model: the name that the caller wrote.
        deployment: that would be asked first: its name, its address and its version, as far as they are set.
        body: as the caller sent it. Order of fields and blanks say nothing; 1 and 1.0 are two.
        forms: of `forms_that_do`.
        query: what travels on of the request's query.
        headers: those that reach the provider.
        revision: of the catalogue.

    Returns:
        SHA-256, 64 hex digits each.
    """
    labels = _LABELS[operation]
    asked = {
        name: value
        for name, value in body.items()
        if name not in labels and name not in ("model", "stream", "stream_options")
    }
    if forms[0] != WHOLE and isinstance(options := body.get("stream_options"), Mapping):
        # the usage is the form's; what else is there changes the stream's bytes
        if others := {name: value for name, value in options.items() if name != "include_usage"}:
            asked["stream_options"] = others
    elif body.get("stream_options") is not None:
        asked["stream_options"] = body["stream_options"]
    parts = [tenant, operation, model.strip(), list(deployment), query, dict(headers or {}), revision, asked]
    common = hashlib.sha256(_canonical(parts))
    found = []
    for form in forms:
        one = common.copy()
        one.update(b"\n" + form.encode())
        found.append(one.hexdigest())
    return tuple(found)


def _canonical(value: Any) -> bytes:
    """JSON with the names of each object in order; equal texts mean equal values."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # an integer of more than 64 bits, which no provider can mean, or half of a surrogate pair
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
