"""A request of the Messages wire, as chat completions have it."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.body import check, parse
from gateway.core.endpoints import CHAT
from gateway.core.messages.asked import BEYOND, to_chat
from gateway.core.messages.tools import sent_name
from gateway.errors import InvalidRequest

JSON = dict[str, Any]
ALIKE = settings(deadline=None, derandomize=True, database=None, max_examples=300)
SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"], "additionalProperties": False}
TOOL = {"name": "f", "description": "Finds.", "input_schema": SCHEMA}
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}


def asked(**fields: Any) -> JSON:
    return {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], **fields}


def added(*, beyond: set[str] | None = None, **fields: Any) -> tuple[JSON, set[str]]:
    """What the fields add to the chat body, and what is dropped of them."""
    bridged = to_chat(asked(**fields), beyond=beyond or ())
    plain = to_chat(asked()).body
    return {name: value for name, value in bridged.body.items() if plain.get(name) != value}, set(bridged.dropped)


def test_the_least_request_keeps_its_model_its_limit_and_its_words() -> None:
    bridged = to_chat(asked())
    assert bridged.body == {
        "model": "m",
        "max_completion_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}],
    }
    assert bridged.dropped == ()


def test_a_request_as_an_agent_sends_it_becomes_one_that_the_chat_endpoint_takes() -> None:
    raw = """{"model": "claude-sonnet-4-5", "max_tokens": 32000, "stream": true, "temperature": 1,
      "system": [{"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}}],
      "metadata": {"user_id": "user_1"}, "thinking": {"type": "enabled", "budget_tokens": 10000},
      "context_management": {"edits": []},
      "tools": [{"name": "Bash", "description": "Runs.", "input_schema": {"type": "object", "properties": {}}},
                {"type": "web_search_20250305", "name": "web_search"}],
      "tool_choice": {"type": "auto", "disable_parallel_tool_use": true},
      "messages": [{"role": "user", "content": [{"type": "text", "text": "list"}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "ls", "signature": "s"},
           {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "a b"}]}]}"""
    bridged = to_chat(parse(raw.encode()))
    assert bridged.body == {
        "model": "claude-sonnet-4-5",
        "stream": True,
        "max_completion_tokens": 32000,
        "temperature": 1,
        "messages": [
            {"role": "system", "content": "You are an agent."},
            {"role": "user", "content": "list"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "toolu_1",
                        "type": "function",
                        "function": {"name": "Bash", "arguments": '{"command":"ls"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "toolu_1", "content": "a b"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "Bash",
                    "description": "Runs.",
                    "parameters": {"type": "object", "properties": {}},
                },
            }
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning_effort": "high",
        "user": "user_1",
    }
    assert bridged.dropped == ("cache_control", "context_management", "messages.thinking", "tools.web_search")
    check(CHAT, bridged.body)


def test_sampling_and_stops_go_over() -> None:
    got, dropped = added(temperature=0.5, top_p=0.9, top_k=5, stop_sequences=["END"], stream=False)
    assert got == {"temperature": 0.5, "top_p": 0.9, "top_k": 5, "stop": ["END"], "stream": False}
    assert dropped == set()


def test_the_callers_body_is_left_as_it_is() -> None:
    body = asked(tools=[TOOL], system=[{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}])
    before = copy.deepcopy(body)
    to_chat(body, beyond=BEYOND)
    assert body == before


def test_an_unknown_field_is_dropped_and_named_never_refused() -> None:
    got, dropped = added(container="c1", mcp_servers=[{"type": "url"}], speed=None)
    assert got == {}
    assert dropped == {"container", "mcp_servers"}


# -- tools ---------------------------------------------------------------------------------------------------


def test_a_tool_becomes_a_function() -> None:
    got, dropped = added(tools=[{**TOOL, "type": "custom", "strict": True, "input_examples": [{"q": "a"}]}])
    assert got["tools"] == [
        {
            "type": "function",
            "function": {"name": "f", "description": "Finds.", "strict": True, "parameters": SCHEMA},
        }
    ]
    assert dropped == {"tools.input_examples"}


def test_a_tool_with_a_long_name_goes_by_a_shorter_one_wherever_it_is_named() -> None:
    long = "x" * 100
    got, _ = added(tools=[{**TOOL, "name": long}], tool_choice={"type": "tool", "name": long})
    assert got["tools"][0]["function"]["name"] == sent_name(long)
    assert got["tool_choice"]["function"]["name"] == sent_name(long)


@pytest.mark.parametrize(
    ("choice", "becomes"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "f"}, {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
        (
            {"type": "any", "disable_parallel_tool_use": True},
            {"tool_choice": "required", "parallel_tool_calls": False},
        ),
        ({"type": "any", "disable_parallel_tool_use": False}, {"tool_choice": "required"}),
    ],
)
def test_each_choice_of_a_tool_has_its_word(choice: JSON, becomes: JSON) -> None:
    got, dropped = added(tools=[TOOL], tool_choice=choice)
    assert {name: value for name, value in got.items() if name != "tools"} == becomes
    assert dropped == set()


@pytest.mark.parametrize("choice", [{"type": "tool", "name": "web_search"}, {"type": "of_next_year"}])
def test_a_choice_that_cannot_be_made_is_dropped(choice: JSON) -> None:
    got, dropped = added(tools=[TOOL, SEARCH], tool_choice=choice)
    assert "tool_choice" not in got
    assert dropped == {"tool_choice", "tools.web_search"}


def test_without_a_function_there_is_no_choice_either() -> None:
    got, dropped = added(tools=[SEARCH], tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert got == {}
    assert dropped == {"tool_choice", "tools.web_search"}


# -- thinking and the answer's form --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "becomes", "lost"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"reasoning_effort": "low"}, set()),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, {"reasoning_effort": "medium"}, set()),
        ({"thinking": {"type": "enabled", "budget_tokens": 32000}}, {"reasoning_effort": "high"}, set()),
        ({"thinking": {"type": "enabled", "budget_tokens": -1}}, {"reasoning_effort": "low"}, set()),
        ({"thinking": {"type": "adaptive"}}, {}, set()),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, {}, {"thinking.display"}),
        ({"thinking": {"type": "disabled"}}, {}, {"thinking"}),
        ({"output_config": {"effort": "max"}}, {"reasoning_effort": "max"}, set()),
        (
            {"output_config": {"effort": "low"}, "thinking": {"type": "enabled", "budget_tokens": 9000}},
            {"reasoning_effort": "low"},
            set(),
        ),
        ({"output_config": {"task_budget": {"total": 1}}}, {}, {"output_config.task_budget"}),
    ],
)
def test_thinking_becomes_an_effort(fields: JSON, becomes: JSON, lost: set[str]) -> None:
    assert added(**fields) == (becomes, lost)


def test_thinking_stays_thinking_for_a_reader_that_takes_it() -> None:
    thinking = {"type": "enabled", "budget_tokens": 9000}
    assert added(thinking=thinking, beyond={"thinking"}) == ({"thinking": thinking}, set())
    assert added(output_config={"effort": "low"}, beyond={"thinking"}) == ({"reasoning_effort": "low"}, set())


@pytest.mark.parametrize("fields", ["output_config", "output_format"])
def test_a_schema_for_the_answer_goes_over_under_both_its_names(fields: str) -> None:
    form = {"type": "json_schema", "schema": SCHEMA}
    got, dropped = added(**{fields: {"format": form} if fields == "output_config" else form})
    assert got["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
    }
    assert dropped == set()


@pytest.mark.parametrize(
    "schema",
    [
        {**SCHEMA, "required": []},
        {**SCHEMA, "additionalProperties": True},
        {"type": "object", "properties": {"inner": {**SCHEMA, "required": []}}, "required": ["inner"]},
        {"type": "array", "items": {"type": "object"}},
        {"anyOf": [SCHEMA, {"type": "object", "properties": 1, "additionalProperties": False}]},
    ],
)
def test_an_open_schema_is_not_called_strict(schema: JSON) -> None:
    got, _ = added(output_format={"type": "json_schema", "schema": schema})
    assert got["response_format"]["json_schema"] == {"name": "answer", "schema": schema}


def test_another_form_of_the_answer_is_dropped() -> None:
    assert added(output_config={"format": {"type": "grammar"}}) == ({}, {"output_config.format"})


# -- about the call ------------------------------------------------------------------------------------------


def test_the_user_goes_over_and_too_long_a_one_as_its_hash() -> None:
    assert added(metadata={"user_id": "u1"})[0] == {"user": "u1"}
    long = "user_" + "a" * 100
    assert added(metadata={"user_id": long, "more": 1}) == (
        {"user": hashlib.sha256(long.encode()).hexdigest()},
        {"metadata.more"},
    )


@pytest.mark.parametrize(("tier", "becomes"), [("auto", "auto"), ("standard_only", "default")])
def test_each_service_tier_has_its_word(tier: str, becomes: str) -> None:
    assert added(service_tier=tier) == ({"service_tier": becomes}, set())


def test_an_unknown_service_tier_is_dropped() -> None:
    assert added(service_tier="golden") == ({}, {"service_tier"})


# -- faults --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": [1]}, "messages.0"),
        ({"messages": []}, "messages"),
        ({"system": 1}, "system"),
        ({"system": [{"type": "text", "text": 1}]}, "system.0.text"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"stop_sequences": ["a", 1]}, "stop_sequences.1"),
        ({"tools": [1]}, "tools.0"),
        ({"tools": [TOOL, {"name": "g"}]}, "tools.1.input_schema"),
        ({"tools": [{"input_schema": {}}]}, "tools.0.name"),
        ({"tools": [TOOL], "tool_choice": "auto"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"output_format": {}}, "output_format.type"),
        ({"metadata": {"user_id": 1}}, "metadata.user_id"),
        ({"service_tier": 1}, "service_tier"),
    ],
)
def test_a_wrong_type_is_told_with_its_path(fields: JSON, param: str) -> None:
    with pytest.raises(InvalidRequest) as failed:
        to_chat(asked(**fields))
    assert failed.value.param == param


FULL = asked(
    system=[{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}],
    tools=[TOOL, SEARCH],
    tool_choice={"type": "tool", "name": "f"},
    thinking={"type": "enabled", "budget_tokens": 2000},
    output_config={"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    metadata={"user_id": "u"},
    stop_sequences=["a"],
    messages=[
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "a", "signature": "b"},
                {"type": "tool_use", "id": "1", "name": "f", "input": {"q": "a"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "1",
                    "is_error": True,
                    "content": [{"type": "text", "text": ""}],
                },
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "document", "title": "t", "source": {"type": "content", "content": "a"}},
                {"type": "search_result", "title": "t", "source": "s", "content": [{"type": "text", "text": "a"}]},
            ],
        },
    ],
)
ANYTHING = st.sampled_from([None, True, 0, 1.5, "", "x", [], [1], [[]], {}, {"type": "text"}, {"type": []}])


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every value in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in inner for place in places(child, (*path, key)))]


@given(place=st.sampled_from(places(FULL)[1:]), instead=ANYTHING, beyond=st.sets(st.sampled_from(sorted(BEYOND))))
@ALIKE
def test_whatever_stands_wherever_is_bridged_or_refused(place: tuple[Any, ...], instead: Any, beyond: set[str]) -> None:
    body = copy.deepcopy(FULL)
    holder = body
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = instead
    bridged, refused_for = None, None
    try:
        bridged = to_chat(body, beyond=beyond)
    except InvalidRequest as error:
        refused_for = error.param
    if bridged is None:
        assert refused_for is not None
        assert refused_for.split(".")[0] == place[0]
    else:
        json.dumps(bridged.body)
        assert bridged.body["messages"]
