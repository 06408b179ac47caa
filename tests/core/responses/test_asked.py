"""A request of the Responses wire, asked as a chat completion."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.responses import FromChat, continued, references_of, response_of, with_items
from gateway.core.responses.asked import items_of, to_chat
from gateway.errors import InvalidRequest

JSON = dict[str, Any]

CALL = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": '{"at":"it"}'}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "seen"}


def refused(**body: Any) -> InvalidRequest:
    """The refusal that this body makes."""
    with pytest.raises(InvalidRequest) as caught:
        to_chat({"model": "m", "input": "hi", **body})
    return caught.value


# Parameters.


@pytest.mark.parametrize("given", [None, []])
def test_a_body_that_says_nothing_is_refused(given: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        to_chat({"model": "m", "instructions": "be brief", "input": given})
    assert caught.value.param == "input"


def test_parameters_have_their_chat_names() -> None:
    schema = {"type": "object", "properties": {}}
    body = {
        "model": "m",
        "input": "hi",
        "temperature": 0,
        "top_p": 0.5,
        "max_output_tokens": 7,
        "text": {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}, "verbosity": "low"},
        "reasoning": {"effort": "high", "summary": "auto"},
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "service_tier": "flex",
        "user": "u",
        "metadata": {"a": "b"},
        "store": False,
        "top_logprobs": 2,
        "include": ["message.output_text.logprobs"],
        "truncation": "disabled",
        "background": False,
        "stream_options": {"include_obfuscation": False},
        "max_tool_calls": None,
    }
    bridged = to_chat(body)
    assert bridged.dropped == ()
    assert bridged.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0,
        "top_p": 0.5,
        "max_completion_tokens": 7,
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}},
        "verbosity": "low",
        "reasoning_effort": "high",
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "service_tier": "flex",
        "user": "u",
        "metadata": {"a": "b"},
        "store": False,
        "logprobs": True,
        "top_logprobs": 2,
    }


@pytest.mark.parametrize(
    ("form", "chat"),
    [
        ({"type": "text"}, {}),
        ({"type": "json_object"}, {"response_format": {"type": "json_object"}}),
    ],
)
def test_the_other_formats_of_a_text_are_read(form: JSON, chat: JSON) -> None:
    body = to_chat({"model": "m", "input": "hi", "text": {"format": form}}).body
    assert {name: value for name, value in body.items() if name == "response_format"} == chat


def test_what_chat_cannot_carry_is_named() -> None:
    bridged = to_chat(
        {
            "model": "m",
            "input": "hi",
            "include": ["reasoning.encrypted_content"],
            "client_metadata": {"a": "b"},
            "truncation": "auto",
            "max_tool_calls": 3,
            "made_up": 1,
            "reasoning": {"effort": "low", "mode": "x"},
            "text": {"made_up": 1},
        }
    )
    assert set(bridged.dropped) == {
        *("include", "client_metadata", "truncation", "max_tool_calls", "made_up", "reasoning.mode", "text.made_up")
    }
    assert set(bridged.body) == {"model", "messages", "reasoning_effort"}


def test_null_asks_for_nothing() -> None:
    empty = {"text": {"format": None, "verbosity": None}, "reasoning": {"effort": None, "mode": None}, "include": None}
    bridged = to_chat({"model": "m", "input": "hi", **empty, "tools": None, "tool_choice": None, "background": None})
    assert (set(bridged.body), bridged.dropped) == ({"model", "messages"}, ())


@pytest.mark.parametrize(
    ("name", "value"), [("background", True), ("prompt", {"id": "pmpt_1"}), ("conversation", "conv_1")]
)
def test_what_would_change_the_question_is_refused(name: str, value: object) -> None:
    error = refused(**{name: value})
    assert (error.param, error.public_code, error.http_status) == (name, "unsupported_parameter", 400)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": 5}, "input"),
        ({"instructions": ["a"]}, "instructions"),
        ({"text": "a"}, "text"),
        ({"text": {"format": "a"}}, "text.format"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"text": {"format": {"type": "json_schema", "name": "n", "schema": []}}}, "text.format.schema"),
        ({"reasoning": []}, "reasoning"),
        ({"reasoning": {"effort": 1}}, "reasoning.effort"),
        ({"include": "a"}, "include"),
    ],
)
def test_a_parameter_of_the_wrong_shape_is_refused(body: JSON, param: str) -> None:
    assert refused(**body).param == param


# The input as items.


def test_the_input_is_listed_as_items_with_ids() -> None:
    [item] = items_of({"input": "hi"})
    assert item.pop("id").startswith("msg_")
    assert item == {
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_text", "text": "hi"}],
    }


def test_an_id_is_kept_and_made_where_it_is_missing() -> None:
    body = {"input": [{**CALL, "id": "fc_own"}, OUTPUT, OUTPUT, {"role": "assistant", "content": "a"}]}
    first, second, third, fourth = items_of(body)
    assert first == {**CALL, "id": "fc_own"}
    assert second["id"].startswith("fc_")
    assert second["id"] != third["id"], "the same at another place is another item"
    assert fourth["content"] == [{"type": "output_text", "text": "a", "annotations": []}]
    assert items_of(body) == [first, second, third, fourth], "and the same again has the same ids"
    assert [item["id"] for item in items_of(body, lambda at, item: f"{item['type']}_{at}")] == [
        *("fc_own", "function_call_output_1", "function_call_output_2", "message_3")
    ]


def test_the_listed_items_ask_the_same_question() -> None:
    body = {"model": "m", "input": [{"role": "user", "content": "go"}, CALL, OUTPUT]}
    assert to_chat({"model": "m", "input": items_of(body)}).body == to_chat(body).body


@pytest.mark.parametrize("given", [5, {}, [1], [{"type": 1}]])
def test_an_input_of_the_wrong_shape_is_not_listed(given: object) -> None:
    with pytest.raises(InvalidRequest):
        items_of({"input": given})


# Whatever a caller sends.

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
kinds = st.sampled_from(
    [
        *("message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"),
        *("shell_call", "shell_call_output", "reasoning", "item_reference", "additional_tools", "mcp_call"),
    ]
)
parts = st.fixed_dictionaries(
    {"type": values | st.sampled_from(["input_text", "output_text", "refusal", "input_image", "input_file"])},
    optional={"text": values, "refusal": values, "image_url": values, "file_data": values, "detail": values},
)
tools = st.fixed_dictionaries(
    {"type": values | st.sampled_from(["function", "custom", "namespace", "mcp"])},
    optional={
        **dict.fromkeys(("description", "parameters", "strict", "format"), values),
        "name": values | st.sampled_from(["f", "g"]),
        "tools": values,
    },
)
items = st.fixed_dictionaries(
    {"type": kinds | values},
    optional={
        "role": st.sampled_from(["user", "assistant", "system"]) | values,
        "content": values | st.lists(parts | values, max_size=3),
        "output": values | st.lists(parts | values, max_size=3),
        "call_id": st.sampled_from(["a", "b"]) | values,
        "tools": values | st.lists(tools, max_size=2),
        **dict.fromkeys(("id", "name", "arguments", "input", "action", "namespace"), values),
    },
)
choices = st.fixed_dictionaries(
    {"type": values | st.sampled_from(["function", "custom", "allowed_tools", "mcp"])},
    optional={"name": values | st.just("f"), "mode": values | st.just("auto"), "tools": values | st.lists(tools)},
)
bodies = st.fixed_dictionaries(
    {"model": st.just("m"), "input": values | st.lists(items | values, max_size=4)},
    optional={
        "tools": values | st.lists(tools | values, max_size=3),
        "tool_choice": values | choices | st.sampled_from(["auto", "required"]),
        **dict.fromkeys(("instructions", "text", "reasoning", "include", "top_logprobs", "truncation"), values),
    },
)


@settings(deadline=None, derandomize=True, database=None, max_examples=150)
@given(bodies, st.lists(items | values, max_size=3))
def test_whatever_comes_is_asked_or_refused(body: JSON, history: list[Any]) -> None:
    with contextlib.suppress(InvalidRequest):
        bridged = to_chat(body, history)
        json.dumps(bridged.body)
        assert bridged.body["messages"]
    with contextlib.suppress(InvalidRequest):
        assert all(item["id"] for item in items_of(body))


# What the gateway keeps, put into a request.


def test_the_references_of_an_input_are_found() -> None:
    body = {
        "input": [
            {"type": "item_reference", "id": "msg_1"},
            {"id": "msg_2"},
            {"type": "message", "id": "msg_3", "role": "user", "content": "hi"},
            {"id": "msg_4", "role": "user", "content": "hi"},
            {"type": "item_reference", "id": 5},
            "no item",
        ]
    }
    assert references_of(body) == {"msg_1", "msg_2"}
    assert references_of({"input": "hi"}) == references_of({}) == set()


def test_an_items_id_leads_back_to_its_response() -> None:
    told = FromChat({"model": "m"}, "resp_0123abc", 1)
    chat = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
    [item] = told.whole(chat)["output"]
    assert response_of(item["id"]) == "resp_0123abc"
    assert response_of("") == response_of("x") == "resp_"


def test_kept_items_take_the_place_of_their_references() -> None:
    kept = {"msg_1": {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": []}}
    refers, other = {"type": "item_reference", "id": "msg_1"}, {"type": "item_reference", "id": "msg_2"}
    got = with_items({"model": "m", "input": [refers, other, "odd"]}, kept)
    assert got["input"] == [{"type": "message", "role": "assistant", "content": []}, other, "odd"]


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("more", [{"role": "user", "content": "more"}]),
        ([{"role": "user", "content": "more"}], [{"role": "user", "content": "more"}]),
        (None, []),
    ],
)
def test_a_conversation_is_put_in_front_without_what_only_its_provider_could_read(given: Any, asked: Any) -> None:
    history = [
        {"id": "msg_0", "type": "message", "status": "completed", "role": "user", "content": "hi"},
        {"id": "rs_1", "type": "reasoning", "summary": []},
        {"id": "msg_1", "type": "message", "role": "assistant", "content": []},
    ]
    got = continued({"model": "m", "input": given, "previous_response_id": "resp_1", "store": True}, history)
    assert got["input"] == [
        {"type": "message", "role": "user", "content": "hi"},
        {"type": "message", "role": "assistant", "content": []},
        *asked,
    ]
    assert got["store"] is True
    assert "previous_response_id" not in got


# A conversation that only the gateway knows.


@pytest.mark.parametrize(
    ("asked", "behind"),
    [
        ({"input": "now"}, [{"role": "user", "content": "now"}]),
        (
            {"input": [{"role": "user", "content": "now", "own": None}]},
            [{"role": "user", "content": "now", "own": None}],
        ),
        ({"input": None}, []),
        ({}, []),
    ],
)
def test_a_conversation_is_put_in_front_without_what_only_its_keeper_understands(asked: Any, behind: Any) -> None:
    history = [
        {"id": "msg_1", "type": "message", "role": "user", "status": "completed", "content": [], "own": 1},
        {"id": "rs_1", "type": "reasoning", "summary": []},
        {"id": "msg_1", "type": "item_reference"},
        {"id": "fc_1", "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    ]
    body = {"model": "m", "previous_response_id": "resp_1", **asked, "store": True}
    before = json.dumps([body, history])
    got = continued(body, history)
    assert got["input"] == [
        {"type": "message", "role": "user", "content": [], "own": 1},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        *behind,
    ]
    assert {name: value for name, value in got.items() if name != "input"} == {"model": "m", "store": True}
    assert json.dumps([body, history]) == before
