"""Streams tell the truth: nothing is invented, nothing is swallowed, every failure shows."""

import json
from typing import Any

import pytest

from tests.fakes.provider import (
    Action,
    FakeProvider,
    Reply,
    answer,
    close,
    data,
    delta,
    done,
    drop,
    error,
    event,
    pause,
    plain_json,
    raw,
    raw_bytes,
    repeat,
    reset,
    split,
    sse,
    usage,
)
from tests.served.caller import Caller, Streamed, body, fault

ROLE = delta({"role": "assistant", "content": ""})
STOP = delta({}, "stop")
TEXT = "天气很好 🌦️ naïve"


def told(caller: Caller, provider: FakeProvider, model: str, *actions: Action, **fields: Any) -> Streamed:
    """Stream what the provider does, role first."""
    provider.script(model, sse(ROLE, *actions))
    return caller.stream(f"openai/{model}", **fields)


def test_a_stream_has_one_role_one_id_one_finish_and_one_done(
    caller: Caller, provider: FakeProvider, model: str
) -> None:
    provider.script(model, answer("Hello brave new world."))
    streamed = caller.stream(f"openai/{model}")
    assert streamed.ends_well
    assert streamed.text() == "Hello brave new world."
    assert streamed.finishes() == ["stop"]
    assert streamed.chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert streamed.chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert len({chunk["id"] for chunk in streamed.chunks}) == 1
    assert {type(chunk["created"]) for chunk in streamed.chunks} == {int}
    assert {chunk["model"] for chunk in streamed.chunks} == {model}
    assert {chunk["object"] for chunk in streamed.chunks} == {"chat.completion.chunk"}


def test_characters_that_are_split_over_writes_survive(caller: Caller, provider: FakeProvider, model: str) -> None:
    chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": TEXT}, "finish_reason": None}]}
    sent = f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode()
    streamed = told(caller, provider, model, split(sent, range(1, len(sent)), 0.001), STOP, done())
    assert streamed.ends_well
    assert streamed.text() == TEXT


@pytest.mark.parametrize("end", [b"\r\n", b"\r", b"\n"], ids=["crlf", "cr", "lf"])
def test_every_end_of_line_is_read(caller: Caller, provider: FakeProvider, model: str, end: bytes) -> None:
    lines = [
        b'data: {"choices":[{"index":0,"delta":{"content":"one"}}]}',
        b'data:{"choices":[{"index":0,"delta":{"content":" two"}}]}',
        b'data: {"choices":[{"index":0,\ndata: "delta":{"content":" three"}}]}'.replace(b"\n", end),
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
        b"data: [DONE]",
    ]
    sent = b"".join(line + end + end for line in lines)
    streamed = told(caller, provider, model, split(sent, range(20, len(sent), 20), 0.001))
    assert streamed.ends_well
    assert streamed.text() == "one two three"


@pytest.mark.parametrize(
    "noise",
    [b": PROVIDER PROCESSING\n\n", b":\n\n", b"event: ping\nid: 7\n\n", b"retry: 100\n\n", b"data:\n\n", b"\n\n\n"],
)
def test_what_is_no_data_becomes_none(caller: Caller, provider: FakeProvider, model: str, noise: bytes) -> None:
    some = raw_bytes(noise)
    streamed = told(
        caller, provider, model, some, delta({"content": "after"}), some, delta({"content": " it"}), some, STOP, done()
    )
    assert streamed.ends_well
    assert streamed.text() == "after it"
    assert "" not in streamed.data


def test_chunks_without_choices_break_nothing(caller: Caller, provider: FakeProvider, model: str) -> None:
    filtered = data({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]})
    empty = data({"id": "x", "choices": []})
    provider.script(
        model,
        sse(
            filtered, ROLE, delta({"content": "alpha"}), empty, empty, delta({"content": " beta"}), STOP, empty, done()
        ),
    )
    streamed = caller.stream(f"openai/{model}")
    assert streamed.ends_well
    assert streamed.text() == "alpha beta"
    assert streamed.finishes() == ["stop"]
    assert streamed.chunks[0]["prompt_filter_results"] == [{"prompt_index": 0}]


def test_a_model_may_repeat_itself(caller: Caller, provider: FakeProvider, model: str) -> None:
    streamed = told(caller, provider, model, repeat(300, delta({"content": "-----"})), STOP, done())
    assert streamed.ends_well
    assert streamed.text() == "-----" * 300


def test_white_space_is_text(caller: Caller, provider: FakeProvider, model: str) -> None:
    pieces = ["!", "\n", "\n", "  ", "def f():", "\n\t", "return 1", "", "\n", " "]
    streamed = told(caller, provider, model, *(delta({"content": piece}) for piece in pieces), STOP, done())
    assert streamed.ends_well
    assert [choice["delta"].get("content") for choice in streamed.choices()][1:-1] == pieces


def test_an_event_of_a_megabyte_passes(caller: Caller, provider: FakeProvider, model: str) -> None:
    sound = {"audio": {"id": "a", "data": "A" * 1_000_000}}
    streamed = told(caller, provider, model, delta(sound), STOP, done())
    assert streamed.ends_well
    assert streamed.choices()[1]["delta"] == sound


def test_two_choices_stay_apart(caller: Caller, provider: FakeProvider, model: str) -> None:
    streamed = told(
        caller,
        provider,
        model,
        delta({"content": "red"}),
        delta({"role": "assistant", "content": "blue"}, index=1),
        delta({"content": " boat"}, index=1),
        delta({"content": " apple"}),
        delta({}, "length", index=1),
        STOP,
        done(),
        n=2,
    )
    assert streamed.ends_well
    assert (streamed.text(0), streamed.text(1)) == ("red apple", "blue boat")
    assert (streamed.finishes(0), streamed.finishes(1)) == (["stop"], ["length"])


@pytest.mark.parametrize("reason", ["length", "content_filter", "tool_calls", "eos_token"])
def test_a_finish_reason_is_the_providers(caller: Caller, provider: FakeProvider, model: str, reason: str) -> None:
    streamed = told(caller, provider, model, delta({"content": "I will n"}), delta({}, reason), done())
    assert streamed.ends_well
    assert streamed.finishes() == [reason]


def test_tool_calls_without_an_index_get_one(caller: Caller, provider: FakeProvider, model: str) -> None:
    def tool(number: int, arguments: str) -> dict[str, Any]:
        return {"id": f"n{number}", "type": "function", "function": {"name": "f", "arguments": arguments}}

    streamed = told(
        caller,
        provider,
        model,
        delta({"tool_calls": [tool(1, "{"), tool(2, "[")]}),
        delta({"tool_calls": [{"id": "n2", "function": {"arguments": "]"}}]}),
        delta({"tool_calls": [{"id": "n1", "function": {"arguments": "}"}}]}),
        delta({}, "tool_calls"),
        done(),
    )
    assert streamed.ends_well
    joined: dict[int, str] = {}
    for choice in streamed.choices():
        for call in choice["delta"].get("tool_calls", ()):
            joined[call["index"]] = joined.get(call["index"], "") + call["function"]["arguments"]
    assert joined == {0: "{}", 1: "[]"}


def test_a_stream_without_done_ends_with_one(caller: Caller, provider: FakeProvider, model: str) -> None:
    streamed = told(caller, provider, model, delta({"content": "all"}), STOP)
    assert streamed.ends_well
    assert streamed.text() == "all"


def test_what_follows_done_is_not_read(caller: Caller, provider: FakeProvider, model: str) -> None:
    streamed = told(
        caller, provider, model, delta({"content": "all"}), STOP, done(), delta({"content": "more"}), done()
    )
    assert streamed.ends_well
    assert streamed.text() == "all"


def test_a_last_event_without_its_blank_line_is_read(caller: Caller, provider: FakeProvider, model: str) -> None:
    last = b'data: {"choices":[{"index":0,"delta":{"content":"!"},"finish_reason":"stop"}]}'
    streamed = told(caller, provider, model, delta({"content": "all"}), raw_bytes(last))
    assert streamed.ends_well
    assert streamed.text() == "all!"


# -- failures on the way


WORKER = {"message": "worker out of capacity", "type": "server_error", "code": "overloaded", "param": None}
FAILS_LATE: dict[str, tuple[Action, ...]] = {
    "error event": (data({"error": WORKER}),),
    "error event, then done": (data({"error": WORKER}), done()),
    "error as text": (data({"error": "worker out of capacity"}),),
    "clean end": (),
    "done without finish": (done(),),
    "cut": (close(),),
    "reset": (reset(),),
    "no JSON": (data("{not json"), STOP, done()),
    "no object": (data("[1]"), STOP, done()),
    "choices of another kind": (data({"choices": "x"}), STOP, done()),
    "half an event": (raw_bytes(b'data: {"choices":[{"index":0,"del'), close()),
}


@pytest.mark.parametrize("actions", FAILS_LATE.values(), ids=FAILS_LATE)
def test_a_failure_on_the_way_is_one_error_event_and_no_done(
    caller: Caller, provider: FakeProvider, model: str, actions: tuple[Action, ...]
) -> None:
    streamed = told(
        caller,
        provider,
        model,
        delta({"content": "this was going"}),
        delta({"content": " to be lon"}),
        pause(0.05),
        *actions,
    )
    assert streamed.status == 200
    assert streamed.text() == "this was going to be lon"
    assert streamed.finishes() == []
    assert streamed.fails_once, streamed.data
    (failure,) = streamed.errors
    assert failure["message"]
    assert failure["source"] == "provider"
    assert failure["request_id"] == streamed.headers["request-id"]
    if actions and actions[0] in FAILS_LATE["error event"]:
        assert (failure["message"], failure["type"], failure["code"]) == (
            WORKER["message"],
            "server_error",
            "overloaded",
        )


FAILS_EARLY: dict[str, tuple[Reply, int]] = {
    "refused": (
        error(400, {"error": {"message": "no", "type": "invalid_request_error", "param": "n", "code": "c"}}),
        400,
    ),
    "limited": (error(429), 429),
    "broken": (error(500), 500),
    "JSON where a stream was asked for": (plain_json({"choices": []}), 502),
    "an error in JSON with 200": (plain_json({"error": WORKER}), 502),
    "HTML": (raw(200, {"Content-Type": "text/html"}, b"<html>hi</html>"), 502),
    "no event": (sse(), 502),
    "done alone": (sse(done()), 502),
    "comments alone": (sse(raw_bytes(b": hi\n\n")), 502),
    "no choices ever": (sse(data({"choices": []}), usage(1, 1), done()), 502),
    "a role and the end": (sse(ROLE, done()), 502),
    "a role and an error": (sse(ROLE, data({"error": WORKER})), 502),
    "an error as first event": (sse(data({"error": {"message": "slow down", "code": "rate_limit_exceeded"}})), 429),
    "a role and a reset": (sse(ROLE, pause(0.05), reset()), 502),
    "closed before headers": (drop("close"), 502),
    "reset before headers": (drop("reset"), 502),
}


@pytest.mark.parametrize(("reply", "status"), FAILS_EARLY.values(), ids=FAILS_EARLY)
def test_a_failure_before_the_first_content_has_a_status_of_its_own(
    caller: Caller, provider: FakeProvider, model: str, reply: Reply, status: int
) -> None:
    provider.script(model, reply)
    answered = caller.post(body(f"openai/{model}", stream=True))
    assert answered.status_code == status, answered.text
    failure = fault(answered)
    assert failure["source"] == "provider"
    assert failure["provider"] == "openai"
    assert len(provider.requests(model)) == 1


# -- Anthropic's streams, translated


def anthropic_head(*blocks: tuple[str, Any]) -> list[Action]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
    events = (("message_start", {"message": {**message, "usage": {"input_tokens": 25, "output_tokens": 1}}}), *blocks)
    return [event(name, {"type": name, **fields}) for name, fields in events]


PARTIAL = anthropic_head(
    ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
    ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": "this was"}}),
)
OVERLOADED = event("error", {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})


@pytest.mark.parametrize("end", [OVERLOADED, close(), reset(), pause(0)], ids=["error", "cut", "reset", "clean end"])
def test_a_translated_stream_that_fails_on_the_way_says_so(
    caller: Caller, provider: FakeProvider, model: str, end: Action
) -> None:
    provider.script(model, sse(*PARTIAL, pause(0.05), end))
    streamed = caller.stream(f"anthropic/{model}")
    assert streamed.status == 200
    assert streamed.text() == "this was"
    assert streamed.finishes() == []
    assert streamed.fails_once, streamed.data
    if end is OVERLOADED:
        assert streamed.errors[0]["message"] == "Overloaded"


def test_a_translated_stream_that_fails_at_once_has_a_status_of_its_own(
    caller: Caller, provider: FakeProvider, model: str
) -> None:
    provider.script(model, sse(OVERLOADED))
    answered = caller.post(body(f"anthropic/{model}", stream=True))
    assert answered.status_code in (502, 529), answered.text
    assert fault(answered)["message"] == "Overloaded"
