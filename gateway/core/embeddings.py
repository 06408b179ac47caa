"""OpenAI's wire of embeddings (API reference, "Create embeddings")."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from typing import Any

from gateway.core.transcript import Malformed
from gateway.core.usage import Usage, usage_of

JSON = dict[str, Any]


class EmbeddingsTranscript:
    """The embeddings of one request (Transcript). It keeps how many there are and how long: a vector says nothing."""

    def __init__(self) -> None:
        self.id: str | None = None
        self.model: str | None = None
        self.usage: Usage | None = None
        self._said: JSON | None = None

    @property
    def started(self) -> bool:
        """There is an answer."""
        return self._said is not None

    @property
    def complete(self) -> bool:
        """There is one: it never comes in pieces."""
        return self._said is not None

    @property
    def finish_reasons(self) -> list[str | None]:
        """None: this wire has no such thing."""
        return []

    def add(self, chunk: Mapping[str, Any]) -> bool:
        """Embeddings are not streamed."""
        raise Malformed("embeddings are not streamed")

    def take(self, document: Mapping[str, Any]) -> None:
        """Take in the answer (Transcript.take)."""
        vectors = document.get("data")
        if not isinstance(vectors, list) or not vectors or not all(isinstance(one, Mapping) for one in vectors):
            raise Malformed("the answer has no embeddings")
        if isinstance(document.get("model"), str):
            self.model = document["model"]
        self.usage = usage_of(document.get("usage"))
        self._said = {"embeddings": len(vectors), "dimensions": _length(vectors[0].get("embedding"))}

    def said(self) -> JSON | None:
        """How many embeddings there are, and of how many numbers each is."""
        return self._said


def _length(vector: object) -> int | None:
    if isinstance(vector, list):
        return len(vector)
    # 4 bytes a number, and 4 characters for 3 bytes
    return len(vector.rstrip("=")) * 3 // 16 if isinstance(vector, str) else None


def as_base64(document: JSON) -> JSON:
    """Write the vectors of an answer as base64, little-endian 32-bit floats, as `encoding_format: base64` asks.

    A vector that is a text already, or has something else than numbers, stays as it is.
    """
    return {**document, "data": [_encoded(one) for one in document.get("data") or ()]}


def _encoded(one: JSON) -> JSON:
    vector = one.get("embedding")
    if not isinstance(vector, list):
        return one
    try:
        packed = struct.pack(f"<{len(vector)}f", *vector)
    except (struct.error, OverflowError):
        return one
    return {**one, "embedding": base64.b64encode(packed).decode()}
