"""What goes out: the caller's own body where the provider speaks the caller's wire."""

from __future__ import annotations

import json
from typing import Any

from gateway.core.calls import Attempt, Call
from gateway.core.endpoints import is_at
from gateway.core.providers import OPENAI_WIRE, SAME_WIRE, STAND_IN_TOOL
from gateway.core.wire import dumps
from gateway.offload import LARGE_BYTES, offload
from gateway.upstream.direct import own_words
from gateway.upstream.http1 import Parts

#: Known parameters that are LiteLLM's own arguments under the same name, or that its row of providers never
#: translates: they travel in the body alone.
BODY_ONLY = frozenset(
    {
        "metadata",
        "moderation",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "store",
    }
)
#: Parameters that the gateway itself sets, besides what is asked.
OURS = frozenset({"model", "stream", "stream_options"})

#: Names that LiteLLM gives to parameters of the caller's, for providers that have the older or the newer one alone.
_RENAMED = {"max_completion_tokens": "max_tokens", "max_tokens": "max_completion_tokens", "functions": "tools"}


class Outgoing:
    """Says what is sent instead of LiteLLM's body (Exchange.rewrite), and what LiteLLM lost of the caller's.

    Attributes:
        stand_in: LiteLLM put a tool of its own into the body, and will take it out of its answer.
    """

    def __init__(self, attempt: Attempt, call: Call) -> None:
        self._attempt = attempt
        self._call = call
        self._own: bytes | Parts | None = None
        self.stand_in = False
        if attempt.deployment.provider in SAME_WIRE and not call.endpoint.form:
            self._own = _as_it_came(attempt, call) or _anew(attempt, call)

    def __call__(self, path: str, theirs: bytes) -> bytes | Parts:
        """Return the body that is sent to `path`."""
        endpoint = self._call.endpoint
        if endpoint.form:
            return theirs
        same = is_at(endpoint, path)
        if same and self._own is not None:
            return self._own
        if self._attempt.deployment.provider not in OPENAI_WIRE:
            return theirs
        body: dict[str, Any] = json.loads(theirs)
        ours = {*OURS, endpoint.asked}
        unknown = {
            name: value
            for name, value in self._call.body.items()
            if (name not in endpoint.parameters or name in BODY_ONLY) and name not in ours
        }
        if not same:  # another operation of the provider's, which LiteLLM chose: its names are not ours
            self._attempt.dropped = tuple(sorted(unknown))
            return theirs
        self.stand_in = STAND_IN_TOOL.encode() in theirs
        asked = {name for name, value in self._call.body.items() if value is not None and name not in ours}
        kept = {*body, *unknown}
        self._attempt.dropped = tuple(
            sorted(name for name in asked if name not in kept and _RENAMED.get(name) not in kept)
        )
        if "encoding_format" in body and "encoding_format" not in asked:
            del body["encoding_format"]  # the OpenAI SDK below LiteLLM asks for base64 where nothing is asked for
            return dumps({**unknown, **body})
        return dumps({**unknown, **body}) if unknown else theirs


def _as_it_came(attempt: Attempt, call: Call) -> Parts | None:
    """The text of a large body, of which a copy would take another 30 MB, and make all others wait; None of another."""
    if call.body_bytes <= LARGE_BYTES:
        return None
    return offload(own_words, attempt.deployment, call, adds_usage=call.stream and not call.usage_asked)


def _anew(attempt: Attempt, call: Call) -> bytes:
    own = {**call.body, "model": attempt.deployment.model}
    if call.stream:
        own["stream_options"] = {**(call.body.get("stream_options") or {}), "include_usage": True}
    return dumps(own)  # now: LiteLLM edits the messages that it is given
