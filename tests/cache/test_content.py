"""What is kept of an answer, and how it is told again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.cache.content import Answer
from gateway.core.cachekey import STREAM, STREAM_WITH_USAGE, WHOLE
from gateway.core.calls import Attempt
from gateway.core.endpoints import CHAT, MESSAGES
from gateway.core.messages import MessagesTranscript
from gateway.core.transcript import Malformed, Usage
from gateway.core.wire import data_event, dumps
from tests.builders import ROLE, attempt, delta, finish

USAGE = {"prompt_tokens": 3, "completion_tokens": 2}
DOCUMENT = {
    "id": "chatcmpl-1",
    "model": "served",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "ab"}, "finish_reason": "stop"}],
    "usage": USAGE,
}
PIECES: list[dict[str, Any]] = [ROLE, delta("a"), delta("b"), finish()]


def whole() -> Answer:
    made = attempt("openai/gpt-test")
    made.transcript.take(DOCUMENT)
    made.dropped = ("top_k",)
    return Answer.of(WHOLE, made, dumps(DOCUMENT))


def streamed(form: str = STREAM) -> Answer:
    made = attempt("openai/gpt-test")
    for piece in [*PIECES, {"choices": [], "usage": USAGE}]:
        made.transcript.add(piece)
    shown = PIECES if form == STREAM else [*PIECES, {"choices": [], "usage": USAGE}]
    return Answer.of(form, made, b"".join(map(data_event, shown)))


@pytest.mark.parametrize("answer", [whole(), streamed(), Answer("stream", whole().facts, b"", b"last")])
def test_what_is_packed_is_unpacked_as_it_was(answer: Answer) -> None:
    again = Answer.unpacked(answer.packed())
    assert (again.body, again.last, dict(again.facts)) == (answer.body, answer.last, dict(answer.facts))


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 7, b"\x00" * 8, b"\xff" * 40, b"\x00\x00\x00\x02\x00\x00\x00\x00{}"]
)
def test_what_is_no_answer_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # JSON's reader has its own words
        Answer.unpacked(content)


@pytest.mark.parametrize("answer", [whole(), streamed()], ids=["whole", "stream"])
def test_it_stands_in_for_an_attempt_that_costs_nothing(answer: Answer) -> None:
    made: Attempt = Answer.unpacked(answer.packed()).attempt(CHAT)
    assert made.deployment.name == "openai/gpt-test"
    assert not made.metered
    assert made.transcript.usage == Usage(3, 2)
    assert made.transcript.finish_reasons == ["stop"]
    assert made.transcript.said()[0]["message"]["content"] == "ab"
    assert made.transcript.complete
    with pytest.raises(Malformed):
        made.transcript.add({})
    with pytest.raises(Malformed):
        made.transcript.take({})


def test_whole_and_stream_tell_each_other() -> None:
    joined = streamed().in_form(WHOLE)
    assert joined is not None
    assert json.loads(joined.body)["choices"][0]["message"]["content"] == "ab"
    assert json.loads(joined.body)["usage"]["completion_tokens"] == 2
    apart = whole().in_form(STREAM)
    assert apart is not None
    assert apart.body.startswith(b"data: {")
    assert b'"usage"' not in apart.body
    with_usage = whole().in_form(STREAM_WITH_USAGE)
    assert with_usage is not None
    assert with_usage.body.startswith(apart.body)
    assert b'"usage"' in with_usage.body


@pytest.mark.parametrize("kept", [whole(), streamed(), streamed(STREAM_WITH_USAGE)], ids=lambda answer: answer.form)
@pytest.mark.parametrize("form", [WHOLE, STREAM, STREAM_WITH_USAGE])
def test_a_trace_shows_what_was_said_in_whichever_form_it_is_told(kept: Answer, form: str) -> None:
    told = Answer.unpacked(kept.packed()).in_form(form)
    assert told is not None
    transcript = told.attempt(CHAT).transcript
    assert transcript.said() == DOCUMENT["choices"]
    assert transcript.finish_reasons == ["stop"]


def test_a_stream_is_told_with_usage_and_without() -> None:
    counted = streamed().in_form(STREAM_WITH_USAGE)
    assert counted is not None
    assert counted.body.startswith(streamed().body)
    assert b'"completion_tokens":2' in counted.body
    bare = streamed(STREAM_WITH_USAGE).in_form(STREAM)
    assert bare is not None
    assert bare.body == streamed().body
    assert streamed().in_form(STREAM) == streamed()


def test_the_terminal_event_stays_the_last() -> None:
    answer = Answer(STREAM, whole().facts, b"event: a\n\n", b"event: message_stop\n\n")
    first, last = answer.chunks()
    assert (first.data, first.last) == (b"event: a\n\n", False)
    assert (last.data, last.last) == (b"event: message_stop\n\n", True)


def test_an_answer_that_a_chat_stood_in_for_is_kept_as_it_was_told() -> None:
    made = attempt("openai/gpt-test")
    made.transcript.take(DOCUMENT)
    made.told = MessagesTranscript()
    message = {"id": "msg_1", "model": "m", "role": "assistant", "content": [{"type": "text", "text": "ab"}]}
    made.told.take({**message, "stop_reason": "end_turn", "type": "message", "usage": {}})
    kept = Answer.of(WHOLE, made, dumps({**message, "stop_reason": "end_turn", "type": "message", "usage": {}}))
    again = kept.attempt(MESSAGES).transcript
    assert again.id == "msg_1"
    assert again.usage == Usage(3, 2)
    assert again.finish_reasons == ["end_turn"]
    assert again.said() == made.told.said()
