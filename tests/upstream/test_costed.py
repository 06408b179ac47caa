"""What callers are told of what their answers cost: in a header, and in their usage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.core.calls import Attempt, Call, Chunk
from gateway.core.endpoints import CHAT, COMPLETIONS, COUNT_TOKENS, EMBEDDINGS, MESSAGES, RESPONSES, Endpoint
from gateway.core.wire import Events, data_event, data_of, dumps, named_event
from gateway.pipeline import Gateway
from tests.builders import ROLE, call, delta, finish, gateway

JSON = dict[str, Any]

PRICED, UNPRICED, ECHO = "openai/priced", "openai/unpriced", "demo/echo"
ROW = {"input_cost_per_token": 0.001, "output_cost_per_token": 0.01}
PRICES = {"priced": {**ROW, "litellm_provider": "openai"}, "demo/echo": {**ROW, "litellm_provider": "demo"}}

CHAT_USAGE = {"prompt_tokens": 3, "completion_tokens": 2}
OTHER_USAGE = {"input_tokens": 3, "output_tokens": 2}
COST = 0.023
ADDED = b',"cost":0.023'
CHOICE = {"index": 0, "message": {"role": "assistant", "content": '{"usage":{"a":1}}'}, "finish_reason": "stop"}

#: A whole answer of each operation; what the model says looks like usage.
WHOLE: dict[str, JSON] = {
    CHAT.name: {"id": "c", "choices": [CHOICE], "usage": CHAT_USAGE, "more": {"usage": {"a": 1}}},
    COMPLETIONS.name: {"choices": [{"text": "a", "finish_reason": "stop"}], "usage": CHAT_USAGE},
    EMBEDDINGS.name: {"data": [{"embedding": [0.5]}], "usage": CHAT_USAGE},
    RESPONSES.name: {"id": "r", "status": "completed", "output": [{"usage": {"a": 1}}], "usage": OTHER_USAGE},
    MESSAGES.name: {"content": [{"type": "tool_use", "input": {"usage": {"a": 1}}}], "usage": OTHER_USAGE},
}
#: The same as the events of a stream, of which the one with the usage is the last but those that are named with it.
STREAMED: dict[str, tuple[list[JSON], int]] = {
    CHAT.name: ([ROLE, delta("a"), finish(), {"choices": [], "usage": CHAT_USAGE}], 3),
    COMPLETIONS.name: (
        [{"choices": [{"text": "a", "finish_reason": "stop"}]}, {"choices": [], "usage": CHAT_USAGE}],
        1,
    ),
    RESPONSES.name: (
        [
            {"type": "response.created", "response": {"id": "r", "usage": None}},
            {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "a"},
            {"type": "response.completed", "response": WHOLE[RESPONSES.name]},
        ],
        2,
    ),
    MESSAGES.name: (
        [
            {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 3, "output_tokens": 1}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "a"}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
            {"type": "message_stop"},
        ],
        2,
    ),
}
BY_NAME: dict[str, Endpoint] = {row.name: row for row in (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, MESSAGES)}


@dataclass
class Provider:
    """An upstream that answers with these bytes, or these events (upstream.Upstream, upstream.Answer)."""

    document: JSON | None = None
    events: Sequence[JSON] = ()
    body: bytes = b""
    tells_silence: bool = False
    _attempt: Attempt | None = None
    _call: Call | None = None

    def start(self) -> None:
        """Nothing to make ready."""

    def opens_in_time(self, _attempt: Attempt, _call: Call) -> bool:
        return False

    def open(self, attempt: Attempt, call: Call) -> Provider:
        self._attempt, self._call = attempt, call
        if self.document is not None:
            attempt.transcript.take(self.document)
            self.body = json.dumps(self.document, indent=1).encode()
        return self

    def chunks(self) -> Iterator[Chunk]:
        assert self._attempt is not None
        assert self._call is not None
        ends = self._call.endpoint.ends
        for event in self.events:
            content = self._attempt.transcript.add(event)
            frame = named_event if ends else data_event
            hidden = not ends and "usage" in event and not event["choices"] and not self._call.usage_asked
            yield Chunk(b"" if hidden else frame(event), content, event.get("type") in ends, event)

    def close(self) -> None:
        """Nothing is held."""


def opened(provider: Provider | None = None, *, usage_cost: bool = True) -> Gateway:
    made = gateway(provider, prices=PRICES)
    made.usage_cost = usage_cost
    made.open()
    return made


def asked(endpoint: Endpoint, model: str = PRICED, *, stream: bool = False, **more: Any) -> Call:
    body: JSON = {"max_tokens": 9} if endpoint is MESSAGES else {}
    body |= {"input": "one two"} if endpoint in (RESPONSES, EMBEDDINGS) else {}
    body |= {"prompt": "one two"} if endpoint is COMPLETIONS else {}
    return call(model, "one two", endpoint=endpoint, stream=stream, body=body, **more)


def told(made: Gateway, call: Call) -> bytes:
    """A whole stream, as it is written."""
    reply = made.run(call)
    said = b"".join(chunk.data for chunk in reply if chunk is not None) + reply.last_words
    reply.close()
    return said


# Whole answers.


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_answer_has_its_cost_in_its_usage_and_in_a_header(name: str) -> None:
    provider = Provider(WHOLE[name])
    made = opened(provider)
    reply = made.run(asked(BY_NAME[name]))
    assert reply.body is not None
    assert json.loads(reply.body) == {**WHOLE[name], "usage": {**WHOLE[name]["usage"], "cost": COST}}
    at = reply.body.index(ADDED)
    assert reply.body[:at] + reply.body[at + len(ADDED) :] == provider.body
    assert reply.headers()["x-gateway-response-cost"] == "0.023"
    made.close()


def test_without_a_price_nothing_is_told_of_a_cost() -> None:
    provider = Provider(WHOLE[CHAT.name])
    made = opened(provider)
    reply = made.run(asked(CHAT, UNPRICED))
    assert reply.body == provider.body
    assert "x-gateway-response-cost" not in reply.headers()
    made.close()


def test_it_can_be_left_out_of_the_usage() -> None:
    provider = Provider(WHOLE[CHAT.name])
    made = opened(provider, usage_cost=False)
    reply = made.run(asked(CHAT))
    assert reply.body == provider.body
    assert reply.headers()["x-gateway-response-cost"] == "0.023"
    made.close()


def test_an_answer_without_usage_is_left_as_it_is_and_its_estimate_is_in_the_header() -> None:
    provider = Provider({"choices": [{**CHOICE, "message": {"content": "abcd"}}], "more": {"usage": {"a": 1}}})
    made = opened(provider)
    reply = made.run(asked(CHAT))
    assert reply.body == provider.body
    assert reply.headers()["x-gateway-response-cost"] == "0.012"
    made.close()


def test_what_no_model_answers_costs_nothing_and_says_nothing() -> None:
    made = opened()
    reply = made.run(asked(COUNT_TOKENS, ECHO))
    assert reply.body is not None
    assert b"cost" not in reply.body
    assert "x-gateway-response-cost" not in reply.headers()
    made.close()


# Streams.


@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_has_its_cost_in_the_event_that_has_its_usage_and_nowhere_else(name: str) -> None:
    events, place = STREAMED[name]
    endpoint = BY_NAME[name]
    frame = named_event if endpoint.ends else data_event
    made = opened(Provider(events=events))
    reply = made.run(asked(endpoint, stream=True, usage_asked=True))
    assert "x-gateway-response-cost" not in reply.headers()
    said = b"".join(chunk.data for chunk in reply if chunk is not None) + reply.last_words
    whole = [frame(event) for event in events]
    assert dumps(OTHER_USAGE if endpoint is RESPONSES else events[place]["usage"]) in whole[place]
    usage = dumps(OTHER_USAGE if endpoint is RESPONSES else events[place]["usage"])
    whole[place] = whole[place].replace(usage, usage[:-1] + ADDED + b"}")
    assert said == b"".join(whole) + endpoint.last_words
    made.close()


@pytest.mark.parametrize(("model", "usage_cost"), [(UNPRICED, True), (PRICED, False)])
def test_a_stream_is_as_it_came_where_there_is_no_cost_to_tell(model: str, usage_cost: bool) -> None:
    events, _ = STREAMED[CHAT.name]
    made = opened(Provider(events=events), usage_cost=usage_cost)
    said = told(made, asked(CHAT, model, stream=True, usage_asked=True))
    assert said == b"".join(map(data_event, events)) + CHAT.last_words
    made.close()


def test_where_the_usage_is_hidden_nothing_is_added() -> None:
    made = opened(Provider(events=STREAMED[CHAT.name][0]))
    said = told(made, asked(CHAT, stream=True))
    assert b"usage" not in said
    assert b"cost" not in said
    made.close()


def test_usage_that_comes_with_every_chunk_has_its_cost_at_the_end_alone() -> None:
    growing = [{**delta("a"), "usage": {"prompt_tokens": 3, "completion_tokens": 1}}, {**finish(), "usage": CHAT_USAGE}]
    made = opened(Provider(events=growing))
    said = told(made, asked(CHAT, stream=True, usage_asked=True))
    assert said.count(b'"cost"') == 1
    assert b'"completion_tokens":2,"cost":0.023}' in said
    made.close()


# By way of a chat.


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS, RESPONSES, MESSAGES], ids=lambda row: row.name)
def test_a_chat_that_stands_in_has_its_cost_told_in_the_callers_wire(endpoint: Endpoint) -> None:
    made = opened()
    reply = made.run(asked(endpoint, ECHO))
    document = json.loads(reply.body or b"")
    assert document["usage"]["cost"] == 0.022
    assert reply.headers()["x-gateway-response-cost"] == "0.022"
    events = Events().feed(told(made, asked(endpoint, ECHO, stream=True, usage_asked=True)))
    pieces = [json.loads(data) for event in events if (data := data_of(event)) not in (None, b"[DONE]")]
    usages = [(piece.get("response") or piece).get("usage") for piece in pieces]
    costs = [usage["cost"] for usage in usages if usage and "cost" in usage]
    assert costs == [0.022]
    assert [usage for usage in usages if usage][-1]["cost"] == 0.022
    made.close()
