"""What the caller sent reaches the provider as it was, and what the provider sent reaches the caller as it was."""

import gzip
import json
from typing import Any

import pytest

from tests.fakes.provider import FakeProvider, answer, delta, done, raw, raw_bytes, sse, usage
from tests.served.caller import CHAT, CONTENT, Caller, body
from tests.served.process import PROVIDER_KEY

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": ["integer", "null"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
PERSON = {
    "type": "json_schema",
    "json_schema": {
        "name": "person",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "age": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}},
            },
            "$defs": {"tag": {"type": "string", "enum": ["a", ""]}},
            "required": ["age", "tags"],
            "additionalProperties": False,
        },
    },
}
WRITTEN_ODDLY = '{ "city" :  "Zürich",\t"days":null }'

#: Each is a body beside model and message; all of it has to arrive, and nothing more.
ASKED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "falsy": {
        "temperature": 0,
        "top_p": 0.0,
        "presence_penalty": 0,
        "frequency_penalty": -1.5,
        "seed": 0,
        "logprobs": False,
        "parallel_tool_calls": False,
        "store": False,
        "user": "",
        "n": 1,
        "stop": [],
        "logit_bias": {},
        "metadata": {},
    },
    "null": {"temperature": None, "tools": None, "stop": None, "max_tokens": None, "user": None, "vendor": None},
    "numbers": {"temperature": 0.1, "top_p": 1e-7, "seed": 2**63, "vendor_int": 2**70, "vendor_float": 1.0},
    "lengths": {"max_tokens": 66},
    "completion length": {"max_completion_tokens": 55},
    "stop text": {"stop": "X"},
    "stop list": {"stop": ["\n\n", "END", "\u2028"], "logit_bias": {"50256": -100, "15": 3}},
    "own words": {
        "metadata": {"team": "blue", "api_base": "x"},
        "store": True,
        "user": "u-1",
        "safety_identifier": "s-1",
        "service_tier": "flex",
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
    },
    "reasoning": {"reasoning_effort": "minimal", "verbosity": "low"},
    "unknown effort": {"reasoning_effort": "banana"},
    "logprobs": {"logprobs": True, "top_logprobs": 2, "n": 3},
    "tools": {
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        "parallel_tool_calls": True,
    },
    "functions": {"functions": [{"name": "f", "parameters": {}}], "function_call": "auto"},
    "schema": {"response_format": PERSON},
    "sound": {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}},
    "prediction": {"prediction": {"type": "content", "content": "x"}, "web_search_options": {}},
    "vendors": {
        "top_k": 40,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
        "chat_template_kwargs": {"enable_thinking": False},
        "provider": {"order": ["a"]},
        "thinking": {"type": "disabled"},
        "extra_body": {"nested": {"top_p": 1}},
        "caching": True,
        "cache": {"ttl": 600},
    },
}

CONVERSATION: list[dict[str, Any]] = [
    {"role": "developer", "content": "be kind"},
    {"role": "system", "content": "s"},
    {"role": "user", "name": "ann", "content": 'Größe 漢字 🙂 \u2028 "q" \\ </script> \x7f'},
    {"role": "assistant", "content": ""},
    {
        "role": "assistant",
        "content": None,
        "reasoning_content": "an earlier thought",
        "refusal": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": WRITTEN_ODDLY}}
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "and this?", "cache_control": {"type": "ephemeral"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "https://pictures.example/one.png"}},
            {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}},
        ],
    },
    {"role": "assistant", "content": "a", "audio": {"id": "audio_1"}, "vendor_field": {"kept": [1, None]}},
    {"role": "user", "content": "again"},
]


def completion(message: Any, finish: str = "stop", **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    head = {"id": "chatcmpl-Zx", "object": "chat.completion", "created": 1_700_000_001, "model": "gpt-4o-2024-08-06"}
    return {**head, "choices": [choice], **fields}


#: Each is an answer as a provider writes it; not a byte of it may change.
ANSWERED = {
    "null content with tools": completion(
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": WRITTEN_ODDLY}}],
        },
        "tool_calls",
    ),
    "refusal": completion({"role": "assistant", "content": None, "refusal": "I will not."}),
    "function call": completion(
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}, "function_call"
    ),
    "reasoning": completion(
        {"role": "assistant", "content": "done", "reasoning_content": "thinking", "reasoning": None},
        usage={
            "prompt_tokens": 5,
            "completion_tokens": 10,
            "total_tokens": 15,
            "completion_tokens_details": {"reasoning_tokens": 8, "accepted_prediction_tokens": 0},
        },
    ),
    "sound": completion(
        {
            "role": "assistant",
            "content": None,
            "audio": {"id": "a1", "data": "AAAA", "expires_at": 1_750_009_999, "transcript": "hi"},
        }
    ),
    "annotations": completion({"role": "assistant", "content": "see", "annotations": [{"type": "url_citation"}]}),
    "length": completion({"role": "assistant", "content": "cut"}, "length"),
    "filter": completion({"role": "assistant", "content": ""}, "content_filter"),
    "vendor finish": completion({"role": "assistant", "content": "x"}, "eos_token"),
    "two choices": {
        **completion({"role": "assistant", "content": "one"}, "length"),
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "one"}, "finish_reason": "length"},
            {"index": 1, "message": {"role": "assistant", "content": "two"}, "finish_reason": "stop"},
        ],
    },
    "logprobs": {
        **completion({"role": "assistant", "content": "hel"}),
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hel"},
                "logprobs": {
                    "content": [{"token": "hel", "logprob": -0.1, "bytes": [104], "top_logprobs": []}],
                    "refusal": None,
                },
                "finish_reason": "stop",
            }
        ],
    },
    "fields of their own": completion(
        {"role": "assistant", "content": "x", "vendor": {"deep": [1, None, 2.50]}},
        system_fingerprint=None,
        service_tier="default",
        x_groq={"id": "req_1"},
        provider="Mill",
        usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "cost": 0.00001, "queue_time": 1e-9},
        prompt_filter_results=[{"prompt_index": 0}],
        error=None,
    ),
}


@pytest.mark.parametrize("fields", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_every_parameter_arrives_as_it_was_sent(
    caller: Caller, provider: FakeProvider, model: str, fields: dict[str, Any], stream: bool
) -> None:
    if stream:
        assert caller.stream(f"openai/{model}", **fields).ends_well
        fields = {**fields, "stream": True, "stream_options": {"include_usage": True}}
    else:
        assert caller.chat(f"openai/{model}", **fields).status_code == 200
    (got,) = provider.requests(model)
    assert got.path == "/v1/chat/completions"
    # as text: 1, 1.0 and true are equal as values of Python
    assert json.dumps(got.body, sort_keys=True) == json.dumps(body(model, CONTENT, **fields), sort_keys=True)


def test_every_message_arrives_as_it_was_sent(caller: Caller, provider: FakeProvider, model: str) -> None:
    assert caller.chat(f"openai/{model}", messages=CONVERSATION, tools=[WEATHER]).status_code == 200
    (got,) = provider.requests(model)
    assert got.body["messages"] == CONVERSATION


def test_models_that_litellm_would_rename_a_parameter_for_get_it_under_its_name(
    caller: Caller, provider: FakeProvider, model: str
) -> None:
    name = f"gpt-5-{model}"
    assert caller.chat(f"openai/{name}", max_completion_tokens=77, temperature=0.5).status_code == 200
    (got,) = provider.requests(name)
    assert got.path == "/v1/chat/completions"
    assert got.body == body(name, max_completion_tokens=77, temperature=0.5)


def test_options_of_a_stream_arrive_beside_the_usage_that_is_always_asked_for(
    caller: Caller, provider: FakeProvider, model: str
) -> None:
    options = {"include_obfuscation": False, "include_usage": False}
    assert caller.stream(f"openai/{model}", stream_options=options).ends_well
    (got,) = provider.requests(model)
    assert got.body["stream_options"] == {"include_obfuscation": False, "include_usage": True}


def test_a_body_of_six_megabytes_arrives_whole(caller: Caller, provider: FakeProvider, model: str) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 6_000_000}}
    assert caller.chat(f"openai/{model}", [picture]).status_code == 200
    (got,) = provider.requests(model)
    assert got.body["messages"][0]["content"] == [picture]


@pytest.mark.parametrize("sent", ANSWERED.values(), ids=ANSWERED)
@pytest.mark.parametrize("written", [{"indent": 1}, {"ensure_ascii": False}], ids=["spaced", "compact"])
def test_an_answer_comes_back_byte_by_byte(
    caller: Caller, provider: FakeProvider, model: str, sent: dict[str, Any], written: dict[str, Any]
) -> None:
    as_bytes = json.dumps(sent, **written).encode() + b"\n"
    provider.script(model, raw(200, {"Content-Type": "application/json; charset=utf-8"}, as_bytes))
    answered = caller.chat(f"openai/{model}")
    assert answered.status_code == 200, answered.text
    assert answered.content == as_bytes
    assert answered.headers["content-type"] == "application/json"


def test_an_answer_that_comes_packed_is_unpacked(caller: Caller, provider: FakeProvider, model: str) -> None:
    sent = json.dumps(ANSWERED["reasoning"]).encode()
    head = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    provider.script(model, raw(200, head, gzip.compress(sent)))
    answered = caller.chat(f"openai/{model}")
    assert answered.content == sent
    assert "content-encoding" not in answered.headers


STREAMED = {
    "spaces and escapes": [
        '{"id" : "x", "object":"chat.completion.chunk","created":1,"model":"m-0613","system_fingerprint":null,'
        '"choices":[{"index":0,"delta":{"role":"assistant","content":"\\u00fc \\ud83d\\ude42"},"finish_reason":null}]}'
    ],
    "reasoning": ['{"choices":[{"index":0,"delta":{"reasoning_content":"hm","reasoning":"hm","content":null}}]}'],
    "refusal": ['{"choices":[{"index":0,"delta":{"refusal":"I will not."},"finish_reason":null}]}'],
    "logprobs": [
        '{"choices":[{"index":0,"delta":{"content":"a"},"logprobs":{"content":[{"token":"a","logprob":-0.10,'
        '"bytes":[97],"top_logprobs":[{"token":"b","logprob":-2.5,"bytes":null}]}],"refusal":null}}]}'
    ],
    "function call": [
        '{"choices":[{"index":0,"delta":{"function_call":{"name":"f","arguments":""}}}]}',
        '{"choices":[{"index":0,"delta":{"function_call":{"arguments":"{ }"}}}]}',
    ],
    "sound": ['{"choices":[{"index":0,"delta":{"audio":{"id":"a","data":"AAAA","transcript":"h"}}}]}'],
    "fields of their own": ['{"choices":[{"index":0,"delta":{"content":"a","vendor":1e-9},"vendor":[null]}],"x_y":{}}'],
}


@pytest.mark.parametrize("events", STREAMED.values(), ids=STREAMED)
def test_a_stream_comes_back_byte_by_byte(
    caller: Caller, provider: FakeProvider, model: str, events: list[str]
) -> None:
    last = '{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
    count = '{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7,"cost":0.10}}'
    sent = "".join(f"data: {event}\n\n" for event in (*events, last, count)).encode()
    provider.script(model, sse(raw_bytes(sent), done()))
    streamed = caller.stream(f"openai/{model}", stream_options={"include_usage": True})
    assert streamed.raw == sent + b"data: [DONE]\n\n"


def test_usage_on_the_last_chunk_with_choices_is_passed_on_as_it_is(
    caller: Caller, provider: FakeProvider, model: str
) -> None:
    tokens = {
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "total_tokens": 1100,
        "prompt_tokens_details": {"cached_tokens": 600},
    }
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": tokens}
    provider.script(model, sse(delta({"content": "x"}), raw_bytes(f"data: {json.dumps(last)}\n\n".encode()), done()))
    streamed = caller.stream(f"openai/{model}", stream_options={"include_usage": True})
    assert [chunk["usage"] for chunk in streamed.chunks if chunk.get("usage")] == [tokens]


def test_usage_comes_last_and_only_for_those_who_asked(caller: Caller, provider: FakeProvider, model: str) -> None:
    provider.script(model, answer("one two", usage=(31, 9)))
    asked = caller.stream(f"openai/{model}", stream_options={"include_usage": True})
    assert asked.chunks[-1]["choices"] == []
    assert asked.chunks[-1]["usage"] == {"prompt_tokens": 31, "completion_tokens": 9, "total_tokens": 40}
    for fields in ({}, {"stream_options": {"include_usage": False}}, {"stream_options": None}):
        silent = caller.stream(f"openai/{model}", **fields)
        assert silent.ends_well
        assert b'"usage"' not in silent.raw
        assert all(chunk["choices"] for chunk in silent.chunks)


def test_usage_that_a_provider_sends_unasked_keeps_no_stream_from_its_end(
    caller: Caller, provider: FakeProvider, model: str
) -> None:
    provider.script(model, sse(delta({"content": "x"}), delta({}, "stop"), usage(1, 2), done()))
    streamed = caller.stream(f"openai/{model}")
    assert streamed.ends_well
    assert (streamed.text(), streamed.finishes()) == ("x", ["stop"])


def test_a_byte_order_mark_before_the_body_is_read_over(caller: Caller, provider: FakeProvider, model: str) -> None:
    sent = b"\xef\xbb\xbf" + json.dumps(body(f"openai/{model}", "漢字"), ensure_ascii=False).encode()
    assert caller.http.post(CHAT, content=sent).status_code == 200
    assert provider.requests(model)[0].body == body(model, "漢字")


def test_the_same_question_is_asked_as_often_as_it_comes(caller: Caller, provider: FakeProvider, model: str) -> None:
    provider.script(model, *(answer(text) for text in ("first", "second", "third")))
    options: tuple[dict[str, Any], ...] = ({}, {"user": "u2"}, {"caching": True, "cache": {"ttl": 600}})
    answers = [caller.chat(f"openai/{model}", **fields).json() for fields in options]
    assert [one["choices"][0]["message"]["content"] for one in answers] == ["first", "second", "third"]


def test_the_providers_key_is_the_gateways(caller: Caller, provider: FakeProvider, model: str) -> None:
    assert caller.chat(f"openai/{model}").status_code == 200
    assert caller.chat(f"anthropic/{model}").status_code == 200
    by_openai, by_anthropic = provider.requests(model)
    assert by_openai.headers["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert by_anthropic.headers["x-api-key"] == PROVIDER_KEY
    assert by_anthropic.path == "/v1/messages"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_what_a_provider_of_another_wire_does_not_know_is_named(
    caller: Caller, provider: FakeProvider, model: str, stream: bool
) -> None:
    known = {"temperature": 0, "top_p": 0.5, "stop": ["END"], "max_completion_tokens": 9, "top_k": 4}
    unknown = {"logit_bias": {"1": 2}, "seed": 0, "min_p": 0.05, "store": False, "frequency_penalty": 1}
    asked = body(f"anthropic/{model}", messages=CONVERSATION[1:4], **known, **unknown)
    answered = caller.read(asked) if stream else caller.post(asked)
    named = set(answered.headers["x-gateway-dropped-params"].split(","))
    (got,) = provider.requests(model)
    assert named == set(unknown)
    assert not named & set(got.body)
    assert (got.body["temperature"], got.body["top_p"], got.body["top_k"]) == (0, 0.5, 4)
    assert (got.body["max_tokens"], got.body["stop_sequences"]) == (9, ["END"])
    assert got.body["messages"][0]["content"][0]["text"] == CONVERSATION[2]["content"]
