"""Counts the tokens of a request where its provider has no such operation: an estimate, by a tokenizer at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gateway.core import messages, responses
from gateway.core.calls import Attempt, Call, Deployment
from gateway.core.endpoints import COUNT_TOKENS, INPUT_TOKENS, Endpoint
from gateway.offload import LARGE_BYTES, offload
from gateway.upstream import AtHand

#: What a chat's own marks take around each message, and in front of the answer (OpenAI's cookbook, "How to count tokens
#: with tiktoken").
_A_MESSAGE, _THE_ANSWER = 3, 3
#: OpenAI's price of an image in low detail, and about Anthropic's of a small one; what it shows is not looked at.
_AN_IMAGE = 85

#: Fields whose texts are no part of what a model reads.
_NO_TEXT = frozenset(("type", "id", "tool_call_id", "cache_control", "file_data", "data", "format"))


class Counting:
    """A lane (lanes.Lane) for the two operations that only count.

    Args:
        count: the tokens of a text, for a deployment.
    """

    def __init__(self, count: Callable[[Deployment, str], int]) -> None:
        self._count = count

    def start(self) -> None:
        """Nothing to make ready."""

    def serves(self, endpoint: Endpoint, _deployment: Deployment) -> bool:
        """Whether it is one of the two (Lane.serves)."""
        return endpoint in (COUNT_TOKENS, INPUT_TOKENS)

    def opens_in_time(self, _attempt: Attempt, _call: Call) -> bool:
        """Nobody is asked (Upstream.opens_in_time)."""
        return True

    def open(self, attempt: Attempt, call: Call) -> AtHand:
        """Count (Upstream.open).

        Raises:
            InvalidRequest: what is to be counted cannot be read.
        """
        if call.endpoint is COUNT_TOKENS:
            chat, named = messages.to_chat(call.body).body, dict[str, Any]()
        else:
            chat, named = responses.to_chat(call.body, call.history).body, {"object": "response.input_tokens"}

        def count() -> int:
            return tokens_of(chat, lambda text: self._count(attempt.deployment, text))

        tokens = offload(count) if call.body_bytes > LARGE_BYTES else count()
        return AtHand(attempt, {**named, "input_tokens": tokens})


def tokens_of(chat: Mapping[str, Any], count: Callable[[str], int]) -> int:
    """Estimate what a chat completion's body takes: its texts, its tools, the marks around them, its images.

    Args:
        chat: a chat completion's body.
        count: the tokens of one text.
    """
    asked: list[Mapping[str, Any]] = chat.get("messages") or []
    listed = [message["content"] for message in asked if isinstance(message.get("content"), list)]
    images: int = sum(part.get("type") == "image_url" for parts in listed for part in parts)
    text = "\n".join(_texts([asked, chat.get("tools"), chat.get("functions"), chat.get("response_format")]))
    marks = _A_MESSAGE * len(asked) + _THE_ANSWER + _AN_IMAGE * images
    return marks + count(text)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, Mapping):
        if value.get("type") == "image_url":
            return
        for name, item in value.items():
            if name not in _NO_TEXT:
                if not isinstance(item, str):
                    yield name  # of a schema; the names of a message's own texts are marks
                yield from _texts(item)
