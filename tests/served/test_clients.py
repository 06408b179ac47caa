"""The vendors' SDKs on every wire but chat (`test_sdk.py`): what they read, send and raise is as at the vendors'."""

import asyncio
import json
import struct
from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pydantic
import pytest
from anthropic.types import RedactedThinkingBlock, ThinkingBlock
from openai.types.responses import ResponseFunctionToolCall

from tests.fakes.provider import Action, FakeProvider, Reply, answer, data, delta, error, event, sse
from tests.served.process import Served
from tests.served.sdks import async_claude_of, async_client_of, claude_of, client_of

ASK: Any = [{"role": "user", "content": "Say something short."}]
SCHEMA: Any = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
CALL = {"id": "call_a", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Lima ☃"}'}}
ASKS_TOOL = answer(None, finish="tool_calls", message={"tool_calls": [CALL]}, usage=(12, 7))


class Person(pydantic.BaseModel):
    name: str
    age: int | None


@pytest.fixture
def client(gateway: Served) -> Iterator[openai.OpenAI]:
    with client_of(gateway) as one:
        yield one


@pytest.fixture
def claude(gateway: Served) -> Iterator[anthropic.Anthropic]:
    with claude_of(gateway) as one:
        yield one


@pytest.fixture(params=["openai", "anthropic"])
def named(request: pytest.FixtureRequest, model: str) -> str:
    """A model at a provider of either type."""
    return f"{request.param}/{model}"


# OpenAI's responses.


def test_a_response_is_an_object_of_the_sdk(
    client: openai.OpenAI, provider: FakeProvider, model: str, named: str
) -> None:
    provider.script(model, answer("Hello, SDK.", usage=(12, 7)))
    got = client.responses.create(model=named, input="hi", instructions="Be brief.", max_output_tokens=50)
    assert (got.output_text, got.status, got.object) == ("Hello, SDK.", "completed", "response")
    assert got.usage is not None
    assert (got.usage.input_tokens, got.usage.output_tokens, got.usage.total_tokens) == (12, 7, 19)
    assert got._request_id


def test_a_response_is_streamed_in_the_order_of_the_reference(
    client: openai.OpenAI, provider: FakeProvider, model: str, named: str
) -> None:
    provider.script(model, answer("one two three", usage=(12, 7)))
    with client.responses.stream(model=named, input="hi") as stream:
        events = list(stream)
        final = stream.get_final_response()
    kinds = [one.type for one in events]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert [one.sequence_number for one in events] == list(range(len(events)))
    assert "".join(one.delta for one in events if one.type == "response.output_text.delta") == "one two three"
    assert final.output_text == "one two three"
    assert final.usage is not None
    assert final.usage.total_tokens == 19


def test_a_parsed_response_comes_parsed(client: openai.OpenAI, provider: FakeProvider, model: str, named: str) -> None:
    provider.script(model, answer('{"name": "Ann", "age": null}'))
    parsed = client.responses.parse(model=named, input="who?", text_format=Person)
    assert parsed.output_parsed == Person(name="Ann", age=None)


@pytest.mark.parametrize("by_id", [True, False], ids=["by its id", "by its items"])
def test_a_response_goes_on_after_its_tool(
    client: openai.OpenAI, provider: FakeProvider, model: str, named: str, by_id: bool
) -> None:
    provider.script(model, ASKS_TOOL, answer("sunny"))
    tools: Any = [{"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": True}]
    first = client.responses.create(model=named, input=ASK, tools=tools)
    (call,) = first.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert (call.call_id, call.name, json.loads(call.arguments)) == ("call_a", "get_weather", {"city": "Lima ☃"})
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}
    if by_id:
        second = client.responses.create(model=named, input=[result], previous_response_id=first.id, tools=tools)
        told = second.to_dict() if named.startswith("anthropic/") else provider.requests(model)[1].body
        assert told["previous_response_id"] == first.id
    else:
        second = client.responses.create(model=named, input=[*ASK, call, result], tools=tools)
    assert second.output_text == "sunny"
    assert "sun" in provider.requests(model)[1].raw.decode()


def test_a_stored_response_is_found_listed_and_forgotten(
    client: openai.OpenAI, provider: FakeProvider, model: str, named: str
) -> None:
    provider.script(model, answer("kept answer"))
    made = client.responses.create(model=named, input="remember this")
    found = client.responses.retrieve(made.id)
    assert (found.id, found.output_text) == (made.id, "kept answer")
    assert [item.type for item in client.responses.input_items.list(made.id)] == ["message"]
    client.responses.delete(made.id)
    for lost in (client.responses.retrieve, client.responses.cancel, client.responses.delete):
        with pytest.raises(openai.NotFoundError):
            lost(made.id)


def test_a_stored_response_is_streamed_again(client: openai.OpenAI, model: str) -> None:
    made = client.responses.create(model=f"openai/{model}", input="x")
    kinds = [one.type for one in client.responses.retrieve(made.id, stream=True)]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")


def test_the_tokens_of_a_response_are_counted(client: openai.OpenAI, named: str) -> None:
    counted = client.responses.input_tokens.count(model=named, input="How many are these?")
    assert counted.object == "response.input_tokens"
    assert 0 < counted.input_tokens < 50


def test_many_responses_are_streamed_at_once(gateway: Served, provider: FakeProvider, model: str, named: str) -> None:
    provider.script(model, answer(echo=True))

    async def one(client: openai.AsyncOpenAI, text: str) -> str:
        stream = await client.responses.create(model=named, input=text, stream=True)
        return "".join([piece.delta async for piece in stream if piece.type == "response.output_text.delta"])

    async def many() -> list[str]:
        async with async_client_of(gateway) as client:
            return await asyncio.gather(*(one(client, f"text {number}") for number in range(20)))

    assert asyncio.run(many()) == [f"got text {number}" for number in range(20)]


# Embeddings, completions, models.


def test_embeddings_come_as_numbers_whatever_goes_over_the_wire(
    gateway: Served, client: openai.OpenAI, provider: FakeProvider, model: str
) -> None:
    for fields in ({}, {"encoding_format": "float"}):
        got = client.embeddings.create(model=f"openai/{model}", input=["a", "b"], **fields)
        assert [one.embedding for one in got.data] == [[0.5, -0.25, 1.0]] * 2
        assert got.usage.prompt_tokens == 5
    asked = [request.body.get("encoding_format") for request in provider.requests(model)]
    assert asked == ["base64", "float"], "the SDK asks for base64 by itself"
    raw = client.embeddings.with_raw_response.create(model=f"openai/{model}", input=[1, 2], encoding_format="base64")
    packed = json.loads(raw.text)["data"][0]["embedding"]
    assert struct.unpack("<3f", b64decode(packed)) == (0.5, -0.25, 1.0)
    assert "Pydantic" not in gateway.log, "a warning for each vector in base64"


def test_a_completion_of_the_older_kind(client: openai.OpenAI, provider: FakeProvider, model: str, named: str) -> None:
    provider.script(model, answer("one two three", usage=(5, 3)))
    got = client.completions.create(model=named, prompt="say", max_tokens=9)
    assert (got.choices[0].text, got.choices[0].finish_reason) == ("one two three", "stop")
    assert got.usage is not None
    assert got.usage.total_tokens == 8
    stream = client.completions.create(model=named, prompt="say", max_tokens=9, stream=True)
    pieces = [choice for chunk in stream for choice in chunk.choices]
    assert "".join(choice.text for choice in pieces) == "one two three"
    assert [choice.finish_reason for choice in pieces if choice.finish_reason] == ["stop"]


def test_models_are_found_by_both_sdks(client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    assert client.models.retrieve("gpt-4o-mini").owned_by == "openai"
    assert client.models.retrieve("openai/a-model-of-tomorrow").id == "openai/a-model-of-tomorrow"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")
    paged = [one.id for one in claude.models.list(limit=100)]
    assert len(paged) == len(set(paged)) > 100, "the SDK turns the pages"
    assert set(paged) == {one.id for one in client.models.list()}
    assert claude.models.retrieve("claude-haiku-4-5").type == "model"
    with pytest.raises(anthropic.NotFoundError):
        claude.models.retrieve("no-such-model")


# Anthropic's messages.


def test_a_message_is_an_object_of_the_sdk(
    claude: anthropic.Anthropic, provider: FakeProvider, model: str, named: str
) -> None:
    provider.script(model, answer("Hello, SDK.", usage=(12, 7)))
    got = claude.messages.create(model=named, max_tokens=50, messages=ASK, system="Be brief.")
    assert [(block.type, getattr(block, "text", None)) for block in got.content] == [("text", "Hello, SDK.")]
    assert (got.stop_reason, got.role, got.type) == ("end_turn", "assistant", "message")
    assert (got.usage.input_tokens, got.usage.output_tokens) == (12, 7)
    assert got._request_id


def test_a_message_is_streamed(claude: anthropic.Anthropic, provider: FakeProvider, model: str, named: str) -> None:
    provider.script(model, answer("one two three", usage=(12, 7)))
    with claude.messages.stream(model=named, max_tokens=50, messages=ASK) as stream:
        assert "".join(stream.text_stream) == "one two three"
        final = stream.get_final_message()
    assert (final.stop_reason, final.usage.input_tokens, final.usage.output_tokens) == ("end_turn", 12, 7)


@pytest.mark.parametrize("beta", [False, True], ids=["plain", "beta"])
def test_a_message_goes_on_after_its_tool(
    claude: anthropic.Anthropic, provider: FakeProvider, model: str, named: str, beta: bool
) -> None:
    provider.script(model, ASKS_TOOL, answer("sunny"))
    messages: Any = claude.beta.messages if beta else claude.messages
    fields: Any = {"model": named, "max_tokens": 50, "tools": [{"name": "get_weather", "input_schema": SCHEMA}]}
    if beta:
        fields["betas"] = ["a-beta-2026-01-01"]
    first = messages.create(**fields, messages=ASK)
    (block,) = first.content
    assert (block.type, block.id, block.name, block.input) == ("tool_use", "call_a", "get_weather", {"city": "Lima ☃"})
    assert first.stop_reason == "tool_use"
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "sun"}]}
    second = messages.create(**fields, messages=[*ASK, {"role": "assistant", "content": first.content}, result])
    assert second.content[0].text == "sunny"
    got = provider.requests(model)[1]
    assert '"sun"' in got.raw.decode()
    if named.startswith("anthropic/"):
        assert got.headers.get("anthropic-beta") == ("a-beta-2026-01-01" if beta else None)


def test_what_a_message_thought_comes_with_its_signature(
    claude: anthropic.Anthropic, provider: FakeProvider, model: str
) -> None:
    def block(index: int, start: Any, *deltas: Any) -> list[Any]:
        at = {"index": index}
        steps = [
            ("content_block_start", {"content_block": start}),
            *(("content_block_delta", {"delta": d}) for d in deltas),
        ]
        return [event(kind, {"type": kind, **at, **more}) for kind, more in [*steps, ("content_block_stop", {})]]

    usage = {"input_tokens": 25, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "model": model, "content": [], "usage": usage}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 40}}
    provider.script(
        model,
        sse(
            event("message_start", {"type": "message_start", "message": message}),
            *block(
                *(0, {"type": "thinking", "thinking": "", "signature": ""}),
                *({"type": "thinking_delta", "thinking": "so "}, {"type": "thinking_delta", "thinking": "then"}),
                {"type": "signature_delta", "signature": "EqoB=="},
            ),
            *block(1, {"type": "redacted_thinking", "data": "Emw=="}),
            *block(2, {"type": "text", "text": ""}, {"type": "text_delta", "text": "4"}),
            event("message_delta", end),
            event("message_stop", {"type": "message_stop"}),
        ),
    )
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    with claude.messages.stream(model=f"anthropic/{model}", max_tokens=2000, messages=ASK, thinking=thinking) as stream:
        thought, hidden, text = stream.get_final_message().content
    assert isinstance(thought, ThinkingBlock)
    assert (thought.thinking, thought.signature) == ("so then", "EqoB==")
    assert isinstance(hidden, RedactedThinkingBlock)
    assert hidden.data == "Emw=="
    assert text.type == "text"
    assert provider.requests(model)[0].body["thinking"] == thinking


def test_the_tokens_of_a_message_are_counted(claude: anthropic.Anthropic, named: str) -> None:
    for messages in (claude.messages, claude.beta.messages):
        assert 0 < messages.count_tokens(model=named, messages=ASK).input_tokens < 50


def test_many_messages_are_streamed_at_once(gateway: Served, provider: FakeProvider, model: str, named: str) -> None:
    provider.script(model, answer(echo=True))

    async def one(claude: anthropic.AsyncAnthropic, text: str) -> str:
        asked: Any = [{"role": "user", "content": text}]
        async with claude.messages.stream(model=named, max_tokens=50, messages=asked) as stream:
            return "".join([piece async for piece in stream.text_stream])

    async def many() -> list[str]:
        async with async_claude_of(gateway) as claude:
            return await asyncio.gather(*(one(claude, f"text {number}") for number in range(20)))

    assert asyncio.run(many()) == [f"got text {number}" for number in range(20)]


# What is raised.

#: Each operation, by a client that need not be the one of this file's fixtures.
OPENAI: dict[str, Callable[[openai.OpenAI, str], Any]] = {
    "responses": lambda client, name: client.responses.create(model=name, input="x"),
    "responses, streamed": lambda client, name: client.responses.create(model=name, input="x", stream=True),
    "input_tokens": lambda client, name: client.responses.input_tokens.count(model=name, input="x"),
    "embeddings": lambda client, name: client.embeddings.create(model=name, input="x"),
    "completions": lambda client, name: client.completions.create(model=name, prompt="x"),
}
ANTHROPIC: dict[str, Callable[[anthropic.Anthropic, str], Any]] = {
    "messages": lambda claude, name: claude.messages.create(model=name, max_tokens=5, messages=ASK),
    "messages, streamed": lambda claude, name: claude.messages.create(
        model=name, max_tokens=5, messages=ASK, stream=True
    ),
    "count_tokens": lambda claude, name: claude.messages.count_tokens(model=name, messages=ASK),
}
WAIT_S = 1


@pytest.mark.parametrize("ask", OPENAI.values(), ids=OPENAI)
def test_a_failure_is_the_openai_sdks_own_error(
    gateway: Served, client: openai.OpenAI, provider: FakeProvider, model: str, ask: Callable[[Any, str], Any]
) -> None:
    with client_of(gateway, token="wrong") as stranger, pytest.raises(openai.AuthenticationError) as unknown:
        ask(stranger, f"openai/{model}")
    assert unknown.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError) as lost:
        ask(client, "no-such-model")
    assert lost.value.code == "model_not_found"
    refused = {"error": {"message": "too long", "type": "t", "param": "input", "code": "context_length_exceeded"}}
    provider.script(model, error(400, refused), error(500))
    with pytest.raises(openai.BadRequestError, match="too long") as bad:
        ask(client, f"openai/{model}")
    assert (bad.value.param, bad.value.code) == ("input", "context_length_exceeded")
    with pytest.raises(openai.InternalServerError):
        ask(client, f"openai/{model}")


@pytest.mark.parametrize("ask", ANTHROPIC.values(), ids=ANTHROPIC)
def test_a_failure_is_anthropics_sdks_own_error(
    gateway: Served, claude: anthropic.Anthropic, provider: FakeProvider, model: str, ask: Callable[[Any, str], Any]
) -> None:
    with claude_of(gateway, token="wrong") as stranger, pytest.raises(anthropic.AuthenticationError) as unknown:
        ask(stranger, f"anthropic/{model}")
    assert unknown.value.response.json()["error"]["type"] == "authentication_error"
    with pytest.raises(anthropic.NotFoundError) as lost:
        ask(claude, "no-such-model")
    assert lost.value.response.json()["error"]["type"] == "not_found_error"
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    refused = {"type": "error", "error": {"type": "invalid_request_error", "message": "too long"}}
    provider.script(model, error(400, refused), error(529, overloaded))
    with pytest.raises(anthropic.BadRequestError, match="too long"):
        ask(claude, f"anthropic/{model}")
    with pytest.raises(anthropic.InternalServerError, match="Overloaded") as busy:
        ask(claude, f"anthropic/{model}")
    assert busy.value.response.json()["error"]["type"] == "overloaded_error"


def half_a_message(*then: Action) -> Reply:
    """A stream of Anthropic's that begins well."""
    usage = {"input_tokens": 5, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    begun = {"index": 0, "content_block": {"type": "text", "text": ""}}
    half = {"index": 0, "delta": {"type": "text_delta", "text": "half"}}
    steps = (("message_start", {"message": message}), ("content_block_start", begun), ("content_block_delta", half))
    return sse(*(event(kind, {"type": kind, **fields}) for kind, fields in steps), *then)


def half_a_chat(*then: Action) -> Reply:
    return sse(delta({"content": "half"}), *then)


OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
#: A stream that breaks, at each type of provider: with a word, and without.
BROKEN = {
    "openai": (half_a_chat(data(OVERLOADED)), half_a_chat()),
    "anthropic": (half_a_message(event("error", OVERLOADED)), half_a_message()),
}
WHY = ("Overloaded", "before its answer was complete")


def test_a_message_that_breaks_is_raised_after_what_came(
    claude: anthropic.Anthropic, provider: FakeProvider, model: str, named: str
) -> None:
    provider.script(model, *BROKEN[named.partition("/")[0]])
    for why in WHY:
        with claude.messages.stream(model=named, max_tokens=50, messages=ASK) as stream:
            words = iter(stream.text_stream)
            assert next(words) == "half"
            with pytest.raises(anthropic.APIStatusError, match=why) as raised:
                next(words)
        assert raised.value.response.status_code == 200


def test_a_response_that_breaks_is_told_so_at_its_end(
    client: openai.OpenAI, provider: FakeProvider, model: str
) -> None:
    """A chat stands in, so the events are the gateway's own: the last one is the reference's for a failure."""
    provider.script(model, *BROKEN["anthropic"])
    for why in ("Overloaded", "anthropic sent a stream"):
        *before, last = client.responses.create(model=f"anthropic/{model}", input="x", stream=True)
        assert [one.delta for one in before if one.type == "response.output_text.delta"] == ["half"]
        assert last.type == "response.failed"
        assert last.response.error is not None
        assert why in last.response.error.message


@pytest.mark.parametrize("wire", ["responses", "responses, streamed", "messages", "messages, streamed"])
def test_a_rate_limit_is_waited_out_as_the_provider_says(
    gateway: Served, provider: FakeProvider, model: str, wire: str
) -> None:
    provider.script(model, error(429, headers={"Retry-After": str(WAIT_S)}), answer("at last"))
    if wire in OPENAI:
        with client_of(gateway, max_retries=1) as client:
            list(OPENAI[wire](client, f"openai/{model}"))
    else:
        with claude_of(gateway, max_retries=1) as claude:
            list(ANTHROPIC[wire](claude, f"anthropic/{model}"))
    first, second = provider.requests(model)
    assert second.received - first.received >= WAIT_S, "left alone the SDKs wait for half a second"
