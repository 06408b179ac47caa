"""From a request to a call, from a reply to bytes: driven as a WSGI server drives it."""

from __future__ import annotations

import base64
import gzip
import io
import json
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from gateway.app import create_app
from gateway.core.calls import Call
from gateway.core.policies import Condition, Policy
from gateway.core.routing import Alias, Reach, Target
from gateway.core.wire import DONE, KEEP_ALIVE
from gateway.errors import ProviderStreamEnded
from gateway.pipeline import Gateway
from gateway.secret import Secret
from tests.builders import ROLE, TOKEN, Recorder, Script, Step, delta, finish, gateway, says

PATH = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "openai/m", "messages": [{"role": "user", "content": "hi"}]}


class Served:
    """An app over a script, asked as a server would."""

    def __init__(self, *steps: Step, **limits: Any) -> None:
        self.traced = Recorder()
        self.calls: list[Call] = []
        self.script = Script([[self.calls.append, *(steps or says("hello"))]])
        self.gateway: Gateway = gateway(self.script, self.traced, **limits)
        self.app: Flask = create_app(gateway=self.gateway)

    def post(self, body: Any = None, *, environ: dict[str, Any] | None = None, **headers: str) -> Any:
        """Post a body (bytes as they are, else JSON), and read the whole answer."""
        given_headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        given_headers |= {name.replace("_", "-"): value for name, value in headers.items()}
        raw = body if isinstance(body, bytes) else json.dumps(HELLO if body is None else body).encode()
        client = self.app.test_client()
        # `buffered`: the answer is read to its end and closed, as a server does
        return client.post(PATH, data=raw, headers=given_headers, environ_overrides=environ or {}, buffered=True)

    def start(self, body: dict[str, Any], method: str = "POST") -> tuple[str, Any]:
        """Post, and give the status with the body as it is handed to the server."""
        builder = EnvironBuilder(path=PATH, method=method, json=body, headers={"Authorization": f"Bearer {TOKEN}"})
        status: list[str] = []
        begin: Any = lambda line, _headers, _info=None: status.append(line)  # noqa: E731
        answer = self.app.wsgi_app(builder.get_environ(), begin)
        return status[0], answer


@pytest.fixture
def served() -> Iterator[Any]:
    made: list[Served] = []

    def make(*steps: Step, **limits: Any) -> Served:
        made.append(Served(*steps, **limits))
        return made[-1]

    yield make
    for one in made:
        one.gateway.close(0.1)


def fault(response: Any) -> tuple[int, str | None, str | None]:
    error = response.json["error"]
    return response.status_code, error["code"], error["param"]


# Reading.


def test_a_request_becomes_a_call(served: Any) -> None:
    here = served()
    body = {**HELLO, "model": " openai/m ", "own": None}
    assert here.post(body).status_code == 200
    [made] = here.calls
    assert made.model == "openai/m"
    assert made.body == body
    assert made.stream is False
    assert made.usage_asked is False
    assert made.id.startswith("req_")
    assert made.caller.id.startswith("tok_")
    assert abs(made.deadline_s - made.arrived_s - 600) < 0.001
    assert abs(made.started_s - time.time()) < 5


@pytest.mark.parametrize(
    ("body", "stream", "asked"),
    [
        ({"stream": True}, True, False),
        ({"stream": None}, False, False),
        ({"stream": True, "stream_options": {"include_usage": True}}, True, True),
        ({"stream": True, "stream_options": {"include_usage": 1}}, True, False),
        ({"stream": True, "stream_options": None}, True, False),
    ],
)
def test_what_was_asked_of_a_stream(served: Any, body: dict[str, Any], stream: bool, asked: bool) -> None:
    here = served()
    here.post({**HELLO, **body})
    assert (here.calls[0].stream, here.calls[0].usage_asked) == (stream, asked)


def test_of_the_callers_headers_a_closed_list_travels_on(served: Any) -> None:
    here = served()
    here.post(
        OpenAI_Beta="b", Anthropic_Version="2023", X_Api_Key="mine", Cookie="a=b", X_Forwarded_For="1.2.3.4", Foo="bar"
    )
    assert here.calls[0].provider_headers == {"openai-beta": "b", "anthropic-version": "2023"}


@pytest.mark.parametrize(
    ("sent", "seconds", "hurried"), [(None, 600, False), ("2.5", 2.5, True), (" 9 ", 9, True), ("9999", 600, False)]
)
def test_a_caller_may_wait_for_a_shorter_time_and_never_for_a_longer(
    served: Any, sent: str | None, seconds: float, hurried: bool
) -> None:
    here = served()
    here.post(**({} if sent is None else {"x_gateway_timeout": sent}))
    [made] = here.calls
    assert (made.deadline_s - made.arrived_s, made.hurried) == (pytest.approx(seconds, abs=0.001), hurried)


@pytest.mark.parametrize(("sent", "fallback"), [(None, True), ("on", True), (" OFF ", False)])
def test_a_caller_may_want_no_fallback(served: Any, sent: str | None, fallback: bool) -> None:
    here = served()
    here.post(**({} if sent is None else {"x_gateway_fallback": sent}))
    assert here.calls[0].fallback is fallback


@pytest.mark.parametrize(
    ("name", "value"),
    [*(("x-gateway-timeout", value) for value in ("0", "-1", "nan", "inf", "soon", "")), ("x-gateway-fallback", "no")],
)
def test_a_header_of_the_gateways_that_cannot_be_used_is_named(served: Any, name: str, value: str) -> None:
    here = served()
    assert fault(here.post(**{name.replace("-", "_"): value})) == (400, None, name)
    assert here.calls == []


def test_of_the_other_headers_those_travel_that_the_routes_ask_about(served: Any) -> None:
    here = served()
    asked = Target("openai", "m", Reach(Secret("k")), condition=Condition(headers={"x-tier": "gold"}))
    here.gateway.catalogue = replace(
        here.gateway.catalogue,
        aliases={"n": Alias((asked,)), "s": Alias((asked,), policy=Policy(sticky="header:x-session"))},
    )
    here.post(X_Tier="tin", x_session="s1", x_other="no")
    assert here.calls[0].headers == {"x-tier": "tin", "x-session": "s1"}


def test_tags_are_trimmed_told_apart_and_bounded(served: Any) -> None:
    here = served()
    here.post(x_gateway_tags=" a, b ,a,, " + "x" * 200 + "," + ",".join(map(str, range(100))))
    tags = here.calls[0].tags
    assert tags[:2] == ("a", "b")
    assert len(tags) == 32
    assert max(map(len, tags)) == 128


def test_a_parent_is_read_and_one_that_cannot_be_is_noted(served: Any) -> None:
    here = served()
    here.post(x_bt_parent="project_id:p")
    here.post(x_bt_parent="rubbish")
    assert here.calls[0].parent.object_id == "p"
    assert (here.calls[1].parent, here.calls[1].parent_note) == (None, "x-bt-parent cannot be read")


def test_a_parent_of_hostile_bytes_is_ignored_and_the_call_is_answered(served: Any) -> None:
    here = served()
    hostile = base64.b64encode(b'\x04\x02\x00{"object_id":"","compute_object_metadata_args":"x"}').decode()
    response = here.post(x_bt_parent=hostile)
    assert response.status_code == 200
    assert here.calls[0].parent is None


@pytest.mark.parametrize(
    ("header", "recorded"),
    [(None, "full"), ("full", "full"), (" Metadata ", "metadata"), ("off", "off")],
)
def test_how_much_is_recorded_is_the_callers_choice(served: Any, header: str | None, recorded: str) -> None:
    here = served()
    here.post(**({} if header is None else {"x_gateway_trace": header}))
    assert here.calls[0].recorded == recorded


def test_another_choice_is_refused(served: Any) -> None:
    assert fault(served().post(x_gateway_trace="maybe"))[::2] == (400, "x-gateway-trace")


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"", 400, None),
        (b"{", 400, None),
        (b"[]", 400, None),
        (b'{"model": NaN}', 400, None),
        (b'{"a": 1, "a": 2}', 400, None),
        ({"messages": []}, 400, "model"),
        ({"model": "m"}, 400, "messages"),
        ({"model": "m", "messages": []}, 400, "messages"),
        ({**HELLO, "n": 129}, 400, "n"),
        ({**HELLO, "stream": "yes"}, 400, "stream"),
        ({**HELLO, "tools": [{"type": "mcp", "server_url": "litellm_proxy/x"}]}, 400, "tools"),
    ],
)
def test_a_body_that_cannot_be_used_is_the_callers_fault(
    served: Any, body: Any, status: int, param: str | None
) -> None:
    here = served()
    response = here.post(body)
    assert (response.status_code, response.json["error"]["param"]) == (status, param)
    assert here.calls == []
    assert here.traced.roots[0]["metadata"]["status"] == 400


# The bytes of a body.


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_packed_body_is_unpacked(served: Any, encoding: str, pack: Any) -> None:
    here = served()
    assert here.post(pack(json.dumps(HELLO).encode()), Content_Encoding=encoding).status_code == 200
    assert here.calls[0].body == HELLO


def test_a_body_may_come_without_its_length(served: Any) -> None:
    """As a chunked one does on Modal, where Flask would read nothing."""
    here = served()
    raw = json.dumps(HELLO).encode()
    environ = {"CONTENT_LENGTH": None, "HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": io.BytesIO(raw)}
    assert here.post(environ=environ).status_code == 200
    assert here.calls[0].body == HELLO


class Endless(io.RawIOBase):
    """A body that never ends, and counts what was read of it."""

    def __init__(self) -> None:
        self.given = 0

    def read(self, size: int = -1) -> bytes:
        self.given += size
        return b"x" * size


def test_too_many_bytes_are_refused_and_not_read_on(served: Any) -> None:
    here = served(body_bytes=100_000)
    body = Endless()
    assert fault(here.post(environ={"CONTENT_LENGTH": None, "wsgi.input": body})) == (413, "request_too_large", None)
    assert body.given < 300_000


def test_a_length_that_is_too_large_is_refused_before_anything_is_read(served: Any) -> None:
    here = served(body_bytes=1000)
    body = Endless()
    assert fault(here.post(environ={"CONTENT_LENGTH": "1001", "wsgi.input": body}))[0] == 413
    assert body.given == 0


def test_a_bomb_is_refused(served: Any) -> None:
    here = served(body_bytes=1 << 20)
    assert fault(here.post(gzip.compress(bytes(64 << 20)), Content_Encoding="gzip"))[0] == 413


def test_another_encoding_is_refused(served: Any) -> None:
    assert fault(served().post(Content_Encoding="br"))[:2] == (415, "unsupported_content_encoding")


def test_a_body_that_ends_before_its_length_is_refused(served: Any) -> None:
    environ = {"CONTENT_LENGTH": "500", "wsgi.input": io.BytesIO(b"{}")}
    assert fault(served().post(environ=environ))[0] == 400


def test_a_body_that_breaks_off_is_refused(served: Any) -> None:
    class Broken(io.RawIOBase):
        def read(self, _size: int = -1) -> bytes:
            raise OSError("reset")

    assert fault(served().post(environ={"wsgi.input": Broken()}))[0] == 400


def test_a_body_that_does_not_come_in_time_is_refused(served: Any) -> None:
    class Slow(io.RawIOBase):
        def read(self, _size: int = -1) -> bytes:
            time.sleep(0.3)
            return b""

    here = served(body_s=0.1)
    assert fault(here.post(environ={"CONTENT_LENGTH": None, "wsgi.input": Slow()}))[:2] == (408, "request_timeout")


@pytest.fixture(scope="module")
def demo() -> Iterator[Served]:
    made = Served()
    yield made
    made.gateway.close(0.1)


@settings(deadline=None, max_examples=100)
@given(
    st.binary(max_size=60)
    | st.dictionaries(
        st.sampled_from(["model", "messages", "stream", "n", "tools", "stop", "metadata", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=10) | st.just("demo/echo"),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "function"]), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=6,
    ).map(lambda body: json.dumps({**HELLO, "model": "demo/echo", **body}).encode())
)
def test_whatever_is_posted_is_answered_or_the_callers_fault(demo: Served, body: bytes) -> None:
    response = demo.post(body)
    assert response.status_code < 500
    assert response.status_code == 200 or response.json["error"]["message"]


# Whole answers.


def test_a_whole_answer_has_its_headers(served: Any) -> None:
    response = served().post()
    assert response.mimetype == "application/json"
    assert response.json["choices"][0]["message"]["content"] == "hello"
    assert response.headers["x-gateway-provider"] == "openai"
    assert response.headers["x-bt-span-id"]
    assert response.headers["Cache-Control"] == "no-store"


# Streams.


def test_a_stream_is_events_and_ends_after_the_call_is_settled(served: Any) -> None:
    here = served()
    status, answer = here.start({**HELLO, "stream": True})
    assert status.startswith("200")
    pieces = []
    for piece in answer:
        pieces.append(piece)
        if piece == DONE:
            assert len(here.traced.traces) == 1, "the trace is complete before the caller is told the end"
        else:
            assert here.traced.traces == []
    assert pieces[-1] == DONE
    assert pieces.count(DONE) == 1
    assert all(piece.startswith(b"data: ") and piece.endswith(b"\n\n") for piece in pieces)


def test_a_streams_headers_keep_proxies_from_holding_it_back(served: Any) -> None:
    response = served().post({**HELLO, "stream": True})
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert response.headers["X-Accel-Buffering"] == "no"
    assert response.headers["Cache-Control"] == "no-cache"
    assert "Content-Length" not in response.headers


def test_a_failure_in_the_middle_is_one_event_and_no_end(served: Any) -> None:
    here = served(ROLE, delta("a"), ProviderStreamEnded("cut", provider="openai"))
    response = here.post({**HELLO, "stream": True})
    *_, last = response.data.split(b"\n\n")[:-1]
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert (error["message"], error["code"], error["source"]) == ("cut", "provider_stream_ended", "provider")
    assert error["request_id"] == response.headers["request-id"]
    assert response.data.count(b'"error"') == 1
    assert b"[DONE]" not in response.data


def test_a_failure_with_half_of_a_surrogate_pair_is_told_too(served: Any) -> None:
    here = served(delta("a"), ProviderStreamEnded("half \ud83d", provider="openai"))
    response = here.post({**HELLO, "stream": True})
    assert b'"code":"provider_stream_ended"' in response.data


def test_a_failure_before_anything_came_is_a_status(served: Any) -> None:
    here = served(ROLE, ProviderStreamEnded("cut", provider="openai"))
    response = here.post({**HELLO, "stream": True})
    assert fault(response) == (502, "provider_stream_ended", None)
    assert response.mimetype == "application/json"


def test_silence_is_filled_with_comments(served: Any) -> None:
    here = served(lambda _call: time.sleep(0.25), *says("a"), keepalive_s=0.1)
    response = here.post({**HELLO, "stream": True})
    assert response.data.startswith(KEEP_ALIVE)
    assert response.data.endswith(DONE)


def test_usage_that_is_hidden_makes_no_empty_event(served: Any) -> None:
    response = served().post({**HELLO, "stream": True})
    assert b"data: \n" not in response.data
    assert b"\n\n\n" not in response.data


def silent(made: Call) -> None:
    stop = threading.Event()
    made.cancellation.subscribe(stop.set)
    stop.wait(5)


def test_a_stream_that_the_server_drops_is_settled_once(served: Any) -> None:
    here = served(ROLE, delta("a"), silent)
    _, answer = here.start({**HELLO, "stream": True})
    next(iter(answer))
    for _ in range(2):
        answer.close()
    assert here.traced.roots[0]["metadata"]["caller_gone"] is True
    assert len(here.traced.traces) == 1
    assert len(here.script.closed) == 1


def test_a_stream_that_is_never_read_is_settled_too(served: Any) -> None:
    """A generator's `finally` would not run."""
    here = served(ROLE, delta("a"), silent)
    _, answer = here.start({**HELLO, "stream": True})
    answer.close()
    assert len(here.traced.traces) == 1
    assert len(here.script.closed) == 1


def test_a_fault_of_ours_in_a_stream_is_an_event_too(served: Any) -> None:
    here = served(delta("a"), RuntimeError("a secret of the code"), finish())
    response = here.post({**HELLO, "stream": True})
    assert b'"code":"internal_error"' in response.data
    assert b"secret" not in response.data
    assert b"[DONE]" not in response.data
