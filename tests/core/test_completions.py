"""Completions of the older kind: their record, and how a chat tells one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion

from gateway.core.completions import CompletionsTranscript, FromChat, to_chat
from gateway.core.transcript import ChatTranscript, Malformed
from gateway.core.usage import Usage
from gateway.errors import InvalidRequest

JSON = dict[str, Any]


def chunk(text: str | None = None, finish: str | None = None, index: int = 0, **more: Any) -> JSON:
    return {"id": "cmpl-1", "choices": [{"index": index, "text": text, "finish_reason": finish}], **more}


def test_a_stream_is_joined_choice_by_choice() -> None:
    transcript = CompletionsTranscript()
    said = [
        transcript.add(one)
        for one in (chunk(""), chunk("a"), chunk("x", index=1), chunk("b", "stop"), chunk(None, "length", 1))
    ]
    assert said == [False, True, True, True, True]
    assert transcript.said() == [
        {"text": "ab", "index": 0, "finish_reason": "stop"},
        {"text": "x", "index": 1, "finish_reason": "length"},
    ]
    assert transcript.complete


def test_a_whole_answer_is_kept_as_it_is() -> None:
    transcript = CompletionsTranscript()
    choices = [{"index": 0, "text": "a", "logprobs": None, "finish_reason": "stop"}]
    transcript.take({"id": "cmpl-1", "model": "m", "choices": choices, "usage": {"prompt_tokens": 2}})
    assert (transcript.said(), transcript.model, transcript.usage) == (choices, "m", Usage(2))


@pytest.mark.parametrize("choices", [1, "x", [1], [None], [{"index": "a"}]])
def test_what_is_no_chunk_is_malformed(choices: Any) -> None:
    with pytest.raises(Malformed):
        CompletionsTranscript().add({"choices": choices})


def test_what_a_chat_can_carry_goes_along() -> None:
    asked = {"model": "m", "prompt": ["say"], "max_tokens": 5, "stop": ["x"], "n": 2, "logprobs": 3, "user": "u"}
    got = to_chat({**asked, "echo": True, "best_of": 2, "suffix": "s", "new": 1, "stream": True, "temperature": 0})
    assert got.dropped == ("best_of", "echo", "new", "suffix")
    assert got.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "say"}],
        "max_completion_tokens": 5,
        "stop": ["x"],
        "n": 2,
        "logprobs": True,
        "top_logprobs": 3,
        "user": "u",
        "stream": True,
        "temperature": 0,
    }


def test_a_field_that_says_nothing_is_not_named_as_lost() -> None:
    assert to_chat({"model": "m", "prompt": "a", "echo": False, "suffix": None}).dropped == ()


@pytest.mark.parametrize("prompt", [None, [], ["a", "b"], [1, 2], [[1]], 5])
def test_several_prompts_and_tokens_are_no_chat(prompt: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        to_chat({"model": "m", "prompt": prompt})
    assert refused.value.param == "prompt"


CHAT = {
    "id": "chatcmpl-7",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "ab"},
            "finish_reason": "stop",
            "logprobs": {
                "content": [
                    {"token": "a", "logprob": -0.1, "top_logprobs": [{"token": "a", "logprob": -0.1}]},
                    {"token": "b", "logprob": -0.2, "top_logprobs": []},
                ]
            },
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}


def test_a_chats_answer_is_told_as_the_sdk_reads_it() -> None:
    told = FromChat().whole(CHAT)
    assert Completion.model_validate(told, strict=True).choices[0].text == "ab"
    assert (told["id"], told["object"], told["usage"]) == ("cmpl-7", "text_completion", CHAT["usage"])
    assert told["choices"][0]["logprobs"] == {
        "tokens": ["a", "b"],
        "token_logprobs": [-0.1, -0.2],
        "top_logprobs": [{"a": -0.1}, {}],
        "text_offset": [0, 1],
    }


@pytest.mark.parametrize("odd", [None, 1, "x", [], [1], {"content": 1}, {"content": [1]}])
def test_an_odd_answer_is_told_without_what_it_lacks(odd: Any) -> None:
    told = FromChat().whole({"id": 5, "choices": [{"message": odd, "logprobs": odd}]})
    assert told["choices"][0]["text"] == ""


@given(st.lists(st.text(max_size=3), max_size=6), st.booleans())
def test_a_streamed_chat_tells_the_same_as_a_whole_one(pieces: list[str], usage_asked: bool) -> None:
    chunks: list[JSON] = [{"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}]
    chunks += [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
    chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}]
    chunks += [{"choices": [], "usage": CHAT["usage"]}]
    teller, chat, told = FromChat(usage_asked), ChatTranscript(), CompletionsTranscript()
    events = []
    for one in chunks:
        chat.add(one)
        events += teller.feed(one)
    for event in (*events, *teller.end()):
        told.add(event)
    assert told.said()[0]["text"] == "".join(pieces) == (chat.said()[0]["message"]["content"] or "")
    assert told.finish_reasons == chat.finish_reasons == ["length"]
    assert any("usage" in event for event in events) == usage_asked
    assert all(event["choices"] or "usage" in event for event in events), "no chunk says nothing"
