"""The table of `test_trace_table.py` for the other operations: responses, messages, embeddings, counts, ids."""

import time
from typing import Any

import pytest

from tests.fakes.braintrust_server import FakeBraintrust
from tests.fakes.provider import FakeProvider, Reply, answer, embeddings, event, pause, plain_json, silence, sse
from tests.served.caller import Caller
from tests.served.process import Served
from tests.served.test_trace_table import (
    ABSENT,
    CLAUDE,
    DATED,
    DATED_CLAUDE,
    EARLY,
    GPT,
    LEFT,
    REFUSED,
    TAGS,
    WAIT_S,
    WHOLE,
    Call,
    Desk,
    Kind,
    Table,
    fails,
    question,
    said,
)
from tests.served.traces import Found
from tests.served.wire import BEARER, Wire, chat_request

JSON = dict[str, Any]

RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
EMBEDDER = "text-embedding-3-small"
TAGGED = {"X-Gateway-Tags": ",".join(TAGS)}
ITSELF: JSON = {"provider": "anthropic", "asked": f"anthropic/{CLAUDE}", "served": DATED_CLAUDE, "priced": CLAUDE}


def posts(path: str, reply: Reply | None, model: str = GPT, *, field: str = "input", **fields: Any) -> Call:
    """A call that asks for `words` in the field of its operation; messages are made of them."""

    def call(desk: Desk, words: str) -> str:
        if reply is not None:
            desk.provider.script(model.rpartition("/")[2], reply)
        asked = [{"role": "user", "content": words}] if field == "messages" else words
        desk.caller.http.post(path, json={"model": model, field: asked, **fields}, headers=TAGGED)
        return words

    return call


def about(method: str, path: str = "", *, made: JSON | None = None) -> Call:
    """A call about a response that was made before it."""

    def call(desk: Desk, words: str) -> str:
        response_id = "resp_never"
        if made is not None:
            desk.provider.script(made["model"].rpartition("/")[2], answer("kept"))
            asked = {"input": f"made for {words}", **made}
            response_id = desk.caller.http.post(RESPONSES, json=asked).json()["id"]
        answered = desk.caller.http.request(method, f"{RESPONSES}/{response_id}{path}", headers=TAGGED)
        return str(answered.headers["request-id"])

    return call


def leaves_a_message(desk: Desk, words: str) -> str:
    model = f"anthropic/{CLAUDE}"
    start = {"type": "message", "id": "m", "role": "assistant", "model": DATED_CLAUDE, "content": [], "usage": USAGE}
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "half a"}}
    desk.provider.script(
        CLAUDE,
        sse(
            event("message_start", {"type": "message_start", "message": start}),
            event("content_block_start", block),
            pause(WAIT_S),
            event("content_block_delta", delta),
            silence(),
            delay=WAIT_S,
        ),
    )
    asked = {"model": model, "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": words}]}
    with Wire(desk.gateway) as wire:
        wire.send(chat_request(asked, {**BEARER, **TAGGED}, MESSAGES))
        wire.read_until(b"half a")
        time.sleep(WAIT_S)
        wire.leave()
    return words


def items(*wanted: tuple[str, str]) -> Any:
    """The items of a response: their types and what they say."""

    def right(value: Any, _found: Found) -> bool:
        return [(one["type"], _words_of(one)) for one in value] == list(wanted)

    return right


def _words_of(item: JSON) -> str:
    content = "".join(part["text"] for part in item.get("content") or item.get("summary") or ())
    return content or str(item.get("arguments", ""))


def message(*content: JSON, stop: str | None = "end_turn", **fields: Any) -> JSON:
    return {"role": "assistant", "content": list(content), **({} if stop is None else {"stop_reason": stop}), **fields}


def text(words: str) -> JSON:
    return {"type": "text", "text": words}


def some_time(value: float, found: Found) -> bool:
    """No wait was scripted, so all of the call's own time is its bound."""
    return bool(0 <= value <= 1000 * (found.root["metrics"]["end"] - found.root["metrics"]["start"]) + 0.1)


def receipt(*names: str) -> Any:
    """A document with these fields."""
    return lambda value, _found: set(names) <= set(value)


USAGE = {"input_tokens": 100, "cache_read_input_tokens": 2000, "cache_creation_input_tokens": 300, "output_tokens": 40}
THOUGHT = {
    "input_tokens": 300,
    "input_tokens_details": {"cached_tokens": 256},
    "output_tokens": 90,
    "output_tokens_details": {"reasoning_tokens": 70},
    "total_tokens": 390,
}
TOOL = {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
FAILED: JSON = {"id": "resp_failed", "object": "response", "status": "failed", "output": [], "model": DATED}
FAILED["error"] = {"code": "server_error", "message": "worker lost"}
HALF: JSON = {"type": "response.output_text.delta", "item_id": "msg_1", "delta": "half a"}
HALF |= {"output_index": 0, "content_index": 0, "sequence_number": 0, "logprobs": []}
NOT_FOUND = "Response with id 'resp_never' not found."
#: No model says anything, so there are no tokens, no money, no first token.
NO_MODEL: JSON = dict.fromkeys(("finish", "tokens", "cost", "ttft", "served"), ABSENT)
#: About a response that was made before: what was asked for is its id.
BY_ID: JSON = NO_MODEL | {
    "input": lambda value, found: value.startswith("resp_"),
    "overhead_ms": some_time,
    "span": "function Stored response",
}


def asked_of(name: str) -> JSON:
    """What was asked, where it is a text alone."""
    return {"input": question(name)}


def by_a_chat(name: str, asked: Any) -> JSON:
    """What was asked is one thing, and the chat that stood in for it another."""
    return {"root.input": asked, "llm.input": [{"role": "user", "content": question(name)}]}


KINDS: dict[str, Kind] = {
    "response": Kind(
        posts(RESPONSES, answer("whole", usage=(120, 34), extra={"model": DATED}, delay=WAIT_S)),
        WHOLE
        | asked_of("response")
        | {"output": items(("message", "whole")), "tokens": (120, 34, 0, 0, 0), "served": DATED}
        | {"finish": ["completed"], "span": "llm Response"},
    ),
    "response, streamed": Kind(
        posts(
            RESPONSES,
            answer("in pieces", usage=THOUGHT, message={"tool_calls": [TOOL]}, extra={"model": DATED}, delay=WAIT_S),
            stream=True,
        ),
        EARLY
        | asked_of("response, streamed")
        | {"output": items(("message", "in pieces"), ("function_call", '{"a": 1}')), "tokens": (300, 90, 256, 0, 70)}
        | {"finish": ["completed"], "served": DATED, "span": "llm Response"},
    ),
    "response, failed": Kind(
        posts(
            RESPONSES,
            sse(
                pause(WAIT_S),
                event(HALF["type"], HALF),
                event("response.failed", {"type": "response.failed", "response": FAILED}),
                delay=WAIT_S,
            ),
            stream=True,
        ),
        EARLY
        | asked_of("response, failed")
        | fails("worker lost", "server_error")
        | {
            "output": items(("message", "half a")),
            "guess": "half a",
            "finish": ["failed"],
            "served": DATED,
            "span": "llm Response",
        },
    ),
    "response, by a chat": Kind(
        posts(
            RESPONSES,
            answer("from it", usage=USAGE, extra={"model": DATED_CLAUDE}, delay=WAIT_S),
            f"anthropic/{CLAUDE}",
            stream=True,
        ),
        EARLY
        | ITSELF
        | by_a_chat("response, by a chat", question("response, by a chat"))
        | {"root.output": items(("message", "from it")), "llm.output": [said("from it")]}
        | {"tokens": (2400, 40, 2000, 300, 0), "finish": ["stop"]},
    ),
    "message": Kind(
        posts(
            MESSAGES,
            answer("whole", usage=USAGE, extra={"model": DATED_CLAUDE}, delay=WAIT_S),
            f"anthropic/{CLAUDE}",
            field="messages",
            max_tokens=9,
        ),
        WHOLE
        | ITSELF
        | {
            "output": message(text("whole")),
            "tokens": (2400, 40, 2000, 300, 0),
            "finish": ["end_turn"],
            "span": "llm Message",
        },
    ),
    "message, streamed": Kind(
        posts(
            MESSAGES,
            answer("in pieces", usage=USAGE, finish="length", extra={"model": DATED_CLAUDE}, delay=WAIT_S),
            f"anthropic/{CLAUDE}",
            field="messages",
            max_tokens=9,
            stream=True,
        ),
        EARLY
        | ITSELF
        | {"output": message(text("in pieces"), stop="max_tokens"), "tokens": (2400, 40, 2000, 300, 0)}
        | {"finish": ["max_tokens"], "span": "llm Message"},
    ),
    "message, half read": Kind(
        leaves_a_message,
        LEFT
        | ITSELF
        | {
            "output": message(text("half a"), stop=None),
            "tokens": (2400, 40, 2000, 300, 0),
            "finish": [None],
            "span": "llm Message",
        },
    ),
    "message, by a chat": Kind(
        posts(
            MESSAGES,
            answer("from it", usage=(210, 18), extra={"model": DATED}, delay=WAIT_S),
            field="messages",
            max_tokens=9,
            stream=True,
        ),
        EARLY
        | {"root.output": message(text("from it")), "llm.output": [said("from it")]}
        | {"tokens": (210, 18, 0, 0, 0), "finish": ["stop"], "served": DATED},
    ),
    "embeddings": Kind(
        posts("/v1/embeddings", embeddings(tokens=50, delay=WAIT_S), EMBEDDER),
        WHOLE
        | asked_of("embeddings")
        | {"output": {"embeddings": 1, "dimensions": 3}, "tokens": (50, 0, 0, 0, 0), "finish": ABSENT}
        | {"asked": EMBEDDER, "served": EMBEDDER, "priced": EMBEDDER, "span": "llm Embedding"},
    ),
    "completion": Kind(
        posts(
            "/v1/completions",
            answer("in pieces", usage=(30, 4), extra={"model": DATED}, delay=WAIT_S),
            field="prompt",
            stream=True,
        ),
        EARLY
        | asked_of("completion")
        | {"output": [{"index": 0, "text": "in pieces", "finish_reason": "stop"}], "tokens": (30, 4, 0, 0, 0)}
        | {"served": DATED},
    ),
    "completion, by a chat": Kind(
        posts(
            "/v1/completions",
            answer("from it", usage=USAGE, extra={"model": DATED_CLAUDE}, delay=WAIT_S),
            f"anthropic/{CLAUDE}",
            field="prompt",
            max_tokens=9,
        ),
        WHOLE
        | ITSELF
        | by_a_chat("completion, by a chat", question("completion, by a chat"))
        | {"root.output": lambda value, _found: [one["text"] for one in value] == ["from it"]}
        | {"llm.output": lambda value, _found: [one["message"]["content"] for one in value] == ["from it"]}
        | {"tokens": (2400, 40, 2000, 300, 0), "finish": ["stop"]},
    ),
    "count of tokens": Kind(
        posts(
            f"{MESSAGES}/count_tokens",
            plain_json({"input_tokens": 12}, delay=WAIT_S),
            f"anthropic/{CLAUDE}",
            field="messages",
        ),
        ITSELF | NO_MODEL | {"output": {"input_tokens": 12}, "span": "function Token count"},
    ),
    "count of tokens, here": Kind(
        posts(f"{MESSAGES}/count_tokens", None, field="messages"),
        NO_MODEL | {"output": receipt("input_tokens"), "overhead_ms": some_time, "span": "function Token count"},
    ),
    "count of a response's tokens": Kind(
        posts(f"{RESPONSES}/input_tokens", plain_json({"input_tokens": 12}, delay=WAIT_S)),
        NO_MODEL
        | asked_of("count of a response's tokens")
        | {"output": {"input_tokens": 12}, "span": "function Token count"},
    ),
    "retrieved": Kind(about("GET", made={"model": GPT}), BY_ID | {"output": receipt("id", "output", "usage")}),
    "items of the input": Kind(about("GET", "/input_items", made={"model": GPT}), BY_ID | {"output": receipt("data")}),
    "cancelled": Kind(
        about("POST", "/cancel", made={"model": GPT}),
        BY_ID | {"output": lambda value, _found: value["status"] == "cancelled"},
    ),
    "deleted": Kind(about("DELETE", made={"model": GPT}), BY_ID | {"output": receipt("id", "deleted")}),
    "retrieved, kept here": Kind(
        about("GET", made={"model": f"anthropic/{CLAUDE}"}),
        ITSELF | BY_ID | {"output": receipt("id", "output", "usage")},
    ),
    "never made": Kind(about("GET"), REFUSED | fails(NOT_FOUND, "not_found", 404)),
}


@pytest.fixture(scope="module")
def table(gateway: Served, caller: Caller, provider: FakeProvider, braintrust: FakeBraintrust) -> Table:
    return Table(KINDS, Desk(gateway, caller, provider), braintrust)


@pytest.mark.parametrize("name", KINDS)
def test_every_field_of_a_trace_is_what_the_provider_said(table: Table, name: str) -> None:
    assert table.row(name)[1] == {}


def test_the_table_has_no_wrong_cell(table: Table) -> None:
    table.show()
    assert {name: wrong for name in KINDS if (wrong := table.row(name)[1])} == {}
