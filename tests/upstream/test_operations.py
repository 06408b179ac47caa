"""Embeddings and text completions: what goes out, what comes back, and when a chat stands in."""

from __future__ import annotations

import base64
import json
import struct
import time
import warnings
from typing import Any

import pydantic
import pytest

from gateway.core.calls import Attempt, Call
from gateway.core.endpoints import COMPLETIONS, EMBEDDINGS, Endpoint
from gateway.core.redaction import Redactor
from gateway.core.usage import Usage
from gateway.core.wire import Events, data_of
from gateway.errors import GatewayError, InvalidRequest, ProviderInvalid, ProviderLimited, ProviderStreamEnded
from gateway.tracing.catcher import Catcher, Held
from gateway.upstream import litellm
from gateway.upstream.direct import Direct
from gateway.upstream.failures import Failures
from gateway.upstream.lanes import Lanes
from gateway.upstream.litellm import LiteLLM
from gateway.upstream.scripted import Scripted
from tests.builders import attempt, call
from tests.fakes.provider import FakeProvider, answer, data, embeddings, error, plain_json, sse
from tests.upstream.conftest import OWN_KEY

JSON = dict[str, Any]

SAME = "openai/m"  # the caller's own body goes out
SIMILAR = "together_ai/m"  # LiteLLM's body goes out, the provider's own bytes come back
OTHER = "anthropic/claude-m"  # no such operation: a chat stands in for completions

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:litellm", "ignore::UserWarning:pydantic")


class Ways:
    """The lanes as the gateway builds them, for one operation."""

    def __init__(self, upstream: LiteLLM, provider: FakeProvider) -> None:
        self._lanes = Lanes(Direct(Failures(Redactor([OWN_KEY])), first_byte_s=5, idle_s=5), upstream)
        self._provider = provider
        self.tried: Attempt | None = None
        self.caught: Held | None = None

    def open(self, endpoint: Endpoint, name: str, **body: Any) -> Any:
        address = self._provider.anthropic_url if name.startswith("anthropic/") else self._provider.base_url
        self.tried = attempt(name, api_base=address, api_key=OWN_KEY)
        self.tried.transcript = endpoint.transcript()
        made = _call(endpoint, name, body)
        self.caught = Held("row", "0" * 16, "1" * 32)
        catcher = Catcher()
        catcher.install()
        with catcher.holding(self.caught):
            return self._lanes.open(self.tried, made)

    def whole(self, endpoint: Endpoint, name: str, **body: Any) -> JSON:
        document: JSON = json.loads(self.open(endpoint, name, **body).body)
        return document

    def streamed(self, endpoint: Endpoint, name: str, **body: Any) -> list[JSON]:
        opened = self.open(endpoint, name, stream=True, **body)
        wire = b"".join(chunk.data for chunk in opened.chunks())
        opened.close()
        return [json.loads(data_of(event) or b"null") for event in Events().feed(wire)]


def _call(endpoint: Endpoint, name: str, body: JSON) -> Call:
    made = call(name, stream=body.get("stream", False), endpoint=endpoint, usage_asked="stream_options" in body)
    made.body = {"model": name, **body}
    return made


@pytest.fixture
def ways(loaded: LiteLLM, provider: FakeProvider) -> Ways:
    return Ways(loaded, provider)


def _sent(provider: FakeProvider) -> JSON:
    body: JSON = provider.requests()[-1].body
    return body


# Embeddings.


@pytest.mark.parametrize("name", [SAME, SIMILAR])
def test_embeddings_come_back_as_the_provider_gave_them(ways: Ways, provider: FakeProvider, name: str) -> None:
    provider.script("m", embeddings((0.1, 0.2), tokens=3))
    got = ways.whole(EMBEDDINGS, name, input=["a", "b"], dimensions=2, a_new_field={"x": 1})
    assert got["data"] == [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}]
    assert got["model"] == "m"
    assert _sent(provider)["input"] == ["a", "b"]
    assert _sent(provider)["a_new_field"] == {"x": 1}
    assert "encoding_format" not in _sent(provider), "nobody asked for another format"
    assert ways.tried is not None
    assert ways.tried.transcript.usage == Usage(prompt=3)
    assert ways.tried.transcript.said() == {"embeddings": 1, "dimensions": 2}


@pytest.mark.parametrize("asked", ["one text", ["several", "texts"], [1, 2, 3], [[1, 2], [3]]])
def test_every_shape_of_input_goes_out_as_it_came(ways: Ways, provider: FakeProvider, asked: Any) -> None:
    got = ways.whole(EMBEDDINGS, SAME, input=asked, encoding_format="base64", user="u")
    assert _sent(provider) == {"model": "m", "input": asked, "encoding_format": "base64", "user": "u"}
    packed = base64.b64decode(got["data"][0]["embedding"])
    assert struct.unpack("<3f", packed) == (0.5, -0.25, 1.0)
    assert ways.tried is not None
    assert ways.tried.transcript.said()["dimensions"] == 3


def test_vectors_in_base64_are_warned_of_nowhere_and_nothing_else_is_hushed(ways: Ways, provider: FakeProvider) -> None:
    class Other(pydantic.BaseModel):
        """Something else whose value is not of its type."""

        numbers: list[float] = []

    provider.script("m", embeddings((0.5,), (0.25,)))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        litellm.hush_base64()
        for name in (SAME, SIMILAR):
            for vectors in (["a"], ["a", "b"]):
                ways.whole(EMBEDDINGS, name, input=vectors, encoding_format="base64")
        before = [str(one.message) for one in heard if one.category is UserWarning]
        Other.model_construct(numbers="x").model_dump()
    assert before == []
    assert "field_name='numbers'" in str(heard[-1].message)


def test_a_provider_of_another_wire_gives_the_format_that_was_asked_for(ways: Ways, provider: FakeProvider) -> None:
    """LiteLLM leaves `encoding_format` out where a provider has none, and SDKs ask for base64 by default."""
    provider.script("m", embeddings((0.5, 2.0)))
    got = ways.whole(EMBEDDINGS, "mistral/m", input=["a"], encoding_format="base64")
    assert struct.unpack("<2f", base64.b64decode(got["data"][0]["embedding"])) == (0.5, 2.0)
    floats = ways.whole(EMBEDDINGS, "mistral/m", input=["a"])
    assert floats["data"][0]["embedding"] == [0.5, 2.0]


def test_braintrusts_patch_has_its_span_of_embeddings(ways: Ways) -> None:
    ways.whole(EMBEDDINGS, SAME, input="a")
    assert ways.caught is not None
    caught = ways.caught.row()
    assert caught is not None
    assert caught["span_attributes"]["name"] == "Embedding" == EMBEDDINGS.span


@pytest.mark.parametrize("name", [SAME, SIMILAR, "mistral/m"])
def test_what_the_provider_refuses_is_told(ways: Ways, provider: FakeProvider, name: str) -> None:
    provider.script("m", error(429, {"error": {"message": "slow down", "code": "busy"}}, headers={"retry-after": "7"}))
    began_s = time.monotonic()
    with pytest.raises(ProviderLimited, match="slow down") as refused:
        ways.whole(EMBEDDINGS, name, input="a")
    assert time.monotonic() - began_s < 3, "LiteLLM's client would sleep first, and send it again"
    assert len(provider.requests()) == 1
    assert (refused.value.public_code, refused.value.retry_after) == ("busy", "7")


@pytest.mark.parametrize("body", [{}, {"data": []}, {"data": [1]}, {"data": "x"}, []])
@pytest.mark.parametrize("name", [SAME, SIMILAR])
def test_an_answer_without_embeddings_is_a_failure(ways: Ways, provider: FakeProvider, name: str, body: Any) -> None:
    provider.script("m", plain_json(body))
    with pytest.raises(ProviderInvalid):
        ways.whole(EMBEDDINGS, name, input="a")


def test_a_provider_without_embeddings_says_so(ways: Ways, provider: FakeProvider) -> None:
    with pytest.raises(InvalidRequest):
        ways.whole(EMBEDDINGS, OTHER, input="a")
    assert provider.requests() == []


# Text completions.


@pytest.mark.parametrize("name", [SAME, SIMILAR, "hosted_vllm/m"])
def test_a_completion_comes_back_as_the_provider_gave_it(ways: Ways, provider: FakeProvider, name: str) -> None:
    provider.script("m", answer("said", usage=(2, 1), extra={"a_new_field": 1}))
    got = ways.whole(COMPLETIONS, name, prompt="say", max_tokens=5, guided_choice=["said"])
    assert provider.requests()[-1].path == "/v1/completions"
    assert got["choices"] == [{"index": 0, "text": "said", "logprobs": None, "finish_reason": "stop"}]
    assert got["a_new_field"] == 1
    assert (_sent(provider)["prompt"], _sent(provider)["max_tokens"]) == ("say", 5)
    assert ways.tried is not None
    assert ways.tried.transcript.said()[0]["text"] == "said"
    assert ways.tried.transcript.usage == Usage(2, 1)


@pytest.mark.parametrize("prompt", ["one", ["one", "two"], [1, 2], [[1], [2]]])
def test_every_shape_of_prompt_goes_out_as_it_came(ways: Ways, provider: FakeProvider, prompt: Any) -> None:
    ways.whole(COMPLETIONS, SAME, prompt=prompt, echo=True, best_of=2, suffix="s", logprobs=3)
    assert _sent(provider) == {"model": "m", "prompt": prompt, "echo": True, "best_of": 2, "suffix": "s", "logprobs": 3}


@pytest.mark.parametrize("name", [SAME, SIMILAR, OTHER])
@pytest.mark.parametrize("usage_asked", [True, False])
def test_a_streamed_completion(ways: Ways, provider: FakeProvider, name: str, usage_asked: bool) -> None:
    provider.script("m" if name != OTHER else "claude-m", answer("one two three", usage=(2, 3)))
    options = {"stream_options": {"include_usage": True}} if usage_asked else {}
    got = ways.streamed(COMPLETIONS, name, prompt="say", max_tokens=9, **options)
    choices = [choice for chunk in got for choice in chunk["choices"]]
    assert "".join(choice["text"] for choice in choices) == "one two three"
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
    assert {chunk["object"] for chunk in got} == {"text_completion"}
    assert [chunk["usage"]["total_tokens"] for chunk in got if chunk.get("usage")] == ([5] if usage_asked else [])
    assert ways.tried is not None
    assert ways.tried.transcript.usage == Usage(2, 3)


def test_a_chat_stands_in_where_there_are_no_completions(ways: Ways, provider: FakeProvider) -> None:
    provider.script("claude-m", answer("said", usage=(2, 1)))
    got = ways.whole(COMPLETIONS, OTHER, prompt="say", max_tokens=5, echo=True, best_of=1, a_new_field=1)
    assert (got["object"], got["choices"][0]["text"], got["choices"][0]["finish_reason"]) == (
        *("text_completion", "said", "stop"),
    )
    assert got["usage"]["total_tokens"] == 3
    assert _sent(provider)["max_tokens"] == 5
    tried = ways.tried
    assert tried is not None
    assert tried.sent is not None
    assert tried.sent["messages"] == [{"role": "user", "content": "say"}]
    assert tried.dropped == ("a_new_field", "best_of", "echo")
    assert tried.told is not None
    assert tried.told.said()[0]["text"] == "said"


@pytest.mark.parametrize("prompt", [["one", "two"], [1, 2], [[1], [2]], [], None])
def test_a_chat_cannot_stand_in_for_several_prompts(ways: Ways, provider: FakeProvider, prompt: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        ways.whole(COMPLETIONS, OTHER, prompt=prompt)
    assert refused.value.param == "prompt"
    assert provider.requests() == []


@pytest.mark.parametrize("name", [SAME, SIMILAR])
def test_a_stream_that_just_ends_is_a_failure(ways: Ways, provider: FakeProvider, name: str) -> None:
    chunk = {"id": "c", "object": "text_completion", "choices": [{"index": 0, "text": "a", "finish_reason": None}]}
    provider.script("m", sse(data(chunk)))
    with pytest.raises(ProviderStreamEnded):
        ways.streamed(COMPLETIONS, name, prompt="say")


def test_the_demo_completes_by_a_chat_and_has_no_embeddings() -> None:
    lanes = Lanes(Scripted())
    tried = attempt("demo/echo")
    opened = lanes.open(tried, _call(COMPLETIONS, "demo/echo", {"prompt": "hello"}))
    assert json.loads(opened.body)["choices"][0]["text"] == "hello"
    with pytest.raises(GatewayError) as refused:
        lanes.open(attempt("demo/echo"), _call(EMBEDDINGS, "demo/echo", {"input": "hello"}))
    assert refused.value.public_code == "unsupported"
