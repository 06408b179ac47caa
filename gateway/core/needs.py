"""What a call needs of the deployment that answers it, read from its body: no provider is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from gateway.core.calls import Call
from gateway.core.policies import Condition
from gateway.core.prompts import prompt_tokens, stated_maximum
from gateway.core.rights import matches

_IMAGES = frozenset({"image_url", "input_image", "image"})
_AUDIO = frozenset({"input_audio"})
#: Values of `reasoning_effort` that ask for none.
_NO_EFFORT = (None, "none", "")


class Facts:
    """What routing wants to know of a call; each is worked out when it is first asked for.

    Args:
        call: what was asked; its fields have been checked, but not those of another wire than its own.
    """

    def __init__(self, call: Call) -> None:
        self.call = call

    @cached_property
    def needs(self) -> frozenset[str]:
        """Which of `policies.NEEDS` a model must have, so that nothing that was asked for is lost."""
        body = self.call.body
        found = set()
        if body.get("tools") or body.get("functions"):
            found.add("tools")
        if _wants_schema(body):
            found.add("json_schema")
        if _wants_reasoning(body):
            found.add("reasoning")
        modalities = body.get("modalities")
        if isinstance(modalities, list) and "audio" in modalities:
            found.add("audio")
        for part in _parts(body):
            kind = part.get("type")
            if kind in _IMAGES:
                found.add("vision")
            elif kind in _AUDIO:
                found.add("audio")
        return frozenset(found)

    @cached_property
    def prompt_tokens(self) -> int:
        """A guess (`core.prompts`)."""
        return prompt_tokens(self.call)

    @property
    def most_output(self) -> int | None:
        """How many tokens the answer may have; None where the caller sets no bound."""
        return stated_maximum(self.call)

    def meets(self, condition: Condition) -> bool:
        """Whether the call is one that a deployment is for."""
        call = self.call
        if condition.tags and condition.tags.isdisjoint(call.tags):
            return False
        for name, pattern in condition.headers.items():
            if (sent := call.headers.get(name)) is None or not matches(pattern, sent):
                return False
        least, most = condition.prompt_tokens
        return (least is None or self.prompt_tokens >= least) and (most is None or self.prompt_tokens <= most)

    def sticks_by(self, sticky: str | None) -> str | None:
        """What calls share that go to one deployment; None where this call has nothing of the kind.

        Args:
            sticky: as in `policies.Policy`.
        """
        call = self.call
        if sticky is None:
            return None
        if sticky == "key":
            return call.caller.key_id or call.caller.id
        if sticky == "user":
            return _user_of(call.body) or call.caller.user_id or call.caller.user
        return call.headers.get(sticky.removeprefix("header:"))


def _wants_schema(body: Mapping[str, Any]) -> bool:
    """OpenAI's chats (`response_format`) and responses (`text.format`), Anthropic's messages (`output_config`)."""
    places = (
        body.get("response_format"),
        _inside(body.get("text"), "format"),
        _inside(body.get("output_config"), "format"),
        body.get("output_format"),
    )
    return any(_inside(place, "type") == "json_schema" for place in places)


def _wants_reasoning(body: Mapping[str, Any]) -> bool:
    """OpenAI's chats (`reasoning_effort`) and responses (`reasoning`), Anthropic's messages (`thinking`)."""
    thinking = _inside(body.get("thinking"), "type")
    effort = body.get("reasoning_effort"), _inside(body.get("reasoning"), "effort")
    return thinking in ("enabled", "adaptive") or any(one not in _NO_EFFORT for one in effort)


def _inside(value: object, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _parts(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The parts of the prompt's messages, and those of the tools' results in them."""
    for name in ("messages", "input"):
        turns = body.get(name)
        for turn in turns if isinstance(turns, list) else ():
            content = _inside(turn, "content")
            for part in content if isinstance(content, list) else ():
                if isinstance(part, Mapping):
                    yield part
                    inner = part.get("content")
                    yield from (one for one in (inner if isinstance(inner, list) else ()) if isinstance(one, Mapping))


def _user_of(body: Mapping[str, Any]) -> str | None:
    """The caller's own user: OpenAI's `user` or `safety_identifier`, Anthropic's `metadata.user_id`."""
    for named in (body.get("user"), body.get("safety_identifier"), _inside(body.get("metadata"), "user_id")):
        if isinstance(named, str) and named:
            return named
    return None
