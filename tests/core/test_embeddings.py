"""Embeddings: what is kept of them, and how floats become base64."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.embeddings import EmbeddingsTranscript, as_base64
from gateway.core.transcript import Malformed
from gateway.core.usage import Usage


def answer(*vectors: Any) -> dict[str, Any]:
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return {"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 3, "total_tokens": 3}}


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=20), st.integers(1, 3))
def test_a_record_counts_them_in_either_format(vector: list[float], count: int) -> None:
    for document in (answer(*[vector] * count), as_base64(answer(*[vector] * count))):
        transcript = EmbeddingsTranscript()
        transcript.take(document)
        assert transcript.said() == {"embeddings": count, "dimensions": len(vector)}
        assert (transcript.model, transcript.usage, transcript.complete) == ("m", Usage(3), True)
        assert transcript.finish_reasons == []


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=20))
def test_base64_is_little_endian_floats_of_32_bits(vector: list[float]) -> None:
    told = as_base64(answer(vector))["data"][0]["embedding"]
    assert list(struct.unpack(f"<{len(vector)}f", base64.b64decode(told))) == vector


@pytest.mark.parametrize("vector", ["AAAA", None, ["x"], [1e300], {"a": 1}, 5])
def test_what_is_no_list_of_numbers_stays_as_it_is(vector: Any) -> None:
    assert as_base64(answer(vector)) == answer(vector)


@pytest.mark.parametrize("data", [None, [], {}, "x", [1], [None]])
def test_an_answer_without_embeddings_is_none(data: Any) -> None:
    with pytest.raises(Malformed):
        EmbeddingsTranscript().take({"data": data})


def test_embeddings_are_not_streamed() -> None:
    with pytest.raises(Malformed):
        EmbeddingsTranscript().add({})
