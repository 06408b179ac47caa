"""One call from the plan to its settling, with upstreams that say what they are told."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from gateway.core import routing
from gateway.core.calls import Attempt, Call, Chunk
from gateway.core.wire import data_of
from gateway.errors import (
    CallerGone,
    DeadlineExceeded,
    GatewayError,
    InternalError,
    ModelNotFound,
    ProviderFailed,
    ProviderLimited,
    ProviderNotConfigured,
    ProviderRefused,
    ProviderStreamEnded,
    ShuttingDown,
)
from gateway.pipeline import Gateway, Reply
from tests.builders import ROLE, Recorder, Script, Step, attempt, call, delta, finish, gateway, says

MODEL = "openai/gpt-test"
DOWN = ProviderFailed("down", provider="openai")


class Running:
    """An open gateway over a script, and what it traced."""

    def __init__(self, *scripts: Sequence[Step], tells_silence: bool = False, **limits: Any) -> None:
        self.script = Script(list(scripts), tells_silence)
        self.traced = Recorder()
        self.gateway: Gateway = gateway(self.script, self.traced, **limits)
        self.gateway.open()

    def run(self, made: Call | None = None, *, stream: bool = True, **more: Any) -> Reply:
        return self.gateway.run(made or call(MODEL, stream=stream, **more))

    @property
    def root(self) -> Any:
        """The root of the one trace."""
        [root] = self.traced.roots
        return root


@pytest.fixture(params=[False, True], ids=["aside", "in the writer"])
def running(request: pytest.FixtureRequest) -> Iterator[Callable[..., Running]]:
    """Gateways whose streams are read in a thread of their own, and where they are written."""
    made: list[Running] = []

    def make(*scripts: Sequence[Step], **limits: Any) -> Running:
        made.append(Running(*scripts, **{"tells_silence": request.param, **limits}))
        return made[-1]

    yield make
    for one in made:
        one.gateway.close(0.1)


@pytest.fixture
def two_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a call have two deployments to try."""
    monkeypatch.setattr(
        routing,
        "plan",
        lambda _model, _catalogue, **_more: (attempt("openai/first"), attempt("openai/second", number=2)),
    )


def text_of(chunks: Sequence[Chunk | None]) -> str:
    said = ""
    for chunk in chunks:
        if chunk is not None and chunk.data:
            document = json.loads(data_of(chunk.data) or b"")
            said += "".join(choice["delta"].get("content") or "" for choice in document["choices"])
    return said


# Whole answers.


def test_a_whole_answer_comes_back_settled(running: Callable[..., Running]) -> None:
    here = running(says("hello"))
    reply = here.run(stream=False)
    assert reply.body is not None
    assert json.loads(reply.body)["choices"][0]["message"]["content"] == "hello"
    assert here.root["metadata"]["status"] == 200
    assert list(reply) == []
    reply.close()
    assert len(here.traced.traces) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_is_raised_and_traced_with_its_status(running: Callable[..., Running], stream: bool) -> None:
    here = running([ProviderLimited("slow down", provider="openai")])
    with pytest.raises(ProviderLimited) as raised:
        here.run(stream=stream)
    assert (here.root["metadata"]["status"], here.root["error"]) == (429, "slow down")
    assert raised.value.reply_headers["x-bt-span-id"] == here.root["span_id"]


@pytest.mark.parametrize(
    ("model", "kind"), [("nobody/x", ModelNotFound), ("groq/x", ProviderNotConfigured), ("vllm/x", ModelNotFound)]
)
def test_a_call_that_cannot_be_planned_is_traced_too(
    running: Callable[..., Running], model: str, kind: type[GatewayError]
) -> None:
    here = running(says("x"))
    with pytest.raises(kind):
        here.run(call(model))
    assert here.root["metadata"]["attempts"] == 0
    assert here.script.opened == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_of_our_own_is_settled_and_says_nothing(running: Callable[..., Running], stream: bool) -> None:
    here = running([RuntimeError("a secret of the code")])
    with pytest.raises((RuntimeError, InternalError)):
        here.run(stream=stream)
    assert here.root["metadata"]["status"] == 500
    assert "secret" not in here.root["error"]


# Streams.


def test_a_stream_is_handed_out_in_order_and_settled_at_its_end(running: Callable[..., Running]) -> None:
    here = running(says("a ", "b ", "c"))
    reply = here.run()
    assert reply.body is None
    chunks = []
    for chunk in reply:
        assert here.traced.traces == [], "nothing is settled before the end"
        chunks.append(chunk)
    reply.close()
    assert text_of(chunks) == "a b c"
    assert here.root["output"][0]["message"]["content"] == "a b c"
    assert [one.transcript.complete for one in here.script.closed] == [True]
    reply.close()
    assert len(here.traced.traces) == 1


def test_what_comes_before_the_first_content_is_held_until_it_comes(running: Callable[..., Running]) -> None:
    go_on = threading.Event()
    here = running([ROLE, None, lambda _call: go_on.wait(5) and None, *says("a")[1:]], keepalive_s=0.1)
    reply = here.run()
    assert next(reply) is None, "silence, though the role has come"
    go_on.set()
    assert text_of(list(reply)) == "a"


def test_silence_wants_a_sign_of_life_again_and_again(running: Callable[..., Running]) -> None:
    here = running([ROLE, delta("a"), None, None, lambda _call: time.sleep(0.35), *says("b")[1:]], keepalive_s=0.1)
    got = list(here.run())
    assert got.count(None) >= 2
    assert text_of(got) == "ab"


def test_a_failure_after_the_head_is_raised_once_with_status_200_in_the_trace(running: Callable[..., Running]) -> None:
    here = running([ROLE, delta("a"), ProviderStreamEnded("cut", provider="openai")])
    reply = here.run()
    assert text_of([next(reply), next(reply)]) == "a"
    with pytest.raises(ProviderStreamEnded):
        next(reply)
    assert list(reply) == []
    reply.close()
    assert (here.root["metadata"]["status"], here.root["error"]) == (200, "cut")
    assert here.root["output"][0]["message"]["content"] == "a"


def test_a_late_failure_before_any_content_is_an_error_in_the_stream(running: Callable[..., Running]) -> None:
    here = running([None, lambda _call: time.sleep(0.3), DOWN], keepalive_s=0.1)
    reply = here.run()
    assert next(reply) is None
    with pytest.raises(ProviderFailed):
        list(reply)
    assert here.root["metadata"]["status"] == 200


def test_a_fault_in_the_reader_ends_the_stream_with_an_error(
    running: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    here = running([delta("a"), RuntimeError("a secret of the code")])
    with pytest.raises(InternalError) as raised, caplog.at_level(logging.ERROR):
        list(here.run())
    assert "secret" not in raised.value.message
    assert "a secret of the code" in caplog.text


def test_a_slow_reader_makes_the_provider_wait(running: Callable[..., Running]) -> None:
    made: list[int] = []

    def count(_call: Call) -> None:
        made.append(1)

    steps: list[Step] = [step for _ in range(500) for step in (delta("x"), count)]
    here = running([*steps, finish()])
    reply = here.run()
    next(reply)
    time.sleep(0.3)
    assert len(made) < 100
    assert len(list(reply)) == 500


# Fallback.


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("error", [DOWN, ProviderLimited("full"), ProviderStreamEnded("cut")])
def test_where_the_first_fails_before_any_content_the_second_answers(
    running: Callable[..., Running], two_planned: None, stream: bool, error: GatewayError
) -> None:
    here = running([error], says("second"))
    reply = here.run(stream=stream)
    said = text_of(list(reply)) if stream else json.loads(reply.body or b"")["choices"][0]["message"]["content"]
    assert said == "second"
    assert [one.deployment.model for one in here.script.opened] == ["first", "second"]
    assert reply.headers()["x-gateway-model-id"] == "openai/second"
    assert reply.headers()["x-gateway-attempted-retries"] == "1"
    assert [span.get("error") for span in here.traced.spans] == [error.message, None]


def test_a_role_that_came_from_the_first_is_never_shown(running: Callable[..., Running], two_planned: None) -> None:
    here = running([{**ROLE, "id": "of-the-first"}, DOWN], [{**ROLE, "id": "of-the-second"}, *says("b")[1:]])
    chunks = b"".join(chunk.data for chunk in here.run() if chunk is not None)
    assert b"of-the-first" not in chunks
    assert b"of-the-second" in chunks


def test_after_content_nobody_else_is_tried(running: Callable[..., Running], two_planned: None) -> None:
    here = running([ROLE, delta("a"), DOWN], says("second"))
    with pytest.raises(ProviderFailed):
        list(here.run())
    assert len(here.script.opened) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_is_at_fault_is_tried_nowhere_else(
    running: Callable[..., Running], two_planned: None, stream: bool
) -> None:
    here = running([ProviderRefused("bad", provider="openai")], says("second"))
    with pytest.raises(ProviderRefused):
        here.run(stream=stream)
    assert len(here.script.opened) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_when_all_fail_the_last_ones_error_is_told(
    running: Callable[..., Running], two_planned: None, stream: bool
) -> None:
    here = running([DOWN], [ProviderLimited("full", provider="openai")])
    with pytest.raises(ProviderLimited):
        here.run(stream=stream)
    assert [span["error"] for span in here.traced.spans] == ["down", "full"]
    assert here.root["error"] == "full"


# Leaving.


def test_a_reply_that_is_closed_in_the_middle_is_settled_as_left(running: Callable[..., Running]) -> None:
    here = running([ROLE, delta("a"), lambda made: wait_for(made), *says("b")])
    made = call(MODEL, stream=True)
    reply = here.run(made)
    next(reply)
    next(reply)
    began_s = time.monotonic()
    reply.close()
    assert time.monotonic() - began_s < 1.0
    assert made.cancellation.reason == "caller_gone"
    assert here.root["metadata"]["caller_gone"] is True
    assert here.root["output"][0]["message"]["content"] == "a"
    assert len(here.script.closed) == 1
    reply.close()
    assert len(here.traced.traces) == 1
    assert list(reply) == []


def wait_for(made: Call) -> None:
    """Be silent until the call is stopped, as a socket is that is shut down."""
    stop = threading.Event()
    made.cancellation.subscribe(stop.set)
    stop.wait(5)


def test_a_reply_that_is_closed_before_it_was_read_is_settled_as_left(running: Callable[..., Running]) -> None:
    here = running([delta("a"), lambda made: wait_for(made)])
    here.run().close()
    assert here.root["metadata"]["caller_gone"] is True
    assert here.root["output"][0]["message"]["content"] == "a"


def test_a_reply_that_is_closed_after_every_finish_reason_counts_as_answered(running: Callable[..., Running]) -> None:
    here = running([ROLE, delta("a"), finish(), lambda made: wait_for(made)])
    reply = here.run()
    for _ in range(3):
        next(reply)
    reply.close()
    assert here.root["metadata"]["caller_gone"] is False
    assert "error" not in here.root
    assert "error" not in here.traced.spans[0]


def test_a_choice_without_its_finish_reason_counts_as_left(running: Callable[..., Running]) -> None:
    here = running([delta("a"), finish("stop", index=1), lambda made: wait_for(made)])
    reply = here.run()
    next(reply)
    next(reply)
    reply.close()
    assert here.root["metadata"]["caller_gone"] is True


def test_the_reader_ends_soon_after_a_reply_is_closed(running: Callable[..., Running]) -> None:
    here = running([delta("x") for _ in range(10_000)])
    made = call(MODEL, stream=True)
    reply = here.run(made)
    next(reply)
    reply.close()
    deadline_s = time.monotonic() + 1
    while time.monotonic() < deadline_s and any(made.id in thread.name for thread in threading.enumerate()):
        time.sleep(0.01)
    assert not [thread for thread in threading.enumerate() if made.id in thread.name]


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_that_leaves_while_the_provider_is_silent_is_noticed(
    running: Callable[..., Running], stream: bool
) -> None:
    here = running([lambda made: wait_for(made), delta("a")])
    ours, theirs = socket.socketpair()
    threading.Timer(0.1, theirs.close).start()
    began_s = time.monotonic()
    with ours, pytest.raises(CallerGone):
        here.gateway.run(call(MODEL, stream=stream), ours)
    assert time.monotonic() - began_s < 1.0
    assert here.root["metadata"]["caller_gone"] is True


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_past_its_deadline_is_ended(running: Callable[..., Running], stream: bool) -> None:
    here = running([lambda made: wait_for(made), delta("a")])
    with pytest.raises(DeadlineExceeded):
        here.run(stream=stream, deadline_s=time.monotonic() + 0.2)
    assert here.root["metadata"]["status"] == 504


def test_a_stream_past_its_deadline_ends_with_an_error(running: Callable[..., Running]) -> None:
    here = running([ROLE, delta("a"), lambda made: wait_for(made), delta("b")])
    reply = here.run(deadline_s=time.monotonic() + 0.2)
    with pytest.raises(DeadlineExceeded):
        list(reply)
    assert here.root["metadata"]["error_code"] == "deadline_exceeded"


# Settling.


def test_a_sink_that_fails_fails_no_call(running: Callable[..., Running], caplog: pytest.LogCaptureFixture) -> None:
    here = running(says("a"))

    def broken(*_arguments: Any) -> None:
        raise OSError("the disk is full")

    here.traced.write = broken  # type: ignore[method-assign, assignment]
    with caplog.at_level(logging.ERROR):
        assert text_of(list(here.run())) == "a"
        assert here.run(stream=False).body


def test_nothing_is_left_behind_by_calls_however_they_end(running: Callable[..., Running]) -> None:
    here = running(says("a"))
    list(here.run())
    here.run().close()
    here.run(stream=False)
    with pytest.raises(ModelNotFound):
        here.run(call("nobody/x"))
    assert here.gateway.watcher._watches == set()
    assert len(here.traced.traces) == 4


# The answer's headers.


def test_the_headers_say_who_answered_and_where_the_trace_is(running: Callable[..., Running]) -> None:
    here = running(says("a"))
    headers = here.run(stream=False).headers()
    assert headers["x-gateway-provider"] == "openai"
    assert headers["x-gateway-model-id"] == MODEL
    assert headers["x-gateway-attempted-retries"] == "0"
    assert float(headers["x-gateway-overhead-duration-ms"]) >= 0
    assert headers["x-bt-span-id"] == here.root["span_id"]
    assert "x-gateway-dropped-params" not in headers


@pytest.mark.parametrize("name", ["seed", "a\nb", "ключ", "😀", "x" * 10_000, "", "a,b"])
def test_whatever_a_caller_named_its_fields_the_headers_can_be_sent(running: Callable[..., Running], name: str) -> None:
    here = running(says("a"))
    reply = here.run(stream=False)
    [tried] = here.script.opened
    tried.dropped, tried.provider_headers = (name,) * 100, {"x-provider-ratelimit-x": f"1{name}"}
    headers = reply.headers()
    for value in headers.values():
        value.encode("latin-1")
        assert value.isprintable()
    assert sum(map(len, headers.values())) < 40_000


# Beginning and ending.


def test_opening_again_starts_nothing_twice() -> None:
    started: list[int] = []

    class Counting(Script):
        def start(self) -> None:
            started.append(1)

    made = gateway(Counting([says("a")]))
    made.open()
    made.open()
    made.close(0.1)
    assert started == [1]


def test_closing_ends_what_is_under_way_and_then_the_rest() -> None:
    ended: list[str] = []
    here = Running([delta("a"), lambda made: wait_for(made), delta("b")])
    here.gateway.on_close = lambda: ended.append("rest")
    reply = here.run()
    next(reply)
    failed: list[GatewayError] = []

    def read() -> None:
        try:
            list(reply)
        except GatewayError as error:
            failed.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    began_s = time.monotonic()
    here.gateway.close(0.1)
    thread.join(2)
    assert time.monotonic() - began_s < 2.0
    assert [type(error) for error in failed] == [ShuttingDown]
    assert here.root["metadata"]["error_code"] == "shutting_down"
    assert ended == ["rest"]


def test_a_gateway_that_never_opened_can_be_closed() -> None:
    gateway().close(0.1)


def test_the_demo_answers_by_itself(running: Callable[..., Running]) -> None:
    here = running([DOWN])
    assert text_of(list(here.run(call("demo/echo", "hello you", stream=True)))) == "hello you"
    assert here.script.opened == []


def test_many_calls_at_once_do_not_mix(running: Callable[..., Running]) -> None:
    here = running(says("unused"))
    wrong: list[str] = []

    def ask(number: int) -> None:
        said = f"number {number} of many"
        if text_of(list(here.run(call("demo/echo", said, stream=True, id=f"req_{number:032x}")))) != said:
            wrong.append(said)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert wrong == []
    assert len({root["root_span_id"] for root in here.traced.roots}) == 40


def test_an_attempt_knows_when_it_began_spoke_and_ended(running: Callable[..., Running]) -> None:
    here = running([lambda _call: time.sleep(0.1), *says("a")])
    list(here.run())
    tried: Attempt = here.script.opened[0]
    assert tried.first_content_s is not None
    assert tried.ended_s is not None
    assert tried.started_s + 0.1 <= tried.first_content_s <= tried.ended_s
