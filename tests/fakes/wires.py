"""The shapes of an answer on OpenAI's wires and on Anthropic's, whole and streamed. Values, no sockets."""

from __future__ import annotations

import base64
import json
import re
import struct
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


def text_completion(answer: Answer, number: int, model: str | None) -> JSON:
    """Build a whole completion of the older kind."""
    choices = [
        {"index": index, "text": text or "", "logprobs": None, "finish_reason": answer.finish}
        for index, text in enumerate(answer.texts)
    ]
    usage = {} if answer.usage is None else {"usage": openai_usage(answer.usage)}
    return {**_text_envelope(number, model), "choices": choices, **usage, **answer.extra}


def text_chunks(answer: Answer, number: int, model: str | None, with_usage: bool) -> Iterator[JSON]:
    """Build its stream: a chunk a word, the finish with the last one; usage at the end."""
    head = _text_envelope(number, model)
    for index, text in enumerate(answer.texts):
        for word in (*words(text), ""):
            choice = {
                "index": index,
                "text": word,
                "logprobs": None,
                "finish_reason": None if word else answer.finish,
            }
            yield {**head, "choices": [choice], **answer.extra}
    if with_usage and answer.usage is not None:
        yield {**head, "choices": [], **answer.extra, "usage": openai_usage(answer.usage)}


def _text_envelope(number: int, model: str | None) -> JSON:
    return {"id": f"cmpl-{number}", "object": "text_completion", "created": CREATED, "model": model}


def response(answer: Answer, number: int, body: JSON) -> JSON:
    """Build a whole response: a message, and a `function_call` for each of OpenAI's `tool_calls`."""
    text = answer.texts[0]
    output: list[JSON] = []
    if text is not None:
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        output.append(
            {"id": f"msg_{number}", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
        )
    for index, tool in enumerate(answer.message.get("tool_calls", ())):
        function = {**tool["function"], "call_id": tool["id"]}
        output.append({"id": f"fc_{number}_{index}", "type": "function_call", "status": "completed", **function})
    usage = answer.usage
    if isinstance(usage, tuple):
        usage = {
            "input_tokens": usage[0],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage[1],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": sum(usage),
        }
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": CREATED,
        "status": "incomplete" if answer.finish == "length" else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if answer.finish == "length" else None,
        "error": None,
        "model": body.get("model"),
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": body.get("tools") or [],
        "instructions": body.get("instructions"),
        "metadata": body.get("metadata") or {},
        "store": body.get("store", True),
        "temperature": 1.0,
        "top_p": 1.0,
        **({} if usage is None else {"usage": usage}),
        **answer.extra,
    }


def response_events(whole: JSON) -> Iterator[JSON]:
    """Take a response apart into the events of its stream, numbered; each one's name is its `type`."""
    for number, event in enumerate(_response_events(whole)):
        yield {**event, "sequence_number": number}


def _response_events(whole: JSON) -> Iterator[JSON]:
    unread = {**whole, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    yield {"type": "response.created", "response": unread}
    yield {"type": "response.in_progress", "response": unread}
    for index, item in enumerate(whole["output"]):
        at = {"output_index": index, "item_id": item["id"]}
        if item["type"] == "message":
            begun = {**item, "status": "in_progress", "content": []}
            yield {"type": "response.output_item.added", "output_index": index, "item": begun}
            for place, part in enumerate(item["content"]):
                here = {**at, "content_index": place}
                yield {"type": "response.content_part.added", **here, "part": {**part, "text": ""}}
                for word in words(part["text"]):
                    yield {"type": "response.output_text.delta", **here, "delta": word, "logprobs": []}
                yield {"type": "response.output_text.done", **here, "text": part["text"], "logprobs": []}
                yield {"type": "response.content_part.done", **here, "part": part}
        else:
            begun = {**item, "status": "in_progress", "arguments": ""}
            yield {"type": "response.output_item.added", "output_index": index, "item": begun}
            yield {"type": "response.function_call_arguments.delta", **at, "delta": item["arguments"]}
            yield {"type": "response.function_call_arguments.done", **at, "arguments": item["arguments"]}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{whole['status']}", "response": whole}


def embeddings(vectors: Sequence[Sequence[float]], tokens: int | None, body: JSON) -> JSON:
    """Build an answer with these vectors, as floats or as base64, as the request asks."""

    def told(vector: Sequence[float]) -> Any:
        if body.get("encoding_format") != "base64":
            return list(vector)
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()

    return {
        "object": "list",
        "model": body.get("model"),
        "data": [
            {"object": "embedding", "index": index, "embedding": told(vector)} for index, vector in enumerate(vectors)
        ],
        **({} if tokens is None else {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}}),
    }


def words(text: str | None) -> list[str]:
    """Part a text before each word; joined again it is the same text."""
    return re.split(r"(?<=\s)(?=\S)", text) if text else []


def last_user_text(body: JSON) -> str:
    """Return what the last user message of a request says, its text parts joined."""
    asked = body.get("messages", body.get("input", body.get("prompt", "")))
    if isinstance(asked, str):
        return asked
    content = next((one["content"] for one in reversed(asked) if one.get("role") == "user"), "")
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _taken_apart(block: JSON) -> tuple[JSON, list[JSON]]:
    if block["type"] == "text":
        return {**block, "text": ""}, [{"type": "text_delta", "text": word} for word in words(block["text"])]
    if block["type"] == "tool_use":
        arguments = json.dumps(block["input"])
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": arguments}]
    return block, []
