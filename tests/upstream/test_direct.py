"""The provider's own operations on its own wire: what goes out, where to, and how what comes back is read."""

from __future__ import annotations

import gzip
import json
import threading
import time
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import body as body_rules
from gateway.core.calls import Attempt
from gateway.core.endpoints import (
    COMPLETIONS,
    COUNT_TOKENS,
    INPUT_ITEMS,
    INPUT_TOKENS,
    MESSAGES,
    RESPONSE,
    RESPONSE_CANCEL,
    RESPONSE_DELETE,
    RESPONSES,
    Endpoint,
)
from gateway.core.redaction import REDACTED
from gateway.core.usage import Usage
from gateway.errors import (
    CallerGone,
    GatewayError,
    ObjectNotFound,
    ProviderFailed,
    ProviderInvalid,
    ProviderLimited,
    ProviderRefused,
    ProviderRejectedKey,
    ProviderTimeout,
    ProviderUnreachable,
)
from gateway.upstream import direct
from tests.builders import attempt
from tests.fakes.loopback import Exchange as Served
from tests.fakes.loopback import Loopback
from tests.fakes.provider import FakeProvider, Reply, answer, drop, error, hang, plain_json, raw, redirect
from tests.upstream.natively import OWN_KEY, Natively, called, model_of

JSON = dict[str, Any]

EACH = pytest.mark.parametrize("endpoint", [RESPONSES, MESSAGES, COMPLETIONS], ids=lambda row: row.name)
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
CREDENTIAL = "sk-" + "a1B2c3D4" * 4


# What goes out.

CODING: JSON = {
    "instructions": "be brief",
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "ä😀\u2028", "own": None}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA=="},
        {"type": "custom_tool_call_output", "call_id": "c", "output": ""},
    ],
    "tools": [
        {"type": "namespace", "name": "files", "tools": [{"type": "function", "name": "read", "parameters": None}]},
        {"type": "web_search", "external_web_access": False},
        {"type": "custom", "name": "apply", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
    ],
    "tool_choice": "auto",
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "k",
    "client_metadata": {"x-turn": "1"},
    "store": False,
    "temperature": None,
    "metadata": {"a": "b"},
    "user": "someone",
    "a_new_field": {"nested": [None, 1.5, 1e300, -0.0, 12345678901234567890]},
}
CLAUDE_CODE: JSON = {
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hi", "own": None}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "S=="}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": None}]},
    ],
    "tools": [{"type": "web_search_20250305", "name": "web_search"}, {"name": "f", "input_schema": {}}],
    "thinking": {"type": "adaptive"},
    "context_management": {"edits": []},
    "metadata": {"user_id": "u"},
    "top_k": None,
    "a_new_field": [],
}
OLDER: JSON = {"echo": True, "guided_choice": ["a"], "logit_bias": {"50256": -100}, "suffix": None, "user": "u"}


@BOTH
@pytest.mark.parametrize(
    ("endpoint", "body"), [(RESPONSES, CODING), (MESSAGES, CLAUDE_CODE), (COMPLETIONS, OLDER)], ids=lambda row: ""
)
def test_the_callers_own_body_goes_out_with_the_providers_name_of_the_model(
    native: Natively, endpoint: Endpoint, body: JSON, stream: bool
) -> None:
    native.ask(endpoint, body, stream=stream)
    [received] = native.provider.requests()
    asked = called(endpoint, model_of(endpoint), body, stream=stream).body
    added = {"stream_options": {"include_usage": True}} if stream and endpoint is COMPLETIONS else {}
    assert received.body == {**asked, "model": "m", **added}
    assert list(received.body) == [*asked, *added], "in the caller's order"
    assert repr(received.body["model"]) == "'m'"


def written(raw: Any) -> bytes:
    return raw if isinstance(raw, bytes) else b"".join(raw)


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text(max_size=12).filter(lambda name: name not in ("model", "stream")), any_json, max_size=5))
def test_whatever_else_is_asked_goes_out_as_it_is(body: JSON) -> None:
    for endpoint in (RESPONSES, MESSAGES):
        made = called(endpoint, model_of(endpoint), body)
        sent = direct._raw(attempt(made.model, api_key="k").deployment, made)
        assert json.loads(written(sent)) == {**made.body, "model": "m"}


WORDS = st.sampled_from(["model", "openai/m", '"model": "x"', "m\\u006fdel", "stream_options", "mod\\", "a"])
looks_like_it = st.recursive(
    st.none() | st.integers() | WORDS | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NAMED = st.dictionaries(WORDS.filter(lambda name: name != "model"), looks_like_it, max_size=4)


@settings(deadline=None, max_examples=1500)
@given(
    before=NAMED,
    after=NAMED,
    stream=st.booleans(),
    spelt=st.lists(st.booleans(), min_size=12, max_size=12),
    indent=st.sampled_from([None, 1]),
)
def test_however_a_body_is_written_the_provider_reads_the_same_but_for_the_model(
    before: JSON, after: JSON, stream: bool, spelt: list[bool], indent: int | None
) -> None:
    """Also where a caller spells a key with escapes, to have another model than the one that was planned."""
    asked = {**before, "model": "openai/m", **after}
    if not isinstance(asked.get("stream_options"), dict | None):
        del asked["stream_options"]
    pieces = json.dumps(asked, indent=indent).split('"model"')
    escapes = iter(spelt)
    text = pieces[0] + "".join(('"mod\\u0065l"' if next(escapes, False) else '"model"') + piece for piece in pieces[1:])
    assert json.loads(text) == asked
    made = called(COMPLETIONS, "openai/m", stream=stream)
    made.body, made.raw = body_rules.parse(text.encode()), text.encode()
    sent = json.loads(written(direct._raw(attempt("openai/m", api_key="k").deployment, made)))
    wanted = {**asked, "model": "m"}
    if stream:
        wanted["stream_options"] = {**(asked.get("stream_options") or {}), "include_usage": True}
    assert sent == wanted


def test_a_body_goes_out_in_the_callers_own_words(native: Natively) -> None:
    text = b'\xef\xbb\xbf {"a" : 1.50,"model":  "openai/m" ,"big":123456789012345678901234567890, "t":"\\u00e9\\/"}\n'
    made = called(COMPLETIONS, "openai/m")
    made.body, made.raw = body_rules.parse(text), text
    native.open(made).close()
    [received] = native.provider.requests()
    assert received.raw == text[4:].replace(b'"openai/m"', b'"m"')


def test_the_callers_body_is_left_as_it_was(native: Natively) -> None:
    made = called(COMPLETIONS, "openai/m", {"stream_options": {"include_usage": False}}, stream=True)
    before = json.dumps(made.body)
    native.open(made).close()
    assert json.dumps(made.body) == before
    assert native.provider.requests()[0].body["stream_options"] == {"include_usage": True}


def test_a_conversation_that_the_gateway_keeps_stands_in_front_of_the_input(native: Natively) -> None:
    history: list[JSON] = [
        {"id": "msg_a", "type": "message", "role": "user", "status": "completed", "content": []},
        {"id": "rs_a", "type": "reasoning", "summary": []},
        {"id": "msg_a", "type": "item_reference"},
        {"id": "fc_a", "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    ]
    native.whole(RESPONSES, {"previous_response_id": "resp_a", "input": "and now?"}, history=history)
    [received] = native.provider.requests()
    assert received.body["input"] == [
        {"type": "message", "role": "user", "content": []},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"role": "user", "content": "and now?"},
    ]
    assert "previous_response_id" not in received.body


# Headers.

CALLERS = {"anthropic-version": "2099-01-01", "anthropic-beta": "a-1,b-2", "openai-beta": "responses=v9"}


@BOTH
@pytest.mark.parametrize(
    ("endpoint", "name", "own"),
    [
        (RESPONSES, "openai/m", {"authorization": f"Bearer {OWN_KEY}", "openai-beta": "responses=v9"}),
        (RESPONSES, "azure/m", {"api-key": OWN_KEY, "openai-beta": "responses=v9"}),
        (COMPLETIONS, "hosted_vllm/m", {"authorization": f"Bearer {OWN_KEY}", "openai-beta": "responses=v9"}),
        (
            MESSAGES,
            "anthropic/m",
            {"x-api-key": OWN_KEY, "anthropic-version": "2099-01-01", "anthropic-beta": "a-1,b-2"},
        ),
    ],
)
def test_headers_are_the_gateways_and_those_of_the_providers_family(
    native: Natively, endpoint: Endpoint, name: str, own: JSON, stream: bool
) -> None:
    native.provider.script("m", answer())
    native.open(called(endpoint, name, stream=stream, provider_headers=CALLERS)).close()
    [received] = native.provider.requests()
    transport = {"host", "content-length", "accept-encoding", "user-agent"}
    assert {key: value for key, value in received.headers.items() if key not in transport} == {
        "content-type": "application/json",
        "accept": "text/event-stream" if stream else "application/json",
        **own,
    }
    assert received.headers["accept-encoding"] == "identity"


def test_anthropic_gets_a_version_where_the_caller_names_none(native: Natively) -> None:
    native.whole(MESSAGES)
    assert native.provider.requests()[0].headers["anthropic-version"] == "2023-06-01"


def test_a_server_of_the_operators_own_needs_no_key(native: Natively) -> None:
    native.open(called(COMPLETIONS, "hosted_vllm/m"), api_key=None)
    assert "authorization" not in native.provider.requests()[0].headers


# Addresses.


@pytest.mark.parametrize(
    ("name", "endpoint", "base", "url"),
    [
        ("openai/m", RESPONSES, None, "https://api.openai.com/v1/responses"),
        (
            "openai/m",
            INPUT_TOKENS,
            "https://eu.api.openai.com/v1/",
            "https://eu.api.openai.com/v1/responses/input_tokens",
        ),
        ("openai/m", RESPONSES, "http://[::1]:8080/v1", "http://[::1]:8080/v1/responses"),
        ("openai/m", RESPONSES, "http://localhost:1/proxy/openai///", "http://localhost:1/proxy/openai/responses"),
        ("openai/m", COMPLETIONS, None, "https://api.openai.com/v1/completions"),
        ("xai/m", RESPONSES, None, "https://api.x.ai/v1/responses"),
        ("together_ai/m", COMPLETIONS, None, "https://api.together.xyz/v1/completions"),
        ("hosted_vllm/m", COMPLETIONS, "http://vllm:8000/v1", "http://vllm:8000/v1/completions"),
        ("anthropic/m", MESSAGES, None, "https://api.anthropic.com/v1/messages"),
        ("anthropic/m", MESSAGES, "https://a.example", "https://a.example/v1/messages"),
        ("anthropic/m", MESSAGES, "https://a.example/", "https://a.example/v1/messages"),
        ("anthropic/m", MESSAGES, "https://a.example/v1", "https://a.example/v1/messages"),
        ("anthropic/m", MESSAGES, "https://a.example/v1/messages/", "https://a.example/v1/messages"),
        ("anthropic/m", MESSAGES, "https://a.example/anthropic", "https://a.example/anthropic/v1/messages"),
        ("anthropic/m", COUNT_TOKENS, "https://[2001:db8::1]", "https://[2001:db8::1]/v1/messages/count_tokens"),
        *(
            ("azure/m", RESPONSES, base, "https://r.example/openai/v1/responses")
            for base in (
                "https://r.example",
                "https://r.example/",
                "https://r.example/openai",
                "https://r.example/openai/v1/",
                "https://r.example/openai/responses",
                "https://r.example/openai/v1/responses",
            )
        ),
    ],
)
def test_an_operators_address_leads_to_the_operation_however_it_is_written(
    name: str, endpoint: Endpoint, base: str | None, url: str
) -> None:
    to = attempt(name, api_base=base, api_key="k").deployment
    assert direct._url(to, called(endpoint, name)) == url


@EACH
def test_each_operation_is_asked_at_its_path(native: Natively, endpoint: Endpoint) -> None:
    native.whole(endpoint)
    assert native.provider.requests()[0].path == endpoint.path


@pytest.mark.parametrize("endpoint", [MESSAGES, COUNT_TOKENS], ids=lambda row: row.name)
def test_the_query_of_an_operation_travels_on(native: Natively, endpoint: Endpoint) -> None:
    native.open(called(endpoint, "anthropic/m", {"messages": []}, query="beta=true"))
    assert native.provider.requests()[0].path == f"{endpoint.path}?beta=true"


ABOUT = [
    (RESPONSE, "GET", ""),
    (RESPONSE_DELETE, "DELETE", ""),
    (RESPONSE_CANCEL, "POST", "/cancel"),
    (INPUT_ITEMS, "GET", "/input_items"),
]


@pytest.mark.parametrize(("endpoint", "method", "tail"), ABOUT, ids=[row.name for row, _, _ in ABOUT])
def test_an_object_is_asked_for_by_its_id_and_nothing_is_sent_along(
    native: Natively, endpoint: Endpoint, method: str, tail: str
) -> None:
    reply = plain_json({"id": "resp_1", "object": "response", "output": [None]})
    native.provider._unscripted = lambda _request: reply  # type: ignore[method-assign]  # these name no model
    made = called(endpoint, "openai/m", path_id="resp_1", query="include=a&include=b")
    assert json.loads(native.open(made).body)["output"] == [None]
    [received] = native.provider.requests()
    assert (received.method, received.path) == (method, f"/v1/responses/resp_1{tail}?include=a&include=b")
    assert received.raw == b""
    assert native.tried.transcript.id == "resp_1"


HOSTILE = [
    "../models", "..%2fmodels", "a/../../files", "a/cancel", "a?stream=true", "a#b", "a b", "\x00", "\r\nHost: x",
    "'\"<>&;", "%", "%2e%2e", "ä😀", "\\..\\", "a" * 10_240, "//evil.example/", "@evil.example", ":80", "...", ".a",
]  # fmt: skip


@pytest.mark.parametrize("response_id", HOSTILE, ids=lambda text: ascii(text)[:20])
@pytest.mark.parametrize(("endpoint", "method", "tail"), ABOUT, ids=[row.name for row, _, _ in ABOUT])
def test_an_id_stays_one_part_of_the_providers_path(
    native: Natively, endpoint: Endpoint, method: str, tail: str, response_id: str
) -> None:
    native.provider._unscripted = lambda _request: plain_json({"id": "x"})  # type: ignore[method-assign]
    native.open(called(endpoint, "openai/m", path_id=response_id))
    [received] = native.provider.requests()
    assert received.method == method
    before, part = received.path.removesuffix(tail).rsplit("/", 1)
    assert (before, unquote(part)) == ("/v1/responses", response_id)
    assert received.headers["host"] == f"127.0.0.1:{native.provider.port}"


@pytest.mark.parametrize("response_id", [".", ".."])
def test_an_id_that_would_be_a_step_in_the_path_is_none(native: Natively, response_id: str) -> None:
    with pytest.raises(ObjectNotFound):
        native.open(called(INPUT_ITEMS, "openai/m", path_id=response_id))
    assert native.provider.requests() == []


# Whole answers.


@pytest.mark.parametrize(
    ("endpoint", "body", "usage"),
    [
        (
            RESPONSES,
            b'{"id":"resp_x",  "status":"completed","output":[],"own":[null],"error":null,"model":"served",'
            b'"usage":{"input_tokens":3,"output_tokens":2,"own":{"x":1}}}',
            Usage(3, 2),
        ),
        (
            MESSAGES,
            b'{"id":"msg_x", "content":[{"type":"new","own":null}],"stop_reason":null,"model":"served",'
            b'"usage":{"input_tokens":1,"cache_read_input_tokens":2,"output_tokens":2,"own":null}}',
            Usage(3, 2, cached=2),
        ),
        (
            COMPLETIONS,
            b'{"id":"cmpl-x", "choices":[{"index":0,"text":"a","finish_reason":"odd","own":null}],"model":"served",'
            b'"usage":{"prompt_tokens":3,"completion_tokens":2}}',
            Usage(3, 2),
        ),
    ],
    ids=["responses", "messages", "completions"],
)
def test_the_providers_own_bytes_come_back(native: Natively, endpoint: Endpoint, body: bytes, usage: Usage) -> None:
    native.provider.script("m", raw(200, {"Content-Type": "application/json; charset=utf-8"}, body))
    assert native.open(called(endpoint, model_of(endpoint))).body == body
    record = native.tried.transcript
    assert (record.model, record.usage, record.complete) == ("served", usage, True)


@EACH
def test_an_answer_that_was_packed_unasked_is_unpacked(native: Natively, endpoint: Endpoint) -> None:
    plain = native.open(called(endpoint, model_of(endpoint))).body
    head = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    native.provider.script("m", raw(200, head, gzip.compress(plain)))
    assert native.open(called(endpoint, model_of(endpoint))).body == plain


JSON_HEAD = {"Content-Type": "application/json"}
NO_ANSWERS = {
    "a page": raw(200, {"Content-Type": "text/html"}, b"<html>Welcome, sk-page</html>"),
    "nothing": raw(200, JSON_HEAD, b""),
    "no content": raw(204),
    "no JSON": raw(200, JSON_HEAD, b"{"),
    "half of it": raw(200, JSON_HEAD, b'{"output": [{"type": "mess'),
    "a number": plain_json(1),
    "a list": plain_json([]),
    "another object": plain_json({"hello": "there"}),
    "not UTF-8": raw(200, JSON_HEAD, b'{"a": "\xff\xfe"}'),
    "too deep": raw(200, JSON_HEAD, b"[" * 200_000),
    "no gzip": raw(200, {**JSON_HEAD, "Content-Encoding": "gzip"}, b"not packed at all"),
    "half of a gzip": raw(200, {**JSON_HEAD, "Content-Encoding": "gzip"}, gzip.compress(b"{}" * 99)[:12]),
    "another packing": raw(200, {**JSON_HEAD, "Content-Encoding": "br"}, b"\x0b\x00"),
    "a redirect": redirect("http://127.0.0.1:1/"),
}


@BOTH
@EACH
@pytest.mark.parametrize("reply", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_what_is_no_answer_is_the_providers_failure(
    native: Natively, endpoint: Endpoint, reply: Reply, stream: bool
) -> None:
    native.provider.script("m", reply)
    with pytest.raises(GatewayError) as failed:
        native.ask(endpoint, stream=stream)
    assert failed.value.http_status == 502
    assert (failed.value.source, failed.value.elsewhere) == ("provider", True)
    assert "sk-page" not in failed.value.message
    assert "chat completion" not in failed.value.message


@EACH
def test_an_answer_without_an_end_is_not_read_for_ever(
    native: Natively, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.upstream.door.MOST_ANSWER_BYTES", 1 << 20)
    native.provider.script("m", raw(200, JSON_HEAD, b" " * (2 << 20) + b"{}"))
    with pytest.raises(ProviderInvalid, match="too large"):
        native.whole(endpoint)


def test_a_response_that_failed_is_told_as_it_is_but_for_credentials(native: Natively) -> None:
    failed = {
        "id": "resp_1",
        "status": "failed",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": f"said {CREDENTIAL}"}]}],
        "error": {"code": "server_error", "message": f"key {CREDENTIAL} and {OWN_KEY}"},
    }
    native.provider.script("m", plain_json(failed))
    got = native.whole(RESPONSES)
    assert got == {**failed, "error": {"code": "server_error", "message": f"key {REDACTED} and {REDACTED}"}}
    assert isinstance(native.tried.error, ProviderFailed)
    assert CREDENTIAL not in native.tried.error.message


def test_a_stored_response_that_failed_has_no_credential_either(native: Natively) -> None:
    failed = {"id": "resp_1", "status": "failed", "output": [], "error": {"code": "x", "message": f"is {CREDENTIAL}"}}
    native.provider._unscripted = lambda _request: plain_json(failed)  # type: ignore[method-assign]
    got = json.loads(native.open(called(RESPONSE, "openai/m", path_id="resp_1")).body)
    assert got == {**failed, "error": {"code": "x", "message": f"is {REDACTED}"}}


# Failures.

STATUSES = {
    **dict.fromkeys((400, 402, 404, 409, 413, 422, 451), (ProviderRefused, None)),
    **dict.fromkeys((401, 403, 407), (ProviderRejectedKey, 502)),
    408: (ProviderTimeout, 504),
    429: (ProviderLimited, None),
    **dict.fromkeys((500, 502, 503, 504, 529), (ProviderFailed, None)),
}


@BOTH
@EACH
@pytest.mark.parametrize("status", STATUSES)
def test_each_status_has_its_place_in_the_tree_and_the_providers_words(
    native: Natively, endpoint: Endpoint, status: int, stream: bool
) -> None:
    kind, shown = STATUSES[status]
    fault = {"message": f"no, {CREDENTIAL}", "type": "some_error", "param": "input", "code": "some_code"}
    headers = {
        "retry-after": "7",
        "retry-after-ms": "6900",
        "x-should-retry": "false",
        "x-ratelimit-remaining-requests": "0",
    }
    native.provider.script("m", error(status, {"type": "error", "error": fault}, headers=headers))
    with pytest.raises(GatewayError) as raised:
        native.ask(endpoint, stream=stream)
    failed = raised.value
    assert type(failed) is kind
    assert failed.http_status == (shown or status)
    assert failed.message.endswith(f"no, {REDACTED}")
    assert (failed.retry_after, failed.retry_after_ms, failed.should_retry) == ("7", "6900", False)
    if kind is not ProviderRejectedKey:
        assert (failed.public_code, failed.public_type, failed.param) == ("some_code", "some_error", "input")
    assert native.tried.provider_headers == {"x-provider-ratelimit-remaining-requests": "0"}
    assert len(native.provider.requests()) == 1, "it is sent once"


class Elsewhere(Loopback):
    """Where a redirect leads, and nobody goes."""

    def handle(self, exchange: Served) -> None:
        exchange.respond_json(200, {"status": "completed", "output": [], "content": [], "choices": []})


@BOTH
@EACH
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(native: Natively, endpoint: Endpoint, status: int, stream: bool) -> None:
    with Elsewhere() as elsewhere:
        native.provider.script("m", redirect(f"{elsewhere.origin}/v1/responses", status))
        with pytest.raises(ProviderInvalid, match="redirect"):
            native.ask(endpoint, stream=stream)
        assert elsewhere.requests() == []
    assert len(native.provider.requests()) == 1


@BOTH
@EACH
@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_connection_that_breaks_off_is_a_failure(
    native: Natively, endpoint: Endpoint, how: Any, stream: bool
) -> None:
    native.provider.script("m", drop(how))
    with pytest.raises(ProviderUnreachable):
        native.ask(endpoint, stream=stream)


@EACH
def test_nobody_at_the_address_is_a_failure(native: Natively, provider: FakeProvider, endpoint: Endpoint) -> None:
    provider.close()
    with pytest.raises(ProviderUnreachable):
        native.whole(endpoint)


@BOTH
@EACH
def test_a_caller_that_leaves_before_the_answer_frees_the_provider_at_once(
    native: Natively, endpoint: Endpoint, stream: bool
) -> None:
    native.provider.script("m", hang())
    made = called(endpoint, model_of(endpoint), stream=stream)
    ended: list[tuple[float, GatewayError]] = []

    def ask() -> None:
        try:
            native.open(made)
        except GatewayError as failed:
            ended.append((time.monotonic(), failed))

    thread = threading.Thread(target=ask)
    thread.start()
    [received] = native.provider.wait_for(1)
    time.sleep(0.05)
    left_s = time.monotonic()
    made.cancellation.abort("caller_gone")
    thread.join(5)
    assert type(ended[0][1]) is CallerGone
    assert ended[0][0] - left_s < 0.5
    assert received.closed.wait(1)


def test_a_call_that_was_stopped_before_sends_nothing(native: Natively) -> None:
    made = called(RESPONSES, "openai/m")
    made.cancellation.abort("caller_gone")
    with pytest.raises(CallerGone):
        native.open(made)
    assert native.provider.requests() == []


@pytest.mark.parametrize("endpoint", [RESPONSES, MESSAGES], ids=lambda row: row.name)
def test_a_provider_that_is_silent_for_too_long_is_a_timeout(native: Natively, endpoint: Endpoint) -> None:
    native.provider.script("m", hang())
    with pytest.raises(ProviderTimeout):
        native.open(called(endpoint, model_of(endpoint), deadline_s=time.monotonic() - 0.7))


@BOTH
@pytest.mark.parametrize("endpoint", [RESPONSES, MESSAGES], ids=lambda row: row.name)
def test_a_deployment_that_has_a_time_of_its_own_is_waited_for_no_longer(
    native: Natively, endpoint: Endpoint, stream: bool
) -> None:
    native.provider.script("m", hang())
    bounds = {"timeout_s": 30.0, "stream_timeout_s": 0.3} if stream else {"timeout_s": 0.3, "stream_timeout_s": 30.0}
    began_s = time.monotonic()
    with pytest.raises(ProviderTimeout):
        native.open(called(endpoint, model_of(endpoint), stream=stream), **bounds)
    assert 0.25 < time.monotonic() - began_s < 4, "and not for the 5 s of all"


def test_many_calls_at_once_do_not_mix(native: Natively) -> None:
    failed: list[str] = []

    def ask(number: int) -> None:
        endpoint = (RESPONSES, MESSAGES, COMPLETIONS)[number % 3]
        made = called(endpoint, model_of(endpoint), stream=number % 2 == 0)
        if endpoint is MESSAGES:
            made.body["messages"] = [{"role": "user", "content": f"number {number}"}]
        else:
            made.body[endpoint.asked] = f"number {number}"
        tried: Attempt = native.attempt(made.model)
        tried.transcript = endpoint.transcript()
        opened = native.direct.open(tried, made)
        if made.stream:
            list(opened.chunks())
        opened.close()
        if f"got number {number}'" not in repr(tried.transcript.said()):
            failed.append(repr(tried.transcript.said()))

    native.provider.script("m", answer(echo=True))
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failed == []
