"""The translate lane: what really goes to a provider, what comes back, and what no request can make LiteLLM do."""

from __future__ import annotations

import dataclasses
import gc
import inspect
import json
import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from gateway.core.calls import Attempt, Call
from gateway.core.endpoints import CHAT
from gateway.core.providers import PROVIDERS
from gateway.core.usage import Usage
from gateway.core.wire import Events, data_of
from gateway.errors import (
    CallerGone,
    GatewayError,
    InvalidRequest,
    ProviderFailed,
    ProviderInvalid,
    ProviderLimited,
    ProviderRefused,
    ProviderRejectedKey,
    ProviderStreamEnded,
    ProviderTimeout,
    ProviderUnreachable,
)
from gateway.offload import LARGE_BYTES
from gateway.tracing.catcher import Catcher, Held
from gateway.upstream.litellm import LiteLLM
from tests.builders import attempt, call
from tests.fakes.loopback import Exchange as Served
from tests.fakes.loopback import Loopback
from tests.fakes.provider import (
    FakeProvider,
    Reply,
    answer,
    close,
    data,
    delta,
    done,
    drop,
    error,
    event,
    hang,
    plain_json,
    raw,
    redirect,
    reset,
    silence,
    sse,
    usage,
)
from tests.upstream.conftest import OWN_KEY

JSON = dict[str, Any]

SAME = "openai/m"  # the caller's own body goes out
SIMILAR = "groq/m"  # LiteLLM's body goes out, the provider's own bytes come back
OTHER = "anthropic/claude-m"  # translated both ways
EACH = pytest.mark.parametrize("name", [SAME, SIMILAR, OTHER])
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:litellm", "ignore::UserWarning:pydantic")


@dataclass
class Lane:
    """The adapter under the tracer's catcher, as the pipeline calls it."""

    upstream: LiteLLM
    provider: FakeProvider
    catcher: Catcher
    held: list[Held] = field(default_factory=list)

    def address(self, name: str) -> str:
        return self.provider.anthropic_url if name.startswith(("anthropic/", "ollama")) else self.provider.base_url

    def attempt(self, name: str) -> Attempt:
        return attempt(name, api_base=self.address(name), api_key=OWN_KEY)

    def open(self, tried: Attempt, made: Call) -> Any:
        held = Held("row", "0" * 16, "1" * 32)
        self.held.append(held)
        with self.catcher.holding(held):
            return self.upstream.open(tried, made)

    def whole(self, name: str, fields: JSON | None = None, **body: Any) -> tuple[JSON, Attempt]:
        """Ask for a whole answer. `fields` are more of the body, for names that no argument can have."""
        tried = self.attempt(name)
        document: JSON = json.loads(self.open(tried, call(name, body={**body, **(fields or {})})).body)
        return document, tried

    def stream(
        self, name: str, fields: JSON | None = None, *, asked: bool = True, **body: Any
    ) -> tuple[list[bytes], Attempt]:
        """Ask for a stream; give the events that the caller gets."""
        tried = self.attempt(name)
        made = call(name, stream=True, usage_asked=asked, body={**body, **(fields or {})})
        opened = self.open(tried, made)
        try:
            pieces = [chunk.data for chunk in opened.chunks() if chunk.data]
            return [event for piece in pieces for event in whole_events(piece)], tried
        finally:
            opened.close()

    def ask(self, name: str, fields: JSON | None = None, *, stream: bool, **body: Any) -> Attempt:
        """Ask either way."""
        return (self.stream(name, fields, **body) if stream else self.whole(name, fields, **body))[1]

    def sent(self) -> JSON:
        """The body of the one request that the provider got."""
        [received] = self.provider.requests()
        assert isinstance(received.body, dict)
        return received.body


@pytest.fixture
def lane(loaded: LiteLLM, provider: FakeProvider) -> Lane:
    catcher = Catcher()
    catcher.install()
    return Lane(loaded, provider, catcher)


def whole_events(piece: bytes) -> list[bytes]:
    """The events of a piece; there may be several, and no part of one."""
    found = Events().feed(piece)
    assert b"".join(found) == piece
    return found


def text_of(events: list[bytes]) -> str:
    documents = [json.loads(data_of(one) or b"") for one in events]
    return "".join(
        choice["delta"].get("content") or "" for document in documents for choice in document.get("choices", ())
    )


# What goes out.


def test_on_the_same_wire_the_callers_own_body_goes_out(lane: Lane) -> None:
    body: JSON = {
        "temperature": None,
        "own_field": {"nested": [None, 1.5, "ä😀"]},
        "user": "someone",
        "metadata": {"a": "b"},
        "store": False,
        "messages": [{"role": "user", "content": "hi", "own": None}, {"role": "assistant", "content": None}],
        "logit_bias": {"50256": -100},
        "n": 1,
    }
    lane.whole(SAME, **body)
    assert lane.sent() == {**body, "model": "m"}
    assert list(lane.sent())[1:] == ["messages", *[name for name in body if name != "messages"]], "in its order"


@BOTH
def test_a_large_body_goes_out_in_the_callers_own_words(lane: Lane, stream: bool) -> None:
    image = "data:image/png;base64," + "iVBORw0K" * (LARGE_BYTES // 8)
    asked = '"stream" :\n true, ' if stream else ""
    text = f'{{"model" : "{SAME}", {asked}"a": 1.50, "messages": [{{"role": "user", "content": "{image}"}}]}}'.encode()
    made = call(SAME, stream=stream, body=json.loads(text))
    made.raw, made.body_bytes = text, len(text)
    opened = lane.open(lane.attempt(SAME), made)
    if stream:
        pieces = [chunk.data for chunk in opened.chunks() if chunk.data and b"{" in chunk.data]
        assert text_of([event for piece in pieces for event in whole_events(piece)])
    opened.close()
    [received] = lane.provider.requests()
    usage_asked = b'"stream_options":{"include_usage":true},' if stream else b""
    assert received.raw == b"{" + usage_asked + text[1:].replace(f'"{SAME}"'.encode(), b'"m"')


def test_a_large_body_that_says_how_it_is_streamed_is_written_anew(lane: Lane) -> None:
    content = "x" * LARGE_BYTES
    body = {"stream": True, "stream_options": {"own": 1}, "messages": [{"role": "user", "content": content}]}
    made = call(SAME, stream=True, body=body)
    made.raw = json.dumps(made.body).encode()
    made.body_bytes = len(made.raw)
    lane.open(lane.attempt(SAME), made).close()
    assert lane.sent() == {**made.body, "model": "m", "stream_options": {"own": 1, "include_usage": True}}


def test_a_stream_on_the_same_wire_asks_for_usage_and_keeps_the_callers_other_options(lane: Lane) -> None:
    lane.stream(SAME, stream_options={"include_obfuscation": False})
    assert lane.sent()["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert lane.sent()["stream"] is True


def test_on_a_similar_wire_fields_that_litellm_does_not_know_are_added_to_its_body(lane: Lane) -> None:
    lane.provider.script("m", answer(extra={"service_tier": "auto"}))
    lane.whole(SIMILAR, own_field=[1], metadata={"a": "b"}, max_completion_tokens=7)
    sent = lane.sent()
    assert (sent["own_field"], sent["metadata"], sent["max_tokens"]) == ([1], {"a": "b"}, 7)


@pytest.mark.parametrize("name", [SIMILAR, "deepseek/m", "openrouter/m"])
def test_on_a_similar_wire_nothing_is_lost_in_silence(lane: Lane, name: str) -> None:
    body: JSON = {
        "user": "someone",
        "verbosity": "low",
        "logit_bias": {"1": 1},
        "seed": 1,
        "top_k": 4,
        "parallel_tool_calls": True,
    }
    lane.provider.script("m", answer(extra={"service_tier": "auto"}))
    _, tried = lane.whole(name, **body)
    assert set(body) - set(lane.sent()) - set(tried.dropped) == set(), "neither sent nor named"


def test_for_another_wire_the_request_is_translated_and_what_is_dropped_is_named(lane: Lane) -> None:
    _, tried = lane.whole(
        OTHER,
        temperature=0.5,
        top_k=4,
        max_completion_tokens=9,
        own_field=1,
        seed=3,
        logit_bias={"1": 1},
        n=1,
        presence_penalty=None,
        metadata={"a": "b"},
        store=True,
    )
    [received] = lane.provider.requests()
    assert received.path == "/v1/messages"
    sent = lane.sent()
    assert sent["messages"] == [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    assert (sent["temperature"], sent["top_k"], sent["max_tokens"]) == (0.5, 4, 9)
    assert set(tried.dropped) == {"own_field", "seed", "logit_bias", "n", "metadata", "store"}
    assert not set(tried.dropped) & set(sent)


def test_nothing_is_lost_in_silence_where_litellm_goes_by_the_responses_api(lane: Lane) -> None:
    """It does so for some models, whatever the provider."""
    responses(lane)
    _, tried = lane.whole("openai/gpt-5-codex", own_field=1, metadata={"a": "b"})
    [received] = lane.provider.requests()
    assert received.path == "/v1/responses"
    assert {"own_field", "metadata"} - set(lane.sent()) - set(tried.dropped) == set()


@BOTH
@EACH
def test_one_request_is_sent_with_the_configured_key_and_nothing_of_the_callers(
    lane: Lane, name: str, stream: bool
) -> None:
    lane.provider.script("m", answer(extra={"service_tier": "auto"}))
    lane.ask(name, stream=stream)
    [received] = lane.provider.requests()
    key = received.headers.get("x-api-key") if name == OTHER else received.headers.get("authorization")
    assert key == (OWN_KEY if name == OTHER else f"Bearer {OWN_KEY}")
    assert ("authorization" in received.headers) == (name != OTHER)
    assert not [header for header in received.headers if header.startswith(("x-stainless", "x-litellm"))]


@pytest.mark.parametrize(
    ("name", "passed"), [(SAME, {"openai-beta"}), (OTHER, {"anthropic-version", "anthropic-beta"})]
)
def test_headers_of_a_family_reach_that_family_alone(lane: Lane, name: str, passed: set[str]) -> None:
    sent = {"anthropic-version": "2023-06-01", "anthropic-beta": "context-1m-2025-08-07", "openai-beta": "o-1"}
    lane.open(lane.attempt(name), call(name, provider_headers=sent))
    got = lane.provider.requests()[0].headers
    for header in passed:
        assert got[header] == sent[header]
    assert {"openai-beta", "anthropic-beta"} & set(got) == passed - {"anthropic-version"}


def test_the_version_of_an_api_comes_from_the_configuration(lane: Lane) -> None:
    lane.provider.script("mine", answer())
    tried = attempt("azure/mine", api_base=lane.provider.origin, api_key=OWN_KEY, api_version="2024-10-21")
    lane.open(tried, call("azure/mine"))
    [received] = lane.provider.requests()
    assert received.path == "/openai/deployments/mine/chat/completions?api-version=2024-10-21"
    assert received.headers["api-key"] == OWN_KEY


def test_the_callers_body_is_left_as_it_was(lane: Lane) -> None:
    made = call(OTHER, body={"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]})
    before = json.dumps(made.body)
    lane.open(lane.attempt(OTHER), made)
    assert json.dumps(made.body) == before


# What comes back.


@pytest.mark.parametrize("name", [SAME, "deepseek/m"])
def test_on_openais_wire_the_providers_own_bytes_come_back(lane: Lane, name: str) -> None:
    body = (
        b'{"id":"x",  "choices":[{"index":0,"message":{"role":"assistant","content":null,"refusal":"no","own":null},'
        b'"finish_reason":"stop","logprobs":null},{"index":1,"message":{"content":"b"},"finish_reason":"odd"}],'
        b'"created":7,"model":"m-served","usage":{"prompt_tokens":3,"completion_tokens":2,"own":{"x":1}},"own":[null]}'
    )
    lane.provider.script("m", raw(200, {"Content-Type": "application/json"}, body))
    tried = lane.attempt(name)
    assert lane.open(tried, call(name)).body == body
    assert tried.transcript.finish_reasons == ["stop", "odd"]
    assert (tried.transcript.model, tried.transcript.usage) == ("m-served", Usage(3, 2))


def test_on_openais_wire_the_providers_own_events_come_back(lane: Lane) -> None:
    lane.provider.script(
        "m",
        sse(
            data('{"choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"own":1}]}'),
            data('{"choices":[{"index":0,"delta":{"refusal":"no"}},{"index":1,"delta":{"content":"b"}}]}'),
            delta({}, "stop"),
            delta({}, "odd", index=1),
            usage(3, 2),
            done(),
        ),
    )
    events, tried = lane.stream(SAME)
    assert events[0] == (
        b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"own":1}]}\n\n'
    )
    assert tried.transcript.said()[0]["message"]["refusal"] == "no"
    assert tried.transcript.finish_reasons == ["stop", "odd"]
    assert tried.transcript.usage == Usage(3, 2)


def test_a_good_answer_that_litellm_cannot_rebuild_comes_back_all_the_same(lane: Lane) -> None:
    """LiteLLM's groq fails on an answer without `service_tier`; the bytes are there and need no rebuilding."""
    document, _ = lane.whole(SIMILAR)
    assert document["choices"][0]["message"]["content"] == "hello there"


def test_a_hundred_equal_chunks_are_no_failure(lane: Lane) -> None:
    for name, reply in (
        (SAME, sse(*[delta({"content": "la "})] * 150, delta({}, "stop"), done())),
        (OTHER, answer("la " * 150)),
    ):
        lane.provider.script(name.partition("/")[2], reply)
        events, _ = lane.stream(name)
        assert text_of(events).strip() == ("la " * 150).strip()


def test_a_tool_that_litellm_puts_in_is_taken_out_again(lane: Lane) -> None:
    """groq's models without `response_format` get it as a tool; the answer must not show it."""
    tool = {"id": "a", "type": "function", "function": {"name": "json_tool_call", "arguments": '{"x":1}'}}
    lane.provider.script(
        "m", answer(None, message={"tool_calls": [tool]}, finish="tool_calls", extra={"service_tier": "auto"})
    )
    schema = {"name": "a", "schema": {"type": "object", "properties": {"x": {"type": "integer"}}}}
    document, _ = lane.whole(SIMILAR, response_format={"type": "json_schema", "json_schema": schema})
    assert "json_tool_call" in json.dumps(lane.sent())
    assert document["choices"][0]["message"]["content"] == '{"x":1}'
    assert "json_tool_call" not in json.dumps(document)


TOOL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


def test_another_wires_answer_is_translated(lane: Lane) -> None:
    lane.provider.script("claude-m", answer("It is", message={"tool_calls": [TOOL]}, finish="tool_calls"))
    document, tried = lane.whole(OTHER)
    [choice] = document["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "It is"
    [tool] = choice["message"]["tool_calls"]
    assert (tool["id"], tool["function"]["name"]) == ("call_1", "weather")
    assert json.loads(tool["function"]["arguments"]) == {"city": "Oslo"}
    assert document["usage"]["prompt_tokens"] == 12
    assert tried.transcript.usage == Usage(12, 7)
    assert document["object"] == "chat.completion"


def test_another_wires_stream_is_translated(lane: Lane) -> None:
    lane.provider.script("claude-m", answer("It is", message={"tool_calls": [TOOL]}, finish="tool_calls"))
    events, tried = lane.stream(OTHER)
    assert text_of(events) == "It is"
    [choice] = tried.transcript.said()
    assert choice["finish_reason"] == "tool_calls"
    assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == {"city": "Oslo"}
    assert json.loads(data_of(events[-1]) or b"")["usage"]["completion_tokens"] == 7
    assert tried.transcript.usage == Usage(12, 7)


@EACH
def test_usage_that_was_not_asked_for_is_recorded_and_not_shown(lane: Lane, name: str) -> None:
    events, tried = lane.stream(name, asked=False)
    assert tried.transcript.usage == Usage(12, 7)
    assert not [one for one in events if json.loads(data_of(one) or b"").get("usage")]


@BOTH
def test_the_providers_rate_limits_come_back_under_their_own_name(lane: Lane, stream: bool) -> None:
    limits = {"x-ratelimit-remaining-requests": "9", "anthropic-ratelimit-tokens-limit": "5", "x-other": "1"}
    lane.provider.script("m", answer(headers=limits))
    tried = lane.ask(SAME, stream=stream)
    assert tried.provider_headers == {
        "x-provider-ratelimit-remaining-requests": "9",
        "x-provider-ratelimit-tokens-limit": "5",
    }


class Ollama(Loopback):
    """Ollama's own wire: a JSON object a line. `fails` makes it refuse."""

    fails = False

    def handle(self, exchange: Served) -> None:
        body = exchange.request.body
        if self.fails:
            return exchange.respond_json(500, {"error": "model runner has unexpectedly stopped"})
        lines = [self._line(body, "hel"), self._line(body, "lo"), self._line(body, "", done=True)]
        if not body["stream"]:
            return exchange.respond(200, {"Content-Type": "application/json"}, self._line(body, "hello", done=True))
        exchange.begin(200, {"Content-Type": "application/x-ndjson"})
        for line in lines:
            exchange.send(line)
        return exchange.finish()

    def _line(self, body: JSON, text: str, *, done: bool = False) -> bytes:
        end = {"done_reason": "stop", "prompt_eval_count": 3, "eval_count": 2} if done else {}
        said = {"message": {"role": "assistant", "content": text}}
        return json.dumps({"model": body["model"], "done": done, **said, **end}).encode() + b"\n"


@pytest.fixture
def ollama() -> Iterator[Ollama]:
    with Ollama() as server:
        yield server


def test_ollamas_answer_is_translated(lane: Lane, ollama: Ollama) -> None:
    tried = attempt("ollama_chat/m", api_base=ollama.origin)
    lane.open(tried, call("ollama_chat/m"))
    assert tried.transcript.said()[0]["message"]["content"] == "hello"
    assert tried.transcript.usage == Usage(3, 2)


def test_ollamas_stream_of_json_lines_is_translated(lane: Lane, ollama: Ollama) -> None:
    tried = attempt("ollama_chat/m", api_base=ollama.origin)
    opened = lane.open(tried, call("ollama_chat/m", stream=True))
    assert text_of([chunk.data for chunk in opened.chunks() if chunk.data]) == "hello"
    opened.close()


def test_ollamas_failure_is_not_taken_for_the_callers(lane: Lane, ollama: Ollama) -> None:
    """LiteLLM then looks for the model at localhost:11434, which the door refuses; that is no image's address."""
    ollama.fails = True
    with pytest.raises(GatewayError) as raised:
        lane.open(attempt("ollama_chat/m", api_base=ollama.origin), call("ollama_chat/m"))
    assert (type(raised.value), raised.value.message) == (ProviderFailed, "model runner has unexpectedly stopped")


def responses(lane: Lane) -> None:
    """Let the provider answer as the Responses API does."""
    message = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "hello", "annotations": []}],
    }
    for model in ("gpt-5-codex", "o1-pro", "m"):
        whole = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": model}
        more = {"output": [message], "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}}
        lane.provider.script(model, plain_json({**whole, **more, "tools": [], "tool_choice": "auto"}))


def test_a_model_of_the_responses_api_is_answered(lane: Lane) -> None:
    responses(lane)
    document, tried = lane.whole("openai/gpt-5-codex")
    assert document["choices"][0]["message"]["content"] == "hello"
    assert tried.transcript.usage == Usage(3, 2)


def test_a_model_whose_stream_litellm_makes_up_can_be_streamed(lane: Lane) -> None:
    """o1-pro and gpt-5-pro do not stream; LiteLLM asks for the whole and cuts it up."""
    responses(lane)
    events, _ = lane.stream("openai/o1-pro")
    assert text_of(events) == "hello"


# Failures.


@BOTH
@EACH
@pytest.mark.parametrize(
    ("reply", "kind", "status"),
    [
        (error(400), ProviderRefused, 400),
        (error(401), ProviderRejectedKey, 502),
        (error(404), ProviderRefused, 404),
        (error(429, headers={"Retry-After": "7"}), ProviderLimited, 429),
        (error(500), ProviderFailed, 500),
        (error(529), ProviderFailed, 529),
        (raw(502, {"Content-Type": "text/html"}, b"<html>Bad Gateway</html>"), ProviderFailed, 502),
        (drop("reset"), ProviderUnreachable, 502),
        (drop("close"), ProviderUnreachable, 502),
        (redirect("http://127.0.0.1:9/x"), ProviderInvalid, 502),
        (raw(200, {"Content-Type": "application/json"}, b"{not json"), ProviderInvalid, 502),
        (plain_json({}), ProviderInvalid, 502),
        (plain_json({"choices": []}), ProviderInvalid, 502),
        (plain_json({"error": {"message": "out of credit", "code": 429}}), ProviderLimited, 429),
    ],
)
def test_a_failure_has_its_class_and_one_request(
    lane: Lane, name: str, stream: bool, reply: Reply, kind: type[GatewayError], status: int
) -> None:
    lane.provider.script(name.partition("/")[2], reply)
    with pytest.raises(GatewayError) as raised:
        lane.ask(name, stream=stream)
    assert (type(raised.value), raised.value.http_status) == (kind, status)
    assert "itellm" not in raised.value.message
    assert len(lane.provider.requests()) == 1


@EACH
def test_retry_after_comes_back(lane: Lane, name: str) -> None:
    lane.provider.script(name.partition("/")[2], error(429, headers={"Retry-After": "7"}))
    with pytest.raises(ProviderLimited) as raised:
        lane.whole(name)
    assert raised.value.retry_after == "7"


@EACH
def test_a_rewritten_second_try_is_never_sent(lane: Lane, name: str) -> None:
    """LiteLLM would change the messages and send again."""
    words = "Conversation roles must alternate user/assistant/user/assistant/..."
    lane.provider.script(name.partition("/")[2], error(400, {"error": {"message": words}}))
    with pytest.raises(ProviderRefused, match="Conversation roles must alternate"):
        lane.whole(name)
    assert len(lane.provider.requests()) == 1


MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-m", "content": []}
BEGUN = (
    event("message_start", {"type": "message_start", "message": {**MESSAGE, "usage": {"input_tokens": 1}}}),
    event(
        "content_block_start",
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ),
    event(
        "content_block_delta", {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}
    ),
)
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


@pytest.mark.parametrize(
    ("name", "reply", "kind"),
    [
        (SAME, sse(), ProviderStreamEnded),
        (SAME, sse(done()), ProviderStreamEnded),
        (SAME, sse(delta({"content": "a"})), ProviderStreamEnded),
        (SAME, sse(delta({"content": "a"}), done()), ProviderStreamEnded),
        (SAME, sse(delta({"content": "a"}), data("{bad")), ProviderInvalid),
        (SAME, sse(delta({"content": "a"}), data({"error": {"message": "x"}})), ProviderFailed),
        (SAME, sse(delta({"content": "a"}), reset()), ProviderUnreachable),
        (SAME, sse(delta({"content": "a"}), close()), ProviderUnreachable),
        (OTHER, sse(), ProviderStreamEnded),
        (OTHER, sse(*BEGUN), ProviderInvalid),
        (OTHER, sse(*BEGUN, reset()), ProviderUnreachable),
        (OTHER, sse(*BEGUN, close()), ProviderUnreachable),
        (OTHER, sse(*BEGUN, event("error", OVERLOADED)), ProviderFailed),
        (OTHER, sse(*BEGUN, data("{bad")), ProviderInvalid),
    ],
)
def test_a_stream_that_breaks_has_no_made_up_end(lane: Lane, name: str, reply: Reply, kind: type[GatewayError]) -> None:
    lane.provider.script(name.partition("/")[2], reply)
    tried = lane.attempt(name)
    events: list[bytes] = []
    opened = lane.open(tried, call(name, stream=True))
    with pytest.raises(GatewayError) as raised:
        events.extend(chunk.data for chunk in opened.chunks())
    opened.close()
    assert type(raised.value) is kind
    assert b'"finish_reason":"' not in b"".join(events).replace(b" ", b"")
    if text_of([one for one in events if one]):
        assert tried.transcript.said()[0]["message"]["content"] == "a", "what came is in the record"


@EACH
def test_a_provider_that_is_silent_for_too_long_is_a_timeout(lane: Lane, name: str) -> None:
    lane.provider.script(name.partition("/")[2], hang())
    made = call(name, deadline_s=time.monotonic() + 0.3)
    with pytest.raises(ProviderTimeout):
        lane.open(lane.attempt(name), made)


@BOTH
@EACH
def test_a_deployment_that_has_a_time_of_its_own_is_waited_for_no_longer(lane: Lane, name: str, stream: bool) -> None:
    lane.provider.script(name.partition("/")[2], hang())
    tried = lane.attempt(name)
    tried.deployment = dataclasses.replace(tried.deployment, timeout_s=0.3)
    began_s = time.monotonic()
    with pytest.raises(ProviderTimeout):
        lane.open(tried, call(name, stream=stream))
    assert 0.25 < time.monotonic() - began_s < 4, "and not for the 5 s of all"


@EACH
def test_messages_that_cannot_be_sent_are_the_callers_fault_and_not_ours(lane: Lane, name: str) -> None:
    lane.provider.script(name.partition("/")[2], error(400))
    statuses = {}
    for content in (1, [{"text": "x"}], [1], ["x"], [{"type": "image_url"}]):
        with pytest.raises(GatewayError) as raised:
            lane.whole(name, messages=[{"role": "user", "content": content}])
        statuses[repr(content)] = raised.value.http_status
    assert set(statuses.values()) == {400}, statuses


@pytest.mark.parametrize("name", ["gemini/m", "bedrock/anthropic.claude-3-haiku-20240307-v1:0"])
def test_an_image_by_its_address_is_not_fetched(lane: Lane, name: str, trap: Trap) -> None:
    image = {"type": "image_url", "image_url": {"url": f"{trap.origin}/image.png"}}
    with pytest.raises(InvalidRequest) as raised:
        lane.whole(name, messages=[{"role": "user", "content": [image]}])
    assert raised.value.http_status == 400
    assert trap.requests() == []


# Stopping.


@BOTH
@EACH
def test_a_caller_that_leaves_frees_the_provider_at_once(lane: Lane, name: str, stream: bool) -> None:
    lane.provider.script(name.partition("/")[2], hang())
    made = call(name, stream=stream)
    ended: list[tuple[float, GatewayError]] = []

    def ask() -> None:
        try:
            lane.open(lane.attempt(name), made)
        except GatewayError as failed:
            ended.append((time.monotonic(), failed))

    thread = threading.Thread(target=ask)
    thread.start()
    [received] = lane.provider.wait_for(1)
    time.sleep(0.05)
    began_s = time.monotonic()
    made.cancellation.abort("caller_gone")
    thread.join(5)
    assert type(ended[0][1]) is CallerGone
    assert ended[0][0] - began_s < 0.3
    assert received.closed.wait(1)


@pytest.mark.parametrize("name", [SAME, OTHER])
def test_a_caller_that_leaves_in_the_middle_frees_the_provider_at_once(lane: Lane, name: str) -> None:
    reply = sse(delta({"content": "a"}), silence()) if name == SAME else sse(*BEGUN, silence())
    lane.provider.script(name.partition("/")[2], reply)
    made = call(name, stream=True)
    tried = lane.attempt(name)
    opened = lane.open(tried, made)
    chunks = opened.chunks()
    while not next(chunks).content:
        pass
    threading.Timer(0.05, made.cancellation.abort, ("caller_gone",)).start()
    with pytest.raises(CallerGone):
        list(chunks)
    opened.close()
    assert lane.provider.requests()[0].closed.wait(1)
    assert tried.transcript.said()[0]["message"]["content"] == "a"


@BOTH
@EACH
def test_a_connection_is_used_again(lane: Lane, name: str, stream: bool) -> None:
    lane.provider.script("m", answer(extra={"service_tier": "auto"}))
    for _ in range(3):
        lane.ask(name, stream=stream)
    assert len({received.connection for received in lane.provider.requests()}) == 1


@pytest.mark.parametrize("read", ["to its end", "in part", "not at all"])
@EACH
def test_a_stream_that_is_collected_writes_no_context_variable(lane: Lane, name: str, read: str) -> None:
    """Up to CPython 3.11 a collection can begin within ContextVar.set: another write then crashes the process."""
    written: list[str] = []

    def note(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and getattr(called, "__qualname__", "") in ("ContextVar.set", "ContextVar.reset"):
            written.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")

    opened = lane.open(lane.attempt(name), call(name, stream=True))
    chunks = opened.chunks()
    for _ in {"to its end": chunks, "in part": range(1), "not at all": ()}[read]:
        next(chunks, None)
    opened.close()
    gone = weakref.ref(opened)
    opened.itself = opened  # so that no count of references ends it, but a collection
    del opened, chunks
    before = sys.getprofile()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of what earlier tests left behind
        sys.setprofile(note)
        try:
            gc.collect()
        finally:
            sys.setprofile(before)
    assert gone() is None
    assert written == []


# Braintrust's patch.


@BOTH
@EACH
def test_the_patch_makes_one_span_and_sees_nothing_of_the_callers(lane: Lane, name: str, stream: bool) -> None:
    lane.provider.script("m", answer(extra={"service_tier": "auto"}))
    lane.ask(name, stream=stream, user="someone-secret", messages=[{"role": "user", "content": "a-secret-prompt"}])
    [row] = lane.held[-1].rows.values()
    assert row["span_attributes"]["name"] == "Completion"
    assert "secret" not in repr(row.get("input")) + repr(row.get("metadata"))


OPENED: list[str] = []
DIALLED: list[Any] = []
STARTED: list[str] = []
WATCHING = threading.Event()


def _watch(name: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook (it stays for good, so it does nothing unless a test is `WATCHING`)."""
    if not WATCHING.is_set():
        return
    if name == "open":
        OPENED.append(os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes) else str(arguments[0]))
    elif name == "socket.connect":
        DIALLED.append(arguments[1])
    elif name in ("socket.getaddrinfo", "socket.gethostbyname"):
        DIALLED.append((arguments[0], None))
    elif name in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"):
        STARTED.append(name)


sys.addaudithook(_watch)


@pytest.fixture
def watched() -> Iterator[None]:
    for seen in (OPENED, DIALLED, STARTED):
        seen.clear()
    WATCHING.set()
    yield
    WATCHING.clear()


class Trap(Loopback):
    """A server that nobody may ever ask."""

    def handle(self, exchange: Served) -> None:
        exchange.respond_json(200, {"access_token": "caught"})


@pytest.fixture
def trap() -> Iterator[Trap]:
    with Trap() as server:
        yield server


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    path = tmp_path / "canary.png"
    path.write_bytes(b"the content of a file of the gateway's host")
    return path


PARTS: dict[str, Callable[[str], JSON]] = {
    "image": lambda path: {"type": "image_url", "image_url": {"url": path}},
    "image by a file URL": lambda path: {"type": "image_url", "image_url": {"url": f"file://{path}"}},
    "image as a text": lambda path: {"type": "image_url", "image_url": path},
    "file": lambda path: {"type": "file", "file": {"file_data": path, "filename": "a.png"}},
    "file by its id": lambda path: {"type": "file", "file": {"file_id": path}},
    "audio": lambda path: {"type": "input_audio", "input_audio": {"data": path, "format": "wav"}},
    "image of the Responses API": lambda path: {"type": "input_image", "image_url": path},
    "file of the Responses API": lambda path: {"type": "input_file", "file_data": path},
}


@BOTH
@pytest.mark.parametrize("name", [SAME, SIMILAR, OTHER, "gemini/m", "openai/gpt-5-codex", "openai/responses/m"])
def test_a_message_that_names_a_file_of_the_host_never_opens_it(
    lane: Lane, canary: Path, watched: None, name: str, stream: bool
) -> None:
    """Braintrust's patch would open it, and keep its content; so would parts of LiteLLM."""
    responses(lane)
    opened = []
    for kind, part in PARTS.items():
        OPENED.clear()
        with suppress(GatewayError):
            lane.ask(name, stream=stream, messages=[{"role": "user", "content": [part(str(canary))]}])
        if any(canary.name in path for path in OPENED):
            opened.append(kind)
    assert opened == []
    assert not [one for one in lane.provider.requests() if b"content of a file" in one.raw]


# No request field chooses a host, a key, a file or a price.


def arguments_of_litellm() -> list[str]:
    """Every name that `litellm.completion` takes for an argument of its own, but for those of the endpoint's row."""
    import litellm
    from litellm.types.utils import all_litellm_params

    named = {*inspect.signature(litellm.main.completion).parameters, *all_litellm_params, "extra_body", "base_url"}
    return sorted(named - set(CHAT.parameters) - {"kwargs"})


def hostile(trap: Trap, canary: Path) -> dict[str, Any]:
    url, headers = f"{trap.origin}/v1", {"Authorization": "Bearer stolen", "x-api-key": "stolen"}
    other = {"model": "openai/other", "api_base": url, "api_key": "stolen"}
    return {
        "an address": url,
        "a path": str(canary),
        "a secret of the environment": "oidc/env/OPENAI_API_KEY",
        "true": True,
        "a negative price": -1,
        "headers": headers,
        "a deployment": {**other, "headers": headers, "token_url": url, "type": "external_account"},
        "deployments": [{"model_name": "m", "litellm_params": other}, other],
        "a text": "stolen",
    }


def assert_only_the_provider_was_asked(lane: Lane, trap: Trap, canary: Path) -> None:
    assert trap.requests() == []
    assert {address[0] for address in DIALLED} <= {"127.0.0.1"}
    assert {address[1] for address in DIALLED} <= {lane.provider.port, None}
    assert not [path for path in OPENED if canary.name in path]
    assert STARTED == []
    for received in lane.provider.requests():
        assert received.headers.get("authorization", f"Bearer {OWN_KEY}") == f"Bearer {OWN_KEY}"
        assert received.headers.get("x-api-key", OWN_KEY) == OWN_KEY
        assert received.path in ("/v1/chat/completions", "/v1/messages")


def test_the_list_of_litellms_arguments_is_the_whole_of_it(loaded: LiteLLM) -> None:
    names = arguments_of_litellm()
    assert len(names) > 350
    assert {"api_base", "base_url", "api_key", "model_list", "fallbacks", "mock_response", "extra_headers"} <= set(
        names
    )


@BOTH
@EACH
def test_no_field_of_a_body_chooses_a_host_a_key_a_file_or_an_answer(
    lane: Lane, trap: Trap, canary: Path, watched: None, name: str, stream: bool
) -> None:
    assert not {key for row in PROVIDERS.values() for key in row.keys} & set(os.environ)
    lane.provider.script("m", answer("the provider's own", extra={"service_tier": "auto"}))
    lane.provider.script("claude-m", answer("the provider's own"))
    names = arguments_of_litellm()
    for value in hostile(trap, canary).values():
        for start in range(0, len(names), 70):
            before = len(lane.provider.requests())
            tried = lane.ask(name, dict.fromkeys(names[start : start + 70], value), stream=stream)
            assert tried.transcript.said()[0]["message"]["content"] == "the provider's own"
            assert tried.transcript.usage == Usage(12, 7)
            assert len(lane.provider.requests()) == before + 1
    assert_only_the_provider_was_asked(lane, trap, canary)


@EACH
def test_nor_does_one_in_a_place_that_litellm_looks_into(
    lane: Lane, trap: Trap, canary: Path, watched: None, name: str
) -> None:
    lane.provider.script("m", answer("the provider's own", extra={"service_tier": "auto"}))
    lane.provider.script("claude-m", answer("the provider's own"))
    function = {"name": "f", "parameters": {"type": "object", "properties": {}}}
    for value in hostile(trap, canary).values():
        bad = dict.fromkeys(arguments_of_litellm(), value)
        for body in (
            {"metadata": bad},
            {"extra_body": bad},
            {"litellm_params": bad},
            {"messages": [{"role": "user", "content": "hi", **bad}]},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", **bad}]}]},
            {"tools": [{"type": "function", "function": function, **bad}]},
            {
                "tools": [
                    {
                        "type": "mcp",
                        "server_label": "a",
                        "server_url": f"{trap.origin}/mcp",
                        "require_approval": "never",
                    }
                ]
            },
            {"stream_options": bad},
            {"user": f"{trap.origin}"},
        ):
            with suppress(GatewayError):
                lane.whole(name, **body)
    assert_only_the_provider_was_asked(lane, trap, canary)


def test_a_provider_without_a_key_of_its_own_gets_none_of_the_environments(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-the-environment")
    lane.open(attempt("hosted_vllm/m", api_base=lane.provider.base_url), call("hosted_vllm/m"))
    assert "of-the-environment" not in repr(lane.provider.requests()[0].headers)


def test_calls_in_many_threads_do_not_mix(lane: Lane) -> None:
    failed: list[str] = []

    def ask(number: int) -> None:
        name, said = (SAME, SIMILAR, OTHER)[number % 3], f"number {number}"
        events, tried = lane.stream(name, messages=[{"role": "user", "content": said}])
        if text_of(events) != f"got {said}" or tried.transcript.usage != Usage(12, 7):
            failed.append(said)

    for model in ("m", "claude-m"):
        lane.provider.script(model, answer(echo=True, extra={"service_tier": "auto"} if model == "m" else {}))
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failed == []
