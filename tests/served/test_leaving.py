"""A caller that leaves closes the provider's connection within a second, under gevent and under plain threads."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.fakes.provider import (
    Action,
    FakeProvider,
    Reply,
    answer,
    delta,
    done,
    event,
    hang,
    pause,
    repeat,
    silence,
    sse,
)
from tests.served.caller import CHAT, JSON, Caller, body
from tests.served.process import TOKEN, Served
from tests.served.wire import Wire, chat_request

WITHIN_S = 1.0
#: Of a machine that does something else for a second.
TRIES = 3

SILENT_AFTER_TOKENS: tuple[Action, ...] = (delta({"role": "assistant"}), delta({"content": "tok0"}), silence())
BUSY: tuple[Action, ...] = (delta({"content": "tok0"}), repeat(600, pause(0.05), delta({"content": "tok"})))
MESSAGE = {"id": "m", "type": "message", "role": "assistant", "content": [], "usage": {"input_tokens": 1}}


@dataclass(frozen=True)
class Scene:
    """What the provider does, and what the caller has seen (on its wire) when it leaves."""

    reply: Reply
    stream: bool = True
    seen: bytes = b""
    provider: str = "openai"
    path: str = CHAT


ITEM = {"id": "msg_1", "type": "message", "role": "assistant", "content": []}
RESPONDING: tuple[Action, ...] = (
    event("response.created", {"type": "response.created", "response": {"id": "resp_1"}}),
    event("response.output_item.added", {"type": "response.output_item.added", "output_index": 0, "item": ITEM}),
    event(
        "response.output_text.delta",
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "tok0"},
    ),
)

MESSAGING: tuple[Action, ...] = (
    event("message_start", {"type": "message_start", "message": MESSAGE}),
    event(
        "content_block_start",
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ),
    event(
        "content_block_delta",
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "tok0"}},
    ),
)

SCENES = {
    "in a call that is not streamed": Scene(hang(), stream=False),
    "before the headers": Scene(hang()),
    "before the first token": Scene(sse(silence())),
    "after the role": Scene(sse(delta({"role": "assistant", "content": ""}), silence())),
    "in a silent stream": Scene(sse(*SILENT_AFTER_TOKENS), seen=b"tok0"),
    "in a busy stream": Scene(sse(*BUSY), seen=b"tok0"),
    "in a translated call": Scene(hang(), stream=False, provider="anthropic"),
    "in a translated stream": Scene(sse(*MESSAGING, silence()), seen=b"tok0", provider="anthropic"),
    "in a response": Scene(hang(), stream=False, path="/v1/responses"),
    "before a response's stream": Scene(hang(), path="/v1/responses"),
    "in a response's silent stream": Scene(sse(*RESPONDING, silence()), seen=b"tok0", path="/v1/responses"),
    "in a response's busy stream": Scene(
        sse(*RESPONDING, repeat(600, pause(0.05), RESPONDING[-1])), seen=b"tok0", path="/v1/responses"
    ),
    "in a message": Scene(hang(), stream=False, provider="anthropic", path="/v1/messages"),
    "in a message's silent stream": Scene(
        sse(*MESSAGING, silence()), seen=b"tok0", provider="anthropic", path="/v1/messages"
    ),
    "in a message that a chat stands in for": Scene(sse(*SILENT_AFTER_TOKENS), seen=b"tok0", path="/v1/messages"),
}


def asked(path: str, name: str, stream: bool) -> JSON:
    """The body of an operation."""
    if path == "/v1/responses":
        return {"model": name, "stream": stream, "input": "hi"}
    return body(name, stream=stream, max_tokens=9)


@pytest.fixture(params=["gateway", "threaded"])
def served(request: pytest.FixtureRequest) -> Served:
    """The gateway under gevent, and under plain threads."""
    either: Served = request.getfixturevalue(request.param)
    return either


@pytest.mark.parametrize("abruptly", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_a_caller_that_leaves_closes_the_providers_connection(
    served: Served, provider: FakeProvider, model: str, scene: Scene, abruptly: bool
) -> None:
    closed_s: list[float] = []
    while not closed_s or (closed_s[-1] >= WITHIN_S and len(closed_s) < TRIES):
        name = f"{model}-{len(closed_s)}"
        closed_s.append(closed_after_s(served, provider, name, scene, abruptly=abruptly))
        assert len(provider.requests(name)) == 1
    assert closed_s[-1] < WITHIN_S, closed_s


def closed_after_s(served: Served, provider: FakeProvider, model: str, scene: Scene, *, abruptly: bool) -> float:
    """Leave in the midst of a scene; returns after how many seconds the provider's connection was closed."""
    provider.script(model, scene.reply)
    with Wire(served) as wire:
        wire.send(chat_request(asked(scene.path, f"{scene.provider}/{model}", scene.stream), path=scene.path))
        (received,) = provider.wait_for(1, model)
        if scene.seen:
            wire.read_until(scene.seen)
        else:
            time.sleep(0.15)  # the gateway waits for the provider by now
        assert not received.closed.is_set()
        left_s = wire.leave(abruptly=abruptly)
    assert received.closed.wait(3 * WITHIN_S), "the provider's connection stays open"
    assert received.closed_at is not None
    return received.closed_at - left_s


def test_a_caller_that_stays_keeps_the_providers_connection(served: Served, provider: FakeProvider, model: str) -> None:
    provider.script(model, answer("at last", delay=1.5))
    with Caller(served.url, TOKEN) as caller:
        assert caller.chat(f"openai/{model}").json()["choices"][0]["message"]["content"] == "at last"
        assert caller.stream(f"openai/{model}").text() == "at last"


def test_a_request_sent_ahead_is_no_leaving(served: Served, provider: FakeProvider, model: str) -> None:
    provider.script(model, answer("first", delay=0.6), answer("second"))
    with Wire(served) as wire:
        wire.send(chat_request(body(f"openai/{model}")) + chat_request(body(f"openai/{model}")))
        answers = [wire.read_answer() for _ in range(2)]
    assert [status for status, _ in answers] == [200, 200]
    assert b'"first"' in answers[0][1]
    assert b'"second"' in answers[1][1]


def test_fifty_streams_that_are_left_leak_no_connection(served: Served, provider: FakeProvider, model: str) -> None:
    provider.script(model, sse(*BUSY))

    def leave_early(_: int) -> None:
        with Wire(served) as wire:
            wire.send(chat_request(body(f"openai/{model}", stream=True)))
            wire.read_until(b"tok0")

    before = provider.open_connections
    with ThreadPoolExecutor(25) as pool:
        list(pool.map(leave_early, range(50)))
    received = provider.requests(model)
    assert len(received) == 50
    end_s = time.monotonic() + 3
    assert all(one.closed.wait(max(0.0, end_s - time.monotonic())) for one in received)
    while provider.open_connections > before and time.monotonic() < end_s:
        time.sleep(0.02)
    assert provider.open_connections <= before

    provider.script(model, sse(delta({"content": "fine"}), delta({}, "stop"), done()))
    with Caller(served.url, TOKEN) as caller:
        streamed = caller.stream(f"openai/{model}")
    assert streamed.ends_well
    assert streamed.head_s < 1


def test_connections_to_a_provider_are_used_again(served: Served, provider: FakeProvider, model: str) -> None:
    with Caller(served.url, TOKEN) as caller:
        for _ in range(5):
            assert caller.chat(f"openai/{model}").status_code == 200
            assert caller.stream(f"openai/{model}").ends_well
    assert len({one.connection for one in provider.requests(model)}) <= 2


@pytest.mark.parametrize(
    ("path", "name", "end"),
    [
        ("/v1/responses", "openai", b"event: response.completed"),
        ("/v1/messages", "anthropic", b"event: message_stop"),
    ],
)
def test_a_native_streams_connection_is_used_again(
    served: Served, provider: FakeProvider, model: str, path: str, name: str, end: bytes
) -> None:
    provider.script(model, answer("one two three"))
    with Wire(served) as wire:
        for _ in range(5):
            wire.send(chat_request(asked(path, f"{name}/{model}", stream=True), path=path))
            status, got = wire.read_answer()
            assert status == 200
            assert end in got
    assert len({one.connection for one in provider.requests(model)}) <= 2
