"""Responses and messages at a provider that has them: its own bytes to the caller, the caller's own body to it."""

import json
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import openai
import pydantic
import pytest
from anthropic.types import message_create_params
from anthropic.types.beta import message_create_params as beta_params
from openai.types.responses import Response, ResponseStreamEvent, response_create_params

from gateway.core.endpoints import MESSAGES, RESPONSES
from tests.fakes.provider import FakeProvider, raw, raw_bytes, split, sse
from tests.served.caller import Caller
from tests.served.process import PROVIDER_KEY, TOKEN, Served
from tests.served.sdks import client_of

JSON = dict[str, Any]

ASKED_OF = {"messages": "/v1/messages", "responses": "/v1/responses"}
ASK: JSON = {"max_tokens": 64, "messages": [{"role": "user", "content": "Say something short."}]}
COMMENTS = (b": a comment\n\n", b":\n\n", b": another\r\n\r\n")


def framed(events: list[JSON], separators: tuple[str, str], ending: str = "\n") -> list[bytes]:
    lines = (
        [f"event: {event['type']}", f"data: {json.dumps(event, separators=separators, ensure_ascii=False)}", "", ""]
        for event in events
    )
    return [ending.join(event).encode() for event in lines]


def with_comments(events: list[bytes]) -> bytes:
    """Put comments between the events, which are no part of the answer."""
    return b"".join(COMMENTS[number % 3] + event for number, event in enumerate(events))


WRITTEN: dict[str, tuple[tuple[str, str], str]] = {
    "compact": ((",", ":"), "\n"),
    "spaced": ((" , ", " : "), "\n"),
    "with carriage returns": ((", ", ": "), "\r\n"),
}

# Anthropic's messages.

USAGE = {
    "input_tokens": 21,
    "cache_creation_input_tokens": 300,
    "cache_read_input_tokens": 2000,
    "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
    "output_tokens": 1,
    "service_tier": "standard",
    "inference_geo": None,
}
CITATION = {
    "type": "char_location",
    "cited_text": "Größe 漢字 🙂",
    "document_index": 0,
    "document_title": None,
    "start_char_index": 0,
    "end_char_index": 9,
}
FOUND = {"type": "web_search_result", "url": "https://pages.example", "title": "t", "encrypted_content": "Eo8=="}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
RESULT = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [FOUND]}
#: Each block as it begins, and its deltas.
BLOCKS: list[tuple[JSON, list[JSON]]] = [
    (
        {"type": "thinking", "thinking": "", "signature": ""},
        [
            {"type": "thinking_delta", "thinking": "let me \u2028think"},
            {"type": "signature_delta", "signature": "EqoBCkgIAR=="},
        ],
    ),
    ({"type": "redacted_thinking", "data": "EmwKAhgBEgy3va=="}, []),
    (SEARCH, [{"type": "input_json_delta", "partial_json": piece} for piece in ("", '{"query" : ', '"x"}')]),
    (RESULT, []),
    (
        {"type": "text", "text": "", "citations": []},
        [
            {"type": "text_delta", "text": "It is "},
            {"type": "citations_delta", "citation": CITATION},
            {"type": "text_delta", "text": "warm."},
        ],
    ),
    ({"type": "a_block_of_tomorrow", "value": {"deep": [1, None, 2.5]}}, [{"type": "a_delta_of_tomorrow", "more": 1}]),
    (
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
        [{"type": "input_json_delta", "partial_json": ""}],
    ),
]


def message(model: str, content: list[JSON], **fields: Any) -> JSON:
    head = {"id": "msg_01", "type": "message", "role": "assistant", "model": model, "content": content}
    return {**head, "stop_reason": None, "stop_sequence": None, "usage": USAGE, "container": None, **fields}


def message_events(model: str) -> Iterator[JSON]:
    yield {"type": "message_start", "message": message(model, [])}
    yield {"type": "ping"}
    for index, (start, deltas) in enumerate(BLOCKS):
        yield {"type": "content_block_start", "index": index, "content_block": start}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
            yield {"type": "ping"}
        yield {"type": "content_block_stop", "index": index}
        yield {"type": "an_event_of_tomorrow", "index": index, "vendor": None}
    end = {"stop_reason": "tool_use", "stop_sequence": None, "container": None}
    usage = {**USAGE, "output_tokens": 80, "server_tool_use": {"web_search_requests": 1}}
    yield {"type": "message_delta", "delta": end, "usage": usage, "context_management": {"applied_edits": []}}
    yield {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 21}}


@pytest.mark.parametrize(("separators", "ending"), WRITTEN.values(), ids=WRITTEN)
def test_a_streamed_message_comes_back_byte_by_byte(
    caller: Caller, provider: FakeProvider, model: str, separators: tuple[str, str], ending: str
) -> None:
    events = framed(list(message_events(model)), separators, ending)
    sent = with_comments(events)
    provider.script(model, sse(split(sent, range(50, len(sent), len(sent) // 7), gap_s=0.005)))
    got = caller.http.post("/v1/messages", json={**ASK, "model": f"anthropic/{model}", "stream": True})
    assert got.status_code == 200, got.text
    assert got.content == b"".join(events)


def test_a_whole_message_comes_back_byte_by_byte(caller: Caller, provider: FakeProvider, model: str) -> None:
    content = [start for start, _ in BLOCKS]
    sent = json.dumps(message(model, content, stop_reason="pause_turn", vendor=[None, 1e-9]), indent=1).encode()
    provider.script(model, raw(200, {"Content-Type": "application/json"}, sent))
    got = caller.http.post("/v1/messages", json={**ASK, "model": f"anthropic/{model}"})
    assert got.status_code == 200, got.text
    assert got.content == sent


def named_by(*params: Any) -> JSON:
    """Every parameter that the SDK has, those included that the gateway has no row for."""
    return {name: {"deep": [1, None]} for one in params for name in one.__annotations__ if name != "betas"}


#: Odd values on purpose: falsy, null, of another type than the reference has where the gateway does not look.
MESSAGE_FIELDS: JSON = {
    **named_by(message_create_params.MessageCreateParamsBase, beta_params.MessageCreateParamsBase),
    "system": [{"type": "text", "text": "be kind", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "temperature": 0,
    "top_k": 0,
    "top_p": 1.0,
    "stop_sequences": [],
    "metadata": {"user_id": None},
    "service_tier": "auto",
    "thinking": {"type": "enabled", "budget_tokens": 1024, "display": None},
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": False},
    "tools": [
        {"name": "f", "input_schema": {"type": "object", "properties": {}}, "cache_control": None},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 1},
    ],
    "container": "container_1",
    "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
    "cache_control": {"type": "ephemeral"},
    "mcp_servers": [{"type": "url", "url": "https://tools.example", "name": "n"}],
    "output_config": {"effort": "low"},
    "output_format": {"type": "json_schema", "schema": {}},
    "inference_geo": None,
    "speed": None,
    "a_field_of_tomorrow": {"api_base": "x", "deep": [1, None, 2**70]},
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": 'Größe 漢字 🙂 \u2028 "q" \\'}]},
        {"role": "assistant", "content": [start for start, _ in BLOCKS[:2]]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": None}]},
        {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://p.example/1.png"}}]},
    ],
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_message_arrives_as_it_was_sent(caller: Caller, provider: FakeProvider, model: str, stream: bool) -> None:
    assert set(MESSAGES.parameters) - {"stream"} <= set(MESSAGE_FIELDS)
    asked = {**MESSAGE_FIELDS, "max_tokens": 64, "model": f"anthropic/{model}", "stream": stream}
    headers = {"anthropic-version": "2023-01-01", "anthropic-beta": "one-2025,two-2026", "x-api-key": "not for it"}
    assert caller.http.post("/v1/messages?beta=true&other=1", json=asked, headers=headers).status_code == 200
    (got,) = provider.requests(model)
    assert got.path == "/v1/messages?beta=true"
    assert json.dumps(got.body, sort_keys=True) == json.dumps({**asked, "model": model}, sort_keys=True)
    assert (got.headers["anthropic-version"], got.headers["anthropic-beta"]) == ("2023-01-01", "one-2025,two-2026")
    assert got.headers["x-api-key"] == PROVIDER_KEY
    assert TOKEN not in str(got.headers)


def test_a_count_of_tokens_arrives_as_it_was_sent(caller: Caller, provider: FakeProvider, model: str) -> None:
    fields = {name: value for name, value in MESSAGE_FIELDS.items() if name != "temperature"}
    got = caller.http.post("/v1/messages/count_tokens", json={**fields, "model": f"anthropic/{model}"})
    assert got.json() == {"input_tokens": 12}
    assert provider.requests(model)[0].body == {**fields, "model": model}


# OpenAI's responses.


def events_of_the_sdk() -> dict[str, type[pydantic.BaseModel]]:
    union, *_ = get_args(ResponseStreamEvent)
    return {get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(union)}


EVENTS = events_of_the_sdk()
ENDS = ("response.completed", "response.incomplete", "response.failed")


def sample(annotation: Any) -> Any:
    """Make a value of a type of the SDK: the first of its choices, and of a model only what it requires."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return sample(args[0])
    if origin is Literal:
        return args[0]
    if origin in (Union, types.UnionType):
        return sample(args[0])
    if origin in (list, dict):
        return origin()
    if annotation is Response:
        return None  # the test has a whole one
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        required = {name: field for name, field in annotation.model_fields.items() if field.is_required()}
        return {name: sample(field.annotation) for name, field in required.items()}
    return {str: "größe ☃", int: 0, float: 0.5, bool: False, object: {"any": None}}[annotation]


def response(model: str, status: str = "in_progress", **fields: Any) -> JSON:
    head = {"id": f"resp_{model}", "object": "response", "created_at": 1_750_000_000.0, "status": status}
    own = {"model": model, "output": [], "tools": [], "tool_choice": "auto", "parallel_tool_calls": True}
    return {**head, "error": None, "incomplete_details": None, **own, "vendor": {"deep": [None]}, **fields}


def events_until(end: str, model: str) -> list[JSON]:
    """Make one event of each type that ends no stream, one of a type that nobody knows, and the end."""
    kinds = [kind for kind in EVENTS if kind not in (*ENDS, "error")]
    events = [{**sample(EVENTS[kind]), "obfuscation": "x9"} for kind in kinds]
    events += [{"type": "response.an_event_of_tomorrow", "vendor": [1.50, None]}, {"type": end}]
    first = {"type": "response.created", "response": response(model)}
    for event in events:
        if "response" in EVENTS.get(event["type"], Response).model_fields:
            event["response"] = response(model)
    fault = {"code": "server_error", "message": "worker lost"} if end == "response.failed" else None
    details = {"reason": "max_output_tokens"} if end == "response.incomplete" else None
    status = end.removeprefix("response.")
    events[-1]["response"] = response(model, status, error=fault, incomplete_details=details)
    return [{**event, "sequence_number": number} for number, event in enumerate([first, *events])]


def test_a_sample_is_what_the_sdk_reads() -> None:
    for kind, event in EVENTS.items():
        made = sample(event)
        if "response" in event.model_fields:
            made["response"] = response("m")
        assert event.model_validate(made).model_dump()["type"] == kind


@pytest.mark.parametrize(("separators", "ending"), WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("end", ENDS)
def test_every_event_of_a_response_comes_back_byte_by_byte(
    caller: Caller, provider: FakeProvider, model: str, end: str, separators: tuple[str, str], ending: str
) -> None:
    events = framed(events_until(end, model), separators, ending)
    sent = with_comments(events)
    provider.script(model, sse(split(sent, range(50, len(sent), len(sent) // 7), gap_s=0.005)))
    got = caller.http.post("/v1/responses", json={"model": f"openai/{model}", "input": "x", "stream": True})
    assert got.status_code == 200, got.text
    assert got.content == b"".join(events)


def test_the_sdk_reads_each_event_as_its_own_class(gateway: Served, provider: FakeProvider, model: str) -> None:
    sent = events_until("response.completed", model)
    provider.script(model, sse(raw_bytes(b"".join(framed(sent, (",", ":"))))))
    with client_of(gateway) as client:
        got = list(client.responses.create(model=f"openai/{model}", input="x", stream=True))
    assert [event.type for event in got] == [event["type"] for event in sent]
    for event in got:
        assert isinstance(event, EVENTS.get(event.type, pydantic.BaseModel))


def test_an_error_event_of_a_response_is_raised_by_the_sdk(gateway: Served, provider: FakeProvider, model: str) -> None:
    delta = {**sample(EVENTS["response.output_text.delta"]), "delta": "half"}
    fault = {"type": "error", "code": "overloaded", "message": "worker lost", "param": None, "sequence_number": 2}
    provider.script(model, sse(raw_bytes(b"".join(framed([delta, fault], (",", ":"))))))
    with client_of(gateway) as client:
        stream = iter(client.responses.create(model=f"openai/{model}", input="x", stream=True))
        assert next(stream).type == "response.output_text.delta"
        with pytest.raises(openai.APIError, match="worker lost") as raised:
            next(stream)
    assert raised.value.code == "overloaded"


def test_a_whole_response_comes_back_byte_by_byte(caller: Caller, provider: FakeProvider, model: str) -> None:
    sent = json.dumps(response(model, "completed", output=[{"type": "an_item_of_tomorrow"}]), indent=1).encode()
    provider.script(model, raw(200, {"Content-Type": "application/json"}, sent))
    got = caller.http.post("/v1/responses", json={"model": f"openai/{model}", "input": "x"})
    assert got.status_code == 200, got.text
    assert got.content == sent


RESPONSE_FIELDS: JSON = {
    **named_by(response_create_params.ResponseCreateParamsBase),
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": 'Größe 漢字 🙂 \u2028 "q" \\'}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA=="},
        {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": '{ "a" : null}'},
        {"type": "function_call_output", "call_id": "c", "output": ""},
        {"type": "an_item_of_tomorrow", "value": [None]},
    ],
    "background": False,
    "client_metadata": {},
    "context_management": [{"type": "compaction", "compact_threshold": 1000}],
    "conversation": None,
    "include": ["reasoning.encrypted_content"],
    "instructions": "",
    "max_output_tokens": 16,
    "max_tool_calls": 0,
    "metadata": {"api_base": "x"},
    "moderation": None,
    "parallel_tool_calls": False,
    "previous_response_id": None,
    "prompt": {"id": "pmpt_1", "version": "2"},
    "prompt_cache_key": "",
    "prompt_cache_options": {},
    "prompt_cache_retention": "24h",
    "reasoning": {"effort": "none", "summary": None},
    "safety_identifier": "s",
    "service_tier": "flex",
    "store": False,
    "stream_options": {"include_obfuscation": False},
    "temperature": 0,
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []},
    "tools": [{"type": "mcp", "server_label": "l", "server_url": "https://tools.example"}, {"type": "tomorrow"}],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "auto",
    "user": "",
    "a_field_of_tomorrow": {"api_key": "x", "deep": [1, None, 2**70]},
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_response_arrives_as_it_was_sent(caller: Caller, provider: FakeProvider, model: str, stream: bool) -> None:
    assert set(RESPONSES.parameters) - {"stream"} <= set(RESPONSE_FIELDS)
    asked = {**RESPONSE_FIELDS, "model": f"openai/{model}", "stream": stream}
    got = caller.http.post("/v1/responses", json=asked, headers={"OpenAI-Beta": "b=v1"})
    assert got.status_code == 200, got.text
    (sent,) = provider.requests(model)
    assert json.dumps(sent.body, sort_keys=True) == json.dumps({**asked, "model": model}, sort_keys=True)
    assert (sent.headers["authorization"], sent.headers["openai-beta"]) == (f"Bearer {PROVIDER_KEY}", "b=v1")
