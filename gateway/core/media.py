"""What images, audio, moderation, reranking and files are recorded as: texts as they are, media as digests.

OpenAI's API reference has the shapes ("Images", "Audio", "Moderations", "Files"), Cohere's has that of an order of
documents ("Rerank").
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from gateway.core.transcript import DocumentTranscript, Malformed
from gateway.core.usage import MOST_TOKENS, Usage, usage_of, usage_of_responses

JSON = dict[str, Any]

_SIGNS = ((b"\x89PNG\r\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))
#: Longest address of a picture that is recorded; a data URL would hold the picture itself.
_LONGEST_URL = 2048


class Digest:
    """What is kept of media: how many bytes of which type they are, and their SHA-256 (FIPS 180-4)."""

    def __init__(self, media_type: str | None = None) -> None:
        self.media_type = media_type
        self.size = 0
        self._hash = hashlib.sha256()

    def add(self, piece: bytes) -> None:
        """Take in the bytes that follow."""
        self.size += len(piece)
        self._hash.update(piece)

    def document(self) -> JSON:
        """The digest of what came so far."""
        typed = {} if self.media_type is None else {"type": self.media_type}
        return {**typed, "bytes": self.size, "sha256": self._hash.hexdigest()}


def digest_of(data: bytes, media_type: str | None = None) -> JSON:
    """The digest of media that are here in full; `media_type` None means that their first bytes tell."""
    made = Digest(media_type or next((kind for sign, kind in _SIGNS if data.startswith(sign)), None))
    made.add(data)
    return made.document()


def seconds(value: object) -> int | Decimal | None:
    """Read a length of time that a provider claims, to a millionth of a second; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)  # `duration` is a text at some providers
    except ValueError:
        return None
    if not math.isfinite(found) or found < 0:
        return None
    exact = round(Decimal(repr(min(found, float(MOST_TOKENS)))), 6)
    return int(exact) if exact == int(exact) else exact


def usage_told(claimed: object, *, said: str = "") -> Usage | None:
    """Read the `usage` of media: tokens, or seconds (`"type": "duration"`).

    Args:
        claimed: the provider's object.
        said: what all output is that has no details of its own: `image` or `audio` tokens.

    Returns:
        None where there is no usage at all.
    """
    if not isinstance(claimed, Mapping) or not claimed:
        return None
    if claimed.get("type") == "duration" or "input_tokens" not in claimed:
        length = seconds(claimed.get("seconds"))
        return Usage(units={"second_in": length}) if length else usage_of(claimed)
    spoken = {f"{said}_tokens": claimed.get("output_tokens")} if said else {}
    return usage_of_responses(
        {
            **claimed,
            # of a transcription the reference spells it without the s
            "input_tokens_details": claimed.get("input_tokens_details") or claimed.get("input_token_details"),
            "output_tokens_details": claimed.get("output_tokens_details") or spoken,
        }
    )


class MediaTranscript:
    """The record of an answer that need not be JSON (Transcript).

    Attributes:
        media_type: of the answer, where it is passed on as it came.
    """

    def __init__(self) -> None:
        self.id: str | None = None
        self.model: str | None = None
        self.usage: Usage | None = None
        self.media_type: str | None = None
        self._done = False
        self._began = False

    @property
    def started(self) -> bool:
        """Something of the answer was seen."""
        return self._began

    @property
    def complete(self) -> bool:
        """The answer is whole."""
        return self._done

    @property
    def finish_reasons(self) -> list[str | None]:
        """None: these wires have no such thing."""
        return []

    def asked(self, body: Mapping[str, Any]) -> None:
        """Hear what was asked, where that is what is billed."""

    def add(self, chunk: Mapping[str, Any]) -> bool:
        """Take in one event of a stream; True when it has content.

        Raises:
            Malformed: it is no event.
        """
        kind = chunk.get("type")
        if not isinstance(kind, str):
            raise Malformed("an event has no type")
        self._began = True
        if kind.endswith((".done", ".completed")):
            self._done = True
        return self._event(kind, chunk)

    def _event(self, kind: str, chunk: Mapping[str, Any]) -> bool:
        return True

    def take(self, document: Mapping[str, Any]) -> None:
        """Take in a whole answer that is JSON.

        Raises:
            Malformed: it is none of this operation.
        """
        self._began = self._done = True
        if isinstance(document.get("model"), str):
            self.model = document["model"]
        self._document(document)

    def _document(self, document: Mapping[str, Any]) -> None:
        """Look at a whole answer."""

    def take_text(self, text: str) -> None:
        """Take in a whole answer that is no JSON but a text.

        Raises:
            Malformed: this operation has no such answer.
        """
        raise Malformed("the answer is no JSON")

    def feed(self, piece: bytes) -> None:
        """Take in bytes that are passed on as they come."""
        self._began = True

    def end(self) -> None:
        """The bytes have come to their end."""
        self._done = True

    def said(self) -> Any:
        """The answer so far, as a trace shows it."""


class ImagesTranscript(MediaTranscript):
    """Pictures that were made (Transcript): their digests or their addresses."""

    def __init__(self) -> None:
        super().__init__()
        self._images: list[JSON] = []
        self._more: JSON = {}

    def _event(self, kind: str, chunk: Mapping[str, Any]) -> bool:
        if kind.endswith(".completed"):
            self._images.append(_image(chunk))
            self._count(chunk)
        else:
            self._more["partial_images"] = self._more.get("partial_images", 0) + 1
        return True

    def _document(self, document: Mapping[str, Any]) -> None:
        found = document.get("data")
        if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
            raise Malformed("the answer has no images")
        self._images = [_image(one, document.get("output_format")) for one in found]
        self._count(document)

    def _count(self, document: Mapping[str, Any]) -> None:
        for name in ("size", "quality", "background", "output_format"):
            if isinstance(document.get(name), str):
                self._more[name] = document[name]
        self.usage = usage_told(document.get("usage"), said="image")
        if self.usage is None:
            self.usage = Usage(units={"image_made": len(self._images)})

    def said(self) -> JSON:
        """The digests of the images."""
        return {**self._more, "images": self._images}


def _image(one: Mapping[str, Any], output_format: object = None) -> JSON:
    made: JSON = {}
    if isinstance(text := one.get("b64_json"), str):
        output_format = output_format or one.get("output_format")
        made |= _of_base64(text, f"image/{output_format}" if isinstance(output_format, str) else None)
    if isinstance(url := one.get("url"), str):
        made["url"] = url[:_LONGEST_URL]
    if isinstance(prompt := one.get("revised_prompt"), str):
        made["revised_prompt"] = prompt
    return made


def _of_base64(text: str, media_type: str | None) -> JSON:
    try:
        return digest_of(base64.b64decode(text, validate=True), media_type)
    except (binascii.Error, ValueError):
        return {"characters": len(text)}


class TranscriptionTranscript(MediaTranscript):
    """What was heard (Transcript)."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[str] = []
        self._said: JSON = {}

    def _event(self, kind: str, chunk: Mapping[str, Any]) -> bool:
        if kind == "transcript.text.delta" and isinstance(chunk.get("delta"), str):
            self._pieces.append(chunk["delta"])
        elif kind == "transcript.text.done":
            if isinstance(chunk.get("text"), str):
                self._pieces = [chunk["text"]]
            self.usage = usage_told(chunk.get("usage"))
        return True

    def _document(self, document: Mapping[str, Any]) -> None:
        if not isinstance(document.get("text"), str):
            raise Malformed("the answer has no text")
        self._pieces = [document["text"]]
        self._said = {name: document[name] for name in ("language", "duration", "segments") if name in document}
        self.usage = usage_told(document.get("usage"))
        if self.usage is None and (length := seconds(document.get("duration"))):
            self.usage = Usage(units={"second_in": length})

    def take_text(self, text: str) -> None:
        """Take in a transcript as a text, or as subtitles (MediaTranscript.take_text)."""
        self._began = self._done = True
        self._pieces = [text]

    def said(self) -> JSON:
        """The text that was heard, with what was told of it."""
        return {"text": "".join(self._pieces), **self._said}


class BytesTranscript(MediaTranscript):
    """Bytes that were passed on (Transcript): their digest."""

    def __init__(self) -> None:
        super().__init__()
        self._digest = Digest()

    def feed(self, piece: bytes) -> None:
        """Take in bytes (MediaTranscript.feed)."""
        super().feed(piece)
        self._digest.add(piece)

    def said(self) -> JSON:
        """The digest."""
        self._digest.media_type = self.media_type
        return self._digest.document()


class SpeechTranscript(BytesTranscript):
    """What was spoken (Transcript): a digest. Billed are the characters of what was asked, or the tokens told of."""

    def __init__(self) -> None:
        super().__init__()
        self._characters = 0

    def asked(self, body: Mapping[str, Any]) -> None:
        """Count the characters that are to be spoken (MediaTranscript.asked)."""
        text = body.get("input")
        self._characters = len(text) if isinstance(text, str) else 0

    def _event(self, kind: str, chunk: Mapping[str, Any]) -> bool:
        self.media_type = "text/event-stream"
        if kind == "speech.audio.delta" and isinstance(chunk.get("audio"), str):
            try:
                self.feed(base64.b64decode(chunk["audio"], validate=True))
            except (binascii.Error, ValueError) as error:
                raise Malformed("an event's audio is no base64") from error
        elif kind == "speech.audio.done":
            self.usage = usage_told(chunk.get("usage"), said="audio") or self.usage
        return True

    def feed(self, piece: bytes) -> None:
        """Take in audio (MediaTranscript.feed)."""
        super().feed(piece)
        if self.usage is None:
            self.usage = Usage(units={"character_in": self._characters})


class ModerationTranscript(DocumentTranscript):
    """What a text or a picture was found to be (Transcript)."""

    def take(self, document: Mapping[str, Any]) -> None:
        """Take in the answer (Transcript.take)."""
        if not isinstance(document.get("results"), list):
            raise Malformed("the answer has no results")
        super().take(document)
        if isinstance(document.get("model"), str):
            self.model = document["model"]
        self.usage = usage_of(document.get("usage"))


class RerankTranscript(DocumentTranscript):
    """An order of documents (Transcript). Billed are searches, or tokens."""

    def take(self, document: Mapping[str, Any]) -> None:
        """Take in the answer (Transcript.take)."""
        results = document.get("results")
        if not isinstance(results, list) or not all(isinstance(one, Mapping) for one in results):
            raise Malformed("the answer has no results")
        super().take(document)
        if isinstance(document.get("model"), str):
            self.model = document["model"]
        meta = document.get("meta")
        billed = meta.get("billed_units") if isinstance(meta, Mapping) else None
        searches = billed.get("search_units") if isinstance(billed, Mapping) else None
        if isinstance(claimed := document.get("usage"), Mapping):  # Jina's and Voyage's: all tokens were read
            total = claimed.get("total_tokens")
            self.usage = usage_of({"prompt_tokens": total, **claimed})
        if searches and (count := seconds(searches)) is not None:
            self.usage = Usage(units={"query": int(count)})

    def said(self) -> Any:
        """The order alone: the documents stand in what was asked."""
        document = super().said()
        if document is None:
            return None
        kept = ("index", "relevance_score")
        return [{name: one[name] for name in kept if name in one} for one in document["results"]]
