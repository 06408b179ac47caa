"""Joining what an answer said."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.transcript import ChatTranscript, DocumentTranscript, Malformed
from gateway.core.usage import Usage
from tests.builders import finish

JSON = dict[str, Any]


def joined(*deltas: JSON, finish_reason: str | None = None) -> JSON:
    """The message that the deltas of one choice make."""
    transcript = ChatTranscript()
    for fields in deltas:
        transcript.add({"choices": [{"index": 0, "delta": fields, "finish_reason": None}]})
    if finish_reason:
        transcript.add(finish(finish_reason))
    [choice] = transcript.said()
    assert choice["finish_reason"] == finish_reason
    message: JSON = choice["message"]
    return message


def tool(index: int | None = None, id: str | None = None, **function: str) -> JSON:
    return {key: value for key, value in {"index": index, "id": id, "function": function}.items() if value is not None}


# Joining.


def test_texts_are_joined_in_order() -> None:
    assert joined({"role": "assistant", "content": ""}, {"content": "hel"}, {"content": "lo"}) == {
        "role": "assistant",
        "content": "hello",
    }


def test_reasoning_and_refusal_are_joined_beside_the_content() -> None:
    got = joined(
        {"reasoning_content": "a"},
        {"reasoning_content": "b", "reasoning": "c"},
        {"refusal": "no"},
        {"refusal": ", never"},
    )
    assert got == {
        "role": "assistant",
        "content": None,
        "reasoning_content": "ab",
        "reasoning": "c",
        "refusal": "no, never",
    }


def test_several_tool_calls_in_one_delta_grow_by_their_index() -> None:
    first = [tool(1, "b", name="g", arguments=""), tool(0, "a", name="f", arguments="{")]
    second = [tool(0, arguments="}"), tool(1, arguments="[]")]
    assert joined({"tool_calls": first}, {"tool_calls": second}, finish_reason="tool_calls")["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "[]"}},
    ]


def test_a_repeated_tool_id_or_name_is_not_doubled() -> None:
    pieces = [{"tool_calls": [tool(0, "a", name="f", arguments="x")]}] * 2
    assert joined(*pieces)["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "xx"}}
    ]


def test_the_old_function_call_is_joined_too() -> None:
    got = joined({"function_call": {"name": "f", "arguments": "{"}}, {"function_call": {"arguments": "}"}})
    assert got["function_call"] == {"name": "f", "arguments": "{}"}


def test_audio_grows_by_its_parts() -> None:
    got = joined(
        {"audio": {"id": "audio_1", "data": "AAAA", "transcript": "hi "}},
        {"audio": {"id": "audio_1", "data": "BBBB", "transcript": "you"}},
        {"audio": {"expires_at": 1}},
    )
    assert got["audio"] == {"id": "audio_1", "data": "AAAABBBB", "transcript": "hi you", "expires_at": 1}


def test_two_equal_pieces_of_audio_are_both_kept() -> None:
    """Silence sounds the same twice."""
    got = joined({"audio": {"id": "audio_1", "data": "AAAA"}}, {"audio": {"id": "audio_1", "data": "AAAA"}})
    assert got["audio"] == {"id": "audio_1", "data": "AAAAAAAA"}


def test_an_unknown_list_grows_by_its_items() -> None:
    assert joined({"annotations": [1]}, {"annotations": [2]})["annotations"] == [1, 2]


def test_each_choice_is_joined_by_itself_and_they_come_in_order() -> None:
    transcript = ChatTranscript()
    for index, text in ((1, "b"), (0, "a"), (1, "B")):
        transcript.add({"choices": [{"index": index, "delta": {"content": text}}]})
    transcript.add(finish("stop", index=0))
    assert not transcript.complete, "the other one has not ended"
    transcript.add(finish("length", index=1))
    assert transcript.complete
    assert [choice["message"]["content"] for choice in transcript.said()] == ["a", "bB"]
    assert transcript.finish_reasons == ["stop", "length"]


def test_the_first_id_and_model_and_the_last_usage_stand() -> None:
    transcript = ChatTranscript()
    transcript.add({"id": "one", "model": "m1", "usage": {"prompt_tokens": 1}, "choices": []})
    transcript.add({"id": "two", "model": "m2", "usage": {"prompt_tokens": 2}, "choices": []})
    assert (transcript.id, transcript.model, transcript.usage) == ("one", "m1", Usage(prompt=2))


# Content: from there on the answer cannot change provider.


@pytest.mark.parametrize(
    "fields",
    [
        {"content": "a"},
        {"reasoning_content": "a"},
        {"reasoning": "a"},
        {"refusal": "a"},
        {"tool_calls": [tool(0, "a", name="f")]},
        {"function_call": {"name": "f"}},
        {"audio": {"id": "a"}},
    ],
)
def test_what_says_something_is_content(fields: JSON) -> None:
    assert ChatTranscript().add({"choices": [{"index": 0, "delta": fields}]})


def test_a_finish_reason_is_content() -> None:
    assert ChatTranscript().add(finish())


@pytest.mark.parametrize(
    "chunk",
    [
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [{"index": 0, "delta": {"role": "assistant"}}]},
        {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": None}]},
        {"choices": [{"index": 0, "delta": {"audio": None, "tool_calls": []}}]},
        {"choices": [{"index": 0, "delta": {"provider_specific_fields": {"x": 1}}}]},
        {"usage": {"prompt_tokens": 1}},
    ],
)
def test_what_says_nothing_is_no_content(chunk: JSON) -> None:
    assert not ChatTranscript().add(chunk)


# Whole answers.


def test_a_whole_answer_is_kept_as_it_came() -> None:
    transcript = ChatTranscript()
    choice = {"index": 0, "message": {"content": "a", "own": 1}, "finish_reason": "stop", "logprobs": {"content": []}}
    transcript.take({"id": "x", "choices": [choice], "usage": {"completion_tokens": 3}})
    assert transcript.said() == [choice]
    assert transcript.complete
    assert transcript.started
    assert transcript.usage == Usage(completion=3)


@pytest.mark.parametrize("choices", [None, [], {}, "x", [1]])
def test_an_answer_without_choices_is_none(choices: object) -> None:
    with pytest.raises(Malformed):
        ChatTranscript().take({"choices": choices})


# Whatever a provider sends.


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)
tools = st.fixed_dictionaries(
    {},
    optional={"index": json_values, "id": json_values, "type": json_values, "function": json_values},
)
deltas = st.fixed_dictionaries(
    {},
    optional={
        "role": json_values,
        "content": json_values,
        "reasoning": json_values,
        "tool_calls": json_values | st.lists(tools | json_values, max_size=3),
        "function_call": json_values,
        "audio": json_values,
        "other": json_values,
    },
)
choices = st.fixed_dictionaries(
    {}, optional={"index": json_values | st.integers(0, 2), "delta": json_values | deltas, "finish_reason": json_values}
)
chunks = st.fixed_dictionaries(
    {},
    optional={
        "id": json_values,
        "model": json_values,
        "usage": json_values,
        "choices": json_values | st.lists(choices | json_values, max_size=3),
    },
)


@settings(deadline=None, max_examples=60)
@given(st.lists(chunks, max_size=4))
def test_whatever_comes_is_taken_in_or_malformed(pieces: list[JSON]) -> None:
    streamed, whole = ChatTranscript(), ChatTranscript()
    for piece in pieces:
        for take in (streamed.add, whole.take):
            with contextlib.suppress(Malformed):
                take(piece)
    for transcript in (streamed, whole):
        json.dumps(transcript.said())
        assert len(transcript.finish_reasons) == len(transcript.said())
        assert transcript.complete in (True, False)


def test_a_piece_of_great_depth_is_taken_in_or_malformed() -> None:
    deep: Any = "x"
    for _ in range(900):  # what json.loads still reads
        deep = {"a": deep}
    transcript = ChatTranscript()
    for _ in range(2):
        with contextlib.suppress(Malformed):
            transcript.add({"choices": [{"index": 0, "delta": {"other": deep}}]})


@pytest.mark.parametrize(
    "choice",
    [
        {"index": "0", "delta": {}},
        {"index": True, "delta": {}},
        {"index": 0, "delta": "x"},
        {"index": 0, "delta": {"tool_calls": ["x"]}},
        {"index": 0, "delta": {"tool_calls": [{"index": 1.5}]}},
    ],
)
def test_a_choice_that_is_none_is_malformed(choice: JSON) -> None:
    with pytest.raises(Malformed):
        ChatTranscript().add({"choices": [choice]})


def test_a_document_is_the_record_whatever_it_holds() -> None:
    record = DocumentTranscript()
    assert (record.started, record.complete) == (False, False)
    record.take({"id": "resp_1", "own": [None]})
    assert (record.id, record.started, record.complete, record.usage) == ("resp_1", True, True, None)
    assert record.said() == {"id": "resp_1", "own": [None]}


def test_a_document_that_is_streamed_again_is_the_latest_that_came() -> None:
    record = DocumentTranscript()
    for event in (
        {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}},
        {"type": "response.output_text.delta", "delta": "a"},
        {"type": "response.completed", "response": {"id": "resp_1", "status": "completed"}},
    ):
        assert record.add(event), "all of it was said before: it is content from the first event on"
    assert record.said() == {"id": "resp_1", "status": "completed"}


@pytest.mark.parametrize("event", [{}, {"type": None}, {"type": ["x"]}, {"response": {"id": "x"}}])
def test_what_is_no_event_is_not_taken_for_a_document(event: dict[str, Any]) -> None:
    record = DocumentTranscript()
    with pytest.raises(Malformed):
        record.add(event)
    assert not record.started


def test_joining_many_fields_takes_no_longer_than_there_are_pieces() -> None:
    transcript, count = ChatTranscript(), 20_000
    for number in range(count):
        transcript.add({"choices": [{"index": 0, "delta": {"own": {f"k{number}": number}}}]})
    began_s = time.process_time()
    [choice] = transcript.said()
    assert time.process_time() - began_s < 2  # piece by piece for each field it takes minutes
    assert choice["message"]["own"] == {f"k{number}": number for number in range(count)}
