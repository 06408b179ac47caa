"""A provider's own event stream: what passes as it came, and the few things that do not."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.calls import Chunk
from gateway.core.endpoints import MESSAGES, RESPONSES, Endpoint
from gateway.core.redaction import REDACTED, Redactor
from gateway.core.responses import ResponsesTranscript
from gateway.core.transcript import ChatTranscript, Transcript
from gateway.core.usage import Usage
from gateway.core.wire import MOST_EVENT_BYTES, Events, data_of
from gateway.errors import GatewayError, ProviderFailed, ProviderInvalid, ProviderLimited, ProviderStreamEnded
from gateway.upstream.failures import Failures
from gateway.upstream.relay import EventRelay, Relay
from tests.builders import delta, finish

JSON = dict[str, Any]

DONE = b"data: [DONE]\n\n"


def event(chunk: Any) -> bytes:
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"


def relay(transcript: ChatTranscript, usage_asked: bool = False, secrets: tuple[str, ...] = ()) -> Relay:
    return Relay("openai", transcript, usage_asked=usage_asked, failures=Failures(Redactor(secrets)))


def relayed(*pieces: bytes, usage_asked: bool = False) -> list[Chunk]:
    return list(relay(ChatTranscript(), usage_asked).chunks(iter(pieces)))


def out(*pieces: bytes, usage_asked: bool = False) -> bytes:
    return b"".join(chunk.data for chunk in relayed(*pieces, usage_asked=usage_asked))


def failure(*pieces: bytes) -> tuple[GatewayError, list[Chunk]]:
    """How reading fails, and what was handed out before."""
    got: list[Chunk] = []
    with pytest.raises(GatewayError) as raised:
        got.extend(relay(ChatTranscript()).chunks(iter(pieces)))
    return raised.value, got


# What passes.

_SAID = st.text(
    alphabet=st.sampled_from('ab "\\\n\x00\x7f\u2028\u00a0\u00e4\U0001f600{}:,[]content'), max_size=6
) | st.text(max_size=4)
_AROUND = st.fixed_dictionaries(
    {"id": st.sampled_from(["c1", '"content":"', "x"])},
    optional={
        "content": _SAID,
        "model": st.just("gpt"),
        "usage": st.none() | st.just({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}),
        "obfuscation": _SAID,
    },
)
_CHOICES = st.fixed_dictionaries(
    {"delta": st.fixed_dictionaries({}, optional={"content": _SAID | st.none(), "role": st.just("assistant")})},
    optional={"index": st.integers(0, 1), "finish_reason": st.none() | st.just("stop"), "content": _SAID},
)


def unframed(pieces: list[bytes], usage_asked: bool) -> tuple[list[Chunk], ChatTranscript]:
    """What comes of pieces of which each is read."""
    transcript = ChatTranscript()
    reading = relay(transcript, usage_asked)
    reading._frames_left = 0
    return list(reading.chunks(iter(pieces))), transcript


@given(
    around=_AROUND,
    choices=st.lists(st.lists(_CHOICES, max_size=2), min_size=1, max_size=8),
    changed=st.lists(st.integers(0, 7), max_size=3),
    spaced=st.booleans(),
    escaped=st.booleans(),
    usage_asked=st.booleans(),
)
def test_chunks_that_differ_in_their_text_alone_are_told_as_if_each_was_read(
    around: JSON, choices: list[list[JSON]], changed: list[int], spaced: bool, escaped: bool, usage_asked: bool
) -> None:
    pieces = []
    for number, each in enumerate(choices):
        chunk = {**around, "choices": each} if number not in changed else {"choices": each, **around, "other": number}
        text = json.dumps(chunk, ensure_ascii=escaped, separators=None if spaced else (",", ":"))
        pieces.append(b"data: " + text.encode() + b"\n\n")
    ended = event({"choices": [{"index": index, "delta": {}, "finish_reason": "stop"} for index in (0, 1)]})
    transcript = ChatTranscript()
    told = list(relay(transcript, usage_asked).chunks(iter([*pieces, ended])))
    wanted, record = unframed([*pieces, ended], usage_asked)
    assert told == wanted
    assert transcript.said() == record.said()
    assert (transcript.id, transcript.model, transcript.usage) == (record.id, record.model, record.usage)


def test_a_text_is_not_looked_for_where_an_other_one_stands_in_its_place() -> None:
    """Each of these begins and ends as the one before it, and is no chunk with another text."""
    plain = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    inside = b'data: {"choices":[{"index":0,"delta":{"content":"a","content":"b"}}]}\n\n'
    short = b'data: {"choices":[{"index":0,"delta":{"content":"}}]}\n\n'
    transcript = ChatTranscript()
    got = list(relay(transcript).chunks(iter([plain, plain, inside, event(finish())])))
    assert transcript.said()[0]["message"]["content"] == "aab"
    assert len(got) == 4
    error, before = failure(plain, plain, short)
    assert isinstance(error, ProviderInvalid)
    assert len(before) == 2


@given(
    texts=st.lists(_SAID, min_size=1, max_size=12),
    cuts=st.lists(st.integers(1, 12), max_size=4),
    line_end=st.sampled_from(["\n", "\r\n"]),
    escaped=st.booleans(),
)
@example(texts=["a", "", "b", "\n", '"', "c"], cuts=[1], line_end="\n", escaped=False)
def test_what_came_at_once_goes_out_at_once_and_is_told_as_if_each_was_read(
    texts: list[str], cuts: list[int], line_end: str, escaped: bool
) -> None:
    """Several events in one piece, also where some of them cannot be told by their text alone."""
    events = [f"data: {json.dumps(delta(text), ensure_ascii=escaped)}{line_end * 2}".encode() for text in texts]
    places = [0, *sorted({cut for cut in cuts if cut < len(events)}), len(events)]
    pieces = [b"".join(events[start:end]) for start, end in pairwise(places)]
    ended = event(finish())
    transcript = ChatTranscript()
    told = list(relay(transcript).chunks(iter([*pieces, ended])))
    wanted, record = unframed([*pieces, ended], usage_asked=False)
    assert (
        b"".join(chunk.data for chunk in told) == b"".join(chunk.data for chunk in wanted) == b"".join(events) + ended
    )
    assert transcript.said() == record.said()
    said = ["".join(chunk.piece["choices"][0]["delta"].get("content", "") for chunk in told if chunk.piece)]
    assert said == ["".join(texts)]


def test_texts_that_came_at_once_are_one_chunk() -> None:
    texts = [event(delta(text)) for text in ("a", "b", "\u00e4", "d")]
    first, second, third, _ = relayed(texts[0], texts[1], b"".join(texts), event(finish()))
    assert (first.data, second.data, third.data) == (texts[0], texts[1], b"".join(texts))
    assert third.piece is not None
    assert third.piece["choices"][0]["delta"]["content"] == "ab\u00e4d"


def test_a_character_cut_in_two_between_events_is_no_text() -> None:
    """Joined they would be one; each of the two events is no JSON."""
    cut = event(delta("HALF")).split(b"HALF")
    halves = cut[0] + b"\xc3" + cut[1] + cut[0] + b"\xa4" + cut[1]
    error, _ = failure(event(delta("a")), event(delta("b")), halves)
    assert isinstance(error, ProviderInvalid)


def test_a_piece_of_an_event_that_has_begun_is_never_taken_for_a_whole_one() -> None:
    plain = event(delta("a"))
    begun = b'data: {"choices":[],\n'
    error, got = failure(plain, begun, plain, event(finish()))
    assert isinstance(error, ProviderInvalid)
    assert [chunk.data for chunk in got] == [plain]


def test_who_does_not_translate_the_chunks_is_not_given_their_pieces_but_for_the_usage() -> None:
    got = list(untranslated(event(delta("a")), event(delta("b")), event(finish()), event(USAGE), DONE))
    assert [chunk.data for chunk in got] == [event(one) for one in (delta("a"), delta("b"), finish(), USAGE)]
    assert got[1].piece is None
    assert got[3].piece == USAGE


def untranslated(*pieces: bytes) -> Iterator[Chunk]:
    """What is handed out where nobody makes other events of it."""
    failures = Failures(Redactor(()))
    return Relay("openai", ChatTranscript(), usage_asked=True, failures=failures, translated=False).chunks(iter(pieces))


def padded(text: str) -> bytes:
    """A chunk as providers send them that hide how long each text is: no two have the same around their text."""
    return event({**delta(text), "obfuscation": "x" * len(text)})


def test_what_came_at_once_is_one_chunk_also_where_each_event_has_something_new() -> None:
    said, role = [padded(text) for text in ("a", "bc", "def")], event(delta(role="assistant", content=""))
    got = list(untranslated(role + said[0], b"".join(said), event(finish()) + event(USAGE) + DONE))
    assert [chunk.data for chunk in got] == [role, said[0], b"".join(said), event(finish()), event(USAGE)]
    assert [chunk.content for chunk in got] == [False, True, True, True, False]
    assert got[-1].piece == USAGE, "whoever tells what it cost looks at this one"


def test_what_was_good_goes_out_before_the_failure_that_came_with_it() -> None:
    for failed, kind in ((b"data: {not json\n\n", ProviderInvalid), (event({"error": {"code": 429}}), ProviderLimited)):
        got = []
        with pytest.raises(kind):
            got.extend(untranslated(padded("a") + padded("bc") + failed))
        assert [chunk.data for chunk in got] == [padded("a") + padded("bc")]


def test_a_frame_is_not_found_where_another_field_says_the_same_text() -> None:
    """Whatever the text is: the one in front of it is none."""
    for text in ("another text", " and more", "a"):
        said = {"other": {"content": text}, "choices": [{"index": 0, "delta": {"content": text}}]}
        changed = {"other": {"content": "else"}, "choices": [{"index": 0, "delta": {"content": text}}]}
        transcript = ChatTranscript()
        list(relay(transcript).chunks(iter([event(said), event(changed), event(finish())])))
        assert transcript.said()[0]["message"]["content"] == text * 2


def test_every_event_goes_out_as_it_came() -> None:
    strange = b'data:   {"choices" : [ {"index":0,"delta":{"content":"\\u00e4"}} ], "own_field":  {"x": null}}\n\n'
    named = b"event: message\r\nid: 7\r\ndata: " + json.dumps(delta("b")).encode() + b"\r\n\r\n"
    assert out(strange, named, event(finish()), DONE) == strange + named + event(finish())


def test_wherever_the_network_cuts_the_same_bytes_go_out() -> None:
    stream = b"".join([event(delta("ä")), b": ping\n\n", event(delta("😀")), event(finish()), DONE])
    dice = random.Random(7)
    for _ in range(500):
        places = sorted(dice.sample(range(1, len(stream)), 6))
        pieces = [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]
        assert out(*pieces) == event(delta("ä")) + event(delta("😀")) + event(finish())


def test_content_is_told_from_what_says_nothing() -> None:
    chunks = relayed(event(delta(role="assistant", content="")), event(delta("a")), event(finish()), DONE)
    assert [chunk.content for chunk in chunks] == [False, True, True]


def test_the_transcript_grows_with_what_was_read() -> None:
    transcript = ChatTranscript()
    chunks = relay(transcript).chunks(iter([event(delta("a")) + event(delta("b")), event(finish()), DONE]))
    next(chunks)
    assert transcript.said()[0]["message"]["content"] == "a"
    list(chunks)
    assert transcript.said()[0]["message"]["content"] == "ab"
    assert transcript.complete


def test_what_follows_the_end_is_not_read() -> None:
    assert out(event(delta("a")), event(finish()), DONE + event(delta("late")), event(delta("later"))) == event(
        delta("a")
    ) + event(finish())


def test_a_last_event_without_its_blank_line_is_read() -> None:
    assert out(event(delta("a")), event(finish())[:-2]) == event(delta("a")) + event(finish())
    assert out(event(delta("a")), event(finish()), b"data: [DONE]") == event(delta("a")) + event(finish())


def test_a_stream_that_is_complete_needs_no_done() -> None:
    assert out(event(delta("a")), event(finish())) == event(delta("a")) + event(finish())


# What does not.


def test_comments_and_empty_events_are_left_out() -> None:
    assert out(b": OPENROUTER PROCESSING\n\n", event(delta("a")), b"data:\n\n", event(finish()), DONE) == event(
        delta("a")
    ) + event(finish())


USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


def test_usage_is_recorded_and_hidden_from_a_caller_who_did_not_ask() -> None:
    transcript = ChatTranscript()
    got = list(relay(transcript).chunks(iter([event(delta("a")), event(finish()), event(USAGE), DONE])))
    assert [chunk.data for chunk in got] == [event(delta("a")), event(finish()), b""]
    assert transcript.usage == Usage(3, 2)


def test_usage_reaches_a_caller_who_asked() -> None:
    null = {**delta("a"), "usage": None}
    assert out(event(null), event(finish()), event(USAGE), DONE, usage_asked=True) == event(null) + event(
        finish()
    ) + event(USAGE)


@pytest.mark.parametrize(
    "text",
    ['{"choices":[{"index":0,"delta":{"content":"a"}}],"usage":null}', json.dumps({**delta("a"), "usage": None})],
)
def test_the_null_usage_on_every_chunk_is_left_out_where_it_was_not_asked_for(text: str) -> None:
    sent = out(b"data: " + text.encode() + b"\n\n", event(finish()), DONE)
    first = json.loads(data_of(sent.split(b"\n\n")[0] + b"\n\n") or b"")
    assert first == {key: value for key, value in json.loads(text).items() if key != "usage"}


def test_the_words_usage_null_in_a_text_are_left_alone() -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": ',"usage":null'}}], "usage": None}
    compact = b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"
    [first, _] = [json.loads(data_of(one + b"\n\n") or b"") for one in out(compact, event(finish())).split(b"\n\n")[:2]]
    assert first["choices"][0]["delta"]["content"] == ',"usage":null'
    assert "usage" not in first


def tools(*calls: dict[str, Any], index: int = 0) -> bytes:
    return event({"choices": [{"index": index, "delta": {"tool_calls": list(calls)}, "finish_reason": None}]})


def indexes(sent: bytes) -> list[int]:
    documents = [json.loads(data_of(one + b"\n\n") or b"") for one in sent.split(b"\n\n") if one]
    return [
        call["index"]
        for document in documents
        for choice in document["choices"]
        for call in choice["delta"].get("tool_calls", ())
    ]


def test_tool_calls_without_an_index_are_numbered_by_their_ids() -> None:
    sent = out(
        tools({"id": "a", "function": {"name": "f", "arguments": ""}}),
        tools({"function": {"arguments": "{}"}}),
        tools({"id": "b", "function": {"name": "g", "arguments": "{"}}, {"id": "a", "function": {"arguments": ""}}),
        tools({"index": None, "function": {"arguments": "}"}}),
        event(finish("tool_calls")),
        DONE,
    )
    assert indexes(sent) == [0, 0, 1, 0, 1]


def test_tool_calls_of_each_choice_are_numbered_apart() -> None:
    sent = out(
        tools({"id": "a", "function": {}}),
        tools({"id": "b", "function": {}}, index=1),
        event(finish("tool_calls")),
        event(finish("tool_calls", index=1)),
    )
    assert indexes(sent) == [0, 0]


def test_numbering_many_tool_calls_takes_no_longer_than_there_are_calls() -> None:
    count = 20_000
    calls = [{"id": f"call_{number}", "function": {"name": "f"}} for number in range(count)]
    began_s = time.process_time()
    [first, *_] = relayed(event({"choices": [{"index": 0, "delta": {"tool_calls": calls}}]}), event(finish()))
    assert time.process_time() - began_s < 2  # call by call for each call it takes half a minute
    numbered = json.loads(first.data[6:])["choices"][0]["delta"]["tool_calls"]
    assert [call["index"] for call in numbered] == list(range(count))


def test_tool_calls_with_an_index_pass_as_they_came() -> None:
    piece = tools({"index": 1, "id": "a", "function": {"name": "f"}})
    assert out(piece, event(finish())).startswith(piece)


def test_half_of_a_surrogate_pair_passes_also_where_a_tool_call_is_numbered() -> None:
    piece = tools({"id": "a", "function": {"name": "f", "arguments": "HALF"}}).replace(b"HALF", b"\\ud83d")
    assert indexes(out(piece, event(finish()))) == [0]


# Failures.


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b": ping\n\n",),
        (DONE,),
        (event(delta("a")),),
        (event(delta("a")), DONE),
        (event(delta("a")), event(finish("stop", index=1)), DONE),
        (event(USAGE), DONE),
        (event({"choices": []}), DONE),
    ],
)
def test_a_stream_that_ends_before_its_answer_is_complete_has_failed(pieces: tuple[bytes, ...]) -> None:
    error, _ = failure(*pieces)
    assert isinstance(error, ProviderStreamEnded)
    assert error.elsewhere


@pytest.mark.parametrize(
    "bad",
    [
        b"data: {not json\n\n",
        b"data: 1\n\n",
        b"data: []\n\n",
        b'data: {"choices": 1}\n\n',
        b'data: {"choices": [{"delta": "x"}]}\n\n',
        b"data: " + b"[" * 100_000 + b"\n\n",
        b"data: \xff\xfe\n\n",
        b"data: " + b"x" * (MOST_EVENT_BYTES + 1),
        b"<html>Bad gateway</html>",
    ],
    ids=lambda bad: repr(bad[:24]),
)
def test_an_event_that_is_no_chunk_is_a_failure_after_what_was_good(bad: bytes) -> None:
    error, got = failure(event(delta("a")), bad)
    assert isinstance(error, ProviderInvalid | ProviderStreamEnded)
    assert [chunk.data for chunk in got] == [event(delta("a"))]
    assert "<html" not in error.message


def test_an_error_inside_the_stream_is_the_providers_own() -> None:
    error, got = failure(
        event(delta("a")), event({"error": {"message": "overloaded", "type": "server_error", "code": "x"}})
    )
    assert isinstance(error, ProviderFailed)
    assert (error.message, error.public_type, error.public_code, error.source) == (
        "overloaded",
        "server_error",
        "x",
        "provider",
    )
    assert len(got) == 1


def test_a_limit_inside_the_stream_is_a_limit() -> None:
    error, _ = failure(event({"error": {"message": "slow down", "code": 429}}))
    assert isinstance(error, ProviderLimited)


def test_a_null_error_on_a_chunk_is_none() -> None:
    assert out(event({**delta("a"), "error": None}), event(finish()))


def test_a_failure_of_the_wire_is_raised_as_it_is() -> None:
    def pieces() -> Any:
        yield event(delta("a"))
        raise httpx.ReadError("reset")

    with pytest.raises(httpx.ReadError):
        list(relay(ChatTranscript()).chunks(pieces()))


# Streams whose events have names.

SPLITS = st.lists(st.integers(min_value=0, max_value=1 << 12), max_size=12)


def named(kind: str, newline: str = "\n", **fields: Any) -> bytes:
    value = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}{newline}data: {value}{newline}{newline}".encode()


BEGUN = named("response.created", response={"id": "resp_1", "status": "in_progress", "output": []})
SAID = named("response.output_text.delta", output_index=0, content_index=0, delta="ä😀")
COMPLETED = named("response.completed", response={"id": "resp_1", "status": "completed", "output": []})
MESSAGE_BEGUN = named("message_start", message={"id": "msg_1"}) + named(
    "content_block_start", index=0, content_block={"type": "text", "text": ""}
)
MESSAGE_SAID = named("content_block_delta", index=0, delta={"type": "text_delta", "text": "ä😀"})
STOPPED = named("message_delta", delta={"stop_reason": "end_turn"})
STOP = named("message_stop")
OWN_KEY = "the-gateways-own-key"


def event_relay(transcript: Transcript, endpoint: Endpoint = RESPONSES) -> EventRelay:
    return EventRelay("openai", transcript, endpoint.ends, Failures(Redactor([OWN_KEY])))


def events_out(*pieces: bytes, endpoint: Endpoint = RESPONSES) -> list[Chunk]:
    return list(event_relay(endpoint.transcript(), endpoint).chunks(iter(pieces)))


def event_failure(*pieces: bytes, endpoint: Endpoint = RESPONSES) -> tuple[GatewayError, list[Chunk]]:
    got: list[Chunk] = []
    with pytest.raises(GatewayError) as raised:
        got.extend(event_relay(endpoint.transcript(), endpoint).chunks(iter(pieces)))
    return raised.value, got


@pytest.mark.parametrize(
    ("endpoint", "wanted"),
    [
        (RESPONSES, [BEGUN, named("response.own", x=[None]), SAID, named("response.own", "\r\n"), COMPLETED]),
        (MESSAGES, [MESSAGE_BEGUN, named("ping", "\r"), MESSAGE_SAID, named("own"), STOPPED, STOP]),
    ],
    ids=["responses", "messages"],
)
@given(splits=SPLITS)
@example(splits=list(range(1 << 11)))
def test_wherever_the_network_cuts_the_same_events_go_out(
    endpoint: Endpoint, wanted: list[bytes], splits: list[int]
) -> None:
    stream = b"\xef\xbb\xbf: hello\n\n" + b": ping\r\n\r\n".join(wanted) + DONE + named("late")
    places = sorted({place for place in splits if 0 < place < len(stream)})  # an empty piece is silence
    pieces = [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]
    chunks = events_out(*pieces, endpoint=endpoint)
    assert b"".join(chunk.data for chunk in chunks) == b"".join(wanted)
    assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].data == wanted[-1]
    assert [chunk.content for chunk in chunks].index(True) == next(
        number for number, chunk in enumerate(chunks) if b"delta" in chunk.data
    )


def test_the_record_of_named_events_grows_with_what_was_read() -> None:
    transcript = ResponsesTranscript()
    chunks = event_relay(transcript).chunks(iter([BEGUN + SAID, COMPLETED]))
    next(chunks)
    assert (transcript.id, transcript.started, transcript.complete) == ("resp_1", False, False)
    next(chunks)
    assert transcript.said()[0]["content"][0]["text"] == "ä😀"
    list(chunks)
    assert transcript.complete


def test_what_follows_the_last_event_is_not_asked_for() -> None:
    def pieces() -> Iterator[bytes]:
        yield BEGUN + COMPLETED
        raise AssertionError("it was asked for more")

    assert len(list(event_relay(ResponsesTranscript()).chunks(pieces()))) == 2


@pytest.mark.parametrize("last", [COMPLETED, COMPLETED.removesuffix(b"\n\n"), COMPLETED.replace(b"\n", b"\r\n")])
def test_the_last_event_may_lack_its_blank_line(last: bytes) -> None:
    chunks = events_out(BEGUN, last)
    assert chunks[-1].last
    assert chunks[-1].data.startswith(b"event: response.completed")
    assert Events().feed(chunks[-1].data) == [chunks[-1].data]


@pytest.mark.parametrize(
    ("endpoint", "pieces"),
    [
        *((RESPONSES, pieces) for pieces in ((), (DONE,), (BEGUN,), (BEGUN, SAID), (BEGUN, SAID, DONE))),
        *((MESSAGES, pieces) for pieces in ((MESSAGE_BEGUN,), (MESSAGE_BEGUN, STOP), (STOP,))),
        (MESSAGES, (MESSAGE_BEGUN, MESSAGE_SAID, STOPPED)),
    ],
)
def test_a_stream_without_its_last_event_has_failed(endpoint: Endpoint, pieces: tuple[bytes, ...]) -> None:
    error, got = event_failure(*pieces, endpoint=endpoint)
    assert isinstance(error, ProviderStreamEnded)
    assert error.elsewhere
    assert not any(chunk.last for chunk in got)


@pytest.mark.parametrize(
    "bad",
    [
        b"data: {not json\n\n",
        b"data: 1\n\n",
        b"data: {}\n\n",
        b'data: {"type": 1}\n\n',
        b'data: {"type": {}}\n\n',
        b'data: {"type": "response.output_text.delta", "delta": 1, "output_index": 0}\n\n',
        b'data: {"type": "response.completed"}\n\n',
        b'data: {"type": "response.completed", "response": {"output": 1}}\n\n',
        b"data: " + b"[" * 100_000 + b"\n\n",
        b"data: \xff\xfe\n\n",
        b"data: " + b"x" * (MOST_EVENT_BYTES + 1),
    ],
    ids=lambda bad: repr(bad[:40]),
)
def test_a_named_event_that_cannot_be_read_is_a_failure_after_what_was_good(bad: bytes) -> None:
    error, got = event_failure(BEGUN, SAID, bad)
    assert isinstance(error, ProviderInvalid)
    assert [chunk.data for chunk in got] == [BEGUN, SAID]


SHAPES: dict[str, tuple[Any, str]] = {
    "the reference's": ({"type": "error", "code": "c", "message": f"no {OWN_KEY}", "param": "p"}, f"no {REDACTED}"),
    "with an object": ({"type": "error", "error": {"code": "c", "message": f"no {OWN_KEY}"}}, f"no {REDACTED}"),
    "Anthropic's": ({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}, "busy"),
    "with a text": ({"type": "error", "error": "busy"}, "busy"),
    "chat's": ({"error": {"message": "busy"}}, "busy"),
    "a text alone": ({"error": "busy"}, "busy"),
    "without a word": ({"type": "error"}, "openai reported an error."),
    "of a strange kind": ({"type": "error", "error": [1]}, "openai reported an error."),
}


@pytest.mark.parametrize(("shape", "said"), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("endpoint", [RESPONSES, MESSAGES], ids=lambda row: row.name)
def test_an_error_event_is_the_providers_own_in_every_shape(endpoint: Endpoint, shape: JSON, said: str) -> None:
    error, got = event_failure(b"event: error\n" + event(shape), COMPLETED, endpoint=endpoint)
    assert isinstance(error, ProviderFailed)
    assert (error.message, error.source) == (said, "provider")
    assert got == []


def test_an_error_of_null_on_an_event_is_none() -> None:
    piece = event({"type": "response.own", "error": None})
    assert piece in [chunk.data for chunk in events_out(BEGUN, piece, COMPLETED)]


def test_a_response_that_failed_ends_with_its_own_event_and_is_raised() -> None:
    plain = named("response.failed", response={"status": "failed", "error": {"code": "server_error", "message": "no"}})
    error, got = event_failure(BEGUN, SAID, plain, DONE)
    assert got[-1].data == plain, "nothing in it had to be taken out"
    assert (got[-1].last, got[-1].content) == (True, False)
    assert (error.message, error.public_code) == ("no", "server_error")
    output = [
        {
            "type": "message",
            "content": [{"type": "output_text", "text": OWN_KEY, "image": "data:image/png;base64,aaaa"}],
        }
    ]
    failed = {"status": "failed", "output": output, "error": {"code": "c", "message": f"no {OWN_KEY}"}}
    error, got = event_failure(BEGUN, named("response.failed", response=failed, own=1))
    assert OWN_KEY not in error.message
    assert json.loads(data_of(got[-1].data) or b"") == {
        "type": "response.failed",
        "response": {**failed, "error": {"code": "c", "message": f"no {REDACTED}"}},
        "own": 1,
    }


@pytest.mark.parametrize("endpoint", [None, RESPONSES], ids=["chat", "responses"])
def test_silence_is_passed_on_and_changes_nothing_else(endpoint: Endpoint | None) -> None:
    pieces = [event(delta("a")), event(finish()), DONE] if endpoint is None else [BEGUN + SAID, COMPLETED]
    made = relay(ChatTranscript()) if endpoint is None else event_relay(ResponsesTranscript())
    halves = [half for piece in pieces for half in (piece[:9], b"", piece[9:])]
    chunks = list(made.chunks(iter(halves)))
    assert chunks.count(None) == len(pieces)
    assert b"".join(chunk.data for chunk in chunks if chunk is not None) == b"".join(pieces).removesuffix(DONE)


@pytest.mark.parametrize("blank", [b"\n", b"\n\n\n", b"\r\n", b"\r\n\r\n\r\n"])
@pytest.mark.parametrize("apart", [True, False])
def test_blank_lines_between_events_are_left_out(blank: bytes, apart: bool) -> None:
    wire = [blank, event(delta("a")), blank, event(finish()), blank, DONE]
    assert out(*(wire if apart else [b"".join(wire)])) == event(delta("a")) + event(finish())
