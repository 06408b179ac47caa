"""Traces without content: nothing that was asked, thought, called, counted or answered is in them, on any wire."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.fakes.braintrust_server import FakeBraintrust
from tests.fakes.provider import FakeProvider, Reply, answer, delta, done, embeddings, error, event, sse
from tests.served.caller import Caller
from tests.served.process import TOKEN, Served
from tests.served.traces import WAIT_S, is_root, text_of

JSON = dict[str, Any]
Say = Callable[[str], str]

RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"


@dataclass(frozen=True)
class Asked:
    """One call: `body` is made of words that say where they stand, and so is the provider's answer."""

    path: str
    name: str
    body: Callable[[Say], JSON]
    reply: Callable[[Say], Reply] | None = None


def chat(say: Say) -> JSON:
    function = {"name": "f", "description": say("tool"), "parameters": {"title": say("schema")}}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": f'{{"a": "{say("arguments")}"}}'}}
    return {
        "messages": [
            {"role": "system", "content": say("system")},
            {"role": "user", "content": [{"type": "text", "text": say("input")}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": say("result")},
        ],
        "tools": [{"type": "function", "function": function}],
        "metadata": {"note": say("metadata")},
        "user": say("user"),
        "stop": [say("stop")],
    }


def response(say: Say) -> JSON:
    return {
        "instructions": say("instructions"),
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": say("input")}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": f'{{"a": "{say("arguments")}"}}'},
            {"type": "function_call_output", "call_id": "c", "output": say("result")},
        ],
        "tools": [{"type": "function", "name": "f", "description": say("tool"), "parameters": {}, "strict": False}],
        "metadata": {"note": say("metadata")},
        "user": say("user"),
    }


def shaped(say: Say) -> JSON:
    text = {"format": {"type": "json_schema", "name": "n", "schema": {"title": say("schema")}}}
    return {**response(say), "text": text}


def message(say: Say) -> JSON:
    return {
        "max_tokens": 2000,
        "system": [{"type": "text", "text": say("system")}],
        "messages": [
            {"role": "user", "content": say("input")},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": say("call")}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": say("result")}]},
        ],
        "tools": [
            {"name": "f", "description": say("tool"), "input_schema": {"type": "object", "title": say("schema")}}
        ],
        "metadata": {"user_id": say("user")},
        "stop_sequences": [say("stop")],
    }


def thinks(say: Say) -> Reply:
    """A streamed message that has thoughts, and a call of a tool."""
    start = {"type": "message", "id": "m", "role": "assistant", "model": "m", "content": [], "usage": {}}
    blocks = (
        ({"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": say("thinking")}),
        ({"type": "text", "text": ""}, {"type": "text_delta", "text": say("answer")}),
        (
            {"type": "tool_use", "id": "t", "name": "f", "input": {}},
            {"type": "input_json_delta", "partial_json": f'{{"a": "{say("called")}"}}'},
        ),
    )
    steps = [event("message_start", {"type": "message_start", "message": start})]
    for index, (block, piece) in enumerate(blocks):
        begin, grow = "content_block_start", "content_block_delta"
        steps.append(event(begin, {"type": begin, "index": index, "content_block": block}))
        steps.append(event(grow, {"type": grow, "index": index, "delta": piece}))
    end = {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 4}}
    return sse(*steps, event("message_delta", end), event("message_stop", {"type": "message_stop"}))


def reasons(say: Say) -> Reply:
    """A streamed chat that has thoughts."""
    said = {"content": say("answer")}
    return sse(delta({"reasoning_content": say("thinking")}), delta(said), delta({}, "stop"), done())


def fails(say: Say) -> Reply:
    """A refusal that quotes the prompt."""
    return error(400, {"type": "error", "error": {"type": "invalid_request_error", "message": say("quoted")}})


def breaks(say: Say) -> Reply:
    """A response that fails on its way, and says so in words of the prompt."""
    half = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": say("answer")}
    failed = {"id": "resp_f", "status": "failed", "output": [], "error": {"code": "c", "message": say("quoted")}}
    return sse(*(event(one["type"], one) for one in (half, {"type": "response.failed", "response": failed})))


def streamed(body: Callable[[Say], JSON]) -> Callable[[Say], JSON]:
    return lambda say: {**body(say), "stream": True}


def answers(say: Say) -> Reply:
    return answer(say("answer"))


CALLS: dict[str, Asked] = {
    "chat": Asked("/v1/chat/completions", "openai", streamed(chat), reasons),
    "response": Asked(RESPONSES, "openai", shaped, answers),
    "response, streamed": Asked(RESPONSES, "openai", streamed(response), answers),
    "response, by a chat": Asked(RESPONSES, "anthropic", streamed(response), thinks),
    "response, refused": Asked(RESPONSES, "openai", response, fails),
    "response, broken": Asked(RESPONSES, "openai", streamed(response), breaks),
    "message": Asked(MESSAGES, "anthropic", message, answers),
    "message, streamed": Asked(MESSAGES, "anthropic", streamed(message), thinks),
    "message, by a chat": Asked(MESSAGES, "openai", streamed(message), reasons),
    "message, refused": Asked(MESSAGES, "anthropic", message, fails),
    "embeddings": Asked("/v1/embeddings", "openai", lambda say: {"input": [say("input")]}, lambda _say: embeddings()),
    "completion": Asked(
        "/v1/completions", "openai", lambda say: {"prompt": say("input"), "suffix": say("suffix")}, answers
    ),
    "completion, by a chat": Asked("/v1/completions", "anthropic", lambda say: {"prompt": say("input")}, answers),
    "count of tokens": Asked(f"{MESSAGES}/count_tokens", "anthropic", message),
    "count of tokens, here": Asked(f"{MESSAGES}/count_tokens", "openai", message),
    "count of a response's tokens": Asked(f"{RESPONSES}/input_tokens", "openai", response),
}
#: Of a stored response, kept here and there: what is asked of it later tells again what it holds.
STORED = ("openai", "anthropic")

MARK = "canary"


class Teller:
    """Makes words that say where they stand, and remembers which."""

    def __init__(self, mode: str, call: str) -> None:
        self._start = f"{MARK}.{mode}.{re.sub('[^a-z]+', '-', call)}."
        self.said: set[str] = set()

    def __call__(self, place: str) -> str:
        words = f"{self._start}{place}."
        self.said.add(words)
        return words


def tell_all(url: str, provider: FakeProvider, mode: str, header: str | None) -> tuple[set[str], list[str]]:
    """Make every call, and return all words that were said in them and the ids of the requests."""
    said: set[str] = set()
    request_ids = []
    headers = {"Authorization": f"Bearer {TOKEN}"} | ({} if header is None else {"X-Gateway-Trace": header})
    with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=30) as http:
        for number, (name, asked) in enumerate(CALLS.items()):
            teller, model = Teller(mode, name), f"content-{mode}-{number}"
            if asked.reply is not None:
                provider.script(model, asked.reply(teller))
            got = http.post(asked.path, json={"model": f"{asked.name}/{model}", **asked.body(teller)})
            assert got.status_code == (400 if "refused" in name else 200), got.text
            request_ids.append(got.headers["request-id"])
            said |= teller.said
        for name in STORED:
            teller, model = Teller(mode, f"stored at {name}"), f"content-{mode}-{name}"
            provider.script(model, answer(teller("answer")))
            made = http.post(RESPONSES, json={"model": f"{name}/{model}", "input": teller("input")}).json()
            for path in ("", "/input_items"):
                request_ids.append(http.get(f"{RESPONSES}/{made['id']}{path}").headers["request-id"])
            said |= teller.said
    return said, request_ids


@pytest.fixture(scope="module")
def silent(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str], braintrust: FakeBraintrust
) -> Iterator[Served]:
    """The gateway whose operator wants no content."""
    own = settings | braintrust.environment() | {"GATEWAY_TRACE_CONTENT": "off"}
    with Served(tmp_path_factory.mktemp("silent"), own) as served:
        yield served


def wait_for(braintrust: FakeBraintrust, request_ids: list[str]) -> None:
    def all_there(rows: Any) -> bool:
        return set(request_ids) <= {row["metadata"]["request_id"] for row in rows if is_root(row)}

    braintrust.wait_rows(all_there, WAIT_S)


def test_with_content_every_word_is_in_a_trace(
    caller: Caller, provider: FakeProvider, braintrust: FakeBraintrust
) -> None:
    """Without this, words that never get near a trace would prove nothing below."""
    said, request_ids = tell_all(caller.url, provider, "full", None)
    wait_for(braintrust, request_ids)
    kept = text_of(braintrust.pieces())
    assert {words for words in said if words not in kept} == set()
    assert len(said) > 80


def test_a_caller_that_wants_no_content_has_none_in_its_traces(
    gateway: Served, caller: Caller, provider: FakeProvider, braintrust: FakeBraintrust
) -> None:
    said, request_ids = tell_all(caller.url, provider, "metadata", "metadata")
    wait_for(braintrust, request_ids)
    kept = text_of(braintrust.pieces()) + gateway.log
    assert {words for words in said if words in kept} == set()


def test_a_caller_that_wants_no_traces_has_none(
    gateway: Served, caller: Caller, provider: FakeProvider, braintrust: FakeBraintrust
) -> None:
    said, request_ids = tell_all(caller.url, provider, "off", "off")
    wait_for(braintrust, [caller.chat("openai/after-all-of-it").headers["request-id"]])
    kept = text_of(braintrust.pieces())
    assert {words for words in said if words in kept or words in gateway.log} == set()
    assert [one for one in request_ids if one in kept] == []


def test_an_operator_that_wants_no_content_has_none(
    silent: Served, provider: FakeProvider, braintrust: FakeBraintrust
) -> None:
    said, request_ids = tell_all(silent.url, provider, "operator", "full")
    wait_for(braintrust, request_ids)
    time.sleep(0.2)
    kept = text_of(braintrust.pieces()) + silent.log
    assert {words for words in said if words in kept} == set()
    rows = [row for row in braintrust.rows() if (row.get("metadata") or {}).get("request_id") in request_ids]
    assert len(rows) == len(request_ids)
    assert all(row.get("input") is None and row.get("output") is None for row in rows)
