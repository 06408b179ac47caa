"""Items of a conversation, put down as messages of chat."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.responses.asked import to_chat
from gateway.errors import InvalidRequest

JSON = dict[str, Any]

CALL = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": '{"at":"it"}'}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "seen"}


def messages(*items: JSON) -> list[JSON]:
    """The messages that these items make."""
    got: list[JSON] = to_chat({"model": "m", "input": list(items)}).body["messages"]
    return got


def refused(*items: Any) -> InvalidRequest:
    """The refusal that these items make."""
    with pytest.raises(InvalidRequest) as caught:
        to_chat({"model": "m", "input": list(items)})
    return caught.value


def called(call_id: str, name: str, arguments: str) -> JSON:
    """A tool call as chat has it."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


# The input.


def test_a_text_is_the_users_message() -> None:
    assert to_chat({"model": "m", "input": "hi", "stream": True}).body == {
        "model": "m",
        "stream": True,
        "messages": [{"role": "user", "content": "hi"}],
    }


def test_instructions_stand_in_front_of_history_and_input() -> None:
    earlier = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "one"}]},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "two", "annotations": []}],
        },
    ]
    body = {"model": "m", "instructions": "be brief", "input": "three", "previous_response_id": "resp_1"}
    bridged = to_chat(body, earlier)
    assert bridged.body["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    assert bridged.dropped == ()


def test_a_developers_message_is_the_systems() -> None:
    assert messages({"role": "developer", "content": "a"}, {"role": "system", "content": "b"}) == [
        {"role": "system", "content": "a"},
        {"role": "system", "content": "b"},
    ]


def test_every_kind_of_part_has_its_like_in_chat() -> None:
    parts = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": "https://x.test/a.png", "detail": "original"},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"},
        {"type": "input_file", "file_id": "file_1"},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    ]
    assert messages({"role": "user", "content": parts}) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "high"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}},
                {"type": "file", "file": {"file_id": "file_1"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            ],
        }
    ]


def test_what_the_assistant_refused_stays_a_refusal() -> None:
    content = [{"type": "output_text", "text": "well"}, {"type": "refusal", "refusal": "no"}]
    assert messages({"role": "assistant", "content": content}, {"role": "user", "content": "ok"})[0] == {
        "role": "assistant",
        "content": "well",
        "refusal": "no",
    }


def test_several_texts_stay_several() -> None:
    content = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    [message] = messages({"role": "user", "content": content})
    assert message["content"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


# Calls of tools.


def test_parallel_calls_are_one_message_with_their_outputs_behind_it() -> None:
    assert messages(
        {"role": "user", "content": "go"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "I look"}]},
        CALL,
        {**CALL, "call_id": "call_2"},
        {**OUTPUT, "call_id": "call_2"},
        OUTPUT,
    ) == [
        {"role": "user", "content": "go"},
        {
            "role": "assistant",
            "content": "I look",
            "tool_calls": [called("call_1", "look", '{"at":"it"}'), called("call_2", "look", '{"at":"it"}')],
        },
        {"role": "tool", "tool_call_id": "call_2", "content": "seen"},
        {"role": "tool", "tool_call_id": "call_1", "content": "seen"},
    ]


def test_calls_one_after_the_other_stay_so() -> None:
    second = {**CALL, "call_id": "call_2"}
    roles = [message["role"] for message in messages(CALL, OUTPUT, second, {**OUTPUT, "call_id": "call_2"})]
    assert roles == ["assistant", "tool", "assistant", "tool"]


def test_an_output_follows_its_call_whatever_stood_between() -> None:
    got = messages(
        CALL, {"role": "assistant", "content": "wait"}, {"role": "user", "content": "why"}, OUTPUT, {**CALL}, OUTPUT
    )
    assert [message["role"] for message in got] == ["assistant", "tool", "user", "assistant", "tool"]
    assert got[0]["content"] == "wait"


def test_a_call_of_the_history_is_answered_in_the_input() -> None:
    body = {"model": "m", "previous_response_id": "resp_1", "input": [OUTPUT]}
    assert [message["role"] for message in to_chat(body, [CALL]).body["messages"]] == ["assistant", "tool"]


def test_an_output_may_have_parts() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "https://x.test/a.png"}]
    assert messages(CALL, {**OUTPUT, "output": parts})[1]["content"] == [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
    ]
    assert messages(CALL, {**OUTPUT, "output": parts[:1]})[1]["content"] == "a"
    assert messages(CALL, {**OUTPUT, "output": []})[1]["content"] == ""


def test_a_custom_call_is_packed_into_one_argument() -> None:
    got = messages(
        {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": 'say "hi"\n'},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "done"},
    )
    assert got[0]["tool_calls"] == [called("c", "patch", '{"input":"say \\"hi\\"\\n"}')]
    assert got[1] == {"role": "tool", "tool_call_id": "c", "content": "done"}


def test_calls_of_built_in_tools_stay_in_the_conversation() -> None:
    action = {"type": "exec", "command": ["ls"], "env": {}}
    got = messages(
        {"type": "local_shell_call", "id": "lsh_1", "call_id": "a", "status": "completed", "action": action},
        {"type": "shell_call", "call_id": "b", "action": {"commands": ["ls"]}},
        {"type": "apply_patch_call", "call_id": "c", "operation": {"type": "delete_file", "path": "x"}},
        {"type": "local_shell_call_output", "id": "a", "output": "x"},
        {"type": "shell_call_output", "call_id": "b", "output": [{"stdout": "x", "stderr": ""}]},
        {"type": "apply_patch_call_output", "call_id": "c", "status": "completed"},
    )
    assert [call["function"]["name"] for call in got[0]["tool_calls"]] == ["local_shell", "shell", "apply_patch"]
    assert json.loads(got[0]["tool_calls"][0]["function"]["arguments"]) == action
    assert [message["content"] for message in got[1:]] == [
        "x",
        '[{"stdout":"x","stderr":""}]',
        '{"status":"completed"}',
    ]


def test_a_call_of_a_namespace_has_both_names() -> None:
    got = messages({**CALL, "namespace": "files"}, OUTPUT)
    assert got[0]["tool_calls"][0]["function"]["name"] == "files__look"


def test_what_openais_own_tools_left_behind_is_named_as_dropped() -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    bridged = to_chat({"model": "m", "input": [{"role": "user", "content": "hi"}, search, search]})
    assert bridged.body["messages"] == [{"role": "user", "content": "hi"}]
    assert bridged.dropped == ("input.web_search_call",)


def test_a_reference_to_an_item_of_the_history_says_nothing_new() -> None:
    said = {"type": "message", "id": "msg_1", "role": "assistant", "content": "a"}
    for reference in ({"type": "item_reference", "id": "msg_1"}, {"id": "msg_1"}):
        body = {"model": "m", "input": [reference, {"role": "user", "content": "b"}]}
        assert [message["content"] for message in to_chat(body, [said]).body["messages"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("item", "param"),
    [
        (1, "input.0"),
        ({"type": "message", "role": "user", "content": 5}, "input.0.content"),
        ({"role": "nobody", "content": "a"}, "input.0.role"),
        ({"role": "user", "content": ["a"]}, "input.0.content.0"),
        ({"role": "user", "content": [{"type": "input_text", "text": 1}]}, "input.0.content.0.text"),
        ({"role": "user", "content": [{"type": "nothing"}]}, "input.0.content.0.type"),
        ({"role": "user", "content": [{"type": ["input_text"]}]}, "input.0.content.0.type"),
        ({"role": "assistant", "content": [{"type": "input_image", "image_url": "u"}]}, "input.0.content.0.type"),
        ({"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}, "input.0.content.0.file_id"),
        ({"role": "user", "content": [{"type": "input_image"}]}, "input.0.content.0.image_url"),
        ({"role": "user", "content": [{"type": "input_file", "file_url": "u"}]}, "input.0.content.0.file_url"),
        ({"role": "user", "content": [{"type": "input_file"}]}, "input.0.content.0"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "input.0.content.0.input_audio"),
        ({**CALL, "arguments": {}}, "input.0.arguments"),
        ({**CALL, "call_id": ""}, "input.0.call_id"),
        ({**CALL, "namespace": 1}, "input.0.namespace"),
        (OUTPUT, "input.0.call_id"),
        (CALL, "input.0"),
        ({"type": "custom_tool_call", "call_id": "c", "name": "n"}, "input.0.input"),
        ({"type": "shell_call", "call_id": "c"}, "input.0.action"),
        ({"type": "item_reference", "id": "msg_1"}, "input.0.id"),
        ({"type": "compaction", "encrypted_content": "gAAA"}, "input.0.type"),
        ({"type": "unheard_of"}, "input.0.type"),
        ({"type": 5}, "input.0.type"),
        ({"content": "a"}, "input.0.type"),
    ],
)
def test_an_item_of_the_wrong_shape_is_refused_with_its_place(item: Any, param: str) -> None:
    assert refused(item).param == param


def test_two_calls_with_one_id_are_refused() -> None:
    assert refused(CALL, CALL, OUTPUT).param == "input.1.call_id"


def test_a_second_output_of_a_call_is_refused() -> None:
    assert refused(CALL, OUTPUT, OUTPUT).param == "input.2.call_id"
