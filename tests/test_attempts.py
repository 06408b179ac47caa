"""A call at several deployments: what is tried after what, what the caller is told, and when."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from gateway.attempts import Attempts
from gateway.core.breaker import CLOSED, OPEN
from gateway.core.policies import Policy, Trying
from gateway.core.routing import Alias, Catalogue, Reach, Target
from gateway.errors import (
    CallerGone,
    GatewayError,
    ProviderFailed,
    ProviderInvalid,
    ProviderLimited,
    ProviderRefused,
    ProviderTimeout,
)
from gateway.pipeline import Gateway, Reply
from gateway.secret import Secret
from gateway.watcher import Watcher
from tests.builders import ECHO, ROLE, Recorder, Script, Step, call, delta, finish, gateway, says
from tests.pipeline.test_pipeline import text_of, wait_for

DOWN = ProviderFailed("down", provider="openai", status=503)
QUICK = Trying(retries=2, cooldown_s=0.2)


def alias(*models: str, **policy: Any) -> Alias:
    return Alias(tuple(Target("openai", model, Reach(Secret("k"))) for model in models), policy=Policy(**policy))


class Place:
    """An open gateway over a script, with the names `one`, `two` and `three` for as many deployments."""

    def __init__(self, *scripts: Sequence[Step], trying: Trying = QUICK, dice: float = 0.0, **more: Any) -> None:
        self.script = Script(list(scripts), more.pop("tells_silence", False))
        self.traced = Recorder()
        self.gateway: Gateway = gateway(self.script, self.traced, **more)
        self.gateway.catalogue = Catalogue(
            demo=ECHO,
            aliases={
                "one": alias("a", fallbacks=("three",)),
                "alone": alias("a"),
                "two": alias("a", "b"),
                "three": alias("x", "y", "z"),
                "long": alias("a", context_window_fallbacks=("three",)),
                "mild": alias("a", content_policy_fallbacks=("three",)),
            },
            trying=trying,
        )
        self.gateway.health._dice = lambda: dice
        self.gateway.open()

    def run(self, model: str, *, stream: bool = False, **more: Any) -> Reply:
        return self.gateway.run(call(model, stream=stream, **more))

    def said(self, model: str, *, stream: bool = False, **more: Any) -> str:
        reply = self.run(model, stream=stream, **more)
        try:
            if stream:
                return text_of(list(reply))
            return str(json.loads(reply.body or b"")["choices"][0]["message"]["content"])
        finally:
            reply.close()

    @property
    def opened(self) -> str:
        return "".join(attempt.deployment.model for attempt in self.script.opened)


@pytest.fixture(params=[False, True], ids=["aside", "in the writer"])
def place(request: pytest.FixtureRequest) -> Iterator[Callable[..., Place]]:
    made: list[Place] = []

    def make(*scripts: Sequence[Step], **more: Any) -> Place:
        made.append(Place(*scripts, **{"tells_silence": request.param, **more}))
        return made[-1]

    yield make
    for one in made:
        one.gateway.close(0.1)


BOTH = pytest.mark.parametrize("stream", [False, True])


@BOTH
def test_the_only_deployment_is_asked_again_and_the_answer_says_how_often(
    place: Callable[..., Place], stream: bool
) -> None:
    here = place([DOWN], [ProviderInvalid("empty", provider="openai")], says("at last"))
    reply = here.run("alone", stream=stream)
    assert here.opened == "aaa"
    headers = reply.headers()
    assert (headers["x-gateway-attempted-retries"], headers["x-gateway-attempted-fallbacks"]) == ("2", "0")
    list(reply)
    assert [span["metadata"]["attempt"] for span in here.traced.spans] == [1, 2, 3]
    assert [span["metadata"]["chosen"] for span in here.traced.spans] == ["ordered", "tried again", "tried again"]
    assert here.traced.roots[0]["metadata"]["routed_by"] == "ordered"


@BOTH
def test_another_deployment_is_tried_before_the_first_is_asked_again(place: Callable[..., Place], stream: bool) -> None:
    here = place([DOWN], [DOWN], says("again"))
    assert here.said("two", stream=stream) == "again"
    assert here.opened == "aba"


@BOTH
def test_the_names_behind_answer_when_the_first_has_failed(place: Callable[..., Place], stream: bool) -> None:
    here = place([DOWN], [DOWN], [DOWN], [DOWN], says("y says"))
    reply = here.run("one", stream=stream)
    assert here.opened == "aaaxy"
    headers = reply.headers()
    assert (headers["x-gateway-attempted-retries"], headers["x-gateway-attempted-fallbacks"]) == ("4", "2")
    assert headers["x-gateway-model-id"] == "openai/y"


@BOTH
def test_a_failed_call_says_how_often_it_was_tried(place: Callable[..., Place], stream: bool) -> None:
    here = place([DOWN])
    with pytest.raises(ProviderFailed) as raised:
        here.run("two", stream=stream)
    headers = raised.value.reply_headers
    assert (headers["x-gateway-attempted-retries"], headers["x-gateway-attempted-fallbacks"]) == ("3", "1")


@BOTH
@pytest.mark.parametrize(
    ("name", "code"), [("long", "context_length_exceeded"), ("mild", "content_filter"), ("one", None)]
)
def test_a_refusal_goes_where_the_policy_says_and_else_back(
    place: Callable[..., Place], name: str, code: str | None, stream: bool
) -> None:
    here = place([ProviderRefused("no", code=code, provider="openai")], says("x says"))
    if code is None:
        with pytest.raises(ProviderRefused):
            here.said(name, stream=stream)
        assert here.opened == "a"
    else:
        assert here.said(name, stream=stream) == "x says"
        assert here.opened == "ax"


@BOTH
def test_where_no_fallback_is_wanted_the_first_failure_is_the_answer(place: Callable[..., Place], stream: bool) -> None:
    here = place([DOWN], says("no"))
    with pytest.raises(ProviderFailed):
        here.run("two", stream=stream, fallback=False)
    assert here.opened == "a"


def test_a_wanted_pause_is_kept_and_is_no_overhead_of_the_gateways(place: Callable[..., Place]) -> None:
    here = place([ProviderLimited("wait", retry_after_ms="300", provider="openai")], says("thanks"))
    began_s = time.monotonic()
    reply = here.run("alone")
    assert 0.3 <= time.monotonic() - began_s < 2
    assert here.traced.roots[0]["metadata"]["overhead_ms"] < 250
    assert float(reply.headers()["x-gateway-overhead-duration-ms"]) < 250


def test_a_long_pause_is_left_to_the_caller(place: Callable[..., Place]) -> None:
    here = place([ProviderLimited("wait", retry_after="60", provider="openai")])
    with pytest.raises(ProviderLimited) as raised:
        here.run("alone")
    assert (here.opened, raised.value.retry_after) == ("a", "60")


def test_a_caller_that_leaves_in_a_pause_is_not_tried_for_any_more(place: Callable[..., Place]) -> None:
    here = place([ProviderLimited("wait", retry_after="4", provider="openai")], says("no"))
    made = call("alone")
    here.gateway.watcher.timer(lambda: made.cancellation.abort("caller_gone"), time.monotonic() + 0.1)
    began_s = time.monotonic()
    with pytest.raises(CallerGone):
        here.gateway.run(made)
    assert time.monotonic() - began_s < 2
    assert here.opened == "a"


def test_nothing_is_tried_past_the_deadline(place: Callable[..., Place]) -> None:
    here = place([ProviderLimited("wait", retry_after="3", provider="openai")])
    with pytest.raises(ProviderLimited):
        here.run("alone", deadline_s=time.monotonic() + 1)
    assert here.opened == "a"


@pytest.mark.parametrize(("kept", "opened"), [("a", "aaa"), ("x", "xxx"), ("axyz", "ax"), ("ay", "ay")])
def test_of_what_is_planned_only_what_may_be_is_tried(place: Callable[..., Place], kept: str, opened: str) -> None:
    failure = DOWN if len(opened) == 3 else ProviderRefused("no", code="context_length_exceeded", provider="openai")
    here = place([failure], [failure], says("at last"))
    if len(opened) == 2:
        here.script.scripts = [[failure], says("at last")]
    made = call("long")
    tries = Attempts(made, {"litellm": here.script}, lambda _one: nullcontext(), 15, here.gateway.health, Watcher())
    tries.follow(here.gateway.health.plan(made, here.gateway.catalogue))
    assert "".join(one.deployment.model for one in tries.planned) == "axyz"
    tries.planned = [one for one in tries.planned if one.deployment.model in kept]
    assert b"at last" in tries.whole()
    assert here.opened == opened


# Streams that do not begin.


def test_a_stream_without_content_in_time_is_tried_elsewhere_and_closed(place: Callable[..., Place]) -> None:
    here = place([ROLE, wait_for_it, delta("late")], says("quick"), trying=replace(QUICK, first_content_s=0.2))
    began_s = time.monotonic()
    assert here.said("two", stream=True) == "quick"
    assert 0.2 <= time.monotonic() - began_s < 3
    assert here.opened == "ab"
    assert [one.deployment.model for one in here.script.closed] == ["a", "b"]
    assert isinstance(here.script.opened[0].error, ProviderTimeout)
    assert "another was tried" in here.traced.spans[0]["error"]


def wait_for_it(made: Any) -> None:
    wait_for(made)


def test_the_last_deployment_may_take_its_time(place: Callable[..., Place]) -> None:
    here = place([ROLE, lambda _call: time.sleep(0.5), *says("slow")[1:]], trying=replace(QUICK, first_content_s=0.1))
    assert here.said("alone", stream=True) == "slow"
    assert here.opened == "a"


def test_a_stream_that_has_begun_may_take_its_time_too(place: Callable[..., Place]) -> None:
    steps: list[Step] = [ROLE, delta("a"), lambda _call: time.sleep(0.5), delta("b"), finish()]
    here = place(steps, says("no"), trying=replace(QUICK, first_content_s=0.2))
    assert here.said("two", stream=True) == "ab"
    assert here.opened == "a"


def test_a_caller_that_leaves_while_a_start_is_waited_for_closes_it(place: Callable[..., Place]) -> None:
    here = place([ROLE, wait_for_it, delta("late")], says("no"), trying=replace(QUICK, first_content_s=10.0))
    made = call("two", stream=True)
    here.gateway.watcher.timer(lambda: made.cancellation.abort("caller_gone"), time.monotonic() + 0.1)
    began_s = time.monotonic()
    with pytest.raises(CallerGone):
        list(here.gateway.run(made))
    assert time.monotonic() - began_s < 3
    assert here.opened == "a"


# Breakers.


@BOTH
def test_a_deployment_that_fails_is_left_alone_and_tried_again_later(place: Callable[..., Place], stream: bool) -> None:
    failing: list[Sequence[Step]] = []
    for _ in range(5):
        failing += [[DOWN], says("b")]
    here = place(*failing, says("ok"), dice=0.5)
    for _ in range(5):
        assert here.said("two", stream=stream) == "b"
    first = here.script.opened[0].deployment
    assert here.gateway.health.of(first).state == OPEN
    assert here.said("two", stream=stream) == "ok"
    assert here.opened == "ab" * 5 + "b", "the first was not asked"
    time.sleep(0.25)
    assert here.said("two", stream=stream) == "ok"
    assert here.opened.endswith("a"), "the probe"
    assert here.gateway.health.of(first).state == CLOSED
    assert here.gateway.health.of(first).in_flight == 0


def test_a_thousand_calls_at_a_deployment_that_fails_are_hardly_more_there(place: Callable[..., Place]) -> None:
    here = place([DOWN], trying=replace(QUICK, allowed_fails=10_000))
    for _ in range(1000):
        with pytest.raises(GatewayError):
            here.run("alone")
    assert 1000 < len(here.script.opened) <= 1100


def test_every_attempt_that_began_has_ended_whatever_happened(place: Callable[..., Place]) -> None:
    here = place([ROLE, delta("a"), DOWN], [RuntimeError("a fault")], says("x"), [ROLE, delta("a"), finish()])
    for stream in (True, False, True, True):
        try:
            reply = here.run("alone", stream=stream)
            next(reply, None)
            reply.close()
        except (GatewayError, RuntimeError):
            continue
    assert here.gateway.health.of(here.script.opened[0].deployment).in_flight == 0
