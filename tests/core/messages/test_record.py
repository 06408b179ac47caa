"""Joining what a message of Anthropic's wire said."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.messages.record import MessagesTranscript
from gateway.core.transcript import Malformed
from gateway.core.usage import MOST_TOKENS, Usage, usage_of_messages

JSON = dict[str, Any]
ALIKE = settings(deadline=None, derandomize=True, database=None, max_examples=200)


def start(index: int, **block: Any) -> JSON:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, type: str, **fields: Any) -> JSON:
    return {"type": "content_block_delta", "index": index, "delta": {"type": type, **fields}}


def begun(**message: Any) -> JSON:
    return {"type": "message_start", "message": {"id": "msg_1", "model": "claude-x", "content": [], **message}}


def ended(reason: str | None = "end_turn", usage: Any = None, **more: Any) -> JSON:
    return {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None, **more}, "usage": usage}


def record(*events: JSON) -> MessagesTranscript:
    transcript = MessagesTranscript()
    for event in events:
        transcript.add(event)
    return transcript


def content(*events: JSON) -> list[JSON]:
    got: list[JSON] = record(*events).said()["content"]
    return got


# -- joining -------------------------------------------------------------------------------------------------

TURN = [
    begun(role="assistant", type="message", stop_reason=None, usage={"input_tokens": 9, "output_tokens": 1}),
    {"type": "ping"},
    start(0, type="thinking", thinking="", signature=""),
    delta(0, "thinking_delta", thinking="h"),
    delta(0, "thinking_delta", thinking="m"),
    delta(0, "signature_delta", signature="sig"),
    {"type": "content_block_stop", "index": 0},
    start(1, type="redacted_thinking", data="xyz"),
    start(2, type="text", text=""),
    delta(2, "text_delta", text="so"),
    delta(2, "citations_delta", citation={"type": "char_location", "cited_text": "a"}),
    start(3, type="tool_use", id="toolu_1", name="f", input={}),
    delta(3, "input_json_delta", partial_json=""),
    delta(3, "input_json_delta", partial_json='{"q":'),
    delta(3, "input_json_delta", partial_json=" 1}"),
    ended("tool_use", {"output_tokens": 20}),
    {"type": "message_stop"},
]


def test_a_streamed_message_is_joined() -> None:
    transcript = record(*TURN)
    assert transcript.said() == {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "redacted_thinking", "data": "xyz"},
            {"type": "text", "text": "so", "citations": [{"type": "char_location", "cited_text": "a"}]},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"q": 1}},
        ],
        "stop_reason": "tool_use",
    }
    assert (transcript.id, transcript.model) == ("msg_1", "claude-x")
    assert transcript.usage == Usage(prompt=9, completion=20)
    assert transcript.finish_reasons == ["tool_use"]


def test_what_anthropics_own_tools_did_is_kept() -> None:
    found = [{"type": "web_search_result", "url": "https://example.org"}]
    assert content(
        start(0, type="server_tool_use", id="srvtoolu_1", name="web_search", input={}),
        delta(0, "input_json_delta", partial_json='{"query": "a"}'),
        start(1, type="web_search_tool_result", tool_use_id="srvtoolu_1", content=found),
    ) == [
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "a"}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": found},
    ]


def test_kinds_that_are_not_known_yet_are_kept() -> None:
    assert content(
        start(0, type="compaction", content="a", more={"b": 1}),
        delta(0, "compaction_delta", content="b", encrypted=None),
        delta(0, "compaction_delta", content="c", state=[1]),
    ) == [{"type": "compaction", "content": "abc", "more": {"b": 1}, "state": [1]}]


def test_a_call_without_input_keeps_the_empty_one_of_its_start() -> None:
    assert content(start(0, type="tool_use", id="1", name="f", input={}))[0]["input"] == {}


def test_input_that_was_cut_off_is_kept_as_it_came() -> None:
    block = start(0, type="tool_use", id="1", name="f", input={})
    assert content(block, delta(0, "input_json_delta", partial_json='{"q": "a'))[0]["input"] == '{"q": "a'


def test_what_stands_beside_the_content_is_kept() -> None:
    details = {"type": "refusal", "category": "cyber"}
    said = record(begun(), ended("stop_sequence", None, stop_details=details) | {"context_management": {"a": 1}}).said()
    assert said == {
        "role": "assistant",
        "content": [],
        "stop_reason": "stop_sequence",
        "stop_details": details,
        "context_management": {"a": 1},
    }


def test_a_whole_message_is_taken_as_it_is() -> None:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [{"type": "text", "text": "a"}],
        "stop_reason": "max_tokens",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 1},
    }
    transcript = MessagesTranscript()
    transcript.take(message)
    assert transcript.said() == {
        "role": "assistant",
        "content": [{"type": "text", "text": "a"}],
        "stop_reason": "max_tokens",
    }
    assert (transcript.id, transcript.model, transcript.usage) == ("msg_1", "claude-x", Usage(3, 1))
    assert transcript.complete
    assert transcript.finish_reasons == ["max_tokens"]


# -- how far it is -------------------------------------------------------------------------------------------


def test_a_message_is_complete_with_the_reason_of_its_end() -> None:
    transcript = record(*TURN[:-2])
    assert transcript.started
    assert not transcript.complete
    assert transcript.finish_reasons == [None]
    transcript.add(ended())
    assert transcript.complete


@pytest.mark.parametrize("reason", [None, "", 1])
def test_an_end_without_a_reason_completes_nothing(reason: Any) -> None:
    transcript = record(begun(), ended(reason), {"type": "message_stop"})
    assert not transcript.complete


def test_the_head_of_a_message_is_no_start_of_the_answer() -> None:
    assert not record(begun(), {"type": "ping"}).started


@pytest.mark.parametrize(
    ("event", "has_content"),
    [
        (begun(), False),
        ({"type": "ping"}, False),
        (start(1, type="text", text=""), False),
        (start(1, type="text", text="a"), True),
        (start(1, type="thinking", thinking="", signature=""), False),
        (start(1, type="redacted_thinking", data="x"), True),
        (start(1, type="tool_use", id="1", name="f", input={}), True),
        (start(1, type="of_next_year"), True),
        (delta(0, "text_delta", text=""), False),
        (delta(0, "text_delta", text="a"), True),
        (delta(0, "thinking_delta", thinking="a"), True),
        (delta(0, "input_json_delta", partial_json=""), False),
        (delta(0, "input_json_delta", partial_json="{"), True),
        (delta(0, "citations_delta", citation={}), True),
        (delta(0, "of_next_year"), False),
        (delta(0, "of_next_year", words="a"), True),
        ({"type": "content_block_stop", "index": 0}, False),
        (ended(None), False),
        (ended("end_turn"), True),
        ({"type": "message_stop"}, False),
        ({"type": "of_next_year"}, False),
    ],
)
def test_only_what_the_answer_says_is_content(event: JSON, has_content: bool) -> None:
    transcript = record(start(0, type="text", text=""))
    assert transcript.add(event) is has_content


# -- usage ---------------------------------------------------------------------------------------------------


def test_cached_input_is_part_of_the_prompt() -> None:
    claimed = {
        "input_tokens": 5,
        "cache_read_input_tokens": 3,
        "cache_creation_input_tokens": 2,
        "output_tokens": 7,
        "output_tokens_details": {"thinking_tokens": 4},
    }
    assert usage_of_messages(claimed) == Usage(prompt=10, completion=7, cached=3, cache_write=2, reasoning=4)


@pytest.mark.parametrize("claimed", [None, {}, [], "many"])
def test_no_usage_is_none(claimed: object) -> None:
    assert usage_of_messages(claimed) is None
    assert record(begun(usage=claimed), ended("end_turn", claimed)).usage is None


@pytest.mark.parametrize(
    ("at_the_end", "usage"),
    [
        ({"output_tokens": 20}, Usage(prompt=11, completion=20, cached=2)),
        ({"input_tokens": 0, "cache_read_input_tokens": None, "output_tokens": 20}, Usage(11, 20, cached=2)),
        ({"input_tokens": 30, "cache_read_input_tokens": 4, "output_tokens": 20}, Usage(34, 20, cached=4)),
        (None, Usage(prompt=11, completion=1, cached=2)),
    ],
)
def test_the_end_adds_to_what_the_start_counted(at_the_end: Any, usage: Usage) -> None:
    counted = {"input_tokens": 9, "cache_read_input_tokens": 2, "output_tokens": 1}
    assert record(begun(usage=counted), ended("end_turn", at_the_end)).usage == usage


CLAIM = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.integers())
CLAIMS = st.dictionaries(
    st.sampled_from(
        [
            *("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
            "output_tokens_details",
        ]
    ),
    CLAIM | st.dictionaries(st.just("thinking_tokens"), CLAIM) | st.just(10**30),
)


@given(first=CLAIMS, last=CLAIMS)
@ALIKE
def test_whatever_is_claimed_the_counts_are_tokens(first: JSON, last: JSON) -> None:
    usage = record(begun(usage=first), ended("end_turn", last)).usage or Usage()
    assert 0 <= usage.cached + usage.cache_write <= usage.prompt <= MOST_TOKENS
    assert 0 <= usage.reasoning <= usage.completion <= MOST_TOKENS
    assert min(usage.cached, usage.cache_write, usage.reasoning) >= 0


# -- hostile -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": 1},
        {"type": "error", "error": {"type": "overloaded_error"}},
        {"type": "message_start"},
        {"type": "message_delta", "delta": []},
        start(0),
        start(0, type=1),
        {"type": "content_block_start", "index": 0, "content_block": "text"},
        {"type": "content_block_start", "index": True, "content_block": {"type": "text"}},
        delta(0, "text_delta", text="a"),
    ],
)
def test_what_is_no_event_is_malformed(event: JSON) -> None:
    with pytest.raises(Malformed):
        MessagesTranscript().add(event)


@pytest.mark.parametrize("content", [None, "a", [1]])
def test_what_is_no_message_is_malformed(content: object) -> None:
    with pytest.raises(Malformed):
        MessagesTranscript().take({"id": "msg_1", "content": content})


ANYTHING = st.sampled_from([None, True, -1, 10**30, 1.5, float("inf"), "", "x", [], [1], {}, {"type": []}])


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in inner for place in places(child, (*path, key)))]


@given(place=st.sampled_from([path for path in places(TURN) if len(path) > 1]), instead=ANYTHING)
@ALIKE
def test_whatever_stands_wherever_is_joined_or_malformed(place: tuple[Any, ...], instead: Any) -> None:
    events: Any = copy.deepcopy(TURN)
    holder = events
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = instead
    transcript = MessagesTranscript()
    refused = 0
    for event in events:
        try:
            transcript.add(event)
        except Malformed:
            refused += 1
    json.dumps(transcript.said())
    if not refused:
        assert len(transcript.said()["content"]) >= 3
