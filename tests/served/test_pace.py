"""Tokens come when the provider sends them, no stream holds another up, and silence is kept alive."""

import time
from concurrent.futures import ThreadPoolExecutor

from tests.fakes.provider import FakeProvider, delta, done, error, pause, silence, sse
from tests.served.caller import Caller, body
from tests.served.process import TOKEN, Served
from tests.served.swarm import stream_at_once

ROLE = delta({"role": "assistant", "content": ""})
STOP = delta({}, "stop")
WORDS = ("one", "two", "three", "four", "five")


def test_tokens_are_passed_on_as_they_come(caller: Caller, provider: FakeProvider, model: str) -> None:
    words = [step for word in WORDS for step in (delta({"content": word}), pause(0.4))]
    provider.script(model, sse(ROLE, *words, STOP, done()))
    streamed = caller.stream(f"openai/{model}")
    assert streamed.ends_well
    assert streamed.head_s < 1.2  # of 2 s in all
    assert streamed.times_s[1] < 1.3
    assert streamed.times_s[-1] - streamed.times_s[1] > 0.6
    assert streamed.headers["x-accel-buffering"] == "no"
    assert streamed.headers["cache-control"] == "no-cache"


def test_a_slow_stream_holds_nobody_up(caller: Caller, provider: FakeProvider, model: str) -> None:
    provider.script(model, sse(ROLE, delta({"content": "x"}), pause(3), STOP, done()))
    with ThreadPoolExecutor(21) as pool:
        slow = pool.submit(caller.stream, f"openai/{model}")
        provider.wait_for(1, model)
        began_s = time.monotonic()
        quick = list(pool.map(lambda number: caller.chat(f"openai/{model}-quick-{number}"), range(20)))
        assert time.monotonic() - began_s < 2.5
        assert not slow.done()
        assert {one.status_code for one in quick} == {200}
        assert slow.result(timeout=20).ends_well


def test_large_prompts_without_usage_hold_nobody_up(caller: Caller, provider: FakeProvider, model: str) -> None:
    provider.script(model, sse(ROLE, delta({"content": "ok"}), pause(0.3), STOP, done()))
    prompt = "lorem ipsum dolor " * 60_000
    with ThreadPoolExecutor(8) as pool:
        large = [pool.submit(caller.stream, f"openai/{model}", prompt) for _ in range(4)]
        small = list(pool.map(lambda number: caller.chat(f"openai/{model}-small-{number}"), range(4)))
        assert max(one.elapsed.total_seconds() for one in small) < 4
        assert all(one.result(timeout=30).ends_well for one in large)


def test_five_hundred_streams_at_once_complete(gateway: Served, provider: FakeProvider, model: str) -> None:
    words = " ".join(f"w{number}" for number in range(22))
    provider.script(
        model, sse(ROLE, *(delta({"content": f"{word} "}) for word in words.split()), pause(1), STOP, done())
    )
    began_s = time.monotonic()
    raws = stream_at_once(gateway.port, TOKEN, body(f"openai/{model}", stream=True), 500)
    assert time.monotonic() - began_s < 60
    complete = [one for one in raws if one.count(b"data: ") == 25 and one.endswith(b"data: [DONE]\n\n")]
    assert len(complete) == 500


# -- silence


def test_a_silent_stream_is_kept_alive_by_comments(hurried: Caller, provider: FakeProvider, model: str) -> None:
    provider.script(
        model, sse(ROLE, delta({"content": "a"}), pause(0.8), delta({"content": "b"}), STOP, done(), delay=0.8)
    )
    streamed = hurried.stream(f"openai/{model}")
    assert streamed.ends_well
    assert streamed.text() == "ab"
    assert streamed.head_s < 0.7
    assert len(streamed.comments) >= 2, "at least one in each silence"
    assert set(streamed.comments) == {": keep-alive"}


def test_a_failure_after_the_first_comment_is_an_error_event(
    hurried: Caller, provider: FakeProvider, model: str
) -> None:
    provider.script(model, error(400, {"error": {"message": "not like this", "type": "t", "code": "c"}}, delay=0.6))
    streamed = hurried.stream(f"openai/{model}")
    assert streamed.status == 200
    assert streamed.fails_once
    assert (streamed.errors[0]["message"], streamed.errors[0]["code"]) == ("not like this", "c")


def test_a_stream_ends_when_its_time_is_up(hurried: Caller, provider: FakeProvider, model: str) -> None:
    provider.script(model, sse(ROLE, delta({"content": "a"}), silence()))
    began_s = time.monotonic()
    streamed = hurried.stream(f"openai/{model}")
    assert 1.8 < time.monotonic() - began_s < 3.5
    assert streamed.text() == "a"
    assert streamed.fails_once
    assert streamed.errors[0]["type"] == "timeout_error"
    assert provider.requests(model)[0].closed.wait(1)
