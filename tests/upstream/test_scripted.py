"""The demo models do what their names say."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from gateway.core.calls import Call
from gateway.core.usage import Usage
from gateway.core.wire import data_of
from gateway.errors import GatewayError, ProviderStreamEnded
from gateway.upstream.scripted import ERRORS, MODELS, Scripted
from tests.builders import attempt, call

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}


def whole(made: Call, model: str = "echo") -> dict[str, Any]:
    tried = attempt(f"demo/{model}")
    answer: dict[str, Any] = json.loads(Scripted().open(tried, made).body)
    assert tried.transcript.complete
    return answer


def streamed(made: Call, model: str = "echo") -> list[dict[str, Any]]:
    answer = Scripted().open(attempt(f"demo/{model}"), made)
    chunks = [json.loads(data_of(chunk.data) or b"") for chunk in answer.chunks() if chunk.data]
    answer.close()
    return chunks


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"] if "delta" in choice
    )


def test_echo_repeats_the_last_message_and_counts_words() -> None:
    got = whole(call(text="one two  three"))
    assert got["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "one two  three"}, "finish_reason": "stop"}
    ]
    assert got["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert got["model"] == "demo/echo"


def test_the_same_call_has_the_same_answer() -> None:
    made = call(text="a b")
    assert whole(made) == whole(made)


def test_a_stream_says_the_same_word_by_word() -> None:
    chunks = streamed(call(text="one two  three", stream=True))
    assert text_of(chunks) == "one two  three"
    assert len(chunks) == 1 + 4 + 1
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_usage_of_a_stream_is_shown_to_who_asked_and_recorded_in_any_case() -> None:
    assert streamed(call(stream=True, usage_asked=True))[-1]["usage"]["prompt_tokens"] == 1
    tried = attempt("demo/echo")
    chunks = list(Scripted().open(tried, call(stream=True)).chunks())
    assert chunks[-1].data == b""
    assert tried.transcript.usage == Usage(1, 1)


@pytest.mark.parametrize("stream", [False, True])
def test_it_calls_the_first_tool_when_asked_to(stream: bool) -> None:
    made = call(text="Please use the tool.", stream=stream, body={"tools": [{"type": "other"}, TOOL]})
    if stream:
        tools = [choice["delta"].get("tool_calls") for chunk in streamed(made) for choice in chunk["choices"]]
        [[tool]] = [found for found in tools if found]
    else:
        choice = whole(made)["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == (None, "tool_calls")
        [tool] = choice["message"]["tool_calls"]
    assert tool["function"] == {"name": "weather", "arguments": "{}"}


def test_without_tools_it_only_repeats() -> None:
    assert whole(call(text="use the tool"))["choices"][0]["message"]["content"] == "use the tool"


@pytest.mark.parametrize("status", ERRORS)
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_model_fails_with_its_status(status: int, stream: bool) -> None:
    with pytest.raises(GatewayError) as raised:
        Scripted().open(attempt(f"demo/error-{status}"), call(stream=stream))
    assert (raised.value.http_status, raised.value.source) == (status, "provider")
    assert raised.value.retry_after == ("1" if status == 429 else None)


def test_cut_breaks_off_in_the_middle() -> None:
    tried = attempt("demo/cut")
    chunks = Scripted().open(tried, call(text="a b c d", stream=True)).chunks()
    with pytest.raises(ProviderStreamEnded):
        list(chunks)
    assert tried.transcript.said()[0]["message"]["content"] == "a b "
    with pytest.raises(ProviderStreamEnded):
        Scripted().open(attempt("demo/cut"), call(text="a b"))


def test_slow_is_slow() -> None:
    began_s = time.monotonic()
    streamed(call(text="a", stream=True), "slow")
    assert time.monotonic() - began_s > 0.2


def test_a_stopped_call_ends_at_once() -> None:
    made = call(text="a " * 100, stream=True)
    threading.Timer(0.1, made.cancellation.abort, ("deadline",)).start()
    began_s = time.monotonic()
    with pytest.raises(GatewayError) as raised:
        list(Scripted().open(attempt("demo/slow"), made).chunks())
    assert raised.value.public_code == "deadline_exceeded"
    assert time.monotonic() - began_s < 0.5


@pytest.mark.parametrize(
    "messages",
    [
        [{}],
        [{"content": None}],
        [{"content": 1}],
        [{"content": [1, {"text": 2}, {"type": "image_url"}]}],
        [{"role": "tool", "content": []}],
    ],
)
def test_odd_messages_are_answered_too(messages: list[Any]) -> None:
    assert whole(call(body={"messages": messages}))["choices"][0]["message"]["content"] == "(nothing)"


@pytest.mark.parametrize("tools", [None, [], [{}], [{"function": 1}], [{"function": {"name": 1}}]])
def test_odd_tools_are_no_tools(tools: Any) -> None:
    assert whole(call(text="use the tool", body={"tools": tools}))["choices"][0]["finish_reason"] == "stop"


def test_each_model_has_its_line() -> None:
    assert set(MODELS) == {"echo", "slow", "cut", *(f"error-{status}" for status in ERRORS)}
    assert all(MODELS.values())
