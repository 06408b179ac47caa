"""Every kind of call, field by field: what its trace says against what the provider was told to say."""

import base64
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from gateway.upstream import modelmap
from tests.fakes.braintrust_server import FakeBraintrust
from tests.fakes.provider import (
    Action,
    FakeProvider,
    Reply,
    answer,
    data,
    delta,
    done,
    error,
    hang,
    pause,
    silence,
    sse,
    usage,
)
from tests.served.caller import CHAT, Caller, body
from tests.served.process import TOKEN, Served
from tests.served.traces import Found, trace_of
from tests.served.wire import BEARER, Wire, chat_request

JSON = dict[str, Any]
Call = Callable[["Desk", str], str]

ABSENT = "-"
GPT, CLAUDE = "gpt-4.1-mini", "claude-haiku-4-5"
DATED, DATED_CLAUDE = "gpt-4.1-mini-2025-04-14", "claude-haiku-4-5-20251001"
CALLER = "tok_" + hashlib.sha256(TOKEN.encode()).hexdigest()[:8]
TAGS = ["table", "golden"]
GONE = "The caller closed the connection."
NO_KEY = (
    "Incorrect or missing API key. Send a key of this gateway, not a provider's, as `Authorization: Bearer <key>` or "
    "`x-api-key: <key>`."
)
NO_MODEL = (
    "The model 'nosuchprovider/m' does not exist here. Name one as <provider>/<model>, for example "
    "openai/gpt-4o-mini; GET /v1/models lists what can be called."
)
TOO_LARGE = "The body has 41943040 bytes; this gateway takes 33554432 at most."
#: How long the provider waits before its head, before its first content, and after its last.
WAIT_S = 0.15

PICTURE, SOUND = b"\x89PNG one small picture", b"RIFF some short sound" * 7
SPOKEN = [b"spoken piece one", b"and piece two", b"then three"]
TOKENS = (
    *("prompt_tokens", "completion_tokens", "prompt_cached_tokens", "prompt_cache_creation_tokens"),
    *("completion_reasoning_tokens", "tokens"),
)


@dataclass(frozen=True)
class Desk:
    """Where a call is made from."""

    gateway: Served
    caller: Caller
    provider: FakeProvider


@dataclass(frozen=True)
class Kind:
    """A kind of call: `call` makes it and says by which words its trace is found; `golden` is what differs."""

    call: Call
    golden: JSON = field(default_factory=dict)


def told(*actions: Action) -> Reply:
    """A stream that is slow at three places, so that each wait shows in the times of its trace."""
    return sse(delta({"role": "assistant"}), pause(WAIT_S), *actions, pause(WAIT_S), done(), delay=WAIT_S)


def said(text: str | None, finish: str | None = "stop", **message: Any) -> JSON:
    return {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}


def fails(why: str, code: str, status: int = 200) -> JSON:
    return {"error": why, "code": code, "status": status}


def asks(reply: Reply, model: str = GPT, *, stream: bool = True, parts: Any = (), **fields: Any) -> Call:
    """A call that waits for its answer."""

    def call(desk: Desk, words: str) -> str:
        desk.provider.script(model.rpartition("/")[2], reply)
        content = [{"type": "text", "text": words}, *parts] if parts else words
        asked = body(model, content, **fields)
        (desk.caller.read if stream else desk.caller.post)(asked, X_Gateway_Tags=",".join(TAGS))
        return words

    return call


def leaves(reply: Reply, seen: bytes = b"") -> Call:
    """A call whose caller goes away, after `seen` where that is to come."""

    def call(desk: Desk, words: str) -> str:
        desk.provider.script(GPT, reply)
        before = len(desk.provider.requests(GPT))
        with Wire(desk.gateway) as wire:
            wire.send(chat_request(body(GPT, words, stream=bool(seen)), {**BEARER, "X-Gateway-Tags": ",".join(TAGS)}))
            desk.provider.wait_for(before + 1, GPT)
            time.sleep(WAIT_S)
            if seen:
                wire.read_until(seen)
            wire.leave()
        return words

    return call


def bad_request(desk: Desk, words: str) -> str:
    return str(desk.caller.post(body(GPT, words, n=0), X_Gateway_Tags=",".join(TAGS)).headers["request-id"])


def stranger(desk: Desk, words: str) -> str:
    time.sleep(1.1)  # of 401s one a second is kept
    refused = httpx.post(f"{desk.caller.url}{CHAT}", json=body(GPT, words), trust_env=False)
    return str(refused.headers["request-id"])


def too_large(desk: Desk, _words: str) -> str:
    with Wire(desk.gateway) as wire:
        wire.send(b"POST %s HTTP/1.1\r\nHost: g\r\nContent-Length: 41943040\r\n" % CHAT.encode())
        wire.send(f"Authorization: Bearer {TOKEN}\r\n\r\n".encode())
        return str(json.loads(wire.read_answer()[1])["error"]["request_id"])


def tool(index: int, arguments: str, **first: Any) -> JSON:
    name = {"name": first.pop("name")} if first else {}
    return {"index": index, **first, "function": {**name, "arguments": arguments}}


def media(kind: str, *blobs: bytes) -> str:
    whole = b"".join(blobs)
    return f"[{kind}, {len(whole)} bytes, sha256 {hashlib.sha256(whole).hexdigest()}]"


def encoded(blob: bytes) -> str:
    return base64.b64encode(blob).decode()


def quarter(text: str) -> int:
    return (len(text.encode()) + 3) // 4


def first_content(value: float, found: Found) -> bool:
    """It came after the head and one more wait, and most of a wait before the end: a busy machine shortens that."""
    return bool(2 * WAIT_S <= value <= found.llm["metrics"]["end"] - found.llm["metrics"]["start"] - WAIT_S / 2)


def early_content(value: float, found: Found) -> bool:
    return bool(WAIT_S <= value <= found.llm["metrics"]["end"] - found.llm["metrics"]["start"])


def own_time(value: float, found: Found) -> bool:
    """What is left of the call without its waits for the provider, to the tenth of a millisecond."""
    took_s = found.root["metrics"]["end"] - found.root["metrics"]["start"]
    return bool(0 <= value <= 1000 * (took_s - (WAIT_S if found.under else 0)) + 0.1)


NO_LLM: JSON = dict.fromkeys(
    ("span", "llm.input", "llm.output", "llm.error", "finish", "tokens", "cost", "ttft", "served", "provider"), ABSENT
)
REFUSED: JSON = NO_LLM | dict.fromkeys(("root.input", "asked", "attempts", "overhead_ms", "tags", "gone"), ABSENT)
WHOLE: JSON = {"ttft": ABSENT}
EARLY: JSON = {"ttft": early_content}
LEFT: JSON = fails(GONE, "caller_gone") | {"gone": True}
UNSAID: JSON = dict.fromkeys(("finish", "tokens", "cost", "ttft", "served"), ABSENT)
TOOLS = [
    {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Lima"}'}},
    {"id": "call_b", "type": "function", "function": {"name": "clock", "arguments": '{"zone": 5}'}},
]
THOUGHT = {
    "prompt_tokens": 300,
    "completion_tokens": 90,
    "prompt_tokens_details": {"cached_tokens": 256},
    "completion_tokens_details": {"reasoning_tokens": 70},
}
SOUND_SAID = {"id": "audio_1", "transcript": "hello", "data": media("audio", *SPOKEN)}
PARTS = [
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded(PICTURE)}"}},
    {"type": "input_audio", "input_audio": {"data": encoded(SOUND), "format": "wav"}},
    {"type": "input_audio", "input_audio": {"data": encoded(SOUND * 99), "format": "mp3"}},
]
DIGESTS = [
    {"type": "image_url", "image_url": {"url": media("image/png", PICTURE)}},
    {"type": "input_audio", "input_audio": {"data": media("audio/wav", SOUND), "format": "wav"}},
    {"type": "input_audio", "input_audio": {"data": media("audio/mp3", SOUND * 99), "format": "mp3"}},
]
CACHES = {"input_tokens": 100, "cache_read_input_tokens": 2000, "cache_creation_input_tokens": 300, "output_tokens": 40}

STEPS: dict[str, tuple[Action, ...]] = {
    "tool calls": (
        delta({"tool_calls": [tool(0, "", id="call_a", type="function", name="weather")]}),
        delta({"tool_calls": [tool(0, '{"city"'), tool(1, '{"zo', id="call_b", type="function", name="clock")]}),
        delta({"tool_calls": [tool(1, 'ne": 5}'), tool(0, ': "Lima"}')]}, "tool_calls"),
        usage(50, 60),
    ),
    "several choices": (
        *(delta({"content": "blue "}, index=1), delta({"content": "red "}), delta({"content": "boat"}, index=1)),
        *(delta({"content": "apple"}, "stop"), delta({}, "length", index=1), usage(9, 8)),
    ),
    "reasoning": (
        *(delta({"reasoning_content": "let me "}), delta({"reasoning_content": "think"})),
        *(delta({"content": "so: 4"}, "stop"), usage(THOUGHT)),
    ),
    "refusal": (delta({"refusal": "I will "}), delta({"refusal": "not."}), delta({}, "stop"), usage(21, 5)),
    "audio said": (
        delta({"audio": {"id": "audio_1", "transcript": "hel"}}),
        *(delta({"audio": {"id": "audio_1", "data": encoded(piece)}}) for piece in SPOKEN),
        *(delta({"audio": {"id": "audio_1", "transcript": "lo"}}, "stop"), usage(33, 44)),
    ),
    "failed": (delta({"content": "half a "}), delta({"content": "word"}), data({"error": {"message": "no more"}})),
    "half read": (delta({"content": "tok0 "}), delta({"content": "tok1"}), silence()),
}

KINDS: dict[str, Kind] = {
    "answered": Kind(
        asks(answer("whole", usage=(120, 34), extra={"model": DATED}, delay=WAIT_S), stream=False),
        WHOLE | {"output": [said("whole") | {"logprobs": None}], "tokens": (120, 34, 0, 0, 0), "served": DATED},
    ),
    "streamed": Kind(
        asks(answer("in some pieces", usage=(210, 18), extra={"model": DATED}, delay=WAIT_S)),
        EARLY | {"output": [said("in some pieces")], "tokens": (210, 18, 0, 0, 0), "served": DATED},
    ),
    "failed before content": Kind(
        asks(error(500, delay=WAIT_S)), UNSAID | fails("scripted error 500", "provider_error", 500)
    ),
    "failed after content": Kind(
        asks(told(*STEPS["failed"])),
        EARLY | fails("no more", "provider_error") | {"output": [said("half a word", None)], "guess": "half a word"},
    ),
    "half read": Kind(
        leaves(told(*STEPS["half read"]), b"tok1"),
        EARLY | LEFT | {"output": [said("tok0 tok1", None)], "guess": "tok0 tok1"},
    ),
    "left before headers": Kind(leaves(hang()), UNSAID | LEFT | {"status": 499}),
    "refused 400": Kind(bad_request, REFUSED | fails("n must be at least 1", ABSENT, 400)),
    "refused 401": Kind(stranger, REFUSED | fails(NO_KEY, "invalid_api_key", 401) | {"caller": ABSENT}),
    "refused 404": Kind(
        asks(answer(), "nosuchprovider/m", stream=False),
        NO_LLM | fails(NO_MODEL, "model_not_found", 404) | {"attempts": 0, "asked": "nosuchprovider/m"},
    ),
    "refused 413": Kind(too_large, REFUSED | fails(TOO_LARGE, "request_too_large", 413)),
    "refused 429": Kind(
        asks(error(429, delay=WAIT_S), stream=False), UNSAID | fails("scripted error 429", "rate_limit_exceeded", 429)
    ),
    "tool calls": Kind(
        asks(told(*STEPS["tool calls"])),
        {"output": [said(None, "tool_calls", tool_calls=TOOLS)], "tokens": (50, 60, 0, 0, 0)},
    ),
    "several choices": Kind(
        asks(told(*STEPS["several choices"]), n=2),
        {"output": [said("red apple"), said("blue boat", "length") | {"index": 1}], "tokens": (9, 8, 0, 0, 0)},
    ),
    "reasoning": Kind(
        asks(told(*STEPS["reasoning"])),
        {"output": [said("so: 4", reasoning_content="let me think")], "tokens": (300, 90, 256, 0, 70)},
    ),
    "refusal": Kind(
        asks(told(*STEPS["refusal"])),
        {"output": [said(None, refusal="I will not.")], "tokens": (21, 5, 0, 0, 0)},
    ),
    "media asked": Kind(
        asks(answer("a cat", usage=(800, 3), delay=WAIT_S), stream=False, parts=PARTS),
        WHOLE | {"output": [said("a cat") | {"logprobs": None}], "tokens": (800, 3, 0, 0, 0), "parts": DIGESTS},
    ),
    "audio said": Kind(
        asks(told(*STEPS["audio said"])), {"output": [said(None, audio=SOUND_SAID)], "tokens": (33, 44, 0, 0, 0)}
    ),
    "no usage": Kind(
        asks(told(delta({"content": "nobody counted"}, "stop"))),
        {"output": [said("nobody counted")], "guess": "nobody counted"},
    ),
    "anthropic": Kind(
        asks(answer("from it", usage=CACHES, extra={"model": DATED_CLAUDE}, delay=WAIT_S), f"anthropic/{CLAUDE}"),
        EARLY
        | {"output": [said("from it")], "tokens": (2400, 40, 2000, 300, 0)}
        | {"provider": "anthropic", "asked": f"anthropic/{CLAUDE}", "served": DATED_CLAUDE, "priced": CLAUDE},
    ),
}


def golden(name: str, kind: Kind) -> JSON:
    """The whole row of a kind: what every call has, and over it what differs."""
    own = dict(kind.golden)
    words, parts, guess, priced = question(name), own.pop("parts", None), own.pop("guess", None), own.pop("priced", GPT)
    output, fault = own.pop("output", ABSENT), own.pop("error", ABSENT)
    asked = own.pop(
        "input", [{"role": "user", "content": [{"type": "text", "text": words}, *parts] if parts else words}]
    )
    tokens = own.get("tokens", ABSENT) if guess is None else (quarter(words), quarter(guess), 0, 0, 0)
    if tokens != ABSENT:
        own["tokens"] = (*tokens, tokens[0] + tokens[1])
        own["cost"] = pytest.approx(by_hand(priced, *tokens), rel=1e-9)
        if "finish" not in own:
            own["finish"] = [one["finish_reason"] for one in output]
    row: JSON = {"root.input": asked, "llm.input": asked, "root.output": output, "llm.output": output}
    row |= {
        "span": "llm Completion",
        "root.error": fault,
        "llm.error": fault,
        "code": ABSENT,
        "estimated": ABSENT if guess is None else True,
    }
    row |= {"ttft": first_content, "asked": GPT, "served": GPT, "provider": "openai", "attempts": 1, "status": 200}
    row |= {"overhead_ms": own_time, "caller": CALLER, "tags": TAGS, "gone": False, "repeated": True, "once": True}
    return row | own


def by_hand(model: str, prompt: int, completion: int, cached: int, written: int, _reasoning: int) -> float:
    """The bill, from the prices of LiteLLM's map; reasoning is part of the completion."""
    price = modelmap.read()[model]
    bill = (prompt - cached - written) * price["input_cost_per_token"] + completion * price["output_cost_per_token"]
    bill += cached * price.get("cache_read_input_token_cost", 0) + written * price.get(
        "cache_creation_input_token_cost", 0
    )
    return float(bill)


def question(name: str) -> str:
    return f"row of the table: {name}?"


def actual(found: Found) -> JSON:
    """Read the same fields out of a trace; null and missing are one."""
    (llm,) = found.under or [{"metadata": {}, "metrics": {}, "span_attributes": {}}]
    root = found.root
    about, its, metrics = root["metadata"], llm["metadata"], llm["metrics"]
    counts = tuple(metrics.get(name) for name in TOKENS)
    usage_of_llm = {name: metrics[name] for name in TOKENS if name in metrics} or None
    repeated = all(about.get(one) == its.get(one) for one in ("finish_reasons", "served_model", "usage_estimated"))
    repeated = repeated and (about.get("usage"), about.get("cost_usd")) == (usage_of_llm, metrics.get("estimated_cost"))
    row = {
        **{f"root.{name}": root.get(name) for name in ("input", "output", "error")},
        **{f"llm.{name}": llm.get(name) for name in ("input", "output", "error")},
        "span": " ".join(llm["span_attributes"].get(name, "") for name in ("type", "name")).strip() or None,
        "finish": its.get("finish_reasons"),
        "tokens": None if counts == (None,) * 6 else counts,
        "estimated": its.get("usage_estimated"),
        "cost": metrics.get("estimated_cost"),
        "ttft": metrics.get("time_to_first_token"),
        "asked": about.get("model"),
        "served": its.get("served_model"),
        "provider": its.get("provider"),
        "attempts": about.get("attempts"),
        "overhead_ms": about.get("overhead_ms"),
        "caller": about.get("caller"),
        "tags": root.get("tags"),
        "gone": about.get("caller_gone"),
        "status": about.get("status"),
        "code": about.get("error_code"),
        "repeated": repeated and about.get("provider") == its.get("provider"),
        "once": set(root["metrics"]) == {"start", "end"},
    }
    return {name: ABSENT if value is None else value for name, value in row.items()}


class Table:
    """Makes each call once, when its row is first asked for."""

    def __init__(self, kinds: dict[str, Kind], desk: Desk, braintrust: FakeBraintrust) -> None:
        self.kinds = kinds
        self._desk = desk
        self._braintrust = braintrust
        self._rows: dict[str, tuple[JSON, dict[str, str]]] = {}

    def row(self, name: str) -> tuple[JSON, dict[str, str]]:
        """What was found, and of each field that is wrong what it should have been."""
        if name not in self._rows:
            kind = self.kinds[name]
            found = trace_of(self._braintrust, kind.call(self._desk, question(name)))
            got, wrong = actual(found), {}
            for column, wanted in golden(name, kind).items():
                value = got[column]
                right = value != ABSENT and wanted(value, found) if callable(wanted) else value == wanted
                if not right:
                    wrong[column] = f"{value!r}, not {wanted!r}"
            self._rows[name] = got, wrong
        return self._rows[name]

    def show(self) -> None:
        """Print all of it."""
        rows = {name: self.row(name) for name in self.kinds}
        columns = list(golden(*next(iter(self.kinds.items()))))
        lines = [["kind", *columns]]
        lines += [[name, *(cell(got[one], one in wrong) for one in columns)] for name, (got, wrong) in rows.items()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        print()
        for line in lines:
            print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


@pytest.fixture(scope="module")
def table(gateway: Served, caller: Caller, provider: FakeProvider, braintrust: FakeBraintrust) -> Table:
    return Table(KINDS, Desk(gateway, caller, provider), braintrust)


@pytest.mark.parametrize("name", KINDS)
def test_every_field_of_a_trace_is_what_the_provider_said(table: Table, name: str) -> None:
    assert table.row(name)[1] == {}


def test_the_table_has_no_wrong_cell(table: Table) -> None:
    table.show()
    assert {name: wrong for name in KINDS if (wrong := table.row(name)[1])} == {}


def cell(value: Any, wrong: bool) -> str:
    if wrong:
        return "WRONG"
    if isinstance(value, tuple):
        return "/".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    text = ",".join(map(str, value)) if isinstance(value, list) and not isinstance(value[0], dict) else str(value)
    return text if len(text) <= 24 and text != "True" else "ok"
