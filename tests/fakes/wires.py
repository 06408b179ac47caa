"""The shapes of an answer on OpenAI's wire and on Anthropic's, whole and streamed. Values, no sockets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

JSON = dict[str, Any]
Tokens = tuple[int, int] | JSON | None  # (prompt, completion), or the usage object as it goes on the wire

CREATED = 1_750_000_000  # `created` of everything: a recorded answer stays the same
_STOP_REASONS = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


@dataclass(frozen=True)
class Answer:
    """What is said, whatever the wire.

    Attributes:
        texts: one a choice; None is a message without content. Anthropic's wire has the first only.
        finish: OpenAI's `finish_reason`.
        message: further fields of the message; of these `tool_calls` also exist on Anthropic's wire.
        extra: further fields at the top level, of every OpenAI chunk too.
    """

    texts: Sequence[str | None]
    usage: Tokens
    finish: str
    message: Mapping[str, Any]
    extra: Mapping[str, Any]


def openai_envelope(kind: str, number: int, model: str | None) -> JSON:
    """Build what every OpenAI completion and chunk starts with."""
    return {"id": f"chatcmpl-{number}", "object": kind, "created": CREATED, "model": model}


def openai_completion(answer: Answer, number: int, model: str | None) -> JSON:
    """Build a whole chat completion."""
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text, **answer.message},
            "logprobs": None,
            "finish_reason": answer.finish,
        }
        for index, text in enumerate(answer.texts)
    ]
    usage = {} if answer.usage is None else {"usage": openai_usage(answer.usage)}
    return {**openai_envelope("chat.completion", number, model), "choices": choices, **usage, **answer.extra}


def openai_chunks(answer: Answer, number: int, model: str | None, with_usage: bool) -> Iterator[JSON]:
    """Build a stream: per choice the role, a chunk a word, the further fields, the finish; usage at the end.

    As at OpenAI, a stream with usage has `usage: null` on every chunk but that last one.
    """
    head = openai_envelope("chat.completion.chunk", number, model)
    tail = {**({"usage": None} if with_usage else {}), **answer.extra}

    def chunk(index: int, delta: JSON, finish: str | None = None) -> JSON:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**head, "choices": [choice], **tail}

    more = dict(answer.message)
    if "tool_calls" in more:
        more["tool_calls"] = [{"index": index, **tool} for index, tool in enumerate(more["tool_calls"])]
    for index, text in enumerate(answer.texts):
        yield chunk(index, {"role": "assistant", "content": None if text is None else ""})
        yield from (chunk(index, {"content": word}) for word in words(text))
        if more:
            yield chunk(index, more)
        yield chunk(index, {}, answer.finish)
    if with_usage and answer.usage is not None:
        yield {**head, "choices": [], **answer.extra, "usage": openai_usage(answer.usage)}


def openai_usage(tokens: tuple[int, int] | JSON) -> JSON:
    """Build OpenAI's usage object."""
    if isinstance(tokens, dict):
        return tokens
    prompt, completion = tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def anthropic_message(answer: Answer, number: int, model: str | None) -> JSON:
    """Build a whole message; text first, then a `tool_use` block for each of OpenAI's `tool_calls`."""
    text, usage = answer.texts[0], answer.usage
    blocks: list[JSON] = [] if text is None else [{"type": "text", "text": text}]
    for tool in answer.message.get("tool_calls", ()):
        function = tool["function"]
        arguments = json.loads(function["arguments"])
        blocks.append({"type": "tool_use", "id": tool["id"], "name": function["name"], "input": arguments})
    if isinstance(usage, tuple):
        usage = {"input_tokens": usage[0], "output_tokens": usage[1]}
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": blocks,
        "stop_reason": _STOP_REASONS.get(answer.finish, "end_turn"),
        "stop_sequence": None,
        **({} if usage is None else {"usage": usage}),
        **answer.extra,
    }


def anthropic_events(message: JSON) -> Iterator[JSON]:
    """Take a message apart into the events of its stream; each one's name is its `type`."""
    usage = message.get("usage", {})
    unread: JSON = {"content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    yield {"type": "message_start", "message": {**message, **unread}}
    for index, block in enumerate(message["content"]):
        start, deltas = _taken_apart(block)
        yield {"type": "content_block_start", "index": index, "content_block": start}
        yield from ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        yield {"type": "content_block_stop", "index": index}
    end = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    yield {"type": "message_delta", "delta": end, "usage": {"output_tokens": usage.get("output_tokens", 0)}}
    yield {"type": "message_stop"}


def words(text: str | None) -> list[str]:
    """Part a text before each word; joined again it is the same text."""
    return re.split(r"(?<=\s)(?=\S)", text) if text else []


def last_user_text(body: JSON) -> str:
    """Return what the last user message of a request says, its text parts joined."""
    content = next((one["content"] for one in reversed(body["messages"]) if one["role"] == "user"), "")
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _taken_apart(block: JSON) -> tuple[JSON, list[JSON]]:
    if block["type"] == "text":
        return {**block, "text": ""}, [{"type": "text_delta", "text": word} for word in words(block["text"])]
    if block["type"] == "tool_use":
        arguments = json.dumps(block["input"])
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": arguments}]
    return block, []
