"""The frameworks that applications are written with: each finds in the gateway what it finds at the vendors."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import openai
import pydantic
import pytest
from agents import (
    Agent as Worker,
)
from agents import (
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    function_tool,
)
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.openai import OpenAIResponsesModel as PydanticResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from tests.fakes.provider import FakeProvider, Reply, answer, error
from tests.served.process import TOKEN, Served
from tests.served.sdks import async_claude_of, async_client_of

QUESTION = "What is the weather in Lima?"
TEXT = "It is sunny in Lima."
WAIT_S = 1


class Weather(pydantic.BaseModel):
    city: str
    degrees: int


def asks(tool: str, **arguments: Any) -> Reply:
    function = {"name": tool, "arguments": json.dumps(arguments)}
    call = {"id": f"call_{tool}", "type": "function", "function": function}
    return answer(None, finish="tool_calls", message={"tool_calls": [call]}, usage=(20, 5))


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


def told(provider: FakeProvider, model: str) -> str:
    """The body of the last request at the provider, as text."""
    return json.dumps(provider.requests(model)[-1].body)


def waited_s(provider: FakeProvider, model: str) -> float:
    first, second = provider.requests(model)
    return second.received - first.received


@pytest.fixture(params=["openai", "anthropic"])
def named(request: pytest.FixtureRequest, model: str) -> str:
    return f"{request.param}/{model}"


# LangChain.


@pytest.fixture
def langchain(gateway: Served) -> Iterator[Callable[..., ChatOpenAI]]:
    """Makes models that do not ask the machine's proxies."""
    with httpx.Client(trust_env=False) as http:

        def make(name: str, **fields: Any) -> ChatOpenAI:
            own = {"model": name, "base_url": f"{gateway.url}/v1", "api_key": TOKEN, "max_retries": 0}
            return ChatOpenAI(http_client=http, **{**own, **fields})

        yield make


@pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])
def test_langchain_asks_and_streams(
    langchain: Callable[..., ChatOpenAI], provider: FakeProvider, model: str, named: str, responses: bool
) -> None:
    provider.script(model, answer(TEXT, usage=(12, 7)))
    chat = langchain(named, use_responses_api=responses, stream_usage=True)
    got = chat.invoke(QUESTION)
    assert got.text == TEXT
    assert got.usage_metadata is not None
    assert (got.usage_metadata["input_tokens"], got.usage_metadata["output_tokens"]) == (12, 7)
    pieces = list(chat.stream(QUESTION))
    assert "".join(piece.text for piece in pieces) == TEXT
    assert len([piece for piece in pieces if piece.text]) == len(TEXT.split()), "it came in pieces"
    usages = [piece.usage_metadata for piece in pieces if getattr(piece, "usage_metadata", None)]
    assert [usage["total_tokens"] for usage in usages] == [19]


@pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])
def test_langchain_goes_on_after_its_tool(
    langchain: Callable[..., ChatOpenAI], provider: FakeProvider, model: str, named: str, responses: bool
) -> None:
    provider.script(model, asks("weather", city="Lima"), answer(TEXT))
    chat = langchain(named, use_responses_api=responses).bind_tools([weather])
    first = chat.invoke([HumanMessage(QUESTION)])
    (call,) = first.tool_calls
    assert (call["name"], call["args"], call["id"]) == ("weather", {"city": "Lima"}, "call_weather")
    result = ToolMessage(weather(**call["args"]), tool_call_id=call["id"])
    assert chat.invoke([HumanMessage(QUESTION), first, result]).text == TEXT
    assert "sunny in Lima" in told(provider, model)


@pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])
def test_langchain_streams_many_at_once(
    langchain: Callable[..., ChatOpenAI], provider: FakeProvider, model: str, named: str, responses: bool
) -> None:
    provider.script(model, answer(echo=True))

    async def one(chat: ChatOpenAI, text: str) -> str:
        return "".join([piece.text async for piece in chat.astream(text)])

    async def many() -> list[str]:
        async with httpx.AsyncClient(trust_env=False) as http:
            chat = langchain(named, use_responses_api=responses, http_async_client=http)
            return await asyncio.gather(*(one(chat, f"text {number}") for number in range(10)))

    assert asyncio.run(many()) == [f"got text {number}" for number in range(10)]


def test_langchain_reads_what_has_a_shape(
    langchain: Callable[..., ChatOpenAI], provider: FakeProvider, model: str
) -> None:
    provider.script(model, answer('{"city": "Lima", "degrees": 21}'))
    shaped = langchain(f"openai/{model}").with_structured_output(Weather)
    assert shaped.invoke(QUESTION) == Weather(city="Lima", degrees=21)


def test_langchain_embeds_texts_and_the_tokens_that_it_makes_of_them(
    gateway: Served, provider: FakeProvider, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    litellm = find_spec("litellm")
    assert litellm is not None
    # the table of tokens that LiteLLM brings; else it would be fetched
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(Path(str(litellm.origin)).parent / "litellm_core_utils/tokenizers"))
    with httpx.Client(trust_env=False) as http:
        for counted in (False, True):
            embedder = OpenAIEmbeddings(
                model=f"openai/{model}",
                base_url=f"{gateway.url}/v1",
                api_key=TOKEN,
                http_client=http,
                max_retries=0,
                check_embedding_ctx_length=counted,
            )
            assert embedder.embed_documents(["one", "two"]) == [[0.5, -0.25, 1.0]] * 2
    plain, counted_out = (request.body["input"] for request in provider.requests(model))
    assert plain == ["one", "two"]
    assert [len(tokens) for tokens in counted_out] == [1, 1]


@pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])
def test_langchain_raises_what_the_sdk_does(
    langchain: Callable[..., ChatOpenAI], provider: FakeProvider, model: str, responses: bool
) -> None:
    with pytest.raises(openai.AuthenticationError):
        langchain(f"openai/{model}", use_responses_api=responses, api_key="wrong").invoke(QUESTION)
    with pytest.raises(openai.NotFoundError):
        langchain("no-such-model", use_responses_api=responses).invoke(QUESTION)
    provider.script(model, error(429, headers={"Retry-After": str(WAIT_S)}), answer(TEXT))
    patient = langchain(f"openai/{model}", use_responses_api=responses, max_retries=1)
    assert patient.invoke(QUESTION).text == TEXT
    assert waited_s(provider, model) >= WAIT_S


# Pydantic AI.


def with_agent(
    gateway: Served, wire: str, name: str, use: Callable[[Agent[None, Any]], Awaitable[Any]], **fields: Any
) -> Any:
    """Run one thing with an agent on a wire; its client is closed after it."""
    client_fields = {key: fields.pop(key) for key in ("token", "max_retries") if key in fields}

    async def run() -> Any:
        if wire == "messages":
            async with async_claude_of(gateway, **client_fields) as claude:
                model: Any = AnthropicModel(name, provider=AnthropicProvider(anthropic_client=claude))
                return await use(Agent(model, **fields))
        async with async_client_of(gateway, **client_fields) as client:
            kind: Any = OpenAIChatModel if wire == "chat" else PydanticResponsesModel
            return await use(Agent(kind(name, provider=OpenAIProvider(openai_client=client)), **fields))

    return asyncio.run(run())


@pytest.fixture(params=["chat", "responses", "messages"])
def wire(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_pydantic_ai_uses_its_tools(gateway: Served, provider: FakeProvider, model: str, named: str, wire: str) -> None:
    provider.script(model, asks("weather", city="Lima"), answer(TEXT, usage=(40, 6)))
    got = with_agent(
        gateway, wire, named, lambda agent: agent.run(QUESTION), tools=[weather], system_prompt="Be brief."
    )
    assert got.output == TEXT
    assert (got.usage.input_tokens, got.usage.output_tokens, got.usage.requests) == (60, 11, 2)
    assert "sunny in Lima" in told(provider, model)
    assert "Be brief." in told(provider, model)


def test_pydantic_ai_reads_what_has_a_shape(
    gateway: Served, provider: FakeProvider, model: str, named: str, wire: str
) -> None:
    provider.script(model, asks("final_result", city="Lima", degrees=21))
    got = with_agent(gateway, wire, named, lambda agent: agent.run(QUESTION), output_type=Weather)
    assert got.output == Weather(city="Lima", degrees=21)


def test_pydantic_ai_streams(gateway: Served, provider: FakeProvider, model: str, named: str, wire: str) -> None:
    provider.script(model, asks("weather", city="Lima"), answer(TEXT, usage=(40, 6)))

    async def use(agent: Agent[None, Any]) -> list[str]:
        async with agent.run_stream(QUESTION) as run:
            return [piece async for piece in run.stream_text(delta=True, debounce_by=None)]

    pieces = with_agent(gateway, wire, named, use, tools=[weather])
    assert "".join(pieces) == TEXT
    assert len(pieces) > 1


def test_pydantic_ai_raises_with_the_status(gateway: Served, provider: FakeProvider, model: str, wire: str) -> None:
    name = f"{'anthropic' if wire == 'messages' else 'openai'}/{model}"
    for fields, asked, status in (({"token": "wrong"}, name, 401), ({}, "no-such-model", 404)):
        with pytest.raises(ModelHTTPError) as raised:
            with_agent(gateway, wire, asked, lambda agent: agent.run(QUESTION), **fields)
        assert raised.value.status_code == status
    provider.script(model, error(429, headers={"Retry-After": str(WAIT_S)}), answer(TEXT))
    assert with_agent(gateway, wire, name, lambda agent: agent.run(QUESTION), max_retries=1).output == TEXT
    assert waited_s(provider, model) >= WAIT_S


# OpenAI's agents.


def with_worker(
    gateway: Served, wire: str, name: str, use: Callable[[Any, Any], Awaitable[Any]], **client_fields: Any
) -> Any:
    async def run() -> Any:
        async with async_client_of(gateway, **client_fields) as client:
            kind: Any = OpenAIChatCompletionsModel if wire == "chat" else OpenAIResponsesModel
            model = kind(model=name, openai_client=client)
            worker = Worker(name="worker", instructions="Be brief.", model=model, tools=[function_tool(weather)])
            return await use(worker, RunConfig(tracing_disabled=True))

    return asyncio.run(run())


async def run_whole(worker: Any, config: RunConfig) -> Any:
    return await Runner.run(worker, QUESTION, run_config=config)


@pytest.mark.parametrize("wire", ["chat", "responses"])
def test_an_agent_of_openais_uses_its_tools(
    gateway: Served, provider: FakeProvider, model: str, named: str, wire: str
) -> None:
    provider.script(model, asks("weather", city="Lima"), answer(TEXT, usage=(40, 6)))
    got = with_worker(gateway, wire, named, run_whole)
    assert got.final_output == TEXT
    usage = got.context_wrapper.usage
    assert (usage.input_tokens, usage.output_tokens, usage.requests) == (60, 11, 2)
    assert "sunny in Lima" in told(provider, model)
    assert "Be brief." in told(provider, model)


@pytest.mark.parametrize("wire", ["chat", "responses"])
def test_an_agent_of_openais_streams(
    gateway: Served, provider: FakeProvider, model: str, named: str, wire: str
) -> None:
    provider.script(model, asks("weather", city="Lima"), answer(TEXT, usage=(40, 6)))

    async def use(worker: Any, config: RunConfig) -> tuple[list[str], Any]:
        run = Runner.run_streamed(worker, QUESTION, run_config=config)
        events = [one.data async for one in run.stream_events() if one.type == "raw_response_event"]
        return [one.delta for one in events if one.type == "response.output_text.delta"], run.final_output

    pieces, final = with_worker(gateway, wire, named, use)
    assert final == "".join(pieces) == TEXT
    assert len(pieces) == len(TEXT.split())


@pytest.mark.parametrize("wire", ["chat", "responses"])
def test_an_agent_of_openais_raises_what_the_sdk_does(
    gateway: Served, provider: FakeProvider, model: str, wire: str
) -> None:
    with pytest.raises(openai.AuthenticationError):
        with_worker(gateway, wire, f"openai/{model}", run_whole, token="wrong")
    with pytest.raises(openai.NotFoundError):
        with_worker(gateway, wire, "no-such-model", run_whole)
    provider.script(model, error(429, headers={"Retry-After": str(WAIT_S)}), answer(TEXT))
    assert with_worker(gateway, wire, f"openai/{model}", run_whole, max_retries=1).final_output == TEXT
    assert waited_s(provider, model) >= WAIT_S
