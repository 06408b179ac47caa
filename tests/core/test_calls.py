"""The nouns: a call's stop switch, and what an outcome says."""

from __future__ import annotations

import math
import threading
from dataclasses import FrozenInstanceError

import pytest

from gateway.core.calls import Caller, Cancellation, Deployment, Outcome, Parent
from gateway.core.rights import Rights, read_rights
from gateway.secret import Secret
from tests.builders import attempt


def test_a_call_that_was_not_stopped_has_no_reason() -> None:
    ran: list[str] = []
    cancellation = Cancellation()
    cancellation.subscribe(lambda: ran.append("hook"))
    assert cancellation.reason is None
    assert ran == []


def test_stopping_runs_every_hook_once_and_the_first_reason_stands() -> None:
    ran: list[str] = []
    cancellation = Cancellation()
    cancellation.subscribe(lambda: ran.append("one"))
    cancellation.subscribe(lambda: ran.append("two"))
    cancellation.abort("deadline")
    cancellation.abort("caller_gone")
    assert cancellation.reason == "deadline"
    assert ran == ["one", "two"]


def test_a_hook_that_comes_late_runs_at_once() -> None:
    ran: list[str] = []
    cancellation = Cancellation()
    cancellation.abort("deadline")
    cancellation.subscribe(lambda: ran.append("late"))
    assert ran == ["late"]


def test_a_hook_that_was_taken_back_does_not_run() -> None:
    ran: list[str] = []
    cancellation = Cancellation()

    def hook() -> None:
        ran.append("hook")

    cancellation.subscribe(hook)
    cancellation.unsubscribe(hook)
    cancellation.unsubscribe(hook)
    cancellation.abort("deadline")
    cancellation.unsubscribe(hook)
    assert ran == []


def test_a_hook_sees_the_reason_and_may_use_the_switch() -> None:
    seen: list[str | None] = []
    cancellation = Cancellation()

    def hook() -> None:
        seen.append(cancellation.reason)
        cancellation.unsubscribe(hook)
        cancellation.subscribe(lambda: seen.append("nested"))
        cancellation.abort("other")

    cancellation.subscribe(hook)
    cancellation.abort("caller_gone")
    assert seen == ["caller_gone", "nested"]


def race() -> tuple[str | None, list[int]]:
    """Let nine threads subscribe and stop at once; tell the reason, and which hooks ran."""
    cancellation, ran, start = Cancellation(), list[int](), threading.Barrier(9)

    def subscribe(number: int) -> None:
        start.wait()
        cancellation.subscribe(lambda: ran.append(number))

    def abort(reason: str) -> None:
        start.wait()
        cancellation.abort(reason)

    threads = [threading.Thread(target=subscribe, args=(number,)) for number in range(6)]
    threads += [threading.Thread(target=abort, args=(reason,)) for reason in ("deadline", "caller_gone", "x")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return cancellation.reason, ran


def test_threads_that_stop_and_subscribe_at_once_run_each_hook_once() -> None:
    for _ in range(50):
        reason, ran = race()
        assert sorted(ran) == list(range(6))
        assert reason in ("deadline", "caller_gone", "x")


def test_a_deployment_is_named_as_litellm_names_it_and_shows_no_key() -> None:
    deployment = Deployment("openai", "gpt-4o", api_key=Secret("hunter2-key"))
    assert deployment.name == "openai/gpt-4o"
    assert "hunter2" not in repr(deployment)


def test_the_answer_is_from_the_last_attempt() -> None:
    first, second = attempt(number=1), attempt(number=2)
    assert Outcome(200, (first, second), ended_s=0.0).answered is second
    assert Outcome(404, (), ended_s=0.0).answered is None


def test_who_calls_cannot_be_changed_later() -> None:
    caller = Caller("tok_1", "tok_1")
    with pytest.raises(FrozenInstanceError):
        caller.tenant = "tok_2"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("parent", "place"),
    [
        (Parent(object_id="p1"), "project_id:p1"),
        (Parent(object_name="team"), "project_name:team"),
        (Parent("experiment", object_id="e1"), "experiment_id:e1"),
        (Parent("playground_logs", object_id="g1"), "playground_id:g1"),
        (Parent(object_id="p1", object_name="team"), "project_id:p1"),
    ],
)
def test_a_parent_is_spelt_as_rights_name_it(parent: Parent, place: str) -> None:
    assert parent.place == place
    assert Rights(parents=(place,)).allows_parent(parent.place)
    assert read_rights({"parents": [place]}).parents == (place,)


def test_each_attempt_has_a_transcript_of_its_own() -> None:
    assert attempt().transcript is not attempt().transcript


def test_a_streams_own_time_counts_before_the_time_of_all_its_answers() -> None:
    assert Deployment("p", "m").waits_s(stream=True) == math.inf
    both = Deployment("p", "m", timeout_s=30, stream_timeout_s=2)
    assert (both.waits_s(stream=True), both.waits_s(stream=False)) == (2, 30)
    assert Deployment("p", "m", timeout_s=30).waits_s(stream=True) == 30
    assert Deployment("p", "m", stream_timeout_s=2).waits_s(stream=False) == math.inf
