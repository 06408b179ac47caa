"""Streams and failures in each dialect, and requests about what was stored: driven as a WSGI server drives it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest

from gateway.app import create_app
from gateway.core.calls import Attempt, Call, Chunk
from gateway.core.wire import DONE, Events, data_event, data_of, named_event
from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    ProviderFailed,
    ProviderLimited,
    ProviderRejectedKey,
    ProviderStreamEnded,
)
from gateway.storage.database import Database, StorageBusy
from gateway.storage.migrate import upgrade
from gateway.storage.owned import RESPONSE, Owned, OwnedObjects
from gateway.upstream import AtHand
from tests.builders import ROLE, TOKEN, Recorder, delta, finish, gateway

JSON = dict[str, Any]
Steps = Sequence[Chunk | Exception]

ASKED: dict[str, JSON] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]},
}
EACH = pytest.mark.parametrize("path", ASKED)


def said(value: JSON, *, content: bool = True, last: bool = False) -> Chunk:
    frame = named_event if "type" in value else data_event
    return Chunk(frame(value), content, last, value)


#: On each wire: a beginning with some content, and a good end.
BEGUN: dict[str, list[Chunk]] = {
    "/v1/chat/completions": [said(ROLE, content=False), said(delta("a"))],
    "/v1/responses": [
        said({"type": "response.created", "response": {"id": "resp_1"}}, content=False),
        said({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "a"}),
    ],
    "/v1/messages": [
        said({"type": "message_start", "message": {"id": "msg_1"}}, content=False),
        said({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}, content=False),
        said({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}),
    ],
}
COMPLETED = {"type": "response.completed", "response": {"id": "resp_1", "status": "completed", "output": []}}
GOOD: dict[str, list[Chunk]] = {
    "/v1/chat/completions": [said(finish())],
    "/v1/responses": [said(COMPLETED, last=True)],
    "/v1/messages": [
        said({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}),
        said({"type": "message_stop"}, last=True),
    ],
}


@dataclass
class Said:
    """An upstream that streams these chunks, or answers with a document (upstream.Upstream, upstream.Answer)."""

    steps: Steps = ()
    document: JSON = field(default_factory=lambda: {"id": "resp_1", "own": [None]})
    calls: list[Call] = field(default_factory=list)
    body: bytes = b""
    tells_silence: bool = False
    _transcript: Any = None

    def start(self) -> None:
        """Nothing to make ready."""

    def opens_in_time(self, _attempt: Attempt, _call: Call) -> bool:
        return False

    def open(self, attempt: Attempt, call: Call) -> Any:
        self.calls.append(call)
        self._transcript = attempt.transcript
        if not call.stream and call.endpoint.by_id:
            return AtHand(attempt, self.document)
        if self.steps and isinstance(self.steps[0], Exception):
            raise self.steps[0]
        return self

    def chunks(self) -> Iterator[Chunk]:
        for step in self.steps:
            if isinstance(step, Exception):
                raise step
            self._transcript.add(step.piece)
            yield step

    def close(self) -> None:
        """Nothing is held."""


class Served:
    """An app over `Said`, with a store of its own."""

    def __init__(self, objects: OwnedObjects | None = None) -> None:
        self.said = Said()
        self.traced = Recorder()
        self.gateway = gateway(self.said, self.traced)
        self.gateway.objects = objects
        self.app = create_app(gateway=self.gateway)

    def ask(self, method: str, path: str, body: Any = None, token: str = TOKEN, **headers: str) -> Any:
        sent = {
            "Authorization": f"Bearer {token}",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        more = {"json": body} if body is not None else {}
        return self.app.test_client().open(path, method=method, headers=sent, buffered=True, **more)

    def post(self, path: str, steps: Steps, *, stream: bool = True, model: str = "openai/m", **more: Any) -> Any:
        self.said.steps = steps
        return self.ask("POST", path, {"model": model, **ASKED[path], "stream": stream, **more})


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.gateway.close(0.1)


def events_of(response: Any) -> list[bytes]:
    events: list[bytes] = Events().feed(response.data)
    assert b"".join(events) == response.data, "whole events, and nothing else"
    return events


# Streams.


@EACH
def test_a_stream_goes_out_as_it_was_read_and_its_last_event_after_the_settling(served: Served, path: str) -> None:
    response = served.post(path, [*BEGUN[path], *GOOD[path]])
    last = [DONE] if path == "/v1/chat/completions" else []
    assert events_of(response) == [chunk.data for chunk in (*BEGUN[path], *GOOD[path])] + last
    assert response.status_code == 200
    assert response.content_type == "text/event-stream; charset=utf-8"
    assert len(served.traced.traces) == 1


ENDED = ProviderStreamEnded("openai ended", provider="openai")


@EACH
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ENDED, "api_error"),
        (DeadlineExceeded("late"), "timeout_error"),
        (ProviderLimited("slow down", provider="openai", code="busy"), "rate_limit_error"),
        (ProviderFailed("busy", provider="anthropic", type="overloaded_error", code="c"), "overloaded_error"),
        (RuntimeError("a secret of the code"), "api_error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_failure_in_the_middle_is_one_event_of_the_dialect(
    served: Served, path: str, error: Exception, kind: str
) -> None:
    response = served.post(path, [*BEGUN[path], error])
    *before, last = events_of(response)
    assert before == [chunk.data for chunk in BEGUN[path]]
    told = json.loads(data_of(last) or b"")
    request_id = response.headers["request-id"]
    code = error.public_code if isinstance(error, GatewayError) else "internal_error"
    message = error.message if isinstance(error, GatewayError) else "The gateway failed while it read the answer."
    assert (told["error"]["code"], told["error"]["message"]) == (code, message)
    if path == "/v1/messages":
        assert last.startswith(b"event: error\ndata: ")
        assert (told["type"], told["error"]["type"], told["request_id"]) == ("error", kind, request_id)
    else:
        assert told["error"]["request_id"] == request_id
    if path == "/v1/responses":
        assert last.startswith(b"event: error\ndata: ")
        assert (told["type"], told["code"], told["message"]) == ("error", code, message)
        assert told["sequence_number"] == len(before)
    if path == "/v1/chat/completions":
        assert last.startswith(b"data: ")
        assert set(told) == {"error"}
    for end in (b"[DONE]", b"message_stop", b"response.completed", b"secret"):
        assert end not in response.data


def test_a_response_that_failed_ends_with_its_own_words_and_no_others(served: Served) -> None:
    failed = {"type": "response.failed", "response": {"id": "resp_1", "status": "failed", "error": {"message": "no"}}}
    response = served.post("/v1/responses", [*BEGUN["/v1/responses"], said(failed, content=False, last=True), ENDED])
    assert events_of(response)[-1] == named_event(failed)
    assert response.data.count(b"event: error") == 0
    assert served.traced.roots[0]["error"] == "openai ended"


@EACH
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ProviderLimited("slow", provider="p", retry_after="7", retry_after_ms="6900"), 429, "rate_limit_error"),
        (ProviderRejectedKey("bad key", provider="p"), 502, "api_error"),
        (ProviderFailed("busy", status=529, provider="p"), 529, "overloaded_error"),
        (DeadlineExceeded("late"), 504, "timeout_error"),
    ],
    ids=["limit", "key", "overloaded", "deadline"],
)
def test_a_failure_before_anything_came_is_a_status_in_the_dialect(
    served: Served, path: str, error: GatewayError, status: int, kind: str, stream: bool
) -> None:
    response = served.post(path, [error], stream=stream)
    assert (response.status_code, response.mimetype) == (status, "application/json")
    assert response.json["error"]["message"] == error.message
    assert ("type" in response.json) == (path == "/v1/messages")
    if path == "/v1/messages":
        assert (response.json["type"], response.json["error"]["type"]) == ("error", kind)
        assert response.json["request_id"] == response.headers["request-id"]
    if error.retry_after:
        assert (response.headers["Retry-After"], response.headers["retry-after-ms"]) == ("7", "6900")
    assert response.headers.get("x-should-retry") == ("false" if error.should_retry is False else None)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/messages", {"model": "openai/m", "messages": []}, "messages"),
        ("/v1/messages", {"model": "openai/m", "messages": [{}]}, "max_tokens"),
        ("/v1/responses", {"model": "openai/m", "input": 7}, "input"),
        ("/v1/responses", {"model": "openai/m", "previous_response_id": ""}, "previous_response_id"),
    ],
)
def test_a_body_that_cannot_be_used_is_told_in_the_dialect(served: Served, path: str, body: JSON, param: str) -> None:
    response = served.ask("POST", path, body)
    assert response.status_code == 400
    assert response.json["error"]["param"] == param
    assert response.json.get("type") == ("error" if path == "/v1/messages" else None)
    assert served.said.calls == []


@EACH
def test_the_vendors_own_sdks_raise_at_the_error_event(served: Served, path: str) -> None:
    answered = served.post(path, [*BEGUN[path], ENDED])
    web: Any = httpx2 if path == "/v1/messages" else httpx  # Anthropic's SDK has the newer one

    def hand_over(_request: Any) -> Any:
        return web.Response(answered.status_code, headers=list(answered.headers), content=answered.data)

    client = web.Client(transport=web.MockTransport(hand_over))
    body: Any = {"model": "m", **ASKED[path]}
    if path == "/v1/messages":
        claude = anthropic.Anthropic(api_key="k", http_client=client, max_retries=0)
        with pytest.raises(anthropic.APIStatusError, match="openai ended"):
            list(claude.messages.create(**body, stream=True))
        return
    gpt = openai.OpenAI(api_key="k", http_client=client, max_retries=0)
    create: Any = gpt.responses.create if path == "/v1/responses" else gpt.chat.completions.create
    with pytest.raises(openai.APIError, match="openai ended"):
        list(create(**body, stream=True))


# Where a chat stands in.


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("path", "more", "dropped"),
    [
        ("/v1/responses", {"tools": [{"type": "web_search"}], "own": 1}, "own,tools.web_search"),
        ("/v1/messages", {"container": "c", "d\u00e4": 1}, "container,d%C3%A4"),
        ("/v1/completions", {"echo": True, "b\r\nc": 1}, "b%0D%0Ac,echo"),
    ],
)
def test_what_a_chat_could_not_carry_is_named_in_a_header(
    served: Served, path: str, more: JSON, dropped: str, stream: bool
) -> None:
    asked = {"model": "demo/echo", **ASKED.get(path, {"prompt": "hi"}), "stream": stream, **more}
    response = served.ask("POST", path, asked)
    assert response.status_code == 200
    assert response.headers["x-gateway-dropped-params"] == dropped
    assert b"hi" in response.data


@pytest.mark.parametrize(
    ("path", "asked", "named"),
    [
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "one two"}]}, {}),
        ("/v1/responses/input_tokens", {"input": "one two"}, {"object": "response.input_tokens"}),
    ],
)
def test_tokens_are_counted_where_the_provider_counts_none(served: Served, path: str, asked: JSON, named: JSON) -> None:
    response = served.ask("POST", path, {"model": "demo/echo", **asked})
    tokens = response.json["input_tokens"]
    assert response.json == {**named, "input_tokens": tokens}
    assert 2 < tokens < 15
    assert served.traced.traces


# About what was stored.


class Busy(OwnedObjects):
    """A store that does not answer while `busy`."""

    busy = False

    def find(self, kind: str, id: str, tenant: str) -> Owned | None:
        if self.busy:
            raise StorageBusy("others hold it")
        return super().find(kind, id, tenant)


@pytest.fixture
def storing(tmp_path: Path) -> Iterator[Served]:
    upgrade(tmp_path / "gateway.db")
    made = Served(Busy(Database(tmp_path / "gateway.db"), 30, 1 << 28))
    yield made
    made.gateway.close(0.1)


def keep(storing: Served, response_id: str = "resp_1", **fields: Any) -> None:
    """Keep a response of the tests' caller, made by `openai/m` under the name `fast`."""
    assert storing.gateway.objects is not None
    [caller] = {storing.gateway.authenticator.identify({"Authorization": f"Bearer {TOKEN}"}).tenant}
    given = {"tenant": caller, "caller": caller, "model": "openai/m", "provider": "openai", "deployment": "openai/m"}
    storing.gateway.objects.keep(Owned(kind=RESPONSE, id=response_id, made_s=time.time(), **{**given, **fields}))


ABOUT = [
    ("GET", "/v1/responses/{}", "responses.retrieve"),
    ("DELETE", "/v1/responses/{}", "responses.delete"),
    ("POST", "/v1/responses/{}/cancel", "responses.cancel"),
    ("GET", "/v1/responses/{}/input_items", "responses.input_items"),
    ("GET", "/responses/{}", "responses.retrieve"),
]
EACH_ABOUT = pytest.mark.parametrize(("method", "path", "name"), ABOUT)


@EACH_ABOUT
def test_a_request_about_a_response_is_a_call_to_whoever_made_it(
    storing: Served, method: str, path: str, name: str
) -> None:
    keep(storing)
    response = storing.ask(method, path.format("resp_1"))
    assert (response.status_code, response.json) == (200, storing.said.document)
    [made] = storing.said.calls
    assert (made.endpoint.name, made.path_id, made.body) == (name, "resp_1", {"id": "resp_1"})
    assert (made.model, made.deployment, made.stream) == ("openai/m", "openai/m", False)
    assert len(storing.traced.traces) == 1


def test_of_a_query_only_what_the_operation_knows_travels_on(storing: Served) -> None:
    keep(storing)
    query = "?limit=3&order=asc&after=a%26b&include=x&include=y&api_key=mine&after%0d%0a=1&stream=true"
    storing.ask("GET", "/v1/responses/resp_1/input_items" + query)
    assert storing.said.calls[-1].query == "after=a%26b&include=x&include=y&limit=3&order=asc"
    assert storing.said.calls[-1].stream is False
    storing.ask("DELETE", "/v1/responses/resp_1?limit=3")
    assert storing.said.calls[-1].query == ""


@pytest.mark.parametrize(("query", "stream"), [("?stream=true", True), ("?stream=false", False), ("?stream=1", False)])
def test_a_stored_response_is_streamed_where_it_is_asked_for(storing: Served, query: str, stream: bool) -> None:
    keep(storing)
    storing.said.steps = [said(COMPLETED, last=True)]
    response = storing.ask("GET", "/v1/responses/resp_1" + query)
    assert storing.said.calls[0].stream is stream
    assert (events_of(response) == [named_event(COMPLETED)]) if stream else response.json


@EACH_ABOUT
@pytest.mark.parametrize(
    "response_id",
    [
        *(
            "resp_2",
            "%00",
            "%2e%2e",
            "..",
            "'%22%3B--",
            "a" * 10_240,
            "%C3%A4%F0%9F%98%80",
            "%FF",
            "%3Fstream=true",
            "%25",
        ),
        "resp_1%20",
    ],
    ids=lambda text: text[:16],
)
def test_what_is_not_the_callers_is_not_there(
    storing: Served, method: str, path: str, name: str, response_id: str
) -> None:
    keep(storing)
    keep(storing, "resp_2", tenant="another")
    response = storing.ask(method, path.format(response_id))
    assert response.status_code == 404
    assert response.json["error"]["code"] in ("not_found", "unknown_url")
    assert storing.said.calls == []
    assert len(response.data) < 12_000


@pytest.mark.parametrize("response_id", ["a%2Fb", "a%2F..%2Fb", "a/b", "resp_1/input_items/more"])
def test_an_id_is_one_part_of_the_path(storing: Served, response_id: str) -> None:
    keep(storing, "a/b")
    response = storing.ask("GET", f"/v1/responses/{response_id}")
    assert (response.status_code, response.json["error"]["code"]) == (404, "unknown_url")
    assert storing.said.calls == []


@EACH_ABOUT
def test_a_store_that_does_not_answer_is_no_missing_response(
    storing: Served, method: str, path: str, name: str
) -> None:
    keep(storing)
    storing.gateway.objects.busy = True  # type: ignore[union-attr]
    response = storing.ask(method, path.format("resp_1"))
    assert (response.status_code, response.json["error"]["code"]) == (503, "store_unavailable")
    assert (response.headers["Retry-After"], response.headers["x-should-retry"]) == ("1", "true")


@EACH_ABOUT
def test_where_nothing_is_stored_nothing_is_found(served: Served, method: str, path: str, name: str) -> None:
    response = served.ask(method, path.format("resp_1"))
    assert (response.status_code, response.json["error"]["code"]) == (404, "not_found")


@EACH_ABOUT
def test_nobody_without_a_key_is_told_what_is_there(storing: Served, method: str, path: str, name: str) -> None:
    keep(storing)
    known = storing.ask(method, path.format("resp_1"), token="sk-of-nobody")
    unknown = storing.ask(method, path.format("resp_2"), token="sk-of-nobody")
    assert known.status_code == unknown.status_code == 401
    assert storing.said.calls == []


def test_a_deployment_that_is_no_more_cannot_be_asked(storing: Served) -> None:
    keep(storing, model="fast", deployment="openai/m")
    keep(storing, "resp_2", model="groq/m", deployment="groq/m", provider="groq")
    keep(storing, "resp_3", model="openai/other", deployment="openai/m")
    assert storing.ask("GET", "/v1/responses/resp_1").status_code == 404
    assert storing.ask("GET", "/v1/responses/resp_2").status_code == 503
    assert storing.ask("GET", "/v1/responses/resp_3").status_code == 404
    assert storing.said.calls == []


def test_a_body_that_comes_with_it_is_of_no_use_and_does_no_harm(storing: Served) -> None:
    keep(storing)
    response = storing.ask("POST", "/v1/responses/resp_1/cancel", {"id": "resp_2", "model": "openai/other"})
    assert response.status_code == 200
    assert (storing.said.calls[0].body, storing.said.calls[0].model) == ({"id": "resp_1"}, "openai/m")
