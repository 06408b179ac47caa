"""A chat that was kept in one form, told in another."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.replay import to_chunks, to_document, with_usage, without_usage
from gateway.core.transcript import ChatTranscript, Usage, usage_of

JSON = dict[str, Any]

HEAD: JSON = {"id": "chatcmpl-1", "created": 7, "model": "gpt-test", "system_fingerprint": "fp_1"}
CALLS = [
    {"id": "call_1", "type": "function", "function": {"name": "a", "arguments": '{"x":1}'}},
    {"id": "call_2", "type": "function", "function": {"name": "b", "arguments": "{}"}},
]
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
DOCUMENT: JSON = {
    **HEAD,
    "object": "chat.completion",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"},
        {
            "index": 1,
            "message": {"role": "assistant", "content": None, "tool_calls": CALLS},
            "finish_reason": "tool_calls",
        },
    ],
    "usage": USAGE,
}


def chunk(delta: JSON, reason: str | None = None, index: int = 0, **more: Any) -> JSON:
    choice = {"index": index, "delta": delta, "finish_reason": reason, **more}
    return {**HEAD, "object": "chat.completion.chunk", "choices": [choice]}


def test_a_whole_chat_survives_being_taken_apart_and_joined() -> None:
    assert to_document(to_chunks(DOCUMENT, usage=True), None) == DOCUMENT


def test_chunks_are_as_a_provider_sends_them() -> None:
    chunks = to_chunks(DOCUMENT, usage=False)
    assert all(one["object"] == "chat.completion.chunk" for one in chunks)
    assert all({**HEAD}.items() <= one.items() for one in chunks)
    assert not any("usage" in one for one in chunks)
    assert [one["choices"][0]["finish_reason"] for one in chunks] == [None, "stop", None, "tool_calls"]
    assert [call["index"] for call in chunks[2]["choices"][0]["delta"]["tool_calls"]] == [0, 1]
    transcript = ChatTranscript()
    for one in chunks:
        transcript.add(one)
    assert transcript.said() == DOCUMENT["choices"]
    assert to_chunks(DOCUMENT, usage=True)[-1] == {**chunks[0], "choices": [], "usage": USAGE}


def test_what_stands_beside_a_message_is_told_too() -> None:
    choice = {**DOCUMENT["choices"][0], "logprobs": {"content": []}, "content_filter_results": {"hate": {}}}
    first = to_chunks({**DOCUMENT, "choices": [choice]}, usage=False)[0]["choices"][0]
    assert (first["logprobs"], first["content_filter_results"]) == ({"content": []}, {"hate": {}})


def test_a_stream_without_usage_is_joined_with_what_was_counted() -> None:
    chunks = [chunk({"role": "assistant", "content": "h"}), chunk({"content": "i"}), chunk({}, "stop")]
    joined = to_document(chunks, Usage(5, 2, cached=3, reasoning=1))
    assert joined is not None
    assert joined["choices"][0]["message"] == {"role": "assistant", "content": "hi"}
    assert usage_of(joined["usage"]) == Usage(5, 2, cached=3, reasoning=1)
    assert "usage" not in (to_document(chunks, None) or {"usage": 1})


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk({"content": "a"})],
        [],
        [chunk({"content": "a"}, "stop", logprobs={"content": []})],
        [chunk({"content": "a"}, "stop", content_filter_results={})],
        [{**HEAD, "choices": [{"index": "x", "delta": {}, "finish_reason": "stop"}]}],
    ],
    ids=["no end", "nothing", "logprobs", "more beside it", "malformed"],
)
def test_what_would_lose_something_is_not_joined(chunks: list[JSON]) -> None:
    assert to_document(chunks, None) is None


def test_usage_is_added_to_a_stream_and_taken_from_it() -> None:
    chunks = [chunk({"content": "a"}), chunk({}, "stop")]
    counted = with_usage(chunks, Usage(5, 2))
    assert counted is not None
    assert counted[:-1] == chunks
    assert counted[-1]["choices"] == []
    assert usage_of(counted[-1]["usage"]) == Usage(5, 2)
    assert without_usage(counted) == chunks
    assert without_usage([{**one, "usage": None} for one in chunks]) == chunks
    assert with_usage(chunks, None) is None
    assert with_usage([], Usage(5, 2)) is None
