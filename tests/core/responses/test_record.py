"""What a response said, joined from its events."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.responses.record import ResponsesTranscript, is_terminal
from gateway.core.transcript import Malformed
from gateway.core.usage import Usage
from tests.core.responses.wires import chunk, told, tool

JSON = dict[str, Any]

MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
TEXT = {"type": "output_text", "text": "", "annotations": []}


def document(status: str = "in_progress", **fields: Any) -> JSON:
    """A Response."""
    return {"id": "resp_1", "object": "response", "model": "m", "status": status, "output": [], **fields}


def event(kind: str, **fields: Any) -> JSON:
    """An event of the first item and the first part."""
    return {"type": f"response.{kind}", "output_index": 0, "content_index": 0, **fields}


def ended(status: str, **fields: Any) -> JSON:
    """A terminal event."""
    return {"type": f"response.{status}", "response": document(status, **fields)}


def taken(*events: JSON) -> ResponsesTranscript:
    """A transcript of these events."""
    transcript = ResponsesTranscript()
    for one in events:
        transcript.add(one)
    return transcript


# Joining.


def test_a_half_told_answer_is_joined_from_its_deltas() -> None:
    transcript = taken(
        {"type": "response.created", "response": document()},
        event("output_item.added", item={"id": "rs_1", "type": "reasoning", "summary": []}),
        event("reasoning_summary_part.added", summary_index=0, part={"type": "summary_text", "text": ""}),
        event("reasoning_summary_text.delta", summary_index=0, delta="so"),
        event("reasoning_summary_text.delta", summary_index=1, delta="then"),
        event("output_item.added", output_index=1, item=MESSAGE),
        event("content_part.added", output_index=1, part=TEXT),
        event("output_text.delta", output_index=1, delta="hel"),
        event("output_text.delta", output_index=1, delta="lo"),
        event("content_part.added", output_index=1, content_index=1, part={"type": "refusal", "refusal": ""}),
        event("refusal.delta", output_index=1, content_index=1, delta="no"),
        event("function_call_arguments.delta", output_index=2, item_id="fc_1", delta='{"a'),
        event("output_item.added", output_index=3, item={"type": "custom_tool_call", "name": "p", "input": ""}),
        event("custom_tool_call_input.delta", output_index=3, delta="x"),
        event("custom_tool_call_input.delta", output_index=3, delta="y"),
    )
    assert transcript.said() == [
        {
            "id": "rs_1",
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "so"}, {"type": "summary_text", "text": "then"}],
        },
        {**MESSAGE, "content": [{**TEXT, "text": "hello"}, {"type": "refusal", "refusal": "no"}]},
        {"type": "function_call", "id": "fc_1", "arguments": '{"a'},
        {"type": "custom_tool_call", "name": "p", "input": "xy"},
    ]
    assert (transcript.id, transcript.model) == ("resp_1", "m")
    assert (transcript.started, transcript.complete, transcript.finish_reasons) == (True, False, [None])


def test_what_a_text_was_in_the_end_stands_over_its_pieces() -> None:
    transcript = taken(
        event("output_item.added", item=MESSAGE),
        event("output_text.delta", delta="hallo"),
        event("output_text.done", text="hello"),
    )
    assert transcript.said()[0]["content"] == [{"type": "output_text", "text": "hello"}]


def test_an_item_that_is_done_stands_as_it_was_sent() -> None:
    done = {**MESSAGE, "status": "completed", "content": [{**TEXT, "text": "hello"}]}
    transcript = taken(
        event("output_item.added", item=MESSAGE),
        event("output_item.done", item=done),
        event("output_text.delta", delta="more"),
        event("content_part.done", part={**TEXT, "text": "more"}),
        event("output_item.added", item=MESSAGE),
    )
    assert transcript.said() == [done]


def test_the_ended_response_has_the_last_word() -> None:
    output = [{**MESSAGE, "content": [{**TEXT, "text": "b"}]}]
    transcript = taken(event("output_text.delta", delta="a"), ended("completed", output=output))
    assert transcript.said() == output


def test_an_ended_response_with_an_empty_output_does_not_take_back_what_was_told() -> None:
    transcript = taken(event("output_item.done", item=MESSAGE), ended("completed"))
    assert transcript.said() == [MESSAGE]


def test_a_stream_told_from_chat_is_read_back() -> None:
    events = told(
        [
            chunk(reasoning="so"),
            chunk(content="hi"),
            chunk(tool_calls=[tool(0, "{}", id="a", name="f")]),
            {**chunk("tool_calls"), "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
        ]
    )
    transcript = taken(*events)
    response = events[-1]["response"]
    assert transcript.said() == response["output"]
    assert (transcript.id, transcript.model, transcript.usage) == ("resp_ab", "served", Usage(3, 2))
    assert transcript.complete
    half = taken(*events[:-1])
    assert half.said() == response["output"], "each item was done"
    assert not half.complete


# Content.


@pytest.mark.parametrize(
    "one",
    [
        event("output_text.delta", delta="a"),
        event("refusal.delta", delta="a"),
        event("reasoning_summary_text.delta", summary_index=0, delta="a"),
        event("reasoning_text.delta", delta="a"),
        event("function_call_arguments.delta", delta="a"),
        event("custom_tool_call_input.delta", delta="a"),
        event("output_item.added", item={"type": "function_call"}),
        event("output_item.done", item={**MESSAGE, "content": [TEXT]}),
        event("content_part.added", part={**TEXT, "text": "a"}),
        ended("completed"),
        ended("incomplete"),
        ended("failed"),
        {"type": "error", "message": "it broke"},
    ],
)
def test_what_says_something_is_content(one: JSON) -> None:
    transcript = ResponsesTranscript()
    assert transcript.add(one)
    assert transcript.started


@pytest.mark.parametrize(
    "one",
    [
        {"type": "response.created", "response": document()},
        {"type": "response.queued", "response": document("queued")},
        {"type": "response.in_progress", "response": document()},
        event("output_item.added", item=MESSAGE),
        event("content_part.added", part=TEXT),
        event("output_text.delta", delta=""),
        event("output_text.done", text=""),
        event("web_search_call.searching"),
        {"type": "keepalive"},
    ],
)
def test_what_says_nothing_is_no_content(one: JSON) -> None:
    assert not ResponsesTranscript().add(one)


def test_the_terminal_events_are_known() -> None:
    terminal = [ended("completed"), ended("incomplete"), ended("failed"), {"type": "error"}]
    assert all(map(is_terminal, terminal))
    others: list[JSON] = [event("output_text.delta"), event("in_progress"), {}, {"type": ["error"]}, {"type": None}]
    assert not any(map(is_terminal, others))


# Ends.


def test_a_completed_response_is_complete() -> None:
    transcript = taken(ended("completed", usage={"input_tokens": 3, "output_tokens": 2}))
    assert (transcript.complete, transcript.finish_reasons, transcript.failure) == (True, ["completed"], None)
    assert transcript.usage == Usage(prompt=3, completion=2)


@pytest.mark.parametrize(
    ("details", "reason"),
    [({"reason": "max_output_tokens"}, "max_output_tokens"), (None, "incomplete"), ({"reason": 1}, "incomplete")],
)
def test_an_incomplete_response_says_why(details: object, reason: str) -> None:
    transcript = taken(ended("incomplete", incomplete_details=details))
    assert (transcript.complete, transcript.finish_reasons) == (True, [reason])


@pytest.mark.parametrize(
    ("error", "failure"), [({"code": "server_error", "message": "m"},) * 2, (None, {}), ("text", {})]
)
def test_a_failed_response_has_its_failure(error: object, failure: JSON) -> None:
    transcript = taken(event("output_text.delta", delta="a"), ended("failed", error=error))
    assert (transcript.complete, transcript.finish_reasons, transcript.failure) == (False, ["failed"], failure)
    assert transcript.said()[0]["content"] == [{"type": "output_text", "text": "a"}]


@pytest.mark.parametrize(
    "one",
    [
        {"type": "error", "code": "c", "message": "m", "param": None},
        {"type": "error", "error": {"code": "c", "message": "m"}},
    ],
)
def test_an_error_event_is_a_failure(one: JSON) -> None:
    transcript = taken(one)
    assert transcript.failure is not None
    assert (transcript.failure["code"], transcript.failure["message"]) == ("c", "m")
    assert not transcript.complete


def test_a_response_is_stored_unless_it_says_that_it_is_not() -> None:
    assert not ResponsesTranscript().stored
    assert taken(ended("completed")).stored
    assert taken(ended("completed", store=True)).stored
    assert not taken(ended("completed", store=False)).stored


# Whole answers.


@pytest.mark.parametrize("status", ["completed", "incomplete", "queued", "in_progress"])
def test_a_whole_answer_is_complete(status: str) -> None:
    transcript = ResponsesTranscript()
    transcript.take(document(status, output=[MESSAGE], usage={"input_tokens": 1}))
    assert (transcript.complete, transcript.started) == (True, True)
    assert transcript.said() == [MESSAGE]
    assert (transcript.id, transcript.model, transcript.usage) == ("resp_1", "m", Usage(prompt=1))
    assert transcript.finish_reasons == [status]


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_whole_answer_that_failed_is_not_complete(status: str) -> None:
    transcript = ResponsesTranscript()
    transcript.take({"id": "resp_1", "status": status, "error": {"code": "server_error", "message": "m"}})
    assert not transcript.complete
    assert (transcript.failure is not None) is (status == "failed")
    assert transcript.said() == []


@pytest.mark.parametrize(
    "answer",
    [
        {},
        document("made_up"),
        {**document(), "status": ["completed"]},
        document("completed", output=None),
        document("completed", output={}),
        document("completed", output=["a"]),
        {"choices": [{"message": {"content": "a"}}]},
    ],
)
def test_an_answer_that_is_no_response_is_malformed(answer: JSON) -> None:
    with pytest.raises(Malformed):
        ResponsesTranscript().take(answer)


# Whatever a provider sends.


@pytest.mark.parametrize(
    "one",
    [
        {},
        {"type": 1},
        {"type": "response.created"},
        {"type": "response.completed", "response": []},
        ended("completed", output=[1]),
        event("output_item.added"),
        event("output_item.added", item=MESSAGE, output_index="0"),
        event("output_item.added", item=MESSAGE, output_index=True),
        event("content_part.added", part=5),
        event("content_part.added", part=TEXT, content_index=None),
        event("output_text.delta", delta=5),
        event("output_text.delta", delta="a", content_index=1.5),
        event("reasoning_summary_text.delta", delta="a"),
        event("function_call_arguments.done"),
    ],
)
def test_an_event_that_is_none_is_malformed(one: JSON) -> None:
    with pytest.raises(Malformed):
        ResponsesTranscript().add(one)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
parts = st.fixed_dictionaries({}, optional=dict.fromkeys(("type", "text", "refusal"), values))
shapes = st.fixed_dictionaries(
    {"type": values | st.sampled_from(["message", "reasoning", "function_call"])},
    optional={
        "content": values | st.lists(parts | values, max_size=2),
        "summary": values | st.lists(parts | values, max_size=2),
        **dict.fromkeys(("id", "arguments", "input"), values),
    },
)
responses = st.fixed_dictionaries(
    {"status": st.sampled_from(["completed", "failed", "queued"]) | values},
    optional={
        "output": values | st.lists(shapes | values, max_size=2),
        **dict.fromkeys(("id", "model", "usage", "error", "incomplete_details", "store"), values),
    },
)
kinds = st.sampled_from(
    [
        *("created", "completed", "incomplete", "failed", "output_item.added", "output_item.done"),
        *("content_part.added", "content_part.done", "output_text.delta", "output_text.done", "refusal.delta"),
        *("reasoning_summary_text.delta", "reasoning_text.done", "function_call_arguments.delta"),
        *("custom_tool_call_input.done", "mcp_call_arguments.delta", "code_interpreter_call_code.done"),
    ]
).map("response.{}".format)
events = st.fixed_dictionaries(
    {"type": kinds | values | st.just("error")},
    optional={
        "response": responses | values,
        "item": shapes | values,
        "part": parts | values,
        **dict.fromkeys(("output_index", "content_index", "summary_index"), st.integers(0, 2) | values),
        **dict.fromkeys(("delta", "text", "refusal", "arguments", "input", "code"), st.text(max_size=3) | values),
        **dict.fromkeys(("item_id", "error"), values),
    },
)


@settings(deadline=None, derandomize=True, database=None, max_examples=150)
@given(st.lists(events, max_size=6), responses)
def test_whatever_comes_is_taken_in_or_malformed(stream: list[JSON], answer: JSON) -> None:
    streamed, whole = ResponsesTranscript(), ResponsesTranscript()
    for one in stream:
        with contextlib.suppress(Malformed):
            assert streamed.add(one) in (True, False)
    with contextlib.suppress(Malformed):
        whole.take(answer)
    for transcript in (streamed, whole):
        json.dumps(transcript.said())
        assert len(transcript.finish_reasons) == transcript.started
        assert not (transcript.complete and transcript.failure is not None)
