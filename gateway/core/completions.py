"""OpenAI's older wire of completions (API reference, "Completions"): its record, and its way through a chat model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.core.bridge import Bridged
from gateway.core.transcript import ChatTranscript
from gateway.errors import InvalidRequest

JSON = dict[str, Any]

#: What both wires have under one name.
_SHARED = frozenset(
    [
        "model",
        "stream",
        "n",
        "frequency_penalty",
        "presence_penalty",
        "logit_bias",
        "seed",
        "stop",
        "temperature",
        "top_p",
        "user",
    ]
)


class CompletionsTranscript(ChatTranscript):
    """A completion (Transcript)."""

    def add(self, chunk: Mapping[str, Any]) -> bool:
        """Take in one streamed chunk; see ChatTranscript."""
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            return super().add(chunk)
        return super().add({**chunk, "choices": [_as_delta(choice) for choice in choices]})

    def said(self) -> list[JSON]:
        """The answer so far, in the shape of a completion's `choices`."""
        return [_as_text(choice) for choice in super().said()]


def _as_delta(choice: Any) -> Any:
    if not isinstance(choice, Mapping) or "text" not in choice:
        return choice
    return {**choice, "delta": {"content": choice["text"]}}


def _as_text(choice: JSON) -> JSON:
    if "message" not in choice:
        return choice
    rest = {name: value for name, value in choice.items() if name != "message"}
    return {"text": choice["message"].get("content") or "", **rest}


def to_chat(body: JSON) -> Bridged:
    """Ask a chat model to complete a prompt, as its only message.

    Args:
        body: a checked body of `/v1/completions`.

    Raises:
        InvalidRequest: several prompts, or tokens: a chat is one conversation of texts.
    """
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        [prompt] = prompt
    if not isinstance(prompt, str):
        raise InvalidRequest(
            "prompt must be one text: this model answers in chats only.", param="prompt", code="unsupported_parameter"
        )
    chat: JSON = {name: value for name, value in body.items() if name in _SHARED and value is not None}
    chat["messages"] = [{"role": "user", "content": prompt}]
    if body.get("max_tokens") is not None:
        chat["max_completion_tokens"] = body["max_tokens"]
    # two sides of one matter here: a number of alternatives, or none
    if (alternatives := body.get("logprobs")) is not None:
        chat.update(logprobs=True, top_logprobs=alternatives)
    carried = {"prompt", "max_tokens", "logprobs", "stream_options", *_SHARED}
    return Bridged(chat, tuple(sorted(name for name, value in body.items() if name not in carried and value)))


class FromChat:
    """Tells what a chat completion says as a completion (bridge.Teller).

    Args:
        usage_asked: the caller wants the usage of a stream.
    """

    def __init__(self, usage_asked: bool = True) -> None:
        self._usage_asked = usage_asked

    def whole(self, completion: Mapping[str, Any]) -> JSON:
        """The answer to a call that is not streamed."""
        return {**_named(completion), "choices": [_told(choice, "message") for choice in completion["choices"]]}

    def feed(self, chunk: Mapping[str, Any]) -> list[JSON]:
        """One chunk for each; what has neither text nor an end nor usage is no chunk of this wire."""
        told = [_told(choice, "delta") for choice in chunk.get("choices") or ()]
        choices = [choice for choice in told if choice["text"] or choice["finish_reason"]]
        named = _named(chunk)
        if not self._usage_asked:
            named.pop("usage", None)
        return [{**named, "choices": choices}] if choices or "usage" in named else []

    def end(self) -> list[JSON]:
        """Nothing: a `[DONE]` ends this wire."""
        return []

    def failed(self, message: str, code: str | None) -> None:
        """Nothing: an error event ends it."""


def _named(chat: Mapping[str, Any]) -> JSON:
    kept = {name: chat[name] for name in ("created", "model", "system_fingerprint", "usage") if chat.get(name)}
    name = str(chat.get("id", "")).removeprefix("chatcmpl-")
    return {"id": f"cmpl-{name}", "object": "text_completion", **kept}


def _told(choice: Mapping[str, Any], part: str) -> JSON:
    text = said.get("content") if isinstance(said := choice.get(part), Mapping) else None
    return {
        "text": text if isinstance(text, str) else "",
        "index": choice.get("index", 0),
        "logprobs": _logprobs(choice.get("logprobs")),
        "finish_reason": choice.get("finish_reason"),
    }


def _logprobs(chat: Any) -> JSON | None:
    """The older shape: lists side by side instead of a list of objects."""
    content = chat.get("content") if isinstance(chat, Mapping) else None
    if not isinstance(content, list):
        return None
    tokens = [token for token in content if isinstance(token, Mapping)]
    offsets, at = [], 0
    for token in tokens:
        offsets.append(at)
        at += len(str(token.get("token", "")))
    return {
        "tokens": [token.get("token") for token in tokens],
        "token_logprobs": [token.get("logprob") for token in tokens],
        "top_logprobs": [_alternatives(token.get("top_logprobs")) for token in tokens],
        "text_offset": offsets,
    }


def _alternatives(found: Any) -> JSON:
    pairs = [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
    return {str(one.get("token")): one.get("logprob") for one in pairs}
