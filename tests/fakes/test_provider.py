from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.fakes import provider as fake
from tests.fakes.provider import FakeProvider

HELLO = [{"role": "user", "content": "hi"}]
TOOL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as server:
        yield server


@pytest.fixture
def connection(provider: FakeProvider) -> Iterator[http.client.HTTPConnection]:
    link = http.client.HTTPConnection("127.0.0.1", provider.port, timeout=5)
    yield link
    link.close()


@pytest.fixture(scope="module")
def client(provider: FakeProvider) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=provider.base_url, api_key="k", max_retries=0, timeout=5) as client:
        yield client


@pytest.fixture(scope="module")
def claude(provider: FakeProvider) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=provider.anthropic_url, api_key="k", max_retries=0, timeout=5) as client:
        yield client


def ask(
    connection: http.client.HTTPConnection, model: str, path: str = "/v1/chat/completions", **more: Any
) -> http.client.HTTPResponse:
    body = json.dumps({"model": model, "messages": HELLO, **more})
    connection.request("POST", path, body, {"Content-Type": "application/json", "X-Mark": model})
    return connection.getresponse()


def frames(body: bytes) -> list[Any]:
    lines = [line[6:] for line in body.decode().split("\n\n") if line.startswith("data: ")]
    return [json.loads(line) if line != "[DONE]" else line for line in lines]


def open_request(provider: FakeProvider, model: str, **more: Any) -> socket.socket:
    """Send a request over a bare socket and leave the answer to the test."""
    body = json.dumps({"model": model, "messages": HELLO, **more}).encode()
    link = socket.create_connection(("127.0.0.1", provider.port), timeout=5)
    link.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return link


# What a well-behaved client sees.


def test_an_unscripted_model_says_hello_with_usage(client: openai.OpenAI) -> None:
    got = client.chat.completions.create(model="unscripted", messages=HELLO)
    assert got.choices[0].message.content == "hello there"
    assert got.choices[0].finish_reason == "stop"
    assert (got.model, got.usage.prompt_tokens, got.usage.completion_tokens) == ("unscripted", 12, 7)


def test_a_stream_has_a_role_a_chunk_a_word_a_finish_and_usage_when_asked(client: openai.OpenAI) -> None:
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(model="unscripted", messages=HELLO, **asked))
    deltas = [chunk.choices[0].delta for chunk in chunks[:-1]]
    assert [delta.content for delta in deltas] == ["", "hello ", "there", None]
    assert deltas[0].role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None, None, None, "stop"]
    assert (chunks[-1].choices, chunks[-1].usage.total_tokens) == ([], 19)


def test_a_stream_without_the_option_has_no_usage_and_ends_with_done(
    connection: http.client.HTTPConnection,
) -> None:
    got = frames(ask(connection, "unscripted", stream=True).read())
    assert got[-1] == "[DONE]"
    assert not any("usage" in chunk for chunk in got[:-1])


def test_tool_calls_come_whole_and_streamed(
    provider: FakeProvider, client: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    provider.script("tools", fake.answer(None, message={"tool_calls": [TOOL]}, finish="tool_calls"))
    whole = client.chat.completions.create(model="tools", messages=HELLO)
    assert whole.choices[0].message.tool_calls[0].function.name == "weather"
    parts = list(client.chat.completions.create(model="tools", messages=HELLO, stream=True))
    assert parts[1].choices[0].delta.tool_calls[0].function.arguments == '{"city": "Oslo"}'
    assert parts[-1].choices[0].finish_reason == "tool_calls"
    with claude.messages.stream(model="tools", messages=HELLO, max_tokens=9) as stream:
        message = stream.get_final_message()
    assert (message.content[0].input, message.stop_reason) == ({"city": "Oslo"}, "tool_use")


def test_anthropics_wire_whole(claude: anthropic.Anthropic) -> None:
    got = claude.messages.create(model="unscripted", messages=HELLO, max_tokens=9)
    assert (got.content[0].text, got.stop_reason) == ("hello there", "end_turn")
    assert (got.usage.input_tokens, got.usage.output_tokens) == (12, 7)


def test_anthropics_wire_streamed(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(model="unscripted", messages=HELLO, max_tokens=9) as stream:
        kinds = [event.type for event in stream if event.type.startswith(("message", "content"))]
        got = stream.get_final_message()
    assert kinds == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 2,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert (got.content[0].text, got.usage.input_tokens, got.usage.output_tokens) == ("hello there", 12, 7)


def test_replies_come_in_order_and_the_last_repeats(provider: FakeProvider, client: openai.OpenAI) -> None:
    provider.script("three", fake.error(429, headers={"Retry-After": "1"}), fake.answer("a"), fake.answer("b"))
    with pytest.raises(openai.RateLimitError) as limited:
        client.chat.completions.create(model="three", messages=HELLO)
    assert limited.value.response.headers["retry-after"] == "1"
    got = [client.chat.completions.create(model="three", messages=HELLO) for _ in range(3)]
    assert [one.choices[0].message.content for one in got] == ["a", "b", "b"]


def test_choices_may_be_told_apart_or_follow_n(provider: FakeProvider, client: openai.OpenAI) -> None:
    provider.script("choices", fake.answer(["a", "b"]), fake.answer("c"), fake.answer("d", n=3))
    got = [client.chat.completions.create(model="choices", messages=HELLO, n=2) for _ in range(3)]
    texts = [[choice.message.content for choice in one.choices] for one in got]
    assert texts == [["a", "b"], ["c", "c"], ["d", "d", "d"]]


def test_extra_fields_stand_where_they_were_put(provider: FakeProvider, connection: http.client.HTTPConnection) -> None:
    reply = fake.answer("a", message={"refusal": "no"}, extra={"service_tier": "flex"}, usage=None)
    provider.script("extra", reply)
    whole = json.loads(ask(connection, "extra").read())
    assert (whole["service_tier"], whole["choices"][0]["message"]["refusal"]) == ("flex", "no")
    assert "usage" not in whole
    chunks = frames(ask(connection, "extra", stream=True).read())[:-1]
    assert {chunk["service_tier"] for chunk in chunks} == {"flex"}
    assert chunks[2]["choices"][0]["delta"] == {"refusal": "no"}


def test_models_are_listed(provider: FakeProvider, client: openai.OpenAI) -> None:
    provider.script("listed", fake.answer())
    assert "listed" in [model.id for model in client.models.list()]


# Errors and other answers.


@pytest.mark.parametrize(
    ("reply", "status", "kind", "body"),
    [
        (fake.error(503, "busy"), 503, "text/plain; charset=utf-8", b"busy"),
        (fake.error(418, {"a": 1}), 418, "application/json", b'{"a": 1}'),
        (fake.raw(299, {"Content-Type": "x/y"}, b"\xff"), 299, "x/y", b"\xff"),
        (fake.redirect("http://127.0.0.1:1/"), 307, None, b""),
        (fake.plain_json([], delay=0.05), 200, "application/json", b"[]"),
    ],
)
def test_a_scripted_answer_comes_as_it_was_written(
    provider: FakeProvider,
    connection: http.client.HTTPConnection,
    reply: fake.Reply,
    status: int,
    kind: str | None,
    body: bytes,
) -> None:
    provider.script("verbatim", reply)
    started = time.monotonic()
    got = ask(connection, "verbatim")
    assert (got.status, got.headers["Content-Type"], got.read()) == (status, kind, body)
    assert time.monotonic() - started >= reply.delay


def test_an_error_without_a_body_is_the_wires_own(
    provider: FakeProvider, client: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    provider.script("broken", fake.error(500))
    with pytest.raises(openai.InternalServerError, match="scripted error 500"):
        client.chat.completions.create(model="broken", messages=HELLO)
    with pytest.raises(anthropic.InternalServerError, match="'type': 'error'"):
        claude.messages.create(model="broken", messages=HELLO, max_tokens=9)


def test_other_paths_and_bodies_are_refused(connection: http.client.HTTPConnection) -> None:
    unknown = ask(connection, "m", "/v1/other")
    assert (unknown.status, bool(unknown.read())) == (404, True)
    connection.request("POST", "/v1/chat/completions", b"{")
    malformed = connection.getresponse()
    assert (malformed.status, bool(malformed.read())) == (400, True)


# Streams as they are scripted.


def test_the_steps_of_a_stream_come_in_order(provider: FakeProvider, connection: http.client.HTTPConnection) -> None:
    provider.script(
        "steps",
        fake.sse(
            fake.delta({"content": "a"}, index=1),
            fake.repeat(2, fake.data("x"), fake.raw_bytes(b": note\n\n")),
            fake.event("ping", {"é": 1}),
            fake.split("data: ü\n\n".encode(), at=[7, 7, 9]),
            fake.delta({}, "length"),
            fake.usage(3, 4, cost=0.5),
            fake.done(),
            headers={"X-Request-Id": "r1"},
        ),
    )
    response = ask(connection, "steps", stream=True)
    got = response.read().decode().split("\n\n")
    assert (response.headers["X-Request-Id"], response.headers["Transfer-Encoding"]) == ("r1", "chunked")
    assert json.loads(got[0][6:])["choices"] == [{"index": 1, "delta": {"content": "a"}, "finish_reason": None}]
    assert got[1:7] == ["data: x", ": note", "data: x", ": note", 'event: ping\ndata: {"é": 1}', "data: ü"]
    assert json.loads(got[7][6:])["choices"][0]["finish_reason"] == "length"
    assert json.loads(got[8][6:])["usage"]["cost"] == 0.5
    assert got[9:] == ["data: [DONE]", ""]


def test_split_bytes_arrive_one_by_one(provider: FakeProvider) -> None:
    provider.script("split", fake.sse(fake.split(b"data: abc\n\n", at=[8], gap_s=0.05)))
    seen: list[bytes] = []
    with open_request(provider, "split", stream=True) as link:
        while not b"".join(seen).endswith(b"0\r\n\r\n"):
            seen.append(link.recv(4096))
    assert any(piece.endswith(b"data: ab\r\n") for piece in seen)
    assert any(piece.startswith(b"3\r\nc\n\n") for piece in seen)


@pytest.mark.parametrize("cut", [fake.drop("reset"), fake.sse(fake.data("a"), fake.reset())])
def test_a_reset_is_a_reset(provider: FakeProvider, cut: fake.Reply) -> None:
    provider.script("reset", cut)
    with open_request(provider, "reset") as link, pytest.raises(ConnectionResetError):
        list(iter(lambda: link.recv(4096), b""))


def test_a_close_before_headers_is_an_empty_end(provider: FakeProvider, connection: http.client.HTTPConnection) -> None:
    provider.script("drop", fake.drop())
    with pytest.raises(http.client.RemoteDisconnected):
        ask(connection, "drop")


def test_a_close_in_mid_stream_leaves_the_body_unfinished(
    provider: FakeProvider, connection: http.client.HTTPConnection
) -> None:
    provider.script("close", fake.sse(fake.data("a"), fake.close()))
    with pytest.raises(http.client.IncompleteRead) as cut:
        ask(connection, "close").read()
    assert cut.value.partial == b"data: a\n\n"
    assert not provider.requests("close")[0].closed.is_set()  # it was not the client who left


# What is recorded.


def test_a_request_is_recorded_as_it_came(provider: FakeProvider, connection: http.client.HTTPConnection) -> None:
    before = time.monotonic()
    for _ in range(2):
        ask(connection, "recorded").read()
    first, second = provider.requests("recorded")
    assert (first.method, first.path) == ("POST", "/v1/chat/completions")
    assert first.headers["x-mark"] == "recorded"
    assert first.body == json.loads(first.raw) == {"model": "recorded", "messages": HELLO}
    assert before <= first.received <= second.received
    assert first.connection == second.connection
    assert first.answered.wait(1)
    assert not first.closed.is_set()


def test_a_chunked_request_is_read(provider: FakeProvider, connection: http.client.HTTPConnection) -> None:
    pieces = iter([b'{"model": "chu', b'nked", "messages": []}'])
    connection.request("POST", "/v1/chat/completions", pieces, encode_chunked=True)
    assert connection.getresponse().read()
    assert provider.requests("chunked")[0].body == {"model": "chunked", "messages": []}


@pytest.mark.parametrize(
    "reply",
    [
        fake.hang(),
        fake.answer(delay=30),
        fake.sse(fake.silence()),
        fake.sse(fake.data("a"), fake.pause(30)),
        fake.sse(fake.repeat(3000, fake.data("a"), fake.pause(0.01))),
        fake.sse(fake.repeat(50, fake.raw_bytes(b"x" * 1_000_000))),  # more than the socket takes unread
    ],
    ids=["hang", "delay", "silence", "pause", "flow", "flood"],
)
@pytest.mark.parametrize("leave", ["close", "shutdown"])
def test_a_client_that_leaves_is_noticed_at_once(provider: FakeProvider, reply: fake.Reply, leave: str) -> None:
    model = f"left-{id(reply)}-{leave}"
    provider.script(model, reply)
    with open_request(provider, model, stream=True) as link:
        (request,) = provider.wait_for(1, model)
        assert not request.closed.wait(0.05)
        left = time.monotonic()
        link.close() if leave == "close" else link.shutdown(socket.SHUT_RDWR)
        assert request.closed.wait(2)
    assert request.closed_at is not None
    assert -0.001 < request.closed_at - left < 0.5  # 20 ms on an idle machine
    assert not request.answered.is_set()


def test_open_connections_are_counted() -> None:
    with FakeProvider() as quiet:
        quiet.script("hang", fake.hang())
        links = [open_request(quiet, "hang") for _ in range(3)]
        quiet.wait_for(3, "hang")
        assert quiet.open_connections == 3
        for link in links:
            link.close()
        for request in quiet.requests("hang"):
            assert request.closed.wait(2)
        deadline = time.monotonic() + 2
        while quiet.open_connections and time.monotonic() < deadline:
            time.sleep(0.005)
        assert quiet.open_connections == 0


def test_waiting_for_a_request_that_does_not_come_says_so(provider: FakeProvider) -> None:
    with pytest.raises(TimeoutError, match="0 of 1"):
        provider.wait_for(1, "never", timeout=0.01)


def test_closing_the_server_ends_what_hangs_and_is_no_clients_doing() -> None:
    server = FakeProvider()
    server.script("hang", fake.hang())
    with open_request(server, "hang") as link:
        server.wait_for(1)
        started = time.monotonic()
        server.close()
        server.close()
        assert time.monotonic() - started < 2
        assert link.recv(1) == b""
    assert not server.requests()[0].closed.is_set()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


def test_five_hundred_at_once_each_get_their_own_answer(provider: FakeProvider) -> None:
    provider.script("crowd", fake.answer(echo=True, delay=0.2))
    wrong: list[object] = []
    gate = threading.Barrier(500)

    def one(number: int) -> None:
        link = http.client.HTTPConnection("127.0.0.1", provider.port, timeout=15)
        try:
            gate.wait(15)
            mine = [*HELLO, {"role": "user", "content": f"n {number}"}, {"role": "assistant", "content": "?"}]
            got = frames(ask(link, "crowd", messages=mine, stream=True).read())
            said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in got[:-1])
            if said != f"got n {number}":
                wrong.append(said)
        except Exception as error:  # noqa: BLE001 - whatever it was, the test shows it
            wrong.append(error)
        finally:
            link.close()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    assert len(provider.requests("crowd")) == 500


def test_kept_responses_are_answered_for_any_id(client: openai.OpenAI) -> None:
    kept = client.responses.retrieve("resp_a")
    assert (kept.id, kept.output_text) == ("resp_a", "kept answer")
    assert [event.type for event in client.responses.retrieve("resp_b", stream=True)][-1] == "response.completed"
    assert client.responses.cancel("resp_c").status == "cancelled"
    assert [item.id for item in client.responses.input_items.list("resp_d")] == ["msg_asked"]
    client.responses.delete("resp_e")
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("other")


def test_tokens_of_a_response_are_counted(client: openai.OpenAI) -> None:
    assert client.responses.input_tokens.count(model="m", input="x").input_tokens == 12
