"""Whatever a request looks like, the answer is JSON in OpenAI's shape, and the connection stays in step."""

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.provider import FakeProvider
from tests.served.caller import CHAT, CONTENT, Caller, body, fault
from tests.served.process import ORIGIN, TOKEN, Served
from tests.served.wire import Wire, chat_request

FOREIGN = "https://elsewhere.example"


def as_json(model: str, **fields: Any) -> bytes:
    return json.dumps(body(f"openai/{model}", **fields)).encode()


# -- paths and methods


@pytest.mark.parametrize(
    "path",
    ["/v1/nothing/here", "/nothing", "/v1", "/v1/messages/batches", "/v1/responses/a/b", "/v2/chat/completions"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_path_that_is_not_served_is_404_in_json(caller: Caller, method: str, path: str) -> None:
    answered = caller.http.request(method, path, json={"a": 1})
    assert answered.status_code == 404
    assert fault(answered)["code"] == "unknown_url"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT, "POST"),
        ("PUT", CHAT, "POST"),
        ("DELETE", CHAT, "POST"),
        ("PATCH", "/chat/completions", "POST"),
        ("GET", f"{CHAT}?__modal_function_call_id=fc-1", "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/models", "GET"),
        ("POST", "/health", "GET"),
    ],
)
def test_a_method_that_is_not_served_is_405_in_json(caller: Caller, method: str, path: str, allowed: str) -> None:
    answered = caller.http.request(method, path)
    assert answered.status_code == 405
    assert fault(answered)["code"] == "method_not_allowed"
    assert allowed in answered.headers["allow"]


@pytest.mark.parametrize("path", [CHAT, "/chat/completions", f"{CHAT}/", "/chat/completions/", f"{CHAT}?a=b"])
def test_every_spelling_of_the_path_is_served(caller: Caller, provider: FakeProvider, model: str, path: str) -> None:
    answered = caller.http.post(path, content=as_json(model))
    assert answered.status_code == 200
    assert provider.requests(model)[0].body == body(model)


@pytest.mark.parametrize(
    "path", [f"/{CHAT}", f"//gateway.example{CHAT}", "/./v1/chat/completions", "/v1//chat/completions"]
)
def test_an_odd_path_never_redirects(gateway: Served, model: str, path: str) -> None:
    with Wire(gateway) as wire:
        wire.send(chat_request(body(f"openai/{model}"), path=path))
        status, answered = wire.read_answer()
    assert status in (200, 404)
    assert ("choices" if status == 200 else "error") in json.loads(answered)


def test_headers_of_a_proxy_change_nothing(caller: Caller, model: str) -> None:
    named = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "x.example",
        "Script-Name": "/x",
        "X-Forwarded-Prefix": "/x",
    }
    answered = caller.post(body(f"openai/{model}"), **named)
    assert answered.status_code == 200


def test_an_absolute_address_is_served(gateway: Served, model: str) -> None:
    with Wire(gateway) as wire:
        wire.send(chat_request(body(f"openai/{model}"), path=f"http://gateway.example{CHAT}"))
        assert wire.read_answer()[0] == 200


@pytest.mark.parametrize(("path", "status"), [("/v1/models", 200), ("/health", 200), (CHAT, 405), ("/nothing", 404)])
def test_head_is_get_without_a_body(caller: Caller, path: str, status: int) -> None:
    answered = caller.http.head(path)
    assert answered.status_code == status
    assert answered.content == b""


@pytest.mark.parametrize("path", ["/health", "/health/liveness", "/health/liveliness", "/health/readiness", "/"])
def test_health_is_open_to_all_and_asks_no_model(caller: Caller, provider: FakeProvider, path: str) -> None:
    before = len(provider.requests())
    assert httpx.get(f"{caller.url}{path}", trust_env=False).status_code == 200
    assert len(provider.requests()) == before


def test_models_are_listed_as_openai_lists_them(caller: Caller) -> None:
    listed = caller.http.get("/v1/models").json()
    assert listed["object"] == "list"
    assert "gpt-4o-mini" in {one["id"] for one in listed["data"]}
    for one in listed["data"]:
        assert one["object"] == "model"
        assert isinstance(one["created"], int)
        assert one["owned_by"] in ("openai", "anthropic", "text-completion-openai")
    assert httpx.get(f"{caller.url}/v1/models", trust_env=False).status_code == 401


# -- browsers


def test_a_preflight_needs_no_credential(caller: Caller) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-stainless-os"}
    for path in (CHAT, "/v1/models", "/nothing"):
        answered = httpx.options(f"{caller.url}{path}", headers={"Origin": ORIGIN, **asked}, trust_env=False)
        assert answered.status_code == 204
        assert answered.headers["access-control-allow-origin"] == ORIGIN
        assert answered.headers["access-control-allow-headers"] == "authorization,x-stainless-os"
        assert "Origin" in answered.headers["vary"]
    assert "POST" in httpx.options(f"{caller.url}{CHAT}", trust_env=False).headers["allow"]


def test_a_foreign_origin_is_allowed_nothing(caller: Caller, model: str) -> None:
    preflight = httpx.options(f"{caller.url}{CHAT}", headers={"Origin": FOREIGN}, trust_env=False)
    answered = caller.post(body(f"openai/{model}"), Origin=FOREIGN)
    for one in (preflight, answered):
        assert not [name for name in one.headers if name.startswith("access-control")]


def test_pages_of_the_origin_may_read_answers_errors_and_streams(caller: Caller, model: str) -> None:
    whole = caller.post(body(f"openai/{model}"), Origin=ORIGIN)
    streamed = caller.read(body(f"openai/{model}"), Origin=ORIGIN)
    refused = httpx.post(f"{caller.url}{CHAT}", headers={"Origin": ORIGIN}, trust_env=False)
    lost = caller.http.get("/nothing", headers={"Origin": ORIGIN})
    assert [one.status_code for one in (whole, refused, lost)] == [200, 401, 404]
    for headers in (whole.headers, streamed.headers, refused.headers, lost.headers):
        assert headers["access-control-allow-origin"] == ORIGIN
        assert "x-request-id" in headers["access-control-expose-headers"]


# -- bodies

NOT_JSON = {
    "a comma": b'{"model": "openai/x", "messages": [,]}',
    "nothing": b"",
    "blanks": b" \n",
    "no UTF-8": b'{"model": "\xff\xfe"}',
    "cut off": b'{"model": "openai/x", "messages": [{"role": "user", "content": "x"}]',
    "more after it": b'{"model": "openai/x", "messages": [{"role": "user", "content": "x"}]} {}',
    "a list": b"[]",
    "null": b"null",
    "a number": b"5",
    "a text": b'"hi"',
    "true": b"true",
    "NaN": b'{"model": "openai/x", "messages": [{"role": "user"}], "temperature": NaN}',
    "infinity": b'{"model": "openai/x", "messages": [{"role": "user"}], "temperature": 1e999}',
    "a key twice": b'{"model": "openai/x", "model": "openai/y", "messages": [{"role": "user"}]}',
    "half a pair": b'{"model": "openai/x", "messages": [{"role": "user", "content": "\\ud83d"}]}',
    "too deep": b'{"model": "openai/x", "messages": [{"role": "user"}], "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a long number": b'{"model": "openai/x", "messages": [{"role": "user"}], "seed": ' + b"9" * 5000 + b"}",
    "a form": b"model=x&messages=y",
}


@pytest.mark.parametrize("sent", NOT_JSON.values(), ids=NOT_JSON)
def test_a_body_that_is_no_json_object_is_400(caller: Caller, provider: FakeProvider, sent: bytes) -> None:
    before = len(provider.requests())
    answered = caller.http.post(CHAT, content=sent, headers={"Content-Type": "application/json"})
    assert answered.status_code == 400
    failure = fault(answered)
    assert failure["type"] == "invalid_request_error"
    assert failure["source"] == "gateway"
    assert len(provider.requests()) == before


MESSAGES = [{"role": "user", "content": CONTENT}]
ILL_TYPED: list[tuple[dict[str, Any], str]] = [
    ({"messages": MESSAGES}, "model"),
    ({"model": None, "messages": MESSAGES}, "model"),
    ({"model": "", "messages": MESSAGES}, "model"),
    ({"model": " ", "messages": MESSAGES}, "model"),
    ({"model": ["openai/x"], "messages": MESSAGES}, "model"),
    ({"model": 5, "messages": MESSAGES}, "model"),
    ({"model": "openai/x"}, "messages"),
    ({"model": "openai/x", "messages": None}, "messages"),
    ({"model": "openai/x", "messages": []}, "messages"),
    ({"model": "openai/x", "messages": "hi"}, "messages"),
    ({"model": "openai/x", "messages": {"role": "user"}}, "messages"),
    ({"model": "openai/x", "messages": [1]}, "messages"),
    ({"model": "openai/x", "messages": [None]}, "messages"),
    ({"model": "openai/x", "messages": MESSAGES, "stream": "true"}, "stream"),
    ({"model": "openai/x", "messages": MESSAGES, "stream": 1}, "stream"),
    ({"model": "openai/x", "messages": MESSAGES, "temperature": "hot"}, "temperature"),
    ({"model": "openai/x", "messages": MESSAGES, "n": 0}, "n"),
    ({"model": "openai/x", "messages": MESSAGES, "n": 1_000_000}, "n"),
    ({"model": "openai/x", "messages": MESSAGES, "n": True}, "n"),
    ({"model": "openai/x", "messages": MESSAGES, "max_tokens": 1.5}, "max_tokens"),
    ({"model": "openai/x", "messages": MESSAGES, "tools": {}}, "tools"),
    ({"model": "openai/x", "messages": MESSAGES, "stop": [1]}, "stop"),
    ({"model": "openai/x", "messages": MESSAGES, "metadata": "x"}, "metadata"),
]


@pytest.mark.parametrize(("asked", "param"), ILL_TYPED)
def test_a_field_at_fault_is_named(caller: Caller, provider: FakeProvider, asked: dict[str, Any], param: str) -> None:
    before = len(provider.requests())
    answered = caller.post(asked)
    assert answered.status_code == 400
    failure = fault(answered)
    assert (failure["type"], failure["param"]) == ("invalid_request_error", param)
    assert len(provider.requests()) == before


@pytest.mark.parametrize(
    "kind", ["text/plain", "Application/JSON", "application/json; charset=utf-8", "multipart/form-data", None]
)
def test_the_content_type_does_not_matter(caller: Caller, provider: FakeProvider, model: str, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    assert caller.http.post(CHAT, content=as_json(model), headers=headers).status_code == 200
    assert provider.requests(model)[0].body == body(model)


@pytest.mark.parametrize(
    ("coding", "pack"),
    [("gzip", gzip.compress), ("GZIP", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)],
)
def test_a_packed_body_is_unpacked(caller: Caller, provider: FakeProvider, model: str, coding: str, pack: Any) -> None:
    answered = caller.http.post(CHAT, content=pack(as_json(model)), headers={"Content-Encoding": coding})
    assert answered.status_code == 200, answered.text
    (got,) = provider.requests(model)
    assert got.body == body(model)
    assert "content-encoding" not in got.headers


@pytest.mark.parametrize(
    ("coding", "sent", "status"),
    [
        ("br", b"x", 415),
        ("gzip, gzip", b"x", 415),
        ("zstd", b"x", 415),
        ("gzip", b"no gzip", 400),
        ("gzip", gzip.compress(b"{}" * 500, mtime=0)[:-9], 400),  # the same name in each process of the run
    ],
)
def test_a_coding_that_cannot_be_undone_is_refused(caller: Caller, coding: str, sent: bytes, status: int) -> None:
    answered = caller.http.post(CHAT, content=sent, headers={"Content-Encoding": coding})
    assert answered.status_code == status
    assert "encod" in fault(answered)["message"] or "compress" in fault(answered)["message"]


def in_pieces(whole: bytes, size: int) -> Iterator[bytes]:
    return (whole[start : start + size] for start in range(0, len(whole), size))


@pytest.mark.parametrize("size", [7, 65536])
def test_a_body_in_chunks_is_read(caller: Caller, provider: FakeProvider, model: str, size: int) -> None:
    content = "Größe 漢字 " * 1000
    sent = as_json(model, messages=[{"role": "user", "content": content}])
    assert caller.http.post(CHAT, content=in_pieces(sent, size)).status_code == 200
    assert provider.requests(model)[0].body["messages"][0]["content"] == content


@pytest.mark.parametrize("broken", [b"ZZ\r\n{}\r\n0\r\n\r\n", b"2\r\n{}XX"], ids=["size", "end"])
def test_a_body_in_broken_chunks_is_400(gateway: Served, broken: bytes) -> None:
    with Wire(gateway) as wire:
        wire.send(chat_request({}).split(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n" + broken)
        status, answered = wire.read_answer()
    assert status == 400
    assert json.loads(answered)["error"]["type"] == "invalid_request_error"


BEYOND = b'{"model": "openai/x", "messages": [{"role": "user", "content": "' + b"A" * 2_200_000 + b'"}]}'


def test_a_body_beyond_the_limit_is_413(hurried: Caller, impatient: Served, provider: FakeProvider) -> None:
    before = len(provider.requests())
    answers = [
        hurried.http.post(CHAT, content=BEYOND),
        hurried.http.post(CHAT, content=in_pieces(BEYOND, 65536)),
        hurried.http.post(CHAT, content=gzip.compress(BEYOND), headers={"Content-Encoding": "gzip"}),
    ]
    for answered in answers:
        assert answered.status_code == 413
        assert fault(answered)["code"] == "request_too_large"
    assert len(provider.requests()) == before
    with Wire(impatient) as wire:  # and at once where the length says so
        wire.send(chat_request({}).split(b"Content-Length")[0] + b"Content-Length: 90000000000\r\n\r\n{")
        wire.read_until(b" 413 ")


def test_a_caller_that_leaves_within_its_body_costs_no_call(
    gateway: Served, caller: Caller, provider: FakeProvider, model: str
) -> None:
    before = len(provider.requests())
    for kept in (-1, -40):
        with Wire(gateway) as wire:
            wire.send(chat_request(body(f"openai/{model}"))[:kept])
            wire.leave()
    assert caller.chat(f"openai/{model}-after").status_code == 200
    assert len(provider.requests()) == before + 1


# -- the connection


def test_a_connection_stays_in_step_after_a_401_with_an_unread_body(
    gateway: Served, provider: FakeProvider, model: str
) -> None:
    large = body(f"openai/{model}", "A" * 300_000)
    with Wire(gateway) as wire:
        wire.send(chat_request(large, {"Authorization": "Bearer wrong"}))
        assert wire.read_answer()[0] == 401
        wire.send(chat_request(body(f"openai/{model}")))
        status, whole = wire.read_answer()
        assert status == 200
        assert json.loads(whole)["choices"][0]["message"]["content"] == "hello there"
        wire.send(chat_request(body(f"openai/{model}", stream=True)))
        status, streamed = wire.read_answer()
        assert status == 200
        assert streamed.endswith(b"data: [DONE]\n\n")
    assert len(provider.requests(model)) == 2


def test_100_continue_is_said_before_the_body_is_sent(gateway: Served, model: str) -> None:
    head, _, sent = chat_request(body(f"openai/{model}")).partition(b"\r\n\r\n")
    with Wire(gateway) as wire:
        wire.send(head + b"\r\nExpect: 100-continue\r\n\r\n")
        wire.read_until(b"HTTP/1.1 100 Continue\r\n\r\n")
        wire.send(sent)
        assert wire.read_answer()[0] == 200


def test_http_1_0_gets_a_stream_that_ends_with_the_connection(gateway: Served, model: str) -> None:
    with Wire(gateway) as wire:
        wire.send(chat_request(body(f"openai/{model}", stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        got = wire.read_to_the_end()
    assert got.endswith(b"data: [DONE]\n\n")
    assert b"transfer-encoding" not in got.lower()


def test_headers_of_the_connection_are_the_servers_alone(caller: Caller, model: str) -> None:
    whole, streamed = caller.chat(f"openai/{model}"), caller.stream(f"openai/{model}")
    for headers in (whole.headers, streamed.headers):
        for name in ("connection", "transfer-encoding", "content-length", "content-type", "date"):
            assert len(headers.get_list(name)) <= 1
        assert not {"keep-alive", "content-encoding", "location", "x-bt-api-key"} & set(headers)
    assert "content-length" not in streamed.headers


def test_a_request_id_is_given_and_one_that_was_sent_is_echoed(caller: Caller, model: str) -> None:
    own = caller.post(body(f"openai/{model}"), X_Request_Id="my-id.1")
    assert own.headers["x-request-id"] == "my-id.1"
    assert own.headers["request-id"].startswith("req_")
    for bad in ("a b", "x" * 129, "<script>"):
        answered = caller.post(body(f"openai/{model}"), X_Request_Id=bad)
        assert answered.headers["x-request-id"] == answered.headers["request-id"]


def test_an_answer_says_who_gave_it_and_adds_nothing_of_its_own(caller: Caller, model: str) -> None:
    answered = caller.chat(f"openai/{model}")
    assert answered.headers["x-gateway-provider"] == "openai"
    assert answered.headers["x-gateway-model-id"] == f"openai/{model}"
    assert "_hidden_params" not in answered.text
    assert "api_base" not in answered.text
    assert set(answered.json()) == {"id", "object", "created", "model", "choices", "usage"}
    assert TOKEN not in str(answered.headers)
