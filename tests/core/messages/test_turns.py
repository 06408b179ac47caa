"""The turns of a conversation, as chat completions have them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.messages.reading import Reading
from gateway.core.messages.tools import sent_name
from gateway.core.messages.turns import chat_messages
from gateway.errors import InvalidRequest

JSON = dict[str, Any]
MARK = {"cache_control": {"type": "ephemeral"}}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
PNG_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def text(words: str, **more: Any) -> JSON:
    return {"type": "text", "text": words, **more}


def told(*turns: tuple[str, Any], beyond: set[str] | None = None, system: Any = None) -> tuple[list[JSON], set[str]]:
    reading = Reading(beyond or ())
    body = {"system": system, "messages": [{"role": role, "content": content} for role, content in turns]}
    got = chat_messages(body, reading)
    return got, set(reading.dropped)


def one(role: str, content: Any, **more: Any) -> JSON:
    """The only message that one turn becomes, nothing left behind."""
    [message], dropped = told((role, content), **more)
    assert dropped == set()
    return message


# -- text ----------------------------------------------------------------------------------------------------


def test_turns_of_plain_text_stay_plain() -> None:
    got, dropped = told(("user", "hi"), ("assistant", "hello"), ("user", [text("more")]), system="be kind")
    assert got == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "more"},
    ]
    assert dropped == set()


def test_several_texts_stay_parts() -> None:
    assert one("user", [text("a"), text("b")]) == {"role": "user", "content": [text("a"), text("b")]}


def test_a_system_prompt_of_blocks_stays_first_and_in_parts() -> None:
    got, dropped = told(("user", "hi"), system=[text("a"), text("b", **MARK)])
    assert got[0] == {"role": "system", "content": [text("a"), text("b")]}
    assert dropped == {"cache_control"}


def test_a_system_turn_stays_in_its_place() -> None:
    got, _ = told(("user", "hi"), ("system", [text("now in French")]), ("user", "go"))
    assert [message["role"] for message in got] == ["user", "system", "user"]


def test_a_mark_for_the_cache_reaches_a_reader_that_takes_it() -> None:
    call = {"type": "tool_use", "id": "t1", "name": "f", "input": {}, **MARK}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "1", **MARK}
    got, dropped = told(
        ("user", [text("hi", **MARK)]), ("assistant", [call]), ("user", [result]), beyond={"cache_control"}
    )
    assert got[0]["content"] == [text("hi", **MARK)]
    assert got[1]["tool_calls"][0]["cache_control"] == got[2]["cache_control"] == MARK["cache_control"]
    assert dropped == set()


# -- media ---------------------------------------------------------------------------------------------------


def test_images_go_as_addresses() -> None:
    by_url = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    assert one("user", [text("see"), PNG, by_url])["content"] == [
        text("see"),
        PNG_PART,
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ]


def test_a_pdf_goes_as_a_file_with_its_title_for_a_name() -> None:
    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}
    content = [{"type": "document", "source": source, "title": "a.pdf", "context": "from 1999"}]
    assert one("user", content)["content"] == [
        text("from 1999"),
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}},
    ]


def test_a_document_of_text_goes_as_text_with_its_title() -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "words"}
    assert one("user", [{"type": "document", "source": source, "title": "T"}])["content"] == "T\n\nwords"


def test_a_document_of_blocks_goes_as_its_blocks() -> None:
    source = {"type": "content", "content": [text("a"), PNG]}
    assert one("user", [{"type": "document", "source": source}])["content"] == [text("a"), PNG_PART]


def test_a_search_result_goes_as_text() -> None:
    block = {"type": "search_result", "title": "T", "source": "https://example.org", "content": [text("a"), text("b")]}
    assert one("user", [block])["content"] == "T\nhttps://example.org\n\na\n\nb"


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
        {"type": "container_upload", "file_id": "file_1"},
        {"type": "of_next_year"},
    ],
)
def test_what_chat_has_no_part_for_is_left_behind_and_named(block: JSON) -> None:
    got, dropped = told(("user", [text("hi"), block]))
    assert got == [{"role": "user", "content": "hi"}]
    assert dropped == {f"messages.{block['type']}"}


def test_a_field_of_a_block_that_is_lost_is_named() -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "words"}
    _, dropped = told(("user", [{"type": "document", "source": source, "citations": {"enabled": True}}]))
    assert dropped == {"messages.document.citations"}


# -- tools ---------------------------------------------------------------------------------------------------


def test_a_tool_call_follows_the_text_of_its_turn() -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"q": "é"}}
    message = one("assistant", [text("let me see"), call])
    arguments = message["tool_calls"][0]["function"].pop("arguments")
    assert json.loads(arguments) == {"q": "é"}
    assert message == {
        "role": "assistant",
        "content": "let me see",
        "tool_calls": [{"id": "toolu_1", "type": "function", "function": {"name": "f"}}],
    }


def test_calls_alone_have_no_content() -> None:
    assert one("assistant", [{"type": "tool_use", "id": "1", "name": "f", "input": {}}])["content"] is None


def test_a_call_of_a_tool_with_a_long_name_has_the_name_that_is_sent() -> None:
    message = one("assistant", [{"type": "tool_use", "id": "1", "name": "x" * 100, "input": {}}])
    assert message["tool_calls"][0]["function"]["name"] == sent_name("x" * 100)


def test_results_stand_before_what_else_the_user_says() -> None:
    content = [
        text("before"),
        {"type": "tool_result", "tool_use_id": "1", "content": "one"},
        {"type": "tool_result", "tool_use_id": "2", "content": [text("two"), text("and")]},
        text("after"),
    ]
    assert told(("user", content))[0] == [
        {"role": "tool", "tool_call_id": "1", "content": "one"},
        {"role": "tool", "tool_call_id": "2", "content": [text("two"), text("and")]},
        {"role": "user", "content": [text("before"), text("after")]},
    ]


def test_a_result_without_content_is_an_empty_one() -> None:
    assert one("user", [{"type": "tool_result", "tool_use_id": "1"}]) == {
        "role": "tool",
        "tool_call_id": "1",
        "content": "",
    }


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("no such file", "Error: no such file"),
        (None, "Error"),
        ([text("a"), text("b")], [text("Error: a"), text("b")]),
    ],
)
def test_a_failed_result_says_so(content: Any, says: Any) -> None:
    block = {"type": "tool_result", "tool_use_id": "1", "content": content, "is_error": True}
    assert one("user", [block])["content"] == says


def test_an_image_in_a_result_moves_into_the_users_message() -> None:
    content = [{"type": "tool_result", "tool_use_id": "1", "content": [PNG]}, text("what is it?")]
    result, rest = told(("user", content))[0]
    assert result == {"role": "tool", "tool_call_id": "1", "content": "The result is in the next message."}
    assert rest["content"] == [text("From the result of the tool call 1:"), PNG_PART, text("what is it?")]


# -- thinking ------------------------------------------------------------------------------------------------

THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "sig"}
HIDDEN = {"type": "redacted_thinking", "data": "xyz"}


def test_thinking_stays_behind_where_nobody_takes_it() -> None:
    got, dropped = told(("user", "hi"), ("assistant", [THOUGHT, HIDDEN]), ("assistant", [THOUGHT, text("a")]))
    assert got[1:] == [{"role": "assistant", "content": "a"}], "a turn of thinking alone is none"
    assert dropped == {"messages.thinking", "messages.redacted_thinking"}


def test_thinking_goes_back_with_its_signature_to_a_reader_of_blocks() -> None:
    assert one("assistant", [THOUGHT, HIDDEN, text("a")], beyond={"thinking_blocks"}) == {
        "role": "assistant",
        "content": "a",
        "thinking_blocks": [THOUGHT, HIDDEN],
    }


def test_thinking_goes_back_as_text_to_a_reader_of_text() -> None:
    assert one("assistant", [THOUGHT, text("a")], beyond={"reasoning_content"})["reasoning_content"] == "hm"


def test_what_anthropics_own_tools_did_is_named() -> None:
    blocks = [{"type": "server_tool_use", "id": "1", "name": "web_search", "input": {}}, text("found")]
    got, dropped = told(("assistant", blocks))
    assert got == [{"role": "assistant", "content": "found"}]
    assert dropped == {"messages.server_tool_use"}


# -- faults --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "param"),
    [
        (None, "messages.1.content"),
        (1, "messages.1.content"),
        (["hi"], "messages.1.content.0"),
        ([{"text": "hi"}], "messages.1.content.0.type"),
        ([text("a"), {"type": "text"}], "messages.1.content.1.text"),
        ([{"type": "image", "source": "a.png"}], "messages.1.content.0.source"),
        ([{"type": "image", "source": {"type": "base64", "data": "AAAA"}}], "messages.1.content.0.source.media_type"),
        ([{"type": "document", "source": {"type": "text"}}], "messages.1.content.0.source.data"),
        ([{"type": "tool_result", "content": "1"}], "messages.1.content.0.tool_use_id"),
        ([{"type": "tool_result", "tool_use_id": "1", "is_error": "no"}], "messages.1.content.0.is_error"),
        (
            [{"type": "tool_result", "tool_use_id": "1", "content": [text("a"), 1]}],
            "messages.1.content.0.content.1",
        ),
    ],
)
def test_a_wrong_type_is_told_with_its_path(content: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as failed:
        told(("user", "hi"), ("user", content))
    assert failed.value.param == param


@pytest.mark.parametrize(
    ("block", "param"),
    [
        ({"type": "tool_use", "name": "f", "input": {}}, "messages.0.content.0.id"),
        ({"type": "tool_use", "id": "1", "input": {}}, "messages.0.content.0.name"),
        ({"type": "tool_use", "id": "1", "name": "f", "input": "{}"}, "messages.0.content.0.input"),
        ({"type": "thinking", "thinking": 1}, "messages.0.content.0.thinking"),
    ],
)
def test_a_call_that_is_none_is_told_with_its_path(block: JSON, param: str) -> None:
    with pytest.raises(InvalidRequest) as failed:
        told(("assistant", [block]))
    assert failed.value.param == param


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="must be user, assistant or system") as failed:
        told(("tool", "hi"))
    assert failed.value.param == "messages.0.role"


def test_nothing_left_to_send_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="holds nothing") as failed:
        told(("user", [{"type": "container_upload", "file_id": "1"}]), system="be kind")
    assert failed.value.param == "messages"
