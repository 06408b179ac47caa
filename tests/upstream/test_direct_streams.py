"""Streams on the provider's own wire: every way that they end, and what becomes of their connections."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.core.calls import Call, Chunk
from gateway.core.endpoints import COMPLETIONS, MESSAGES, RESPONSE, RESPONSES, Endpoint
from gateway.core.redaction import REDACTED
from gateway.core.usage import Usage
from gateway.core.wire import MOST_EVENT_BYTES
from gateway.errors import (
    CallerGone,
    DeadlineExceeded,
    GatewayError,
    ProviderFailed,
    ProviderInvalid,
    ProviderLimited,
    ProviderStreamEnded,
    ProviderTimeout,
    ProviderUnreachable,
)
from tests.fakes.provider import (
    Action,
    FakeProvider,
    answer,
    close,
    data,
    done,
    event,
    pause,
    plain_json,
    raw,
    raw_bytes,
    repeat,
    reset,
    silence,
    sse,
)
from tests.upstream.natively import Natively, called, model_of

JSON = dict[str, Any]

CREDENTIAL = "sk-" + "a1B2c3D4" * 4
EACH = pytest.mark.parametrize("endpoint", [RESPONSES, MESSAGES, COMPLETIONS], ids=lambda row: row.name)
NAMED = pytest.mark.parametrize("endpoint", [RESPONSES, MESSAGES], ids=lambda row: row.name)

RESPONSE_BEGUN: JSON = {"id": "resp_1", "status": "in_progress", "model": "m", "output": []}
ITEM: JSON = {"id": "msg_1", "type": "message", "role": "assistant", "content": []}
MESSAGE: JSON = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}


def named(value: JSON) -> Action:
    return event(value["type"], value)


def text(endpoint: Endpoint, said: str) -> Action:
    """A piece of text on an operation's wire, once its stream has begun."""
    if endpoint is RESPONSES:
        return named({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": said})
    if endpoint is MESSAGES:
        return named({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": said}})
    return data({"id": "c", "choices": [{"index": 0, "text": said, "finish_reason": None}]})


def begun(endpoint: Endpoint) -> list[Action]:
    """How a stream begins; nothing of it is content."""
    if endpoint is RESPONSES:
        return [
            named({"type": "response.created", "response": RESPONSE_BEGUN}),
            named({"type": "response.output_item.added", "output_index": 0, "item": ITEM}),
        ]
    if endpoint is MESSAGES:
        block = {"type": "text", "text": ""}
        return [
            named({"type": "message_start", "message": {**MESSAGE, "usage": {"input_tokens": 3}}}),
            named({"type": "content_block_start", "index": 0, "content_block": block}),
        ]
    return []


def ending(endpoint: Endpoint) -> list[Action]:
    if endpoint is RESPONSES:
        return [named({"type": "response.completed", "response": {**RESPONSE_BEGUN, "status": "completed"}})]
    if endpoint is MESSAGES:
        return [
            named({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}),
            named({"type": "message_stop"}),
        ]
    return [data({"id": "c", "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}), done()]


def chunks_of(native: Natively, made: Call) -> Iterator[Chunk]:
    """Read a stream as the pipeline does: to its end, then close it."""
    opened = native.open(made)
    try:
        yield from opened.chunks()
    finally:
        opened.close()


def said_by(native: Natively) -> str:
    return json.dumps(native.tried.transcript.said())


# Good ones.


@EACH
def test_a_stream_comes_as_the_provider_sent_it(native: Natively, provider: FakeProvider, endpoint: Endpoint) -> None:
    provider.script("m", answer("one two three", usage=(4, 3)))
    got = native.events(endpoint)
    record = native.tried.transcript
    assert "one two three" in said_by(native)
    assert (record.complete, record.usage) == (True, Usage(4, 3))
    if endpoint is not COMPLETIONS:
        assert all(one.startswith(b"event: ") for one in got)
        assert json.loads(got[-1].split(b"data: ")[1])["type"] in endpoint.ends


@NAMED
def test_strange_events_pass_byte_for_byte(native: Natively, endpoint: Endpoint) -> None:
    strange = [
        b'event: x.new\r\ndata: {"type" :"x.new",  "own":[null, 1e5]}\r\n\r\n',
        b'id: 7\ndata: {"type":"x.newer",\ndata: "text":"\\u00e4"}\n\n',
        'data: {"type":"x.newest","text":"ä😀"}\n\n'.encode(),
    ]
    native.provider.script("m", sse(*begun(endpoint), *map(raw_bytes, strange), text(endpoint, "a"), *ending(endpoint)))
    assert [one for one in native.events(endpoint) if b"x.new" in one] == strange


@NAMED
def test_comments_retries_and_empty_events_are_left_out_and_what_follows_the_end_is_not_read(
    native: Natively, endpoint: Endpoint
) -> None:
    noise = [raw_bytes(b": ping\n\n"), raw_bytes(b"retry: 3\n\n"), raw_bytes(b"data:\n\n"), raw_bytes(b"event: x\n\n")]
    plain = [*begun(endpoint), text(endpoint, "a"), *ending(endpoint)]
    native.provider.script("m", sse(*plain))
    wanted = native.events(endpoint)
    native.provider.script(
        "m", sse(*noise, *plain[:-1], *noise, plain[-1], done(), text(endpoint, "late"), data("{bad"))
    )
    assert native.events(endpoint) == wanted
    assert "late" not in said_by(native)


@NAMED
def test_a_last_event_without_its_blank_line_is_read(native: Natively, endpoint: Endpoint) -> None:
    native.provider.script("m", sse(*begun(endpoint), *ending(endpoint)))
    wanted = native.events(endpoint)
    bare = wanted[-1].removesuffix(b"\n\n")
    native.provider.script("m", sse(*begun(endpoint), *ending(endpoint)[:-1], raw_bytes(bare)))
    assert native.events(endpoint) == wanted


@NAMED
def test_an_event_of_almost_8_mb_passes_and_a_larger_one_is_a_failure(native: Natively, endpoint: Endpoint) -> None:
    native.provider.script(
        "m", sse(*begun(endpoint), text(endpoint, "x" * (MOST_EVENT_BYTES - 1000)), *ending(endpoint))
    )
    assert max(map(len, native.events(endpoint))) > MOST_EVENT_BYTES - 1000
    native.provider.script(
        "m", sse(*begun(endpoint), text(endpoint, "x" * (MOST_EVENT_BYTES + 200_000)), *ending(endpoint))
    )
    with pytest.raises(ProviderInvalid):
        native.events(endpoint)


@EACH
def test_a_stream_that_was_packed_unasked_is_unpacked(native: Natively, endpoint: Endpoint) -> None:
    native.provider.script("m", answer("said"))
    plain = b"".join(native.events(endpoint))
    tail = b"data: [DONE]\n\n" if endpoint is COMPLETIONS else b""
    head = {"Content-Type": "text/event-stream", "Content-Encoding": "gzip"}
    native.provider.script("m", raw(200, head, gzip.compress(plain + tail)))
    assert b"".join(native.events(endpoint)) == plain


def test_a_stored_response_is_streamed_again(native: Natively) -> None:
    for kind in ("completed", "incomplete", "failed"):
        error = {"code": "x", "message": f"key {CREDENTIAL}"} if kind == "failed" else None
        last = {"type": f"response.{kind}", "response": {**RESPONSE_BEGUN, "status": kind, "error": error}}
        reply = sse(*begun(RESPONSES), text(RESPONSES, "again"), named(last), done())
        native.provider._unscripted = lambda _request, reply=reply: reply  # type: ignore[method-assign, misc]
        made = called(RESPONSE, "openai/m", path_id="resp_1", stream=True, query="stream=true&starting_after=1")
        chunks = list(chunks_of(native, made))
        assert json.loads(chunks[-1].data.split(b"data: ")[1])["type"] == f"response.{kind}"
        assert chunks[-1].last
        assert CREDENTIAL.encode() not in chunks[-1].data
        assert native.tried.transcript.said()["status"] == kind


def test_a_stored_response_whose_stream_is_cut_has_no_end(native: Natively) -> None:
    native.provider._unscripted = lambda _request: sse(*begun(RESPONSES))  # type: ignore[method-assign]
    with pytest.raises(ProviderStreamEnded):
        list(chunks_of(native, called(RESPONSE, "openai/m", path_id="resp_1", stream=True)))


# Bad ones.

FAILED: JSON = {**RESPONSE_BEGUN, "status": "failed", "error": {"code": "server_error", "message": f"is {CREDENTIAL}"}}
STOP = named({"type": "message_stop"})
OVERLOADED = {"type": "overloaded_error", "message": f"Overloaded {CREDENTIAL}"}

ENDS: dict[str, tuple[Endpoint, list[Action], type[GatewayError], str]] = {
    "responses: no end": (RESPONSES, [], ProviderStreamEnded, ""),
    "responses: only [DONE]": (RESPONSES, [done()], ProviderStreamEnded, ""),
    "responses: FIN": (RESPONSES, [close()], ProviderUnreachable, ""),
    "responses: RST": (RESPONSES, [reset()], ProviderUnreachable, ""),
    "responses: no JSON": (RESPONSES, [data("{bad")], ProviderInvalid, ""),
    "responses: no object": (RESPONSES, [data("[]")], ProviderInvalid, ""),
    "responses: no type": (RESPONSES, [data({"delta": "x"})], ProviderInvalid, ""),
    "responses: a type of another kind": (RESPONSES, [data({"type": ["error"]})], ProviderInvalid, ""),
    "responses: an end without a response": (RESPONSES, [data({"type": "response.completed"})], ProviderInvalid, ""),
    "responses: failed": (RESPONSES, [named({"type": "response.failed", "response": FAILED})], ProviderFailed, "is"),
    "responses: failed, of a limit": (
        RESPONSES,
        [data({"type": "response.failed", "response": {**FAILED, "error": {"code": "rate_limit_exceeded"}}})],
        ProviderLimited,
        "",
    ),
    "responses: failed without a word": (
        RESPONSES,
        [data({"type": "response.failed", "response": {**FAILED, "error": None}})],
        ProviderFailed,
        "openai reported an error.",
    ),
    "responses: an error of the reference": (
        RESPONSES,
        [named({"type": "error", "code": "c", "message": f"m {CREDENTIAL}", "param": "p", "sequence_number": 9})],
        ProviderFailed,
        f"m {REDACTED}",
    ),
    "responses: an error with an object": (
        RESPONSES,
        [named({"type": "error", "error": {"type": "t", "code": "c", "message": "m"}})],
        ProviderFailed,
        "m",
    ),
    "responses: an error of chat": (RESPONSES, [data({"error": {"message": "m"}})], ProviderFailed, "m"),
    "responses: an error that is a text": (RESPONSES, [data({"code": 1, "error": "m"})], ProviderFailed, "m"),
    "responses: an error of a limit": (
        RESPONSES,
        [named({"type": "error", "error": {"code": "rate_limit_exceeded", "message": "m"}})],
        ProviderLimited,
        "m",
    ),
    "messages: no end": (MESSAGES, [], ProviderStreamEnded, ""),
    "messages: FIN": (MESSAGES, [close()], ProviderUnreachable, ""),
    "messages: RST": (MESSAGES, [reset()], ProviderUnreachable, ""),
    "messages: an end without a reason": (MESSAGES, [STOP], ProviderStreamEnded, ""),
    "messages: a reason without an end": (MESSAGES, ending(MESSAGES)[:-1], ProviderStreamEnded, ""),
    "messages: a delta of no block": (
        MESSAGES,
        [data({"type": "content_block_delta", "index": 7, "delta": {"type": "text_delta", "text": "a"}})],
        ProviderInvalid,
        "",
    ),
    "messages: an error": (
        MESSAGES,
        [named({"type": "error", "error": OVERLOADED})],
        ProviderFailed,
        f"Overloaded {REDACTED}",
    ),
    "messages: an error of a limit": (
        MESSAGES,
        [named({"type": "error", "error": {"type": "rate_limit_error", "message": "m"}})],
        ProviderLimited,
        "m",
    ),
    "completions: no end": (COMPLETIONS, [], ProviderStreamEnded, ""),
    "completions: only [DONE]": (COMPLETIONS, [done()], ProviderStreamEnded, ""),
    "completions: RST": (COMPLETIONS, [reset()], ProviderUnreachable, ""),
    "completions: no JSON": (COMPLETIONS, [data("{bad")], ProviderInvalid, ""),
    "completions: an error": (COMPLETIONS, [data({"error": {"message": "m"}})], ProviderFailed, "m"),
}


@pytest.mark.parametrize("after_content", [False, True], ids=["before content", "after content"])
@pytest.mark.parametrize(("endpoint", "steps", "kind", "said"), ENDS.values(), ids=ENDS)
def test_a_stream_that_breaks_has_failed_and_no_end_is_made_up(
    native: Natively, endpoint: Endpoint, steps: list[Action], kind: type[GatewayError], said: str, after_content: bool
) -> None:
    content = [text(endpoint, "tok")] if after_content else []
    native.provider.script("m", sse(*begun(endpoint), *content, *steps))
    got = []
    with pytest.raises(GatewayError) as failed:
        got.extend(chunks_of(native, called(endpoint, model_of(endpoint), stream=True)))
    assert type(failed.value) is kind
    assert said in failed.value.message
    assert (failed.value.source, failed.value.elsewhere) == ("provider", True)
    wire = b"".join(chunk.data for chunk in got)
    assert CREDENTIAL.encode() not in wire + failed.value.message.encode()
    for end in (b"response.completed", b"response.incomplete", b"message_stop", b"[DONE]"):
        assert end not in wire
    assert [chunk.last for chunk in got if chunk.last] == ([True] if b"response.failed" in wire else [])
    if not after_content and endpoint is not MESSAGES:
        assert not any(chunk.content for chunk in got), "so that another deployment may be tried"
    if after_content:
        assert "tok" in said_by(native), "what came is in the record"


def test_a_failure_of_a_response_is_told_in_its_own_event(native: Natively) -> None:
    native.provider.script(
        "m", sse(*begun(RESPONSES), named({"type": "response.failed", "response": FAILED, "own": 1}))
    )
    got = []
    with pytest.raises(ProviderFailed):
        got.extend(chunks_of(native, called(RESPONSES, "openai/m", stream=True)))
    last = json.loads(got[-1].data.split(b"data: ")[1])
    assert last == {
        "type": "response.failed",
        "response": {**FAILED, "error": {"code": "server_error", "message": f"is {REDACTED}"}},
        "own": 1,
    }


@EACH
def test_json_where_a_stream_was_asked_for_is_a_failure(native: Natively, endpoint: Endpoint) -> None:
    native.provider.script("m", plain_json({"status": "completed", "output": [], "content": [], "choices": []}))
    with pytest.raises(ProviderInvalid, match="event stream"):
        native.events(endpoint)
    native.provider.script("m", plain_json({"error": {"message": "quota", "code": "rate_limit_exceeded"}}))
    with pytest.raises(ProviderLimited, match="quota"):
        native.events(endpoint)


@NAMED
def test_a_stream_that_cannot_be_unpacked_is_a_failure(native: Natively, endpoint: Endpoint) -> None:
    head = {"Content-Type": "text/event-stream", "Content-Encoding": "gzip"}
    native.provider.script("m", raw(200, head, b"data: not packed\n\n"))
    with pytest.raises(ProviderInvalid, match="unpacked"):
        native.events(endpoint)


# Connections.


@NAMED
@pytest.mark.parametrize("size", [10, 200_000], ids=["small", "larger than a piece of the network"])
@pytest.mark.parametrize("behind", [[], [done()]], ids=["", "[DONE] behind"])
def test_a_connection_is_used_again_after_a_clean_end(
    native: Natively, endpoint: Endpoint, size: int, behind: list[Action]
) -> None:
    """Also where the last words lie a while, and several pieces, before the end of the chunked body."""
    last = {**RESPONSE_BEGUN, "status": "completed", "own": "x" * size}
    ends = ending(endpoint)
    if endpoint is RESPONSES:
        ends = [named({"type": "response.completed", "response": last})]
    native.provider.script("m", sse(*begun(endpoint), text(endpoint, "a"), *ends, pause(0.02), *behind))
    for _ in range(3):
        native.events(endpoint)
    assert len({received.connection for received in native.provider.requests()}) == 1


def test_a_connection_is_used_again_after_a_response_that_failed(native: Natively) -> None:
    failed = named({"type": "response.failed", "response": FAILED})
    native.provider.script("m", sse(*begun(RESPONSES), failed, pause(0.02)))
    for _ in range(2):
        with pytest.raises(ProviderFailed):
            native.events(RESPONSES)
    assert len({received.connection for received in native.provider.requests()}) == 1


@EACH
def test_a_connection_is_used_again_after_whole_answers_and_refusals(native: Natively, endpoint: Endpoint) -> None:
    native.whole(endpoint)
    native.provider.script("m", plain_json({"error": {"message": "no"}}, 400))
    with pytest.raises(GatewayError):
        native.events(endpoint)
    native.provider.script("m", answer())
    native.events(endpoint)
    assert len({received.connection for received in native.provider.requests()}) == 1


def test_a_provider_that_goes_on_after_its_end_is_not_waited_for(native: Natively) -> None:
    native.provider.script("m", sse(*begun(MESSAGES), *ending(MESSAGES), silence()))
    began_s = time.monotonic()
    native.events(MESSAGES)
    assert time.monotonic() - began_s < 1
    assert native.provider.requests()[0].closed.wait(1)


BUSY = [pause(0.05), data({"type": "x.ping"})]


@NAMED
@pytest.mark.parametrize("rest", [[silence()], [repeat(200, *BUSY)]], ids=["silent", "busy"])
@pytest.mark.parametrize(("reason", "kind"), [("caller_gone", CallerGone), ("deadline", DeadlineExceeded)])
def test_a_call_that_is_stopped_in_the_middle_frees_the_provider_at_once(
    native: Natively, endpoint: Endpoint, rest: list[Action], reason: str, kind: type[GatewayError]
) -> None:
    native.provider.script("m", sse(*begun(endpoint), text(endpoint, "tok"), *rest))
    made = called(endpoint, model_of(endpoint), stream=True)
    opened = native.open(made)
    chunks = opened.chunks()
    while not next(chunks).content:
        pass
    threading.Timer(0.05, made.cancellation.abort, (reason,)).start()
    began_s = time.monotonic()
    with pytest.raises(kind):
        list(chunks)
    opened.close()
    assert time.monotonic() - began_s < 1
    assert native.provider.requests()[0].closed.wait(1)
    assert "tok" in said_by(native)


@NAMED
def test_a_call_that_is_stopped_in_the_middle_of_an_event_was_stopped_all_the_same(
    native: Natively, endpoint: Endpoint
) -> None:
    """Where the end of the connection is the end of the body, half of an event looks like a bad one."""
    half = b'data: {"type": "response.crea'

    def play(turn: Any) -> None:
        turn.exchange.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + half)
        turn.exchange.wait(None)

    native.provider.script("m", type(answer())(play))
    made = called(endpoint, model_of(endpoint), stream=True)
    opened = native.open(made)
    threading.Timer(0.1, made.cancellation.abort, ("deadline",)).start()
    with pytest.raises(DeadlineExceeded):
        list(opened.chunks())
    opened.close()


@NAMED
def test_an_answer_that_is_left_closes_its_connection(native: Natively, endpoint: Endpoint) -> None:
    native.provider.script("m", sse(*begun(endpoint), text(endpoint, "tok"), repeat(200, *BUSY)))
    opened = native.open(called(endpoint, model_of(endpoint), stream=True))
    next(opened.chunks())
    opened.close()
    opened.close()
    assert native.provider.requests()[0].closed.wait(1)


@NAMED
def test_silence_in_the_middle_of_a_stream_is_a_timeout(provider: FakeProvider, endpoint: Endpoint) -> None:
    impatient = Natively(provider, idle_s=0.3)
    provider.script("m", sse(*begun(endpoint), text(endpoint, "tok"), silence()))
    with pytest.raises(ProviderTimeout):
        impatient.events(endpoint)
    assert provider.requests()[0].closed.wait(1)
    impatient.direct.close()


# Silence, where it is told: a writer that reads for itself has to say that it is still alive.


@pytest.fixture
def telling(provider: FakeProvider) -> Iterator[Natively]:
    made = Natively(provider, idle_s=0.6, silence_s=0.1)
    yield made
    made.direct.close()


@EACH
def test_silence_is_told_before_the_head_and_in_the_middle(telling: Natively, endpoint: Endpoint) -> None:
    wire = [*begun(endpoint), text(endpoint, "a"), pause(0.35), text(endpoint, "b"), *ending(endpoint)]
    telling.provider.script("m", sse(*wire, delay=0.35))
    opened = telling.open(called(endpoint, model_of(endpoint), stream=True))
    chunks = list(opened.chunks())
    opened.close()
    words = [chunk if chunk is None else chunk.data for chunk in chunks]
    first = next(place for place, word in enumerate(words) if word is not None)
    assert first >= 2, "nothing came for three times as long"
    assert words[first:].count(None) >= 2
    assert telling.tried.transcript.complete
    assert "ab" in said_by(telling).replace('"}, {"text": "', "")


@EACH
def test_a_head_that_comes_late_and_is_a_failure_is_raised_as_one(telling: Natively, endpoint: Endpoint) -> None:
    telling.provider.script("m", plain_json({"error": {"message": "slow down"}}, 429, delay=0.25))
    opened = telling.open(called(endpoint, model_of(endpoint), stream=True))
    told: list[Any] = []
    with pytest.raises(ProviderLimited):
        told.extend(opened.chunks())
    opened.close()
    assert telling.provider.open_connections <= 1


@EACH
@pytest.mark.parametrize("before", [[], ["begun"]], ids=["no head", "in the middle"])
def test_who_is_silent_for_too_long_has_failed_though_it_was_told(
    telling: Natively, endpoint: Endpoint, before: list[str]
) -> None:
    wire = [*begun(endpoint), text(endpoint, "a"), silence()] if before else [silence()]
    telling.provider.script("m", sse(*wire, delay=0 if before else 9))
    made = called(endpoint, model_of(endpoint), stream=True)
    telling.direct._first_byte_s = 0.6
    began_s = time.monotonic()
    opened = telling.open(made)
    told: list[Any] = []
    with pytest.raises(ProviderTimeout):
        told.extend(opened.chunks())
    opened.close()
    assert told.count(None) >= 3
    assert time.monotonic() - began_s < 3
    assert telling.provider.requests()[0].closed.wait(1)


@EACH
def test_a_call_that_is_stopped_while_its_head_is_waited_for_frees_the_provider_at_once(
    telling: Natively, endpoint: Endpoint
) -> None:
    telling.direct._first_byte_s = 30
    telling.provider.script("m", sse(silence(), delay=30))
    made = called(endpoint, model_of(endpoint), stream=True)
    opened = telling.open(made)
    threading.Timer(0.25, made.cancellation.abort, ("caller_gone",)).start()
    with pytest.raises(CallerGone):
        list(opened.chunks())
    opened.close()
    assert telling.provider.requests()[0].closed.wait(1)
