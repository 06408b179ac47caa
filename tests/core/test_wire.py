"""Server-Sent Events out of bytes that the network cut anywhere, and error bodies."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest

from gateway.core.wire import (
    DONE,
    KEEP_ALIVE,
    MOST_EVENT_BYTES,
    Events,
    EventTooLarge,
    data_event,
    data_of,
    dumps,
    error_body,
    error_event,
    openai_error,
)
from gateway.errors import (
    BodyTooLarge,
    GatewayError,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    NotAuthenticated,
    ProviderFailed,
    ProviderLimited,
    ProviderRefused,
    ProviderTimeout,
)

STREAM = (
    b'data: {"content":"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"}\n\n',
    b'data: {"a":1}\r\n\r\n',
    b": a comment\n\n",
    b": a comment\r\n\r\n",
    b"event: message\nid: 7\ndata: one\ndata: two\n\n",
    b"retry: 10\r\n\r\n",
    b"event: message\r\ndata: one\r\ndata:  two\r\n\r\n",
    b"data:\n\n",
    b'data: {"text":"line\\nline"}\n\n',
    b"data: [DONE]\n\n",
)
SAID = [
    '{"content":"ä€😀"}'.encode(),
    b'{"a":1}',
    None,
    None,
    b"one\ntwo",
    None,
    b"one\n two",
    b"",
    b'{"text":"line\\nline"}',
    b"[DONE]",
]


def fed(*pieces: bytes) -> list[bytes]:
    events = Events()
    return [event for piece in pieces for event in events.feed(piece)]


def cut(stream: bytes, dice: random.Random) -> list[bytes]:
    places = sorted(dice.sample(range(1, len(stream)), dice.randrange(1, 12)))
    return [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True)]


def test_every_event_is_handed_out_as_it_came() -> None:
    assert fed(b"".join(STREAM)) == list(STREAM)
    assert [data_of(event) for event in STREAM] == SAID


def test_twenty_thousand_ways_to_cut_a_stream_give_the_same_events() -> None:
    dice, stream = random.Random(20_000), b"".join(STREAM)
    for _ in range(20_000):
        pieces = cut(stream, dice)
        assert fed(*pieces) == list(STREAM), pieces


def test_a_stream_of_single_bytes_gives_the_same_events() -> None:
    assert fed(*(bytes([byte]) for byte in b"".join(STREAM))) == list(STREAM)


def test_lines_may_end_with_a_carriage_return_alone() -> None:
    dice, events = random.Random(1), [b"event: x\rdata: one\rdata: two\r\r", b": y\r\r", b"data: three\r\r"]
    assert [data_of(event) for event in events] == [b"one\ntwo", None, b"three"]
    for _ in range(200):
        assert fed(*cut(b"".join(events), dice)) == events


def test_blank_lines_between_events_are_no_data() -> None:
    said = [data_of(event) for event in fed(b"\n\ndata: a\n\n\n\n\ndata: b\n\n\n")]
    assert [data for data in said if data] == [b"a", b"b"]


def test_a_byte_order_mark_before_a_stream_is_no_part_of_it() -> None:
    """WHATWG HTML, section 9.2.5: one leading U+FEFF is ignored."""
    assert [data_of(event) for event in fed(b"\xef\xbb\xbfdata: a\n\n", b"data: b\n\n")] == [b"a", b"b"]


def test_what_has_no_blank_line_is_no_event_yet() -> None:
    events = Events()
    assert events.feed(b"data: a\n\ndata: b\n") == [b"data: a\n\n"]
    assert events.rest() == b"data: b\n"
    assert events.rest() == b""
    assert events.feed(b"data: c\n\n") == [b"data: c\n\n"]


def test_an_event_that_does_not_end_is_too_large() -> None:
    events = Events()
    events.feed(b"data: " + b"x" * (MOST_EVENT_BYTES - 6))
    with pytest.raises(EventTooLarge):
        events.feed(b"x")


def test_many_events_may_be_larger_than_one() -> None:
    event = b"data: " + b"x" * (1 << 20) + b"\n\n"
    assert len(fed(*[event[:500_000], event[500_000:]] * 10)) == 10


def test_a_large_event_in_small_pieces_is_not_searched_again_and_again() -> None:
    events, piece = Events(), b"x" * 16
    began_s = time.process_time()
    for _ in range(400_000):
        assert events.feed(piece) == []
    assert time.process_time() - began_s < 20, "quadratic: it would take minutes"


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data:x\n\n", b"x"),
        (b"data: x\n\n", b"x"),
        (b"data:\n\n", b""),
        (b"datum: x\n\n", None),
        (b": data: x\n\n", None),
        (b"\n\n", None),
        (b"data: a\ndata:b\n\n", b"a\nb"),
        (b"id: 1\r\ndata: a\r\n\r\n", b"a"),
        (b"data: \xe2\x80\xa8 is no end of a line\n\n", b"\xe2\x80\xa8 is no end of a line"),
    ],
)
def test_the_data_of_an_event(event: bytes, data: bytes | None) -> None:
    assert data_of(event) == data


# Writing.


def test_an_event_is_compact_json_with_characters_as_they_are() -> None:
    assert data_event({"a": "ä\n"}) == 'data: {"a":"ä\\n"}\n\n'.encode()


def test_what_the_gateway_writes_is_what_it_reads() -> None:
    assert [data_of(event) for event in fed(data_event([1, "\n\n"]), KEEP_ALIVE, DONE)] == [
        b'[1,"\\n\\n"]',
        None,
        b"[DONE]",
    ]


@pytest.mark.parametrize("text", ["\ud83d", "\udc00 alone", "\ud83d\ude00"])
def test_half_of_a_surrogate_pair_can_be_written(text: str) -> None:
    """A provider's JSON may have one as an escape, in an answer or in an error's message."""
    written = dumps({"message": json.loads(json.dumps(text))})
    assert isinstance(json.loads(written)["message"], str)


def test_an_error_has_openais_fields_and_who_failed() -> None:
    error = InvalidRequest("n must be at most 128", param="n")
    assert openai_error(error, "req_1") == {
        "error": {
            "message": "n must be at most 128",
            "type": "invalid_request_error",
            "param": "n",
            "code": None,
            "request_id": "req_1",
            "provider": None,
            "source": "gateway",
        }
    }


def test_a_providers_error_keeps_the_providers_own_words() -> None:
    error = ProviderFailed("overloaded", status=529, code="overloaded", type="overloaded_error", provider="anthropic")
    got: dict[str, Any] = openai_error(error, "req_1")["error"]
    assert (got["type"], got["code"], got["source"], got["provider"]) == (
        "overloaded_error",
        "overloaded",
        "provider",
        "anthropic",
    )


def test_an_error_without_words_of_its_own_has_those_of_its_class() -> None:
    got = openai_error(ProviderLimited("slow down"), "req_1")["error"]
    assert (got["type"], got["code"]) == ("rate_limit_error", "rate_limit_exceeded")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidRequest("bad"), "invalid_request_error"),
        (NotAuthenticated("who?"), "authentication_error"),
        (ModelNotFound("none"), "not_found_error"),
        (BodyTooLarge("too much"), "request_too_large"),
        (ProviderLimited("slow down"), "rate_limit_error"),
        (ProviderFailed("busy", status=529), "overloaded_error"),
        (ProviderFailed("busy", type="overloaded_error"), "overloaded_error"),
        (ProviderFailed("odd", type="server_error"), "api_error"),
        (ProviderRefused("odd", status=422), "invalid_request_error"),
        (ProviderTimeout("late"), "timeout_error"),
        (InternalError("ours"), "api_error"),
    ],
)
def test_an_error_has_one_of_anthropics_types(error: GatewayError, kind: str) -> None:
    told = error_body("anthropic", error, "req_1")
    assert (told["type"], told["request_id"]) == ("error", "req_1")
    assert (told["error"]["type"], told["error"]["message"]) == (kind, error.message)
    assert told["error"]["source"] == error.source


def test_a_failure_in_mid_stream_is_told_as_each_wire_does() -> None:
    error = ProviderFailed("broke", code="oops")
    assert error_event("openai", error, "req_1", 3) == data_event(openai_error(error, "req_1"))
    theirs = error_event("anthropic", error, "req_1", 3)
    assert theirs.startswith(b"event: error\ndata: {")
    assert json.loads(data_of(theirs) or b"")["error"]["message"] == "broke"
    responses = error_event("responses", error, "req_1", 3)
    assert responses.startswith(b"event: error\ndata: {")
    event = json.loads(data_of(responses) or b"")
    assert (event["type"], event["code"], event["message"], event["sequence_number"]) == ("error", "oops", "broke", 3)
    assert event["error"]["message"] == "broke", "without it OpenAI's SDK would hand the event on as any other"
