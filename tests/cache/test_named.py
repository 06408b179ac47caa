"""Requests that their caller has named: answered once, however often they come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.core.cachekey import Wish
from gateway.core.calls import CALLER_GONE, Call, Caller
from gateway.errors import CallerGone, GatewayError, NameReused, NotCached, ProviderFailed
from tests.builders import ROLE, call, delta, finish, says
from tests.cache.test_cache import MODEL, Gate, Running, at_once, drained, joined
from tests.storage.stores import Clock

DOWN = ProviderFailed("down", provider="openai")


@pytest.fixture
def running() -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def make(*scripts: Any, **more: Any) -> Running:
        made.append(Running(*scripts, **more))
        return made[-1]

    yield make
    for one in made:
        one.gateway.close(0.1)


def named(text: str = "hi", *, name: str = "order-1", stream: bool = False, **more: Any) -> Call:
    return call(MODEL, text, stream=stream, name=name, **more)


@pytest.mark.parametrize("stream", [False, True])
def test_it_is_answered_once(running: Callable[..., Running], stream: bool) -> None:
    one = running(says("a"), says("b"))
    first = one.gateway.run(named(stream=stream))
    told = drained(first)
    assert "x-bt-cached" not in first.headers()
    again = one.gateway.run(named(stream=stream))
    assert drained(again) == told
    assert again.headers()["idempotent-replayed"] == "true"
    assert (one.calls, len(one.traced.roots)) == (1, 2)
    assert one.traced.roots[1]["metadata"]["cost_usd"] == 0
    assert drained(one.gateway.run(named(name="order-2", stream=stream))) != told


@pytest.mark.parametrize("other", [{"text": "else"}, {"stream": True}, {"query": "beta=true"}, {"body": {"user": "a"}}])
def test_another_request_of_the_name_is_refused(running: Callable[..., Running], other: dict[str, Any]) -> None:
    one = running(says("a"))
    drained(one.gateway.run(named()))
    with pytest.raises(NameReused) as caught:
        drained(one.gateway.run(named(**other)))
    assert caught.value.http_status == 409
    assert one.calls == 1


def test_another_tenant_has_names_of_its_own(running: Callable[..., Running]) -> None:
    one = running(says("a"))
    drained(one.gateway.run(named()))
    drained(one.gateway.run(named("else", caller=Caller("tok_2", "tok_2"))))
    assert one.calls == 2


def test_a_name_is_forgotten_after_a_day(running: Callable[..., Running]) -> None:
    clock = Clock()
    one = running(says("a"), clock=clock)
    drained(one.gateway.run(named()))
    clock.now_s += 86_399
    with pytest.raises(NameReused):
        one.gateway.run(named("else"))
    clock.now_s += 2
    drained(one.gateway.run(named("else")))


def test_what_failed_is_asked_again(running: Callable[..., Running]) -> None:
    one = running([DOWN], says("b"))
    with pytest.raises(ProviderFailed):
        one.gateway.run(named())
    assert b'"b"' in drained(one.gateway.run(named()))


@pytest.mark.parametrize("stream", [False, True])
def test_those_that_come_meanwhile_wait_and_pay_once(running: Callable[..., Running], stream: bool) -> None:
    gate = Gate()

    def fail(_call: Call) -> None:
        raise DOWN

    one = running([gate, fail], says("b"))
    threads, got = at_once(10, lambda: drained(one.gateway.run(named(stream=stream))))
    assert gate.reached.wait(10)
    with pytest.raises(NameReused):
        one.gateway.run(named("else", stream=stream))
    time.sleep(0.3)
    gate.open.set()
    joined(threads)
    assert one.calls == 2, "the first failed; of those that waited one asked for all"
    assert sum(isinstance(each, GatewayError) for each in got) == 1
    assert len({each for each in got if not isinstance(each, GatewayError)}) == 1


def test_an_answer_whose_caller_has_left_is_made_to_its_end(running: Callable[..., Running]) -> None:
    gate = Gate()
    one = running([ROLE, delta("a"), gate, delta("b"), finish()])
    asked = named()
    threads, got = at_once(1, lambda: drained(one.gateway.run(asked)))
    assert gate.reached.wait(10)
    asked.cancellation.abort(CALLER_GONE)
    time.sleep(0.1)
    gate.open.set()
    joined(threads)
    assert isinstance(got[0], CallerGone)
    assert b'"ab"' in drained(one.gateway.run(named()))
    assert one.calls == 1
    assert one.traced.roots[0]["metadata"]["caller_gone"] is True


def test_a_stream_whose_caller_has_left_is_stopped(running: Callable[..., Running]) -> None:
    one = running(says("a", "b"))
    reply = one.gateway.run(named(stream=True))
    next(reply)
    reply.close()
    assert one.script.closed == one.script.opened


def test_who_wants_only_what_is_kept_asks_nobody(running: Callable[..., Running]) -> None:
    one = running(says("a"))
    with pytest.raises(NotCached):
        one.gateway.run(named(cache=Wish(use="never", only=True)))
    drained(one.gateway.run(named()))
    assert one.gateway.run(named(cache=Wish(use="never", only=True))).headers()["x-bt-cached"] == "HIT"
    assert one.calls == 1


def test_a_large_body_is_told_apart_too(running: Callable[..., Running]) -> None:
    one = running(says("a"))
    for raw in (b"1", b"1", b"2"):
        made = named(raw=raw, body_bytes=2 << 20)
        if raw == b"2":
            with pytest.raises(NameReused):
                one.gateway.run(made)
        else:
            drained(one.gateway.run(made))
    assert one.calls == 1
    assert threading.active_count() < 50
