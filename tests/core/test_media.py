"""What is recorded of media: digests and texts, and what is billed."""

from __future__ import annotations

import base64
import hashlib
from decimal import Decimal
from typing import Any

import pytest

from gateway.core.media import (
    BytesTranscript,
    ImagesTranscript,
    MediaTranscript,
    ModerationTranscript,
    RerankTranscript,
    SpeechTranscript,
    TranscriptionTranscript,
    digest_of,
    seconds,
    usage_told,
)
from gateway.core.transcript import Malformed
from gateway.core.usage import Usage


@pytest.mark.parametrize(
    ("begin", "kind"), [(b"\x89PNG\r\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF89a", "image/gif")]
)
def test_a_digest_tells_size_type_and_sum(begin: bytes, kind: str) -> None:
    data = begin + bytes(100)
    assert digest_of(data) == {"type": kind, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert digest_of(data, "image/webp")["type"] == "image/webp"
    assert "type" not in digest_of(b"something else")


@pytest.mark.parametrize(
    ("claimed", "read"),
    [
        (3, 3),
        (0, 0),
        (3.5, Decimal("3.5")),
        ("8.470000267028809", Decimal("8.47")),
        (-1, None),
        (True, None),
        (float("nan"), None),
        (float("inf"), None),
        ("long", None),
        (None, None),
        ({}, None),
        (1e300, 1_000_000_000),
    ],
)
def test_seconds_are_read_whatever_is_claimed(claimed: Any, read: Any) -> None:
    assert seconds(claimed) == read


@pytest.mark.parametrize(
    ("claimed", "usage"),
    [
        (None, None),
        ({}, None),
        ("much", None),
        ({"type": "duration", "seconds": 9}, Usage(units={"second_in": 9})),
        ({"type": "tokens", "input_tokens": 14, "output_tokens": 45}, Usage(prompt=14, completion=45)),
        ({"prompt_tokens": 3, "completion_tokens": 1}, Usage(prompt=3, completion=1)),
    ],
)
def test_usage_is_tokens_or_seconds(claimed: Any, usage: Usage | None) -> None:
    assert usage_told(claimed) == usage


def test_pictures_are_told_by_digest_or_address() -> None:
    made = ImagesTranscript()
    assert not made.started
    made.take(
        {
            "data": [{"b64_json": base64.b64encode(b"abc").decode()}, {"url": "https://x/y.png"}, {"b64_json": "?"}],
            "output_format": "webp",
            "size": "1024x1024",
        }
    )
    digest = hashlib.sha256(b"abc").hexdigest()
    assert made.said() == {
        "size": "1024x1024",
        "output_format": "webp",
        "images": [
            {"type": "image/webp", "bytes": 3, "sha256": digest},
            {"url": "https://x/y.png"},
            {"characters": 1},
        ],
    }
    assert made.usage == Usage(units={"image_made": 3})
    assert made.complete


def test_subtitles_are_a_text_and_verbose_json_tells_its_length() -> None:
    made = TranscriptionTranscript()
    made.take_text("1\n00:00 --> 00:01\nhello")
    assert (made.said()["text"][-5:], made.usage, made.complete) == ("hello", None, True)
    made = TranscriptionTranscript()
    made.take({"text": "hello", "duration": 2.5, "language": "english"})
    assert made.said() == {"text": "hello", "duration": 2.5, "language": "english"}
    assert made.usage == Usage(units={"second_in": Decimal("2.5")})


def test_a_transcript_so_far_is_what_has_come() -> None:
    made = TranscriptionTranscript()
    for delta in ("well ", "met"):
        assert made.add({"type": "transcript.text.delta", "delta": delta})
    assert (made.said(), made.complete) == ({"text": "well met"}, False)
    made.add({"type": "transcript.text.done", "text": "Well met."})
    assert (made.said(), made.complete) == ({"text": "Well met."}, True)


def test_speech_is_billed_by_what_was_asked_from_its_first_byte_on() -> None:
    made = SpeechTranscript()
    made.asked({"input": "héllo"})
    assert made.usage is None
    made.feed(b"ID3")
    assert made.usage == Usage(units={"character_in": 5})


@pytest.mark.parametrize(
    ("made", "document"),
    [
        (ImagesTranscript(), {}),
        (ImagesTranscript(), {"data": ["x"]}),
        (TranscriptionTranscript(), {"text": None}),
        (ModerationTranscript(), {"results": None}),
        (RerankTranscript(), {"results": [1]}),
    ],
)
def test_what_is_no_answer_is_malformed(made: Any, document: Any) -> None:
    with pytest.raises(Malformed):
        made.take(document)


@pytest.mark.parametrize("event", [{}, {"type": 5}, {"type": "speech.audio.delta", "audio": "?"}])
def test_what_is_no_event_is_malformed(event: Any) -> None:
    with pytest.raises(Malformed):
        SpeechTranscript().add(event)


def test_a_text_is_no_answer_where_json_is_due() -> None:
    for made in (ImagesTranscript(), BytesTranscript(), MediaTranscript()):
        with pytest.raises(Malformed):
            made.take_text("<html>")


@pytest.mark.parametrize(
    ("document", "usage"),
    [
        ({"meta": {"billed_units": {"search_units": 2}}}, Usage(units={"query": 2})),
        ({"usage": {"total_tokens": 30}}, Usage(prompt=30)),
        ({"usage": {"prompt_tokens": 20, "total_tokens": 30}}, Usage(prompt=20)),
        ({"meta": {"billed_units": None}}, None),
        ({}, None),
    ],
)
def test_an_order_is_billed_by_searches_or_tokens(document: Any, usage: Usage | None) -> None:
    made = RerankTranscript()
    made.take({"results": [{"index": 1, "relevance_score": 0.5, "document": {"text": "long"}}], **document})
    assert made.usage == usage
    assert made.said() == [{"index": 1, "relevance_score": 0.5}]
