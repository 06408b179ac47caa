"""The vendors' own SDKs as callers: nothing differs from the real API but the address and the key."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.fakes.provider import (
    FakeProvider,
    answer,
    data,
    delta,
    drop,
    error,
    event,
    hang,
    sse,
)
from tests.served.process import Served
from tests.served.sdks import async_client_of, client_of

MESSAGES: Any = [{"role": "user", "content": "Say something short."}]
TOOLS: Any = [
    {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
]
CALLS = [
    {"id": "call_a", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}},
    {"id": "call_b", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Lima ☃"}'}},
]


@pytest.fixture(params=["/v1", ""], ids=["with /v1", "without /v1"])
def client(request: pytest.FixtureRequest, gateway: Served) -> Iterator[openai.OpenAI]:
    with client_of(gateway, request.param) as one:
        yield one


@pytest.fixture
def plain(gateway: Served) -> Iterator[openai.OpenAI]:
    with client_of(gateway) as one:
        yield one


def test_a_completion_is_an_object_of_the_sdk(client: openai.OpenAI, provider: FakeProvider, model: str) -> None:
    provider.script(model, answer("Hello, SDK.", usage=(12, 7)))
    completion = client.chat.completions.create(model=f"openai/{model}", messages=MESSAGES, temperature=0)
    assert completion.choices[0].message.content == "Hello, SDK."
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == model
    assert completion.usage is not None
    assert completion.usage.total_tokens == 19
    assert completion._request_id is not None
    assert provider.requests(model)[0].body["temperature"] == 0


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_a_stream_is_read_by_the_sdk(client: openai.OpenAI, provider: FakeProvider, model: str, name: str) -> None:
    provider.script(model, answer("one two three", usage=(12, 7)))
    chunks = list(client.chat.completions.create(model=f"{name}/{model}", messages=MESSAGES, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two three"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["stop"]
    assert all(chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_the_sdk_gets_usage_when_it_asks(plain: openai.OpenAI, provider: FakeProvider, model: str, name: str) -> None:
    provider.script(model, answer("one two three", usage=(12, 7)))
    stream = plain.chat.completions.create(
        model=f"{name}/{model}", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    *before, last = stream
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (12, 7)
    assert last.choices == []
    assert all(chunk.usage is None for chunk in before)


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_tool_calls_are_joined_by_the_sdk(plain: openai.OpenAI, provider: FakeProvider, model: str, name: str) -> None:
    provider.script(model, answer("Checking.", finish="tool_calls", message={"tool_calls": CALLS}))
    with plain.chat.completions.stream(model=f"{name}/{model}", messages=MESSAGES, tools=TOOLS) as stream:
        streamed = stream.get_final_completion().choices[0]
    whole = plain.chat.completions.create(model=f"{name}/{model}", messages=MESSAGES, tools=TOOLS).choices[0]
    for choice in (streamed, whole):
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content == "Checking."
        assert choice.message.tool_calls is not None
        calls = [(call.id, call.function.name, call.function.arguments) for call in choice.message.tool_calls]
        expected = [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in CALLS]
        assert [call[:2] for call in calls] == [call[:2] for call in expected]
        assert [openai_json(call[2]) for call in calls] == [openai_json(call[2]) for call in expected]


def openai_json(arguments: str) -> Any:
    return httpx.Response(200, text=arguments).json()


def test_a_turn_with_tools_goes_back_to_the_provider(plain: openai.OpenAI, provider: FakeProvider, model: str) -> None:
    provider.script(model, answer(None, finish="tool_calls", message={"tool_calls": CALLS}), answer("sunny"))
    first = plain.chat.completions.create(model=f"openai/{model}", messages=MESSAGES, tools=TOOLS).choices[0].message
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "sun"} for call in CALLS]
    second = plain.chat.completions.create(model=f"openai/{model}", messages=[*MESSAGES, first, *results], tools=TOOLS)
    assert second.choices[0].message.content == "sunny"
    sent = provider.requests(model)[1].body["messages"]
    assert sent[1]["content"] is None
    assert sent[1]["tool_calls"] == CALLS
    assert sent[2:] == results


def test_parsed_answers_come_parsed(plain: openai.OpenAI, provider: FakeProvider, model: str) -> None:
    import pydantic

    class Person(pydantic.BaseModel):
        name: str
        age: int | None

    provider.script(model, answer('{"name": "Ann", "age": null}'))
    parsed = plain.chat.completions.parse(model=f"openai/{model}", messages=MESSAGES, response_format=Person)
    assert parsed.choices[0].message.parsed == Person(name="Ann", age=None)
    assert provider.requests(model)[0].body["response_format"]["json_schema"]["strict"] is True


def test_a_tool_call_of_anthropics_stream_is_one_of_openais(
    plain: openai.OpenAI, provider: FakeProvider, model: str
) -> None:
    def block(index: int, kind: str, **fields: Any) -> Any:
        return event(kind, {"type": kind, "index": index, **fields})

    start, more, stop = "content_block_start", "content_block_delta", "content_block_stop"
    usage = {"input_tokens": 25, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    tool = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}}
    provider.script(
        model,
        sse(
            event("message_start", {"type": "message_start", "message": message}),
            block(0, start, content_block={"type": "text", "text": ""}),
            event("ping", {"type": "ping"}),
            block(0, more, delta={"type": "text_delta", "text": "Checking."}),
            block(0, stop),
            block(1, start, content_block=tool),
            block(1, more, delta={"type": "input_json_delta", "partial_json": ""}),
            block(1, more, delta={"type": "input_json_delta", "partial_json": '{"city": '}),
            block(1, more, delta={"type": "input_json_delta", "partial_json": '"Bergen"}'}),
            block(1, stop),
            event(
                "message_delta",
                {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 40}},
            ),
            event("message_stop", {"type": "message_stop"}),
        ),
    )
    with plain.chat.completions.stream(
        model=f"anthropic/{model}",
        messages=MESSAGES,
        tools=TOOLS,
        max_tokens=100,
        stream_options={"include_usage": True},
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "Checking."
    assert final.choices[0].finish_reason == "tool_calls"
    (call,) = final.choices[0].message.tool_calls or ()
    assert (call.id, call.function.name, call.function.arguments) == ("toolu_1", "get_weather", '{"city": "Bergen"}')
    assert final.usage is not None
    assert (final.usage.prompt_tokens, final.usage.completion_tokens) == (25, 40)


# -- errors


def test_a_rate_limit_is_the_sdks_own_error(plain: openai.OpenAI, provider: FakeProvider, model: str) -> None:
    limited = {"error": {"message": "slow down", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
    provider.script(model, error(429, limited, headers={"Retry-After": "7"}))
    for stream in (False, True):
        with pytest.raises(openai.RateLimitError) as raised:
            plain.chat.completions.create(model=f"openai/{model}", messages=MESSAGES, stream=stream)
        assert raised.value.response.headers["retry-after"] == "7"
        assert (raised.value.code, raised.value.type) == ("rate_limit_exceeded", "requests")
        assert "slow down" in raised.value.message
        assert raised.value.request_id


def test_a_bad_request_names_its_field(plain: openai.OpenAI, provider: FakeProvider, model: str) -> None:
    refused = {"error": {"message": "too long", "type": "t", "param": "messages", "code": "context_length_exceeded"}}
    provider.script(model, error(400, refused))
    with pytest.raises(openai.BadRequestError) as raised:
        plain.chat.completions.create(model=f"openai/{model}", messages=MESSAGES)
    assert (raised.value.param, raised.value.code) == ("messages", "context_length_exceeded")


def test_every_status_is_the_sdks_class_of_it(
    gateway: Served, plain: openai.OpenAI, provider: FakeProvider, model: str
) -> None:
    provider.script(model, error(422), error(500), error(503), error(529), drop())
    with pytest.raises(openai.UnprocessableEntityError):
        plain.chat.completions.create(model=f"openai/{model}", messages=MESSAGES)
    for _ in range(4):
        with pytest.raises(openai.InternalServerError):
            plain.chat.completions.create(model=f"openai/{model}", messages=MESSAGES)
    with pytest.raises(openai.NotFoundError) as lost:
        plain.chat.completions.create(model="no-such-model", messages=MESSAGES)
    assert lost.value.code == "model_not_found"
    with client_of(gateway, token="wrong") as stranger, pytest.raises(openai.AuthenticationError) as unknown:
        stranger.chat.completions.create(model=f"openai/{model}", messages=MESSAGES)
    assert unknown.value.code == "invalid_api_key"


def test_an_error_on_the_way_is_raised_after_what_came(
    plain: openai.OpenAI, provider: FakeProvider, model: str
) -> None:
    broken = data({"error": {"message": "worker out of capacity", "type": "server_error", "code": "overloaded"}})
    provider.script(model, sse(delta({"content": "partial"}), broken), sse(delta({"content": "partial"})))
    for expected in ("worker out of capacity", "before its answer was complete"):
        stream = iter(plain.chat.completions.create(model=f"openai/{model}", messages=MESSAGES, stream=True))
        assert next(stream).choices[0].delta.content == "partial"
        with pytest.raises(openai.APIError, match=expected):
            next(stream)


def test_the_sdk_retries_what_is_worth_it_and_nothing_else(gateway: Served, provider: FakeProvider, model: str) -> None:
    provider.script(model, error(500), error(503, headers={"Retry-After": "0"}), answer("at last"))
    provider.script(f"{model}-key", error(401))
    with client_of(gateway, max_retries=2) as patient:
        completion = patient.chat.completions.create(model=f"openai/{model}", messages=MESSAGES)
        assert completion.choices[0].message.content == "at last"
        with pytest.raises(openai.InternalServerError):
            patient.chat.completions.create(model=f"openai/{model}-key", messages=MESSAGES)
    assert len(provider.requests(model)) == 3
    assert len(provider.requests(f"{model}-key")) == 1


def test_a_stream_that_the_sdk_closes_ends_at_the_provider(
    plain: openai.OpenAI, provider: FakeProvider, model: str
) -> None:
    provider.script(model, sse(delta({"content": "one"}), lambda turn: turn.exchange.wait(None)))
    stream = plain.chat.completions.create(model=f"openai/{model}", messages=MESSAGES, stream=True)
    assert next(iter(stream)).choices[0].delta.content == "one"
    stream.close()
    assert provider.requests(model)[0].closed.wait(2)


def test_the_sdks_own_timeout_ends_the_call_at_the_provider(
    plain: openai.OpenAI, provider: FakeProvider, model: str
) -> None:
    provider.script(model, hang())
    with pytest.raises(openai.APITimeoutError):
        plain.chat.completions.create(model=f"openai/{model}", messages=MESSAGES, timeout=0.5)
    assert provider.requests(model)[0].closed.wait(2)


# -- the rest


def test_models_are_listed_by_the_sdk(client: openai.OpenAI) -> None:
    assert {"gpt-4o-mini"} < {one.id for one in client.models.list()}


def test_the_sdk_reads_headers_beside_the_answer(plain: openai.OpenAI, model: str) -> None:
    raw = plain.chat.completions.with_raw_response.create(
        model=f"openai/{model}", messages=MESSAGES, extra_headers={"x-request-id": "mine-1"}
    )
    assert raw.headers["x-request-id"] == "mine-1"
    assert raw.headers["x-bt-span-id"]
    assert raw.parse().choices[0].message.content == "hello there"


def test_the_async_sdk_streams_many_at_once(gateway: Served, provider: FakeProvider, model: str) -> None:
    provider.script(model, answer(echo=True))

    async def one(client: openai.AsyncOpenAI, text: str) -> str:
        messages: Any = [{"role": "user", "content": text}]
        stream = await client.chat.completions.create(model=f"openai/{model}", messages=messages, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def many() -> list[str]:
        async with async_client_of(gateway) as client:
            return await asyncio.gather(*(one(client, f"text {number}") for number in range(30)))

    assert asyncio.run(many()) == [f"got text {number}" for number in range(30)]
