"""One conversation with two rounds of tools, on each wire of a caller's and with each provider's: the same for all."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import anthropic
import openai
import pytest

from gateway.upstream import modelmap
from tests.fakes.braintrust_server import FakeBraintrust
from tests.fakes.loopback import Received
from tests.fakes.provider import FakeProvider, answer
from tests.served.process import Served
from tests.served.sdks import claude_of, client_of
from tests.served.traces import Found, trace_of_request

JSON = dict[str, Any]

MODELS = {"openai": "gpt-4.1-nano", "anthropic": "claude-sonnet-4-5"}
SYSTEM, QUESTION = "Be brief.", "What is the weather in Lima, and what time is it?"
TEXT = "It is sunny in Lima ☀, and noon."
SCHEMA = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
NAMES = ("weather", "clock")
#: What the model asks of each tool, and what the tool says.
ASKED = [("call_a", "weather", {"place": "Lima ☃"}), ("call_b", "clock", {"place": "Peru"})]
RESULTS = ["sunny", "12:00"]
USAGES = [(110, 21), (150, 22), (190, 23)]


@dataclass
class Said:
    """What the caller was told by one call."""

    text: str
    calls: list[tuple[str, str, JSON]]
    usage: tuple[int, int]
    request_id: str


class Speaker(Protocol):
    """A conversation on one wire, by the SDK that callers use there."""

    def ask(self) -> Said: ...

    def result(self, call_id: str, text: str) -> None: ...


@dataclass
class Chat:
    client: openai.OpenAI
    model: str
    stream: bool
    messages: list[Any] = field(
        default_factory=lambda: [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
    )

    def ask(self) -> Said:
        tools: Any = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in NAMES]
        fields: Any = {"model": self.model, "messages": self.messages, "tools": tools, "max_completion_tokens": 99}
        if self.stream:
            with self.client.chat.completions.stream(**fields, stream_options={"include_usage": True}) as events:
                whole: Any = events.get_final_completion()
                request_id = events._response.headers["request-id"]
        else:
            raw = self.client.chat.completions.with_raw_response.create(**fields)
            whole, request_id = raw.parse(), raw.headers["request-id"]
        said = whole.choices[0].message
        calls = [(one.id, one.function.name, json.loads(one.function.arguments)) for one in said.tool_calls or ()]
        assert whole.choices[0].finish_reason == ("tool_calls" if calls else "stop")
        kept = [
            {"id": one.id, "type": "function", "function": {"name": name, "arguments": one.function.arguments}}
            for one, (_, name, _) in zip(said.tool_calls or (), calls, strict=True)
        ]
        self.messages = [*self.messages, {"role": "assistant", "content": said.content, "tool_calls": kept}]
        return Said(said.content or "", calls, (whole.usage.prompt_tokens, whole.usage.completion_tokens), request_id)

    def result(self, call_id: str, text: str) -> None:
        self.messages = [*self.messages, {"role": "tool", "tool_call_id": call_id, "content": text}]


@dataclass
class Responses:
    """Goes on from the stored response where nothing is streamed, and sends all items again where something is."""

    client: openai.OpenAI
    model: str
    stream: bool
    items: list[Any] = field(default_factory=lambda: [{"role": "user", "content": QUESTION}])
    previous: str | None = None

    def ask(self) -> Said:
        tools: Any = [{"type": "function", "name": name, "parameters": SCHEMA, "strict": False} for name in NAMES]
        fields: Any = {"model": self.model, "input": self.items, "instructions": SYSTEM, "tools": tools}
        if self.stream:
            raw = self.client.responses.with_raw_response.create(**fields, store=False, stream=True)
            *_, last = raw.parse()
            assert last.type == "response.completed"
            whole = last.response
        else:
            more = {} if self.previous is None else {"previous_response_id": self.previous}
            raw = self.client.responses.with_raw_response.create(**fields, **more)
            whole = raw.parse()
        found = [item for item in whole.output if item.type == "function_call"]
        assert whole.status == "completed"
        self.previous = whole.id
        told = [item.model_dump(exclude_none=True) for item in whole.output]
        self.items = [*self.items, *told] if self.stream else []
        calls = [(item.call_id, item.name, json.loads(item.arguments)) for item in found]
        usage = (whole.usage.input_tokens, whole.usage.output_tokens)
        return Said(whole.output_text, calls, usage, raw.headers["request-id"])

    def result(self, call_id: str, text: str) -> None:
        self.items = [*self.items, {"type": "function_call_output", "call_id": call_id, "output": text}]


@dataclass
class Messages:
    client: anthropic.Anthropic
    model: str
    stream: bool
    messages: list[Any] = field(default_factory=lambda: [{"role": "user", "content": QUESTION}])

    def ask(self) -> Said:
        tools: Any = [{"name": name, "input_schema": SCHEMA} for name in NAMES]
        fields: Any = {"model": self.model, "messages": self.messages, "system": SYSTEM, "tools": tools}
        if self.stream:
            with self.client.messages.stream(**fields, max_tokens=99) as events:
                whole: Any = events.get_final_message()
                request_id = events.response.headers["request-id"]
        else:
            raw = self.client.messages.with_raw_response.create(**fields, max_tokens=99)
            whole, request_id = raw.parse(), raw.headers["request-id"]
        calls = [(one.id, one.name, one.input) for one in whole.content if one.type == "tool_use"]
        assert whole.stop_reason == ("tool_use" if calls else "end_turn")
        told = [one.model_dump(exclude_none=True) for one in whole.content]
        self.messages = [*self.messages, {"role": "assistant", "content": told}]
        text = "".join(one.text for one in whole.content if one.type == "text")
        return Said(text, calls, (whole.usage.input_tokens, whole.usage.output_tokens), request_id)

    def result(self, call_id: str, text: str) -> None:
        block = {"type": "tool_result", "tool_use_id": call_id, "content": text}
        self.messages = [*self.messages, {"role": "user", "content": [block]}]


@pytest.fixture(scope="module")
def clients(gateway: Served) -> Iterator[dict[str, Any]]:
    with client_of(gateway) as gpt, claude_of(gateway) as claude:
        yield {"openai": gpt, "anthropic": claude}


WIRES: dict[str, Any] = {"chat": Chat, "responses": Responses, "messages": Messages}
#: Where each provider is asked, by the wire of the caller.
PATHS = {
    ("chat", "openai"): "/v1/chat/completions",
    ("responses", "openai"): "/v1/responses",
    ("messages", "openai"): "/v1/chat/completions",
    ("chat", "anthropic"): "/v1/messages",
    ("responses", "anthropic"): "/v1/messages",
    ("messages", "anthropic"): "/v1/messages",
}


@dataclass
class Held:
    """A whole conversation, from all its sides."""

    wire: str
    name: str
    stream: bool
    said: list[Said]
    sent: list[Received]
    traces: list[Found]


@pytest.fixture(scope="module", params=[False, True], ids=["whole", "streamed"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module", params=PATHS, ids=lambda pair: f"{pair[0]} at {pair[1]}")
def held(
    request: pytest.FixtureRequest,
    clients: dict[str, Any],
    provider: FakeProvider,
    braintrust: FakeBraintrust,
    stream: bool,
) -> Held:
    wire, name = request.param
    model = MODELS[name]
    calls = [
        {
            "id": call_id,
            "type": "function",
            "function": {"name": tool, "arguments": json.dumps(arguments, ensure_ascii=False)},
        }
        for call_id, tool, arguments in ASKED
    ]
    rounds = [
        answer(None, finish="tool_calls", message={"tool_calls": [call]}, usage=usage)
        for call, usage in zip(calls, USAGES, strict=False)
    ]
    provider.script(model, *rounds, answer(TEXT, usage=USAGES[2]))
    before = len(provider.requests(model))
    speaker: Speaker = WIRES[wire](clients["anthropic" if wire == "messages" else "openai"], f"{name}/{model}", stream)
    said = [speaker.ask()]
    for result in RESULTS:
        ((call_id, _, _),) = said[-1].calls
        speaker.result(call_id, result)
        said.append(speaker.ask())
    traces = [trace_of_request(braintrust, one.request_id) for one in said]
    return Held(wire, name, stream, said, provider.requests(model)[before:], traces)


def test_the_caller_is_told_the_same(held: Held) -> None:
    assert [one.calls for one in held.said] == [[ASKED[0]], [ASKED[1]], []]
    assert [one.text for one in held.said] == ["", "", TEXT]
    assert [one.usage for one in held.said] == USAGES


def test_the_provider_is_asked_once_a_call_and_all_of_it(held: Held) -> None:
    assert [one.path for one in held.sent] == [PATHS[held.wire, held.name]] * 3
    last = held.sent[-1].body
    stored = (held.wire, held.name, held.stream) == ("responses", "openai", False)
    for words in (RESULTS[1], *(() if stored else (QUESTION, "Lima ☃", RESULTS[0], "Peru"))):
        assert words in json.dumps(last, ensure_ascii=False)
    assert SYSTEM in json.dumps(last)
    assert {tool.get("name") or tool["function"]["name"] for tool in last["tools"]} == set(NAMES)
    assert (last.get("stream") or False) == held.stream


def cost(model: str, usage: tuple[int, int]) -> float:
    price = modelmap.read()[model]
    return float(usage[0] * price["input_cost_per_token"] + usage[1] * price["output_cost_per_token"])


def test_each_call_is_one_whole_trace(held: Held) -> None:
    model = MODELS[held.name]
    for found, usage in zip(held.traces, USAGES, strict=True):
        root, llm = found.root, found.llm
        assert root["span_attributes"] == {"name": f"{held.wire} {held.name}/{model}", "type": "task"}
        metrics = llm["metrics"]
        assert (metrics["prompt_tokens"], metrics["completion_tokens"], metrics["tokens"]) == (*usage, sum(usage))
        assert metrics["estimated_cost"] == pytest.approx(cost(model, usage), rel=1e-9)
        assert set(root["metrics"]) == {"start", "end"}, "a reader sums metrics over a trace"
        if held.stream:
            assert 0 < metrics["time_to_first_token"] <= metrics["end"] - metrics["start"]
        else:
            assert "time_to_first_token" not in metrics
        about = root["metadata"]
        assert (about["status"], about["attempts"], about["provider"]) == (200, 1, held.name)
        assert about["cost_usd"] == metrics["estimated_cost"]
        assert root.get("error") is None
        assert llm.get("error") is None


def test_the_llm_span_has_what_was_sent_and_received(held: Held) -> None:
    for number, (found, sent) in enumerate(zip(held.traces, held.sent, strict=True)):
        llm = found.llm
        if sent.path == "/v1/responses":
            assert llm["input"] == sent.body["input"]
            assert llm["metadata"]["instructions"] == SYSTEM
        elif held.wire == "messages" and held.name == "anthropic":
            assert llm["input"] == [{"role": "system", "content": SYSTEM}, *sent.body["messages"]]
        elif held.name == "openai":
            assert llm["input"] == sent.body["messages"]
        else:  # LiteLLM translates a chat, and the chat is what it was given
            assert llm["input"][0] == {"role": "system", "content": SYSTEM}
            assert [one["role"] for one in llm["input"]].count("tool") == number
        output = json.dumps(llm["output"], ensure_ascii=False)
        assert (TEXT if number == 2 else ASKED[number][0]) in output


def test_the_root_has_what_the_caller_asked_and_was_told(held: Held) -> None:
    for number, found in enumerate(held.traces):
        root = found.root
        first, last = root["input"][0], root["input"][-1]
        whole_conversation = held.wire != "responses" or held.stream or number == 0
        if whole_conversation:
            asked = {"role": "user", "content": QUESTION}
            assert first == (asked if held.wire == "responses" else {"role": "system", "content": SYSTEM})
        if number:
            result = RESULTS[number - 1]
            assert (
                last
                == {
                    "chat": {"role": "tool", "tool_call_id": ASKED[number - 1][0], "content": result},
                    "responses": {"type": "function_call_output", "call_id": ASKED[number - 1][0], "output": result},
                    "messages": {
                        "role": "user",
                        "content": [{"type": "tool_result", "tool_use_id": ASKED[number - 1][0], "content": result}],
                    },
                }[held.wire]
            )
        told = root["output"]
        if held.wire == "chat":
            (choice,) = told
            assert choice["message"]["content"] == (TEXT if number == 2 else None)
            names = [call["function"]["name"] for call in choice["message"].get("tool_calls") or ()]
        elif held.wire == "responses":
            assert [item["type"] for item in told] == ["message" if number == 2 else "function_call"]
            names = [item["name"] for item in told if item["type"] == "function_call"]
        else:
            assert told["stop_reason"] == ("end_turn" if number == 2 else "tool_use")
            names = [block["name"] for block in told["content"] if block["type"] == "tool_use"]
        assert names == ([] if number == 2 else [NAMES[number]])
