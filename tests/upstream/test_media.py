"""Media: what goes out and comes back natively and by LiteLLM, and what the record keeps of it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.core.calls import Call
from gateway.core.endpoints import (
    IMAGES,
    IMAGES_EDITS,
    IMAGES_VARIATIONS,
    MODERATIONS,
    RERANK,
    SPEECH,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    Endpoint,
)
from gateway.core.multipart import Form
from gateway.core.redaction import Redactor
from gateway.core.usage import Usage
from gateway.errors import (
    BodyTooLarge,
    InvalidRequest,
    ProviderFailed,
    ProviderInvalid,
    ProviderStreamEnded,
    ProviderUnreachable,
)
from gateway.tracing.catcher import Catcher, Held
from gateway.uploads import Upload
from gateway.upstream.direct import Direct
from gateway.upstream.failures import Failures
from gateway.upstream.lanes import Lanes
from gateway.upstream.litellm import LiteLLM
from tests.builders import attempt, call
from tests.fakes.provider import FakeProvider, close, error, event, plain_json, raw, sse
from tests.forms import BOUNDARY, CONTENT_TYPE, form, received
from tests.upstream.conftest import OWN_KEY

JSON = dict[str, Any]

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
PICTURES = {"created": 1, "data": [{"b64_json": base64.b64encode(PICTURE).decode(), "revised_prompt": "a sea"}]}
RECORDING = b"RIFF" + bytes(range(256)) * 8
HEARD = {"text": "well met", "usage": {"type": "duration", "seconds": 9}}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:pydantic")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Ways:
    """The lanes as the gateway builds them; `tried` is the last attempt."""

    def __init__(self, upstream: LiteLLM, provider: FakeProvider) -> None:
        self._direct = Direct(Failures(Redactor([OWN_KEY])), first_byte_s=5, idle_s=5, silence_s=5)
        self._lanes = Lanes(self._direct, upstream)
        self._provider = provider
        self.tried = attempt()
        self.caught = Held("row", "0" * 16, "1" * 32)

    def close(self) -> None:
        self._direct.close()

    def open(self, endpoint: Endpoint, name: str, address: str | None = None, **body: Any) -> Any:
        made = call(name, endpoint=endpoint, stream=body.get("stream", False), pieces=endpoint.in_pieces)
        made.body = {"model": name, **body}
        return self._opened(made, address)

    def sent(self, endpoint: Endpoint, name: str, *parts: Any) -> Any:
        """Send a form."""
        whole = form(*parts)
        read: list[bytes] = [whole, b""]
        upload = Upload(Form(endpoint, BOUNDARY.encode()), lambda: read.pop(0), len(whole), None)
        upload.read_until(lambda: False)
        made = call(name, endpoint=endpoint, pieces=endpoint.in_pieces, upload=upload, content_type=CONTENT_TYPE)
        made.body = upload.form.document
        made.stream = made.body.get("stream") is True
        try:
            return self._opened(made, None)
        finally:
            upload.close()

    def _opened(self, made: Call, address: str | None) -> Any:
        azure = made.model.startswith("azure/")
        base = address or (self._provider.origin if azure else self._provider.base_url)
        more = {"api_version": "2024-10-21"} if azure else {}
        self.tried = attempt(made.model, api_base=base, api_key=OWN_KEY, **more)
        self.tried.transcript = made.endpoint.transcript()
        self.caught = Held("row", "0" * 16, "1" * 32)
        catcher = Catcher()
        catcher.install()
        with catcher.holding(self.caught):
            return self._lanes.open(self.tried, made)


def wire(opened: Any) -> bytes:
    """What the caller gets."""
    try:
        return b"".join(chunk.data for chunk in opened.chunks() if chunk is not None)
    finally:
        opened.close()


@pytest.fixture
def ways(loaded: LiteLLM, provider: FakeProvider) -> Iterator[Ways]:
    made = Ways(loaded, provider)
    yield made
    made.close()


EACH_WAY = pytest.mark.parametrize("name", ["openai/m", "azure/m"], ids=["natively", "by LiteLLM"])


@EACH_WAY
def test_pictures_come_back_as_they_are_and_are_recorded_as_digests(
    ways: Ways, provider: FakeProvider, name: str
) -> None:
    for named in ("m", "None"):  # for Azure the path names it
        provider.script(named, plain_json(PICTURES))
    opened = ways.open(IMAGES, name, prompt="a sea", n=1)
    assert json.loads(opened.body) == PICTURES
    asked = provider.requests()[-1]
    assert asked.path.partition("?")[0].endswith("/images/generations")
    assert (asked.body["prompt"], asked.body["n"]) == ("a sea", 1)
    image = {"type": "image/png", "bytes": len(PICTURE), "sha256": digest(PICTURE), "revised_prompt": "a sea"}
    assert ways.tried.transcript.said() == {"images": [image]}
    assert ways.tried.transcript.usage == Usage(units={"image_made": 1})


def test_tokens_of_a_picture_count_before_pictures_do(ways: Ways, provider: FakeProvider) -> None:
    usage = {"input_tokens": 5, "output_tokens": 90, "total_tokens": 95, "input_tokens_details": {"text_tokens": 5}}
    provider.script("m", plain_json({**PICTURES, "usage": usage}))
    ways.open(IMAGES, "openai/m", prompt="a sea")
    assert ways.tried.transcript.usage is not None
    assert (ways.tried.transcript.usage.prompt, ways.tried.transcript.usage.completion) == (5, 90)


def test_pictures_are_streamed_to_the_last_of_several(ways: Ways, provider: FakeProvider) -> None:
    b64 = PICTURES["data"][0]["b64_json"]  # type: ignore[index]
    kinds = ("partial_image", "completed", "partial_image", "completed")
    events = [{"type": f"image_generation.{kind}", "b64_json": b64} for kind in kinds]
    provider.script("m", sse(*(event(one["type"], one) for one in events)))
    opened = ways.open(IMAGES, "openai/m", prompt="a sea", stream=True)
    chunks = list(opened.chunks())
    opened.close()
    assert [json.loads(chunk.data.partition(b"data: ")[2]) for chunk in chunks] == events
    assert [chunk.last for chunk in chunks] == [False, False, False, True]
    assert len(ways.tried.transcript.said()["images"]) == 2


def test_pictures_that_break_off_before_any_is_whole_are_a_failure(ways: Ways, provider: FakeProvider) -> None:
    provider.script("m", sse(event("image_generation.partial_image", {"type": "image_generation.partial_image"})))
    with pytest.raises(ProviderStreamEnded):
        wire(ways.open(IMAGES, "openai/m", prompt="a sea", stream=True))


@EACH_WAY
def test_a_form_reaches_the_provider_with_the_providers_name_of_the_model(
    ways: Ways, provider: FakeProvider, name: str
) -> None:
    provider.script("m", plain_json(HEARD))
    parts = [("file", RECORDING, "talk.wav"), ("model", name.encode()), ("language", b"en"), ("temperature", b"0.5")]
    assert json.loads(wire(ways.sent(TRANSCRIPTIONS, name, *parts)))["text"] == "well met"
    asked = provider.requests()[-1]
    texts, files = received(asked.raw, asked.headers["content-type"])
    assert (texts["model"], texts["language"], texts["temperature"]) == (["m"], ["en"], ["0.5"])
    assert files == {"file": [RECORDING]}
    assert asked.path.partition("?")[0].endswith("/audio/transcriptions")
    assert ways.tried.media_type == "application/json"
    assert ways.tried.transcript.said()["text"] == "well met"
    assert ways.tried.transcript.usage == Usage(units={"second_in": 9})


@EACH_WAY
@pytest.mark.parametrize("kind", ["text", "srt", "vtt"])
def test_a_transcript_that_is_no_json_is_passed_on(ways: Ways, provider: FakeProvider, name: str, kind: str) -> None:
    provider.script("m", raw(200, {"Content-Type": "text/plain; charset=utf-8"}, b"well met"))
    parts = [("model", name.encode()), ("response_format", kind.encode()), ("file", RECORDING, "talk.wav")]
    assert wire(ways.sent(TRANSCRIPTIONS, name, *parts)) == b"well met"
    assert ways.tried.media_type is not None
    assert ways.tried.media_type.startswith("text/plain")
    assert ways.tried.transcript.said() == {"text": "well met"}
    assert not ways.tried.metered, "nobody tells what it used"


def test_a_transcript_is_streamed_where_the_form_asks_for_it(ways: Ways, provider: FakeProvider) -> None:
    delta = {"type": "transcript.text.delta", "delta": "well "}
    usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 2, "total_tokens": 16}
    ended = {"type": "transcript.text.done", "text": "well met", "usage": usage}
    provider.script("m", sse(event(delta["type"], delta), event("transcript.text.done", ended)))
    parts = [("model", b"openai/m"), ("file", RECORDING, "talk.wav"), ("stream", b"true")]
    opened = ways.sent(TRANSCRIPTIONS, "openai/m", *parts)
    chunks = list(opened.chunks())
    opened.close()
    assert [(chunk.content, chunk.last) for chunk in chunks] == [(True, False), (True, True)]
    assert ways.tried.transcript.said() == {"text": "well met"}
    assert ways.tried.transcript.usage == Usage(prompt=14, completion=2)


@EACH_WAY
def test_a_picture_is_edited_with_its_mask(ways: Ways, provider: FakeProvider, name: str) -> None:
    for named in ("m", "None"):  # for Azure the path names it
        provider.script(named, plain_json(PICTURES))
    parts = [
        ("model", name.encode()),
        ("prompt", b"by night"),
        ("image", PICTURE, "a.png", "image/png"),
        ("mask", PICTURE[:9], "b.png", "image/png"),
    ]
    assert json.loads(wire(ways.sent(IMAGES_EDITS, name, *parts)))["data"] == PICTURES["data"]
    asked = provider.requests()[-1]
    texts, files = received(asked.raw, asked.headers["content-type"])
    assert texts["prompt"] == ["by night"]
    assert texts.get("model", ["m"]) == ["m"]
    assert next(content for field, (content, *_) in files.items() if field.startswith("image")) == PICTURE
    assert files["mask"] == [PICTURE[:9]]


@EACH_WAY
def test_speech_is_passed_on_and_recorded_as_a_digest(ways: Ways, provider: FakeProvider, name: str) -> None:
    provider.script("m", raw(200, {"Content-Type": "audio/mpeg"}, RECORDING))
    assert wire(ways.open(SPEECH, name, input="hello you", voice="alloy")) == RECORDING
    assert ways.tried.media_type == "audio/mpeg"
    said = {"type": "audio/mpeg", "bytes": len(RECORDING), "sha256": digest(RECORDING)}
    assert ways.tried.transcript.said() == said
    assert ways.tried.transcript.usage == Usage(units={"character_in": 9})
    assert provider.requests()[-1].body["voice"] == "alloy"


def test_speech_is_streamed_as_events_where_that_is_asked_for(ways: Ways, provider: FakeProvider) -> None:
    delta = {"type": "speech.audio.delta", "audio": base64.b64encode(RECORDING).decode()}
    ended = {"type": "speech.audio.done", "usage": {"input_tokens": 3, "output_tokens": 7, "total_tokens": 10}}
    provider.script("m", sse(event(str(delta["type"]), delta), event("speech.audio.done", ended)))
    wire(ways.open(SPEECH, "openai/m", input="hi", voice="alloy", stream_format="sse"))
    assert ways.tried.transcript.said()["sha256"] == digest(RECORDING)
    assert ways.tried.transcript.usage == Usage(prompt=3, completion=7, audio_out=7)


def test_speech_that_breaks_off_is_a_failure(ways: Ways, provider: FakeProvider) -> None:
    provider.script(
        "m", sse(lambda turn: turn.exchange.send(b"ID3 half"), close(), headers={"Content-Type": "audio/mpeg"})
    )
    opened = ways.open(SPEECH, "openai/m", input="hi", voice="alloy")
    chunks = opened.chunks()
    assert next(chunks).data == b"ID3 half"
    with pytest.raises(ProviderUnreachable):
        list(chunks)
    opened.close()
    assert ways.tried.transcript.said()["bytes"] == 8
    assert not ways.tried.transcript.complete


@pytest.mark.parametrize("address", [None, "cohere"], ids=["natively", "by LiteLLM"])
def test_documents_come_in_their_order(ways: Ways, provider: FakeProvider, address: str | None) -> None:
    results = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]
    answered = {"id": "r1", "results": results, "meta": {"billed_units": {"search_units": 1}}}
    provider.script("m", plain_json(answered))
    name = "hosted_vllm/m" if address is None else "cohere/m"
    opened = ways.open(RERANK, name, query="hi", documents=["a", "b"], top_n=2, return_documents=False)
    assert json.loads(opened.body)["results"] == results
    assert provider.requests()[-1].body["documents"] == ["a", "b"]
    assert ways.tried.transcript.said() == results
    assert ways.tried.transcript.usage == Usage(units={"query": 1})


def test_a_text_is_judged(ways: Ways, provider: FakeProvider) -> None:
    provider.script("m", plain_json({"id": "modr-1", "model": "m-1", "results": [{"flagged": False}]}))
    assert json.loads(ways.open(MODERATIONS, "openai/m", input="hi").body)["results"] == [{"flagged": False}]
    assert ways.tried.transcript.model == "m-1"


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [(MODERATIONS, "azure/m"), (TRANSLATIONS, "azure/m"), (IMAGES_VARIATIONS, "azure/m")],
    ids=lambda one: getattr(one, "name", one),
)
def test_what_a_provider_has_not_is_refused_and_nothing_is_sent(
    ways: Ways, provider: FakeProvider, endpoint: Endpoint, name: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ways.open(endpoint, name, input="hi")
    assert caught.value.public_code == "unsupported"
    assert provider.requests() == []


def test_by_litellm_nothing_but_chats_is_streamed(ways: Ways, provider: FakeProvider) -> None:
    for endpoint, body in (
        (IMAGES, {"prompt": "a sea", "stream": True}),
        (SPEECH, {"input": "hi", "voice": "alloy", "stream_format": "sse"}),
    ):
        with pytest.raises(InvalidRequest) as caught:
            ways.open(endpoint, "azure/m", **body)
        assert caught.value.public_code == "unsupported_parameter"
    assert provider.requests() == []


def test_by_litellm_a_form_has_to_fit_into_memory(provider: FakeProvider) -> None:
    small = LiteLLM(Failures(Redactor([])), first_byte_s=5, idle_s=5, patch=Catcher.patch, form_bytes=1000)
    ways = Ways(small, provider)
    with pytest.raises(BodyTooLarge):
        ways.sent(TRANSCRIPTIONS, "azure/m", ("model", b"azure/m"), ("file", bytes(2000), "talk.wav"))
    ways.close()
    assert provider.requests() == []


@pytest.mark.parametrize(
    ("endpoint", "body", "answered"),
    [
        (IMAGES, {"prompt": "x"}, plain_json({"no": "data"})),
        (SPEECH, {"input": "x"}, error(503)),
        (RERANK, {"query": "x", "documents": ["a"]}, plain_json({"results": "none"})),
        (MODERATIONS, {"input": "x"}, plain_json([])),
    ],
    ids=["images", "speech", "rerank", "moderations"],
)
def test_what_is_no_answer_of_the_operation_is_a_failure(
    ways: Ways, provider: FakeProvider, endpoint: Endpoint, body: JSON, answered: Any
) -> None:
    provider.script("m", answered)
    with pytest.raises((ProviderInvalid, ProviderFailed)):
        wire(ways.open(endpoint, "openai/m", **body))


def test_a_provider_that_refuses_a_form_is_believed(ways: Ways, provider: FakeProvider) -> None:
    refused = {"error": {"message": "too short", "type": "invalid_request_error", "param": "file", "code": "short"}}
    provider.script("m", error(400, refused))
    with pytest.raises(Exception, match="too short") as caught:
        ways.sent(TRANSCRIPTIONS, "openai/m", ("model", b"openai/m"), ("file", RECORDING, "talk.wav"))
    assert getattr(caught.value, "param", None) == "file"
