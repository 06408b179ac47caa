"""A kept chat, told in another form than it came in: at once, or as a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.core.transcript import ChatTranscript, Malformed
from gateway.core.usage import Usage

JSON = dict[str, Any]

#: What the pieces of a stream may say of a choice without saying more than a whole answer that is joined of them.
_JOINED = frozenset(("index", "delta", "finish_reason", "logprobs"))
_OF_THE_PIECE = frozenset(("choices", "usage", "object", "obfuscation"))


def usage_object(usage: Usage) -> JSON:
    """The `usage` of a chat (OpenAI API reference, chat completion object)."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.total,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def to_chunks(document: Mapping[str, Any], *, usage: bool) -> list[JSON]:
    """Take a whole chat completion apart: a chunk with all that each choice says, one with its end.

    Args:
        document: as a provider answered it.
        usage: a last chunk has its usage, where it has one.
    """
    head = {name: value for name, value in document.items() if name not in ("choices", "usage")}
    head["object"] = "chat.completion.chunk"
    chunks: list[JSON] = []
    for choice in document["choices"]:
        beside = {name: value for name, value in choice.items() if name not in ("message", "finish_reason")}
        said = {**beside, "delta": _delta(choice.get("message") or {}), "finish_reason": None}
        end = {"index": choice.get("index", 0), "delta": {}, "finish_reason": choice.get("finish_reason")}
        chunks += [{**head, "choices": [said]}, {**head, "choices": [end]}]
    if usage and document.get("usage") is not None:
        chunks.append({**head, "choices": [], "usage": document["usage"]})
    return chunks


def _delta(message: Mapping[str, Any]) -> JSON:
    delta = dict(message)
    if isinstance(calls := delta.get("tool_calls"), list):
        delta["tool_calls"] = [{"index": number, **call} for number, call in enumerate(calls)]
    return delta


def to_document(chunks: Sequence[Mapping[str, Any]], usage: Usage | None) -> JSON | None:
    """Join the chunks of a chat to a whole one.

    Args:
        chunks: of a stream that ended well.
        usage: what the provider counted, for a stream that does not tell it.

    Returns:
        None where the chunks say something that would be lost.
    """
    transcript, told = ChatTranscript(), None
    try:
        for chunk in chunks:
            for choice in chunk.get("choices") or ():
                if not _JOINED.issuperset(choice) or choice.get("logprobs") is not None:
                    return None
            transcript.add(chunk)
            told = chunk.get("usage") or told
    except Malformed:
        return None
    if not transcript.complete:
        return None
    head = {name: value for chunk in chunks[:1] for name, value in chunk.items() if name not in _OF_THE_PIECE}
    document: JSON = {**head, "object": "chat.completion", "choices": transcript.said()}
    if told is None and usage is not None:
        told = usage_object(usage)
    return document if told is None else {**document, "usage": told}


def with_usage(chunks: Sequence[JSON], usage: Usage | None) -> list[JSON] | None:
    """Add the chunk with the usage to a stream that came without; None where nobody counted, or there are no chunks."""
    if usage is None or not chunks:
        return None
    head = {name: value for name, value in chunks[-1].items() if name not in _OF_THE_PIECE}
    last = {**head, "object": "chat.completion.chunk", "choices": [], "usage": usage_object(usage)}
    return [*chunks, last]


def without_usage(chunks: Sequence[JSON]) -> list[JSON]:
    """Leave the usage out of a stream, and the chunk that has nothing else."""
    kept = [chunk for chunk in chunks if chunk.get("choices") or not chunk.get("usage")]
    return [{name: value for name, value in chunk.items() if name != "usage"} for chunk in kept]
