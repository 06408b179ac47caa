"""The tools of a response under the names that they have in chat."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.responses.asked import to_chat, toolbox_of
from gateway.core.responses.tools import LONGEST_NAME, Toolbox, packed, unpacked
from gateway.errors import InvalidRequest

JSON = dict[str, Any]

SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}}}
LOOK = {"type": "function", "name": "look", "description": "Look.", "parameters": SCHEMA, "strict": True}
PATCH = {"type": "custom", "name": "patch", "description": "Patch."}
FILES = {
    "type": "namespace",
    "name": "files",
    "description": "About files.",
    "tools": [{"type": "function", "name": "look", "parameters": SCHEMA}, {"type": "custom", "name": "write"}],
}


def names(body: JSON) -> list[str]:
    """The chat names of a chat body's tools."""
    return [tool["function"]["name"] for tool in body.get("tools", [])]


def chat(*tools: JSON, **body: Any) -> JSON:
    """The chat body of a call with these tools."""
    return to_chat({"model": "m", "input": "hi", "tools": list(tools), **body}).body


def test_a_function_keeps_all_that_chat_knows_of_it() -> None:
    function = {"name": "look", "description": "Look.", "parameters": SCHEMA, "strict": True}
    assert chat({**LOOK, "defer_loading": True})["tools"] == [{"type": "function", "function": function}]


def test_what_a_function_does_not_say_is_not_made_up() -> None:
    tool = {"type": "function", "name": "f", "description": None, "parameters": None, "strict": None}
    assert chat(tool)["tools"] == [{"type": "function", "function": {"name": "f"}}]


def test_a_custom_tool_becomes_a_function_with_one_text() -> None:
    [tool] = chat(PATCH)["tools"]
    assert tool["function"] == {
        "name": "patch",
        "description": "Patch.",
        "parameters": {
            "type": "object",
            "properties": {"input": {"type": "string"}},
            "required": ["input"],
            "additionalProperties": False,
        },
    }


def test_the_model_is_told_of_a_grammar_and_the_caller_that_nobody_holds_it_to_it() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'}
    bridged = to_chat({"model": "m", "input": "hi", "tools": [{**PATCH, "format": grammar}]})
    [tool] = bridged.body["tools"]
    assert 'lark grammar:\nstart: "x"' in tool["function"]["parameters"]["properties"]["input"]["description"]
    assert bridged.dropped == ("tools.custom.format",)


def test_tools_of_a_namespace_have_both_names_and_are_found_by_them() -> None:
    box = Toolbox({"tools": [LOOK, FILES]})
    assert [tool["function"]["name"] for tool in box.definitions] == ["look", "files__look", "files__write"]
    got = [box.called(name) for name in ("look", "files__look", "files__write", "made_up")]
    assert [tool and (tool.namespace, tool.name, tool.custom) for tool in got] == [
        (None, "look", False),
        ("files", "look", False),
        ("files", "write", True),
        None,
    ]


@pytest.mark.parametrize(
    ("namespace", "name"), [("n" * 40, "f" * 40), ("n.with.dots", "f"), ("taken", "f"), ("n" * 32, "f" * 31)]
)
def test_a_name_that_chat_would_not_take_is_cut_and_stays_one_of_a_kind(namespace: str, name: str) -> None:
    inner = [{"type": "function", "name": name}, {"type": "function", "name": f"{name}2"}]
    taken = {"type": "function", "name": "taken__f"}
    body = chat({"type": "namespace", "name": namespace, "tools": inner}, taken)
    assert len(set(names(body))) == 3
    assert all(len(got) <= LONGEST_NAME and got.replace("_", "").isalnum() for got in names(body))
    box = Toolbox({"tools": [{"type": "namespace", "name": namespace, "tools": inner}, taken]})
    assert box.chat_name(name, namespace) == names(body)[0], "the same in the conversation"


def test_tools_that_chat_has_not_are_named_as_dropped() -> None:
    kinds = ["web_search", "file_search", "code_interpreter", "mcp", "image_generation", "local_shell", "shell"]
    tools = [{"type": kind} for kind in [*kinds, "apply_patch", "web_search"]]
    bridged = to_chat({"model": "m", "input": "hi", "tools": tools, "parallel_tool_calls": False})
    assert bridged.dropped == (*(f"tools.{kind}" for kind in kinds), "tools.apply_patch")
    assert set(bridged.body) == {"model", "messages"}, "what is said of tools goes with them"


def test_items_may_bring_tools() -> None:
    items = [
        {"role": "user", "content": "hi"},
        {"type": "additional_tools", "role": "developer", "tools": [LOOK]},
        {"type": "tool_search_output", "call_id": "c", "tools": [FILES, {**LOOK, "description": "Again."}]},
    ]
    bridged = to_chat({"model": "m", "input": items})
    assert names(bridged.body) == ["look", "files__look", "files__write"]
    assert bridged.body["tools"][0]["function"]["description"] == "Again."


def test_the_default_namespace_is_none_at_all() -> None:
    """Codex brings its tools so, in an item in front of the conversation."""
    default = {"type": "namespace", "name": "functions", "description": "", "tools": [LOOK, PATCH]}
    brought = {"type": "additional_tools", "role": "developer", "tools": [default, FILES]}
    body = {"model": "m", "input": [brought, {"role": "user", "content": "hi"}], "tools": []}
    assert names(to_chat(body).body) == ["look", "patch", "files__look", "files__write"]
    box = toolbox_of(body)
    assert [(tool.name, tool.namespace) for name in ("look", "patch") if (tool := box.called(name))] == [
        ("look", None),
        ("patch", None),
    ]
    assert box.chat_name("look", "functions") == "look"
    assert box.choice({"type": "function", "name": "look", "namespace": "functions"})[1] == (
        {"type": "function", "function": {"name": "look"}}
    )


# tool_choice.


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ({"type": "function", "name": "look"}, {"type": "function", "function": {"name": "look"}}),
        ({"type": "custom", "name": "patch"}, {"type": "function", "function": {"name": "patch"}}),
        (
            {"type": "function", "name": "look", "namespace": "files"},
            {"type": "function", "function": {"name": "files__look"}},
        ),
    ],
)
def test_a_choice_is_carried(asked: object, chosen: object) -> None:
    body = chat(LOOK, PATCH, FILES, tool_choice=asked, parallel_tool_calls=False)
    assert (body["tool_choice"], body["parallel_tool_calls"]) == (chosen, False)
    assert len(body["tools"]) == 4


def test_allowed_tools_are_the_only_ones_that_are_sent() -> None:
    allowed = [{"type": "function", "name": "look"}, {"type": "namespace", "name": "files"}, {"type": "mcp"}]
    asked = {"type": "allowed_tools", "mode": "required", "tools": allowed}
    body = chat(PATCH, FILES, LOOK, tool_choice=asked)
    assert names(body) == ["files__look", "files__write", "look"]
    assert body["tool_choice"] == "required"


def test_a_choice_of_what_was_left_out_is_named_as_dropped() -> None:
    search = {"type": "web_search"}
    bridged = to_chat({"model": "m", "input": "hi", "tools": [search, LOOK], "tool_choice": search})
    assert bridged.dropped == ("tools.web_search", "tool_choice.web_search")
    assert "tool_choice" not in bridged.body
    bridged = to_chat({"model": "m", "input": "hi", "tools": [search], "tool_choice": "required"})
    assert bridged.dropped == ("tools.web_search", "tool_choice")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": {}}, "tools"),
        ({"tools": [1]}, "tools.0"),
        ({"tools": [{"name": "f"}]}, "tools.0.type"),
        ({"tools": [LOOK, {"type": "function"}]}, "tools.1.name"),
        ({"tools": [{**LOOK, "parameters": []}]}, "tools.0.parameters"),
        ({"tools": [{**LOOK, "strict": 1}]}, "tools.0.strict"),
        ({"tools": [{**LOOK, "description": 1}]}, "tools.0.description"),
        ({"tools": [{**PATCH, "format": "x"}]}, "tools.0.format"),
        ({"tools": [{**PATCH, "format": {"type": "grammar", "syntax": "lark"}}]}, "tools.0.format.definition"),
        ({"tools": [{"type": "namespace", "name": "n"}]}, "tools.0.tools"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "function"}]}]}, "tools.0.tools.0.name"),
        ({"tools": [LOOK, {"type": "custom", "name": "look"}]}, "tools.1.name"),
        ({"tools": [LOOK], "tool_choice": "any"}, "tool_choice"),
        ({"tools": [LOOK], "tool_choice": 1}, "tool_choice"),
        ({"tools": [LOOK], "tool_choice": {}}, "tool_choice.type"),
        ({"tools": [LOOK], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice.name"),
        ({"tools": [LOOK], "tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "tool_choice.tools"),
        ({"tools": [LOOK], "tool_choice": {"type": "allowed_tools", "tools": []}}, "tool_choice.mode"),
    ],
)
def test_tools_of_the_wrong_shape_are_refused_with_their_place(body: JSON, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        to_chat({"model": "m", "input": "hi", **body})
    assert caught.value.param == param


# A custom tool's text.


@settings(deadline=None)
@given(st.text())
def test_a_text_comes_out_as_it_was_packed(text: str) -> None:
    assert unpacked(packed(text)) == text


@pytest.mark.parametrize("arguments", ["", "x", '{"input":"a', '{"input":1}', '{"input":"a","b":1}', "[]", "[" * 9999])
def test_what_was_not_packed_is_the_text_itself(arguments: str) -> None:
    assert unpacked(arguments) == arguments
