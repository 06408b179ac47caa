"""A chat completion, told in the Responses wire."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai._types import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response

from gateway.core.responses.record import ResponsesTranscript
from gateway.core.responses.told import FromChat
from gateway.core.transcript import Malformed
from tests.core.responses.wires import OPENAI_EVENT, check, chunk, told, tool

JSON = dict[str, Any]

USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 5,
    "total_tokens": 14,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
TOLD_USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 14,
}
PATCH = {"type": "custom", "name": "patch"}
FILES = {"type": "namespace", "name": "files", "description": "", "tools": [{"type": "function", "name": "look"}]}


def teller(**body: Any) -> FromChat:
    return FromChat({"model": "asked", **body}, "resp_ab", 1_700_000_000)


def whole(message: JSON, finish_reason: str | None = "stop", **body: Any) -> JSON:
    """The Response that a whole chat completion makes."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}
    got = teller(**body).whole({"id": "chatcmpl-1", "model": "served", "choices": [choice], "usage": USAGE})
    Response.model_validate(got)
    return got


def brief(events: list[JSON]) -> list[JSON]:
    """The events without their numbers and the documents in them."""
    return [
        {key: value for key, value in event.items() if key not in {"sequence_number", "response"}} for event in events
    ]


# The events of a stream.


def test_a_text_is_told_event_by_event() -> None:
    events = told(
        [
            chunk(role="assistant", content=""),
            chunk(content="hel"),
            chunk(content="lo"),
            chunk("stop"),
            {"choices": [], "usage": USAGE},
        ]
    )
    at = {"item_id": "msg_ab0000", "output_index": 0, "content_index": 0}
    empty = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    full = {**empty, "text": "hello"}
    message = {"id": "msg_ab0000", "type": "message", "role": "assistant"}
    done = {**message, "status": "completed", "content": [full]}
    assert brief(events) == [
        {"type": "response.created"},
        {"type": "response.in_progress"},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**message, "status": "in_progress", "content": []},
        },
        {"type": "response.content_part.added", **at, "part": empty},
        {"type": "response.output_text.delta", **at, "delta": "hel", "logprobs": []},
        {"type": "response.output_text.delta", **at, "delta": "lo", "logprobs": []},
        {"type": "response.output_text.done", **at, "text": "hello", "logprobs": []},
        {"type": "response.content_part.done", **at, "part": full},
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {"type": "response.completed"},
    ]
    for event in events[:2]:
        assert (event["response"]["status"], event["response"]["output"]) == ("in_progress", [])
        assert event["response"]["usage"] is None
    ended = events[-1]["response"]
    assert (ended["id"], ended["created_at"], ended["model"]) == ("resp_ab", 1_700_000_000, "served")
    assert (ended["status"], ended["output"], ended["usage"]) == ("completed", [done], TOLD_USAGE)
    assert (ended["error"], ended["incomplete_details"]) == (None, None)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_is_an_item_of_its_own_that_is_done_before_the_message(name: str) -> None:
    events = told([chunk(**{name: "so "}), chunk(**{name: "be it"}), chunk(content="yes"), chunk("stop")])
    at = {"item_id": "rs_ab0000", "output_index": 0, "summary_index": 0}
    summary = {"type": "summary_text", "text": "so be it"}
    assert brief(events)[2:9] == [
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {"id": "rs_ab0000", "type": "reasoning", "summary": []},
        },
        {"type": "response.reasoning_summary_part.added", **at, "part": {"type": "summary_text", "text": ""}},
        {"type": "response.reasoning_summary_text.delta", **at, "delta": "so "},
        {"type": "response.reasoning_summary_text.delta", **at, "delta": "be it"},
        {"type": "response.reasoning_summary_text.done", **at, "text": "so be it"},
        {"type": "response.reasoning_summary_part.done", **at, "part": summary},
        {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": {"id": "rs_ab0000", "type": "reasoning", "summary": [summary]},
        },
    ]
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["reasoning", "message"]


def test_reasoning_under_both_names_is_told_once() -> None:
    events = told([chunk(reasoning="so", reasoning_content="so"), chunk("stop")])
    assert events[-1]["response"]["output"][0]["summary"] == [{"type": "summary_text", "text": "so"}]


def test_a_refusal_is_a_part_of_the_message() -> None:
    events = told([chunk(content="well"), chunk(refusal="no"), chunk(refusal=", never"), chunk("stop")])
    at = {"item_id": "msg_ab0000", "output_index": 0, "content_index": 1}
    assert [event for event in brief(events) if event.get("content_index") == 1] == [
        {"type": "response.content_part.added", **at, "part": {"type": "refusal", "refusal": ""}},
        {"type": "response.refusal.delta", **at, "delta": "no"},
        {"type": "response.refusal.delta", **at, "delta": ", never"},
        {"type": "response.refusal.done", **at, "refusal": "no, never"},
        {"type": "response.content_part.done", **at, "part": {"type": "refusal", "refusal": "no, never"}},
    ]


def test_calls_one_after_the_other_are_done_one_after_the_other() -> None:
    events = told(
        [
            chunk(content="I look"),
            chunk(tool_calls=[tool(0, id="call_a", name="f")]),
            chunk(tool_calls=[tool(0, '{"a"')]),
            chunk(tool_calls=[tool(0, ":1}")]),
            chunk(tool_calls=[tool(1, "{}", id="call_b", name="g")]),
            chunk("tool_calls"),
        ]
    )
    at = {"item_id": "fc_ab0001", "output_index": 1}
    call = {"id": "fc_ab0001", "type": "function_call", "call_id": "call_a", "name": "f"}
    assert [event for event in brief(events) if event.get("output_index") == 1] == [
        {
            "type": "response.output_item.added",
            "output_index": 1,
            "item": {**call, "status": "in_progress", "arguments": ""},
        },
        {"type": "response.function_call_arguments.delta", **at, "delta": '{"a"'},
        {"type": "response.function_call_arguments.delta", **at, "delta": ":1}"},
        {"type": "response.function_call_arguments.done", **at, "arguments": '{"a":1}'},
        {
            "type": "response.output_item.done",
            "output_index": 1,
            "item": {**call, "status": "completed", "arguments": '{"a":1}'},
        },
    ]
    order = [event["output_index"] for event in events if "output_index" in event]
    assert order == sorted(order), "each is done before the next begins"


def test_interleaved_calls_stay_open_beside_each_other() -> None:
    events = told(
        [
            chunk(tool_calls=[tool(0, "{", id="a", name="f"), tool(1, "[", id="b", name="g")]),
            chunk(tool_calls=[tool(1, "]"), tool(0, "}")]),
            chunk("tool_calls"),
        ]
    )
    assert [
        (item["call_id"], item["name"], item["arguments"], item["status"]) for item in events[-1]["response"]["output"]
    ] == [
        ("a", "f", "{}", "completed"),
        ("b", "g", "[]", "completed"),
    ]


def test_a_call_is_told_when_its_name_is_known() -> None:
    events = told(
        [
            chunk(tool_calls=[tool(0, "{")]),
            chunk(tool_calls=[tool(0, '"a":', id="call_a", name="f")]),
            chunk(tool_calls=[tool(0, "1}")]),
            chunk("tool_calls"),
        ]
    )
    deltas = [event["delta"] for event in events if event["type"].endswith("arguments.delta")]
    assert deltas == ['{"a":', "1}"]
    assert events[-1]["response"]["output"][0]["name"] == "f"


def test_a_call_without_an_id_gets_one() -> None:
    events = told([chunk(function_call={"name": "f", "arguments": "{}"}), chunk("function_call")])
    assert events[-1]["response"]["output"] == [
        {
            "id": "fc_ab0000",
            "type": "function_call",
            "status": "completed",
            "call_id": "call_ab0000",
            "name": "f",
            "arguments": "{}",
        }
    ]


def test_a_custom_tools_text_is_unpacked() -> None:
    pieces = ['{"in', 'put":"say \\"', 'hi\\""}']
    chunks = [chunk(tool_calls=[tool(0, id="c", name="patch")]), *(chunk(tool_calls=[tool(0, p)]) for p in pieces)]
    events = told([*chunks, chunk("tool_calls")], tools=[PATCH])
    at = {"item_id": "ctc_ab0000", "output_index": 0}
    call = {"id": "ctc_ab0000", "type": "custom_tool_call", "call_id": "c", "name": "patch"}
    assert brief(events)[2:-1] == [
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**call, "status": "in_progress", "input": ""},
        },
        {"type": "response.custom_tool_call_input.delta", **at, "delta": 'say "hi"'},
        {"type": "response.custom_tool_call_input.done", **at, "input": 'say "hi"'},
        {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": {**call, "status": "completed", "input": 'say "hi"'},
        },
    ]


def test_a_call_into_a_namespace_has_its_own_two_names_again() -> None:
    events = told([chunk(tool_calls=[tool(0, "{}", id="c", name="files__look")]), chunk("tool_calls")], tools=[FILES])
    [item] = events[-1]["response"]["output"]
    assert (item["name"], item["namespace"]) == ("look", "files")
    added = next(event["item"] for event in events if event["type"] == "response.output_item.added")
    assert (added["name"], added["namespace"]) == ("look", "files")


def test_tools_that_the_history_brought_have_their_names_too() -> None:
    history = [{"type": "tool_search_output", "call_id": "s", "tools": [FILES]}]
    telling = FromChat({"model": "m", "input": "hi"}, "resp_ab", 0, history)
    telling.feed(chunk(tool_calls=[tool(0, "{}", id="c", name="files__look")], finish_reason="tool_calls"))
    assert telling.end()[-1]["response"]["output"][0]["namespace"] == "files"


def test_logprobs_are_told_where_they_were_asked_for() -> None:
    token = {"token": "hi", "logprob": -0.5, "bytes": [104, 105], "top_logprobs": []}
    said = chunk(content="hi")
    said["choices"][0]["logprobs"] = {"content": [token], "refusal": None}
    asked = {"include": ["message.output_text.logprobs"]}
    events = told([said, chunk("stop")], **asked)
    assert [event["logprobs"] for event in events if "logprobs" in event] == [[token], [token]]
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == [token]
    assert told([said, chunk("stop")])[-1]["response"]["output"][0]["content"][0]["logprobs"] == []


def test_an_answer_that_says_nothing_has_no_output() -> None:
    events = told([chunk("stop")])
    assert [event["type"] for event in events] == ["response.created", "response.in_progress", "response.completed"]


def test_only_the_first_choice_is_told() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": "length"}]}
    events = told([chunk(content="a"), other, chunk("stop")])
    assert [event["delta"] for event in events if "delta" in event] == ["a"]
    assert events[-1]["type"] == "response.completed"


# Ends.


@pytest.mark.parametrize(
    ("finish_reason", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_answer_that_was_cut_is_incomplete(finish_reason: str, reason: str) -> None:
    events = told([chunk(content="a"), chunk(tool_calls=[tool(0, "{", id="c", name="f")]), chunk(finish_reason)])
    assert events[-1]["type"] == "response.incomplete"
    ended = events[-1]["response"]
    assert (ended["status"], ended["incomplete_details"]) == ("incomplete", {"reason": reason})
    assert [item["status"] for item in ended["output"]] == ["completed", "incomplete"]


def test_an_end_is_never_made_up() -> None:
    telling = teller()
    telling.feed(chunk(content="a"))
    with pytest.raises(Malformed):
        telling.end()
    with pytest.raises(Malformed):
        whole({"content": "a"}, finish_reason=None)


def test_a_failure_in_mid_stream_has_the_output_so_far() -> None:
    telling = teller(tools=[PATCH])
    events = telling.feed(chunk(reasoning="so")) + telling.feed(chunk(content="hel"))
    events += telling.feed(chunk(tool_calls=[tool(0, '{"input":', id="c", name="patch")]))
    failed = telling.failed("the provider is gone", "provider_stream_ended")
    assert failed["sequence_number"] == len(events)
    assert failed["type"] == "response.failed"
    response = failed["response"]
    assert response["status"] == "failed"
    assert response["error"] == {"code": "provider_stream_ended", "message": "the provider is gone"}
    assert [item.get("status") for item in response["output"]] == [None, "completed", "incomplete"]
    assert response["output"][1]["content"][0]["text"] == "hel"


def test_a_failure_without_a_code_is_the_servers() -> None:
    telling = teller()
    telling.feed(chunk(content="a"))
    failed = telling.failed("it broke", None)
    OPENAI_EVENT.validate_python(failed)
    assert failed["response"]["error"]["code"] == "server_error"


# Whole answers.


def test_a_whole_answer_is_told_like_a_stream() -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": ""}},
    ]
    got = whole({"content": "hi", "reasoning_content": "so", "tool_calls": calls}, "tool_calls")
    assert got["usage"] == TOLD_USAGE
    assert (
        got
        == (
            told(
                [
                    chunk(reasoning_content="so"),
                    chunk(content="hi"),
                    chunk(tool_calls=[tool(0, "{}", id="a", name="f"), tool(1, id="b", name="g")]),
                    {**chunk("tool_calls"), "usage": USAGE},
                ]
            )[-1]["response"]
        )
    )


def test_the_served_tier_stands_before_the_asked_one() -> None:
    telling = teller(service_tier="auto")
    telling.feed({**chunk("stop"), "service_tier": "flex"})
    assert telling.end()[-1]["response"]["service_tier"] == "flex"


@pytest.mark.parametrize(
    "completion",
    [
        {},
        {"choices": 5},
        {"choices": [1]},
        {"choices": []},
        {"choices": [{"index": 0, "message": "x", "finish_reason": "stop"}]},
        {"choices": [{"index": 1, "message": {}, "finish_reason": "stop"}]},
        {"choices": [{"index": 0, "message": {"tool_calls": [1]}, "finish_reason": "stop"}]},
        {"choices": [{"index": 0, "message": {"tool_calls": {}}, "finish_reason": "stop"}]},
    ],
)
def test_a_whole_answer_that_is_none_is_malformed(completion: JSON) -> None:
    with pytest.raises(Malformed):
        teller().whole(completion)


def test_a_chunk_that_takes_back_what_was_told_is_malformed_and_leaves_no_gap() -> None:
    telling = teller()
    telling.feed(chunk(tool_calls=[tool(0, "{}", id="a", name="f")]))
    events = telling.feed(chunk(content="so"))
    telling.feed(chunk(tool_calls=[tool(0, " \n")]))
    with pytest.raises(Malformed):
        telling.feed(chunk(content=" far", tool_calls=[tool(0, "{}")]))
    assert telling.failed("it broke", None)["sequence_number"] == events[-1]["sequence_number"] + 1


def test_a_stream_whose_first_chunk_is_none_is_still_opened_by_the_next() -> None:
    telling = teller()
    with pytest.raises(Malformed):
        telling.feed({"choices": [{"index": 0, "delta": "x"}]})
    events = telling.feed(chunk(content="a")) + telling.feed(chunk("stop")) + telling.end()
    check(events)


# Whatever way the answer is cut.


def cut(draw: st.DrawFn, text: str) -> list[str]:
    """The text in pieces, some of them empty."""
    ends = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


@st.composite
def answers(draw: st.DrawFn) -> tuple[JSON, list[JSON], str]:
    """A message, chunks that say it, and its finish_reason. Calls come one by one, or interleaved."""
    texts = st.text(max_size=12)
    message: JSON = {"content": draw(texts)}
    chunks: list[JSON] = []
    for name in ("reasoning_content", "content", "refusal"):
        if name != "content" and draw(st.booleans()):
            message[name] = draw(texts)
        chunks += [chunk(**{name: piece}) for piece in cut(draw, message.get(name, ""))]
    names = draw(st.lists(st.sampled_from(["f", "patch", "files__look"]), max_size=3))
    calls, rows = [], []
    for index, name in enumerate(names):
        arguments = json.dumps({"input": draw(texts)})
        calls.append({"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": arguments}})
        first, *rest = cut(draw, arguments)
        rows.append([tool(index, first, id=f"call_{index}", name=name), *(tool(index, piece) for piece in rest)])
    if calls:
        message["tool_calls"] = calls
        chunks += [chunk(tool_calls=[row[0]]) for row in rows] if draw(st.booleans()) else []
        started = bool(chunks) and "tool_calls" in chunks[-1]["choices"][0]["delta"]
        left = [row[1:] if started else row for row in rows]
        if started and draw(st.booleans()):
            left = [[piece for at in range(6) for row in left for piece in row[at : at + 1]]]
        chunks += [chunk(tool_calls=[piece]) for row in left for piece in row]
    reason = draw(st.sampled_from(["stop", "tool_calls", "length", "content_filter"]))
    return message, [*chunks, {**chunk(reason), "usage": USAGE}], reason


@settings(deadline=None, derandomize=True, database=None, max_examples=100)
@given(answers())
def test_any_split_tells_the_same_response(answer: tuple[JSON, list[JSON], str]) -> None:
    message, chunks, reason = answer
    events = told(chunks, tools=[PATCH, FILES])
    expected = whole(message, reason, tools=[PATCH, FILES])
    for item in (*expected["output"], *events[-1]["response"]["output"]):
        if reason in {"length", "content_filter"} and item["type"].endswith("call"):
            item.pop("status")  # which calls were whole when it was cut shows in a stream alone
    assert events[-1]["response"] == expected
    transcript = ResponsesTranscript()
    for event in events[:-1]:
        transcript.add(event)
    assert len(transcript.said()) == len(expected["output"]), "joined from its events alone"
    accumulator: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
    for event in events:
        accumulator.handle_event(OPENAI_EVENT.validate_python(event))


@settings(deadline=None, derandomize=True, database=None, max_examples=100)
@given(
    st.lists(
        st.sampled_from(
            [
                chunk(content="a"),
                chunk(refusal="b"),
                chunk(reasoning="c"),
                chunk(content=""),
                chunk(tool_calls=[tool(0, '{"', id="x", name="f")]),
                chunk(tool_calls=[tool(1, "[", id="y", name="patch")]),
                chunk(tool_calls=[tool(2, "z")]),
            ]
        ),
        max_size=8,
    )
)
def test_in_whatever_order_it_is_said_nothing_is_lost(chunks: list[JSON]) -> None:
    events = told([*chunks, chunk("stop")], tools=[PATCH])
    texts = {"content": "output_text", "refusal": "refusal", "reasoning": "reasoning_summary_text"}
    for name, kind in texts.items():
        said = [piece["choices"][0]["delta"].get(name, "") for piece in chunks]
        deltas = [event["delta"] for event in events if event["type"] == f"response.{kind}.delta"]
        assert "".join(deltas) == "".join(said)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
pieces = st.fixed_dictionaries(
    {},
    optional={
        "index": values,
        "id": values,
        "function": values | st.fixed_dictionaries({}, optional=dict.fromkeys(("name", "arguments"), values)),
    },
)
deltas = st.fixed_dictionaries(
    {},
    optional={
        "tool_calls": values | st.lists(pieces | values, max_size=3),
        **dict.fromkeys(("content", "refusal", "reasoning", "reasoning_content", "function_call"), values),
    },
)
hostile = st.fixed_dictionaries(
    {},
    optional={
        "choices": values
        | st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "index": values,
                    "delta": deltas | values,
                    "message": deltas | values,
                    "finish_reason": values,
                    "logprobs": values,
                },
            ),
            max_size=2,
        ),
        **dict.fromkeys(("model", "usage", "service_tier"), values),
    },
)


@settings(deadline=None, derandomize=True, database=None, max_examples=100)
@given(st.lists(hostile, max_size=4))
def test_whatever_comes_is_told_or_malformed(chunks: list[JSON]) -> None:
    telling = teller(tools=[PATCH], include=["message.output_text.logprobs"])
    events: list[JSON] = []
    for piece in chunks:
        with contextlib.suppress(Malformed):
            events += telling.feed(piece)
        with contextlib.suppress(Malformed):
            teller().whole(piece)
    with contextlib.suppress(Malformed):
        events += telling.end()
    failed = telling.failed("it broke", None)
    assert [event["sequence_number"] for event in [*events, failed]] == list(range(len(events) + 1))
    json.dumps(failed)


def test_the_check_of_these_tests_notices_what_is_left_open() -> None:
    events = told([chunk(content="a"), chunk("stop")])
    del events[-2]
    events[-1]["sequence_number"] -= 1
    with pytest.raises(AssertionError):
        check(events)
