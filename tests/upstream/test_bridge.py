"""A chat that stands in for another operation: what is asked, what is told, and how each wire hears of a failure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.core.calls import Attempt, Call, Chunk
from gateway.core.endpoints import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES, Endpoint
from gateway.core.transcript import ChatTranscript
from gateway.core.usage import Usage
from gateway.core.wire import Events, data_event, data_of, dumps
from gateway.errors import GatewayError, InvalidRequest, ProviderFailed, ProviderInvalid, ProviderStreamEnded
from gateway.upstream.bridge import Bridge
from gateway.upstream.litellm import LiteLLM
from tests.builders import ROLE, attempt, call, delta, finish
from tests.fakes.provider import FakeProvider, Reply, answer, close, data, reset, sse
from tests.fakes.provider import delta as chat_piece
from tests.upstream.natively import ASKED, OWN_KEY

JSON = dict[str, Any]
Said = Sequence[JSON | Exception]

EACH = pytest.mark.parametrize("endpoint", [RESPONSES, MESSAGES, COMPLETIONS], ids=lambda row: row.name)
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}
GOOD: Said = [ROLE, delta("one "), delta("two"), finish(), USAGE]


@dataclass
class Chats:
    """An upstream that says the same chat to everybody (upstream.Upstream). `dropped` is what it leaves out."""

    said: Said = field(default_factory=lambda: GOOD)
    whole: JSON | None = None
    dropped: tuple[str, ...] = ()
    asked: list[Call] = field(default_factory=list)
    closed: int = 0

    def start(self) -> None:
        """Nothing to make ready."""

    def opens_in_time(self, _tried: Attempt, _made: Call) -> bool:
        return False

    def open(self, tried: Attempt, made: Call) -> _Answer:
        self.asked.append(made)
        tried.dropped = self.dropped
        if self.said and isinstance(self.said[0], Exception):
            raise self.said[0]
        return _Answer(self, tried)


class _Answer:
    tells_silence = False

    def __init__(self, chats: Chats, tried: Attempt) -> None:
        self._chats = chats
        self._tried = tried
        message = {"role": "assistant", "content": "one two"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        document = chats.whole or {"id": "c", "model": "served", **USAGE, "choices": [choice]}
        if not chats.asked[-1].stream:
            tried.transcript.take(document)
        self.body = dumps(document)

    def chunks(self) -> Iterator[Chunk]:
        for step in self._chats.said:
            if isinstance(step, Exception):
                raise step
            yield Chunk(data_event(step), self._tried.transcript.add(step), piece=step)

    def close(self) -> None:
        self._chats.closed += 1


def asked(endpoint: Endpoint, body: JSON | None = None, *, stream: bool = False, **fields: Any) -> Call:
    made = call("groq/m", endpoint=endpoint, stream=stream, **fields)
    made.body = {"model": "groq/m", **ASKED[endpoint.name], **(body or {}), **({"stream": True} if stream else {})}
    return made


def told(chats: Chats, made: Call, tried: Attempt | None = None) -> list[JSON]:
    """The events that the caller gets."""
    answer = Bridge(chats).open(tried or attempt("groq/m"), made)
    return events_of(b"".join(chunk.data for chunk in answer.chunks()))


def events_of(wire: bytes) -> list[JSON]:
    return [json.loads(data_of(event) or b"") for event in Events().feed(wire)]


# What is asked.


@BOTH
@EACH
def test_the_chat_is_the_callers_call_in_all_but_its_wire(endpoint: Endpoint, stream: bool) -> None:
    chats, tried = Chats(), attempt("groq/m")
    made = asked(endpoint, stream=stream, provider_headers={"anthropic-beta": "x", "openai-beta": "y"})
    before = json.dumps(made.body)
    Bridge(chats).open(tried, made)
    [chat] = chats.asked
    assert chat.endpoint is CHAT
    assert chat.body == tried.sent
    assert chat.body["messages"] == [{"role": "user", "content": "hi"}]
    assert (chat.stream, chat.usage_asked, chat.provider_headers) == (stream, True, {})
    assert (chat.id, chat.cancellation, chat.deadline_s) == (made.id, made.cancellation, made.deadline_s)
    assert json.dumps(made.body) == before


SEARCH = {"type": "web_search_20250305", "name": "w"}


@pytest.mark.parametrize(
    ("endpoint", "body", "dropped"),
    [
        (
            RESPONSES,
            {"tools": [{"type": "web_search"}], "client_metadata": {}},
            ("client_metadata", "tools.web_search"),
        ),
        (
            MESSAGES,
            {"container": "c", "tools": [SEARCH]},
            ("container", "tools.w"),
        ),
        (COMPLETIONS, {"echo": True, "own": 1}, ("echo", "own")),
    ],
    ids=["responses", "messages", "completions"],
)
def test_what_a_chat_cannot_carry_is_named_beside_what_the_provider_does_not_know(
    endpoint: Endpoint, body: JSON, dropped: tuple[str, ...]
) -> None:
    tried = attempt("groq/m")
    Bridge(Chats(dropped=("seed", dropped[0]))).open(tried, asked(endpoint, body))
    assert tried.dropped == tuple(sorted({*dropped, "seed"}))
    refused = attempt("groq/m")
    with pytest.raises(ProviderFailed):
        Bridge(Chats([ProviderFailed("no")])).open(refused, asked(endpoint, body))
    assert refused.dropped == dropped


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [(RESPONSES, {"background": True}), (MESSAGES, {"messages": [{"role": "user", "content": 7}]})],
    ids=["responses", "messages"],
)
def test_what_no_chat_can_stand_in_for_is_not_asked(endpoint: Endpoint, body: JSON) -> None:
    chats = Chats()
    with pytest.raises(InvalidRequest):
        Bridge(chats).open(attempt("groq/m"), asked(endpoint, body))
    assert chats.asked == []


def test_a_chat_stands_in_for_what_is_said_and_for_nothing_else() -> None:
    assert [row.name for row in (RESPONSES, MESSAGES, COMPLETIONS, EMBEDDINGS, CHAT) if Bridge.serves(row.name)] == [
        "responses",
        "messages",
        "completions",
    ]


def test_the_conversation_that_the_gateway_keeps_is_asked_too() -> None:
    chats = Chats()
    history = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "before"}]}]
    Bridge(chats).open(attempt("groq/m"), asked(RESPONSES, history=history))
    assert [message["content"] for message in chats.asked[0].body["messages"]] == ["before", "hi"]


SUITED = {"top_k": 4, "reasoning_effort": "low", "max_completion_tokens": 9}


@pytest.mark.parametrize(
    ("name", "kept", "dropped"),
    [
        ("openai/gpt-4o", {"max_completion_tokens": 9}, ("reasoning_effort", "top_k")),
        ("openai/gpt-3.5-turbo", {"max_completion_tokens": 9}, ("reasoning_effort", "top_k")),
        ("openai/ft:gpt-4o:x::y", {"max_completion_tokens": 9}, ("reasoning_effort", "top_k")),
        ("openai/gpt-5-mini", {"max_completion_tokens": 9, "reasoning_effort": "low"}, ("top_k",)),
        ("openai/o3", {"max_completion_tokens": 9, "reasoning_effort": "low"}, ("top_k",)),
        ("openai/ft:o4-mini:x::y", {"max_completion_tokens": 9, "reasoning_effort": "low"}, ("top_k",)),
        ("hosted_vllm/m", {"max_tokens": 9, "reasoning_effort": "low", "top_k": 4}, ()),
        ("llamafile/gpt-4o", {"max_tokens": 9, "reasoning_effort": "low", "top_k": 4}, ()),
        ("groq/m", SUITED, ()),
        ("bedrock/anthropic.claude", SUITED, ()),
    ],
)
def test_where_the_body_goes_out_as_it_is_nothing_is_in_it_that_the_provider_refuses(
    name: str, kept: JSON, dropped: tuple[str, ...]
) -> None:
    chats, tried = Chats(), attempt(name)
    body = {"max_tokens": 9, "top_k": 4, "output_config": {"effort": "low"}}
    Bridge(chats).open(tried, asked(MESSAGES, body))
    sent = chats.asked[0].body
    assert {field: sent[field] for field in (*SUITED, "max_tokens") if field in sent} == kept
    assert tried.dropped == dropped


@pytest.mark.parametrize(
    ("name", "passed"),
    [("bedrock/anthropic.claude-x", True), ("vertex_ai/claude-x", True), ("bedrock/llama", False), ("groq/m", False)],
)
def test_a_claude_elsewhere_gets_what_only_claudes_know(name: str, passed: bool) -> None:
    chats, tried = Chats(), attempt(name)
    block = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    Bridge(chats).open(tried, asked(MESSAGES, {"messages": [{"role": "user", "content": [block]}]}))
    assert ("cache_control" in json.dumps(chats.asked[0].body)) == passed
    assert ("cache_control" in tried.dropped) == (not passed)


# What is told.


@BOTH
@EACH
def test_the_record_has_the_chat_and_beside_it_what_the_caller_was_told(endpoint: Endpoint, stream: bool) -> None:
    chats, tried = Chats(), attempt("groq/m")
    opened = Bridge(chats).open(tried, asked(endpoint, stream=stream))
    list(opened.chunks()) if stream else None
    assert isinstance(tried.transcript, ChatTranscript)
    assert tried.transcript.said()[0]["message"]["content"] == "one two"
    assert tried.transcript.usage == Usage(3, 2)
    assert type(tried.told) is endpoint.transcript
    assert tried.told is not None
    assert "one two" in json.dumps(tried.told.said())
    assert tried.told.complete
    if endpoint is not COMPLETIONS or not stream:
        assert tried.told.usage == Usage(3, 2)
    opened.close()
    assert chats.closed == 1


def test_usage_is_told_in_the_callers_wire() -> None:
    assert told(Chats(), asked(RESPONSES, stream=True))[-1]["response"]["usage"]["input_tokens"] == 3
    [counted] = [
        event["usage"] for event in told(Chats(), asked(MESSAGES, stream=True)) if event["type"] == "message_delta"
    ]
    assert counted["output_tokens"] == 2
    for wanted in (True, False):
        events = told(Chats(), asked(COMPLETIONS, stream=True, usage_asked=wanted))
        assert [event["usage"]["total_tokens"] for event in events if event.get("usage")] == ([5] if wanted else [])
    for endpoint, name in ((RESPONSES, "input_tokens"), (MESSAGES, "input_tokens"), (COMPLETIONS, "prompt_tokens")):
        assert json.loads(Bridge(Chats()).open(attempt("groq/m"), asked(endpoint)).body)["usage"][name] == 3


def test_ids_are_the_calls_own() -> None:
    number = "1" * 32
    assert told(Chats(), asked(RESPONSES, stream=True))[0]["response"]["id"] == f"resp_{number}"
    assert told(Chats(), asked(MESSAGES, stream=True))[0]["message"]["id"] == f"msg_{number}"


@EACH
def test_the_last_event_alone_is_the_last(endpoint: Endpoint) -> None:
    chunks = list(Bridge(Chats()).open(attempt("groq/m"), asked(endpoint, stream=True)).chunks())
    if endpoint is COMPLETIONS:  # [DONE] ends it, and is no event of the answer's
        assert not any(chunk.last for chunk in chunks)
        return
    assert [chunk.last for chunk in chunks[-2:]] == [False, True]
    [last] = events_of(chunks[-1].data)
    assert last["type"] in endpoint.ends
    assert chunks[-1].piece == last
    first = next(number for number, chunk in enumerate(chunks) if chunk.content)
    assert b"one" in chunks[first].data, "what comes before it may still be another deployment's"


# Failures.


@pytest.mark.parametrize("before", [[], [ROLE], [ROLE, delta("one "), delta("two")]], ids=["first", "role", "content"])
@EACH
def test_a_chat_that_fails_on_its_way_is_told_as_its_wire_has_it(endpoint: Endpoint, before: list[JSON]) -> None:
    failure = ProviderStreamEnded("groq ended the stream", provider="groq")
    tried = attempt("groq/m")
    opened = Bridge(Chats([*(before or [USAGE]), failure])).open(tried, asked(endpoint, stream=True))
    got: list[Chunk] = []
    with pytest.raises(ProviderStreamEnded) as raised:
        got.extend(opened.chunks())
    assert raised.value is failure
    events = events_of(b"".join(chunk.data for chunk in got))
    assert any(chunk.content for chunk in got) == (len(before) > 1), "else another deployment may be tried"
    if endpoint is RESPONSES:
        assert [chunk.last for chunk in got if chunk.last] == [True]
        assert events[-1]["type"] == "response.failed"
        assert events[-1]["response"]["error"] == {"code": "provider_stream_ended", "message": "groq ended the stream"}
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
    else:
        assert not any(chunk.last for chunk in got)
    ends = {"response.completed", "response.incomplete", "message_stop", "message_delta"}
    assert not ends & {event.get("type") for event in events}
    assert not any(choice["finish_reason"] for event in events for choice in event.get("choices", ()))
    assert tried.told is not None
    assert not tried.told.complete


def tool(index: int, **function: Any) -> JSON:
    return delta(tool_calls=[{"index": index, "id": f"call_{index}", "type": "function", "function": function}])


#: Two calls of tools, of which the first goes on after the second has begun.
UNTELLABLE: list[JSON] = [
    *(ROLE, tool(0, name="f", arguments="{}"), tool(1, name="g", arguments="{}")),
    delta(tool_calls=[{"index": 0, "function": {"arguments": '{"more": 1}'}}]),
    finish("tool_calls"),
]


@pytest.mark.parametrize("endpoint", [RESPONSES, MESSAGES], ids=lambda row: row.name)
def test_a_stream_that_cannot_be_told_is_the_providers_failure(endpoint: Endpoint) -> None:
    got: list[Chunk] = []
    with pytest.raises(ProviderInvalid, match="groq sent an answer that cannot be read"):
        got.extend(Bridge(Chats(UNTELLABLE)).open(attempt("groq/m"), asked(endpoint, stream=True)).chunks())
    events = events_of(b"".join(chunk.data for chunk in got))
    if endpoint is RESPONSES:
        assert events[-1]["type"] == "response.failed"
        assert events[-1]["response"]["error"]["code"] == "provider_invalid_response"
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert got[-1].last
    else:
        assert "message_stop" not in {event["type"] for event in events}


NO_ARGUMENTS = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{half"}}


@pytest.mark.parametrize(
    ("endpoint", "choice"),
    [
        (RESPONSES, {"index": 0, "finish_reason": "stop"}),
        (RESPONSES, {"index": 1, "message": {"content": "a"}, "finish_reason": "stop"}),
        (RESPONSES, {"index": 0, "message": {"content": "a"}, "finish_reason": None}),
        (RESPONSES, {"index": 0, "message": {"tool_calls": 7}, "finish_reason": "stop"}),
        (MESSAGES, {"index": 0, "finish_reason": "stop"}),
        (MESSAGES, {"index": 0, "message": {"tool_calls": [NO_ARGUMENTS]}, "finish_reason": "tool_calls"}),
    ],
)
def test_a_whole_answer_that_cannot_be_told_is_the_providers_failure(endpoint: Endpoint, choice: JSON) -> None:
    with pytest.raises(ProviderInvalid, match="cannot be read"):
        Bridge(Chats(whole={"choices": [choice]})).open(attempt("groq/m"), asked(endpoint))


def test_a_response_whose_chat_just_stops_has_no_end() -> None:
    got: list[Chunk] = []
    with pytest.raises(ProviderInvalid):
        got.extend(Bridge(Chats([ROLE, delta("a")])).open(attempt("groq/m"), asked(RESPONSES, stream=True)).chunks())
    assert events_of(got[-1].data)[-1]["type"] == "response.failed"


# Over LiteLLM, on the wire.

WIRES = pytest.mark.filterwarnings("ignore::DeprecationWarning:litellm", "ignore::UserWarning:pydantic")
CUT: dict[str, tuple[Reply, type[GatewayError]]] = {
    "no end": (sse(chat_piece({"content": "tok"})), ProviderStreamEnded),
    "[DONE] alone": (sse(chat_piece({"content": "tok"}), data("[DONE]")), ProviderStreamEnded),
    "FIN": (sse(chat_piece({"content": "tok"}), close()), GatewayError),
    "RST": (sse(chat_piece({"content": "tok"}), reset()), GatewayError),
    "an error": (sse(chat_piece({"content": "tok"}), data({"error": {"message": "m"}})), ProviderFailed),
}


@WIRES
@pytest.mark.parametrize("name", ["hosted_vllm/m", "groq/m"])
@pytest.mark.parametrize(("reply", "kind"), CUT.values(), ids=CUT)
@EACH
def test_no_end_is_made_up_for_a_chat_that_breaks_off(
    loaded: LiteLLM, provider: FakeProvider, endpoint: Endpoint, reply: Reply, kind: type[GatewayError], name: str
) -> None:
    provider.script("m", reply)
    made = asked(endpoint, stream=True)
    opened = Bridge(loaded).open(attempt(name, api_base=provider.base_url, api_key=OWN_KEY), made)
    got: list[Chunk] = []
    with pytest.raises(kind):
        got.extend(opened.chunks())
    opened.close()
    events = events_of(b"".join(chunk.data for chunk in got))
    if name == "hosted_vllm/m":
        assert "tok" in json.dumps(events)
    ends = {"response.completed", "response.incomplete", "message_stop"}
    assert not ends & {event.get("type") for event in events}
    assert not any(choice["finish_reason"] for event in events for choice in event.get("choices", ()))


@WIRES
@BOTH
@pytest.mark.parametrize("name", ["hosted_vllm/m", "groq/m", "anthropic/m"])
@EACH
def test_a_good_chat_is_told_whole(
    loaded: LiteLLM, provider: FakeProvider, endpoint: Endpoint, name: str, stream: bool
) -> None:
    extra = {"service_tier": "auto"} if name == "groq/m" else {}
    provider.script("m", answer("one two three", usage=(4, 3), extra=extra))
    base = provider.anthropic_url if name == "anthropic/m" else provider.base_url
    tried = attempt(name, api_base=base, api_key=OWN_KEY)
    opened = Bridge(loaded).open(tried, asked(endpoint, stream=stream))
    wire = b"".join(chunk.data for chunk in opened.chunks()) if stream else opened.body
    opened.close()
    assert wire
    assert tried.told is not None
    assert tried.told.complete
    assert "one two three" in json.dumps(tried.told.said())
    assert tried.transcript.usage == Usage(4, 3)
    [received] = provider.requests()
    assert received.path == ("/v1/messages" if name == "anthropic/m" else "/v1/chat/completions")
