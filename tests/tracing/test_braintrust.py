"""Rows reach Braintrust through its SDK, and no trouble there is felt by a call."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import braintrust
import pytest

from gateway.core.calls import Outcome, Parent
from gateway.secret import Secret
from gateway.tracing.braintrust import Delivery
from tests.builders import attempt, call, delta, finish, tracer
from tests.fakes.braintrust_server import FakeBraintrust

JSON = dict[str, Any]


@pytest.fixture
def server() -> Iterator[FakeBraintrust]:
    with FakeBraintrust() as fake:
        yield fake


@pytest.fixture
def delivery(server: FakeBraintrust, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Delivery]]:
    """Makes deliveries to the fake, started; their connections are closed at the end."""
    monkeypatch.setenv("BRAINTRUST_API_URL", "")  # start() sets both; here they go again
    monkeypatch.setenv("BRAINTRUST_DISABLE_ATEXIT_FLUSH", "1")
    made: list[Delivery] = []

    def make(project: str = "the-project", key: str = "bt-test-key") -> Delivery:
        one = Delivery(Secret(key), project, app_url=server.url, api_url=server.url)
        one.start()
        made.append(one)
        return one

    yield make
    server.mode = "ok"
    for one in made:
        one.close(5)
        for connection in (one._state._app_conn, one._state._api_conn, one._state._proxy_conn):
            if connection is not None:
                connection.session.close()


def row(number: int = 1, **fields: Any) -> JSON:
    ids = {"id": f"row-{number}", "span_id": f"{number:016x}", "root_span_id": "a" * 32}
    return {**ids, "metrics": {"start": 1.0, "end": 2.0}, "span_attributes": {"name": "x", "type": "task"}, **fields}


# It works.


def test_a_trace_arrives_whole_in_the_project(server: FakeBraintrust, delivery: Callable[..., Delivery]) -> None:
    sink = delivery()
    tried = attempt()
    for chunk in (delta("hello"), finish(), {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}):
        tried.transcript.add(chunk)
    trace = tracer(sink).start(call("gpt-test", tags=("a",)))
    trace.finish(Outcome(200, (tried,), ended_s=time.time()))
    sink.close(5)
    assert len(server.wait_rows(2)) == 2
    [root] = server.roots()
    [span] = server.children(root)
    assert server.project_name(root["project_id"]) == server.project_name(span["project_id"]) == "the-project"
    assert root["span_attributes"] == {"name": "chat gpt-test", "type": "task"}
    assert span["span_parents"] == [root["span_id"]]
    assert root["output"][0]["message"]["content"] == "hello"
    assert (root["tags"], span["metrics"]["tokens"]) == (["a"], 5)
    assert (root["log_id"], span["log_id"]) == ("g", "g")
    assert server.refused == []


def test_a_row_is_delivered_once_and_whole(server: FakeBraintrust, delivery: Callable[..., Delivery]) -> None:
    sink = delivery()
    for number in range(50):
        sink.write([row(number)], None)
    sink.close(5)
    pieces = server.pieces()
    assert sorted(piece["id"] for piece in pieces) == sorted(f"row-{number}" for number in range(50))
    assert {piece["_is_merge"] for piece in pieces} == {False}


@pytest.mark.parametrize(
    ("parent", "place"),
    [
        (Parent(object_id="p-1"), {"project_id": "p-1", "log_id": "g"}),
        (Parent("experiment", object_id="e-1"), {"experiment_id": "e-1"}),
        (Parent("playground_logs", object_id="s-1"), {"prompt_session_id": "s-1", "log_id": "x"}),
    ],
)
def test_a_parent_by_id_says_where_the_rows_go(
    server: FakeBraintrust, delivery: Callable[..., Delivery], parent: Parent, place: JSON
) -> None:
    sink = delivery()
    sink.write([row()], parent)
    sink.close(5)
    [got] = server.rows()
    places = {name: got[name] for name in ("project_id", "experiment_id", "prompt_session_id", "log_id") if name in got}
    assert places == place


def test_a_parent_by_name_says_which_project(server: FakeBraintrust, delivery: Callable[..., Delivery]) -> None:
    sink = delivery()
    sink.write([row(1)], Parent(object_name="theirs"))
    sink.write([row(2)], None)
    sink.close(5)
    names = {one["id"]: server.project_name(one["project_id"]) for one in server.rows()}
    assert names == {"row-1": "theirs", "row-2": "the-project"}


def test_the_sdks_global_state_is_left_alone(delivery: Callable[..., Delivery]) -> None:
    before = braintrust.current_logger()
    delivery()
    assert braintrust.current_logger() is before


def test_nothing_is_asked_of_braintrust_before_there_is_a_trace(
    server: FakeBraintrust, delivery: Callable[..., Delivery]
) -> None:
    delivery()
    time.sleep(0.2)
    assert server.requests() == []


def test_before_it_is_started_it_says_so() -> None:
    unstarted = Delivery(Secret("k"), "p")
    with pytest.raises(RuntimeError, match="has not run"):
        unstarted.write([row()], None)
    unstarted.close(1)


# Trouble.


@pytest.mark.parametrize("mode", ["hang", "unauthorized", "refuse_500"])
def test_writing_never_waits_for_braintrust(
    server: FakeBraintrust, delivery: Callable[..., Delivery], mode: Any
) -> None:
    server.mode = mode
    sink = delivery()
    slowest_s = 0.0
    for number in range(200):
        began_s = time.monotonic()
        sink.write([row(2 * number), row(2 * number + 1)], None)
        slowest_s = max(slowest_s, time.monotonic() - began_s)
    assert slowest_s < 0.25


@pytest.mark.parametrize("mode", ["hang", "unauthorized"])
def test_closing_is_bounded_whatever_braintrust_does(
    server: FakeBraintrust, delivery: Callable[..., Delivery], caplog: pytest.LogCaptureFixture, mode: Any
) -> None:
    server.mode = mode
    sink = delivery()
    sink.write([row()], None)
    time.sleep(0.1)
    began_s = time.monotonic()
    with caplog.at_level(logging.WARNING):
        sink.close(0.5)
    assert time.monotonic() - began_s < 1.0
    assert "Braintrust did not take all traces within 0.5 s" in caplog.text


def test_a_key_that_is_refused_is_in_the_log_and_the_key_is_not(
    server: FakeBraintrust, delivery: Callable[..., Delivery], caplog: pytest.LogCaptureFixture
) -> None:
    sink = delivery(key="sk-a-wrong-key-0123456789")
    with caplog.at_level(logging.WARNING):
        sink.write([row()], None)
        deadline_s = time.monotonic() + 8
        while not caplog.records and time.monotonic() < deadline_s:
            time.sleep(0.05)
    assert caplog.records, "a trace that is lost must show"
    assert "sk-a-wrong-key" not in caplog.text
    assert "Traceback" not in caplog.text


def test_an_outage_that_ends_in_time_loses_nothing(server: FakeBraintrust, delivery: Callable[..., Delivery]) -> None:
    server.mode = "refuse_500"
    sink = delivery()
    sink.write([row()], None)
    while not server.requests():
        time.sleep(0.01)
    server.mode = "ok"
    sink.close(8)
    assert [one["id"] for one in server.rows()] == ["row-1"]
