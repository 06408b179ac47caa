"""The rows of a trace: what became of a call, told once, and no observer that can fail it."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Sequence
from typing import Any

import braintrust
import pytest
from braintrust.span_identifier_v4 import SpanComponentsV4

from gateway.core.calls import Attempt, Call, Caller, Outcome, Parent
from gateway.errors import (
    CallerGone,
    GatewayError,
    InvalidRequest,
    NotAuthenticated,
    ProviderFailed,
    ProviderStreamEnded,
)
from gateway.tracing import Refusal
from gateway.tracing.catcher import Catcher
from tests.builders import Recorder, attempt, call, delta, finish, tracer

JSON = dict[str, Any]

PRICES: JSON = {
    "gpt-test": {"litellm_provider": "openai", "input_cost_per_token": 0.001, "output_cost_per_token": 0.01}
}
USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}


def said(*chunks: JSON, name: str = "openai/gpt-test", number: int = 1, **fields: Any) -> Attempt:
    """An attempt that got these chunks, a second and a half long."""
    tried = attempt(name, number=number)
    for chunk in chunks:
        tried.transcript.add(chunk)
    tried.started_s, tried.first_content_s, tried.ended_s = 1000.0, 1000.25, 1001.5
    for field, value in fields.items():
        setattr(tried, field, value)
    return tried


GOOD = ({"id": "chatcmpl-1", "model": "gpt-test-2026"}, delta("hel"), delta("lo"), finish(), {"usage": USAGE})


def finished(
    made: Call, *attempts: Attempt, error: GatewayError | None = None, secrets: Sequence[str] = (), **outcome: Any
) -> tuple[JSON, list[JSON]]:
    """Trace a call to its end; give the root and the spans under it."""
    recorder = Recorder()
    facts: JSON = {"status": 200, "ended_s": 1002.0, **outcome}
    trace = tracer(recorder, secrets=secrets, prices=PRICES).start(made)
    trace.begin()
    trace.finish(Outcome(attempts=attempts, error=error, **facts))
    [rows] = recorder.traces
    return rows[-1], rows[:-1]


def test_an_answered_call_is_a_root_and_an_llm_span_under_it() -> None:
    made = call("gpt-test", "hi", started_s=999.5, tags=("a", "b"), body={"temperature": 0.5, "own": [1]})
    root, [span] = finished(made, said(*GOOD), waited_s=1.5)
    assert root["span_attributes"] == {"name": "chat gpt-test", "type": "task"}
    assert root["input"] == span["input"] == [{"role": "user", "content": "hi"}]
    answer = [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}]
    assert root["output"] == span["output"] == answer
    assert root["tags"] == ["a", "b"]
    assert root["metrics"] == {"start": 999.5, "end": 1002.0}
    assert root["metadata"] == {
        "operation": "chat",
        "request_id": made.id,
        "caller": "tok_12345678",
        "model": "gpt-test",
        "stream": False,
        "status": 200,
        "caller_gone": False,
        "attempts": 1,
        "overhead_ms": 1000.0,
        "provider": "openai",
        "served_model": "gpt-test-2026",
        "finish_reasons": ["stop"],
        "cost_usd": 0.06,
        "time_to_first_token_s": 0.25,
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "tokens": 15,
            "prompt_cached_tokens": 4,
            "prompt_cache_creation_tokens": 0,
            "completion_reasoning_tokens": 2,
        },
    }
    assert "error" not in root
    assert span["span_attributes"] == {"name": "Completion", "type": "llm"}
    assert span["metadata"]["temperature"] == 0.5
    assert span["metadata"]["own"] == [1]
    assert span["metadata"]["response_id"] == "chatcmpl-1"


def test_counts_and_costs_are_metrics_on_the_llm_span_alone() -> None:
    root, [span] = finished(call("gpt-test"), said(*GOOD))
    assert span["metrics"] == {
        "start": 1000.0,
        "end": 1001.5,
        "time_to_first_token": 0.25,
        "tokens": 15,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "prompt_cached_tokens": 4,
        "prompt_cache_creation_tokens": 0,
        "completion_reasoning_tokens": 2,
        "estimated_cost": 0.06,
    }
    assert set(root["metrics"]) == {"start", "end"}, "readers sum metrics over a trace"


def test_an_answer_of_no_tokens_says_so() -> None:
    _, [span] = finished(call(), said(finish(), {"usage": {"prompt_tokens": 3, "completion_tokens": 0}}))
    assert (span["metrics"]["prompt_tokens"], span["metrics"]["completion_tokens"]) == (3, 0)


def test_a_model_without_a_price_has_no_cost_and_not_zero() -> None:
    root, [span] = finished(call(), said(*GOOD, name="openai/unpriced"))
    assert "cost_usd" not in root["metadata"]
    assert "estimated_cost" not in span["metrics"]


def test_where_the_provider_counted_nothing_the_counts_are_estimates_and_say_so() -> None:
    root, [span] = finished(call("gpt-test", "x" * 400), said(delta("y" * 40), finish()))
    assert (span["metrics"]["prompt_tokens"], span["metrics"]["completion_tokens"]) == (100, 10)
    assert span["metrics"]["estimated_cost"] == pytest.approx(0.2)
    assert root["metadata"]["usage_estimated"] is span["metadata"]["usage_estimated"] is True
    root, [span] = finished(call("gpt-test"), said(*GOOD))
    assert "usage_estimated" not in {**root["metadata"], **span["metadata"]}


def test_an_attempt_that_got_nothing_counts_and_costs_nothing() -> None:
    error = ProviderFailed("down", provider="openai")
    root, [span] = finished(call("gpt-test"), said(error=error), error=error)
    assert set(span["metrics"]) == {"start", "end", "time_to_first_token"}
    assert not {"usage", "cost_usd", "usage_estimated"} & set(root["metadata"])


def test_ids_are_those_of_w3c_and_the_span_hangs_under_the_root() -> None:
    root, [span] = finished(call(), said(*GOOD))
    assert re.fullmatch("[0-9a-f]{32}", root["root_span_id"])
    assert re.fullmatch("[0-9a-f]{16}", root["span_id"])
    assert "span_parents" not in root
    assert span["span_parents"] == [root["span_id"]]
    assert span["root_span_id"] == root["root_span_id"]
    assert len({root["id"], span["id"]}) == 2
    assert finished(call(), said(*GOOD))[0]["id"] != root["id"]


def test_a_failed_call_has_its_error_and_a_span_for_each_try() -> None:
    first = said(number=1, error=ProviderFailed("first is down", provider="openai"))
    second = said(number=2, error=ProviderFailed("second is down", status=503, code="x", provider="openai"))
    root, spans = finished(call(), first, second, error=second.error, status=503)
    assert (root["error"], root["metadata"]["status"], root["metadata"]["attempts"]) == ("second is down", 503, 2)
    assert (root["metadata"]["error_code"], root["metadata"]["error_source"]) == ("x", "provider")
    assert [span["error"] for span in spans] == ["first is down", "second is down"]
    assert [span["metadata"]["attempt"] for span in spans] == [1, 2]
    assert "output" not in root


def test_after_a_fallback_the_answer_is_the_second_ones() -> None:
    first = said(number=1, error=ProviderFailed("down", provider="openai"))
    root, spans = finished(call(), first, said(*GOOD, number=2))
    assert "error" not in root
    assert [span.get("error") for span in spans] == ["down", None]
    assert root["output"] == spans[1]["output"]
    assert "estimated_cost" not in spans[0]["metrics"]


def test_a_stream_that_broke_keeps_what_came_and_its_status_of_200() -> None:
    cut = ProviderStreamEnded("cut", provider="openai")
    root, [span] = finished(call(stream=True), said(*GOOD[:2], error=cut), error=cut)
    assert (root["metadata"]["status"], root["error"], span["error"]) == (200, "cut", "cut")
    assert root["output"][0]["message"]["content"] == "hel"
    assert root["output"][0]["finish_reason"] is None


def test_a_caller_that_left_is_told_from_a_provider_that_failed() -> None:
    gone = CallerGone("The caller closed the connection.")
    root, [span] = finished(call(stream=True), said(*GOOD[:2]), error=gone, caller_gone=True, status=200)
    assert root["metadata"]["caller_gone"] is True
    assert root["metadata"]["error_code"] == "caller_gone"
    assert span["error"] == "The caller closed the connection."
    assert root["output"][0]["message"]["content"] == "hel"


def test_a_call_that_nobody_could_answer_is_a_root_alone() -> None:
    error = InvalidRequest("no such model", code="model_not_found", status=404)
    root, spans = finished(call("nope"), error=error, status=404)
    assert spans == []
    assert (root["error"], root["metadata"]["status"], root["metadata"]["attempts"]) == ("no such model", 404, 0)
    assert (root["input"], root["metadata"]["model"]) == ([{"role": "user", "content": "hi"}], "nope")


def test_what_was_dropped_and_ignored_is_named() -> None:
    root, [span] = finished(call(parent_note="x-bt-parent cannot be read"), said(*GOOD, dropped=("seed",)))
    assert root["metadata"]["ignored_parent"] == "x-bt-parent cannot be read"
    assert span["metadata"]["dropped_params"] == ["seed"]


# The span of Braintrust's patch.


def test_the_patchs_span_is_the_base_of_the_attempts_span(catcher: Catcher) -> None:
    recorder = Recorder()
    traced = tracer(recorder, catcher=catcher)
    made, tried = call("gpt-test"), said(*GOOD)
    trace = traced.start(made)
    trace.begin()
    with trace.around(tried), braintrust.parent_context(trace._held[tried.number].slug):
        span = braintrust.start_span(name="Completion", type="llm", input="what the patch saw")
        span.log(output="its output", metadata={"its": "own"}, metrics={"tokens": 99})
        span.end()
    trace.finish(Outcome(200, (tried,), ended_s=1002.0))
    [row, root] = recorder.traces[0]
    assert row["span_id"] == span.span_id
    assert row["span_parents"] == [root["span_id"]]
    assert row["root_span_id"] == root["root_span_id"]
    assert row["input"] == [{"role": "user", "content": "hi"}]
    assert row["output"][0]["message"]["content"] == "hello"
    assert row["metrics"]["tokens"] == 15
    assert "its" not in row["metadata"]
    assert "context" not in row
    span.log(output="too late")
    assert catcher._by_span == {}


# Parents.


def test_a_trace_under_a_callers_span_has_its_root_and_goes_where_it_goes() -> None:
    recorder = Recorder()
    parent = Parent("experiment", object_id="e", row_id="r", span_id="b" * 16, root_span_id="a" * 32)
    trace = tracer(recorder).start(call(parent=parent))
    trace.begin()
    trace.finish(Outcome(200, (said(*GOOD),), ended_s=1002.0))
    [span, root] = recorder.traces[0]
    assert (root["span_parents"], root["root_span_id"]) == (["b" * 16], "a" * 32)
    assert (span["span_parents"], span["root_span_id"]) == ([root["span_id"]], "a" * 32)
    assert recorder.parents == [parent]


def test_the_answers_headers_name_the_root_span() -> None:
    recorder = Recorder()
    trace = tracer(recorder).start(call())
    trace.begin()
    headers = trace.headers()
    trace.finish(Outcome(200, (), ended_s=1002.0))
    exported = SpanComponentsV4.from_str(headers["x-bt-span-export"])
    root = recorder.roots[0]
    assert headers["x-bt-span-id"] == root["span_id"] == exported.span_id
    assert (exported.row_id, exported.root_span_id) == (root["id"], root["root_span_id"])
    assert exported.compute_object_metadata_args == {"project_name": "test-project"}


def test_what_a_parent_hands_down_is_added_and_replaces_nothing_of_the_gateways() -> None:
    event: JSON = {
        "metadata": {"theirs": 1, "caller": "somebody else", "cost_usd": 0, "status": 500},
        "span_attributes": {"purpose": "scorer", "name": "other"},
        "tags": ["theirs"],
        "metrics": {"estimated_cost": 0, "start": 0},
        "error": "not so",
        "input": "other",
        "output": "other",
        "id": "other",
        "span_parents": ["other"],
        "project_id": "other",
        "_is_merge": True,
        "_object_delete": True,
    }
    made = call("gpt-test", tags=("ours",), parent=Parent(object_id="p", propagated=event))
    root, [span] = finished(made, said(*GOOD))
    plain, [plain_span] = finished(call("gpt-test", tags=("ours",)), said(*GOOD))
    for row, expected in ((root, plain), (span, plain_span)):
        assert row["metadata"]["theirs"] == 1
        for name, value in expected["metadata"].items():
            if name not in ("overhead_ms",):
                assert row["metadata"][name] == value, name
        assert row["metrics"].keys() == expected["metrics"].keys()
        assert row["metrics"].get("estimated_cost") == expected["metrics"].get("estimated_cost")
        assert (row["input"], row["output"], row.get("error")) == (expected["input"], expected["output"], None)
        assert row["span_attributes"]["name"] == expected["span_attributes"]["name"]
        assert not {"project_id", "_is_merge", "_object_delete"} & set(row)
        assert row["id"] != "other"
    assert set(root["tags"]) == {"ours", "theirs"}


def test_a_parent_hands_down_nothing_that_the_gateway_alone_may_tell() -> None:
    told = finished(call("gpt-test"), said(*GOOD))[0]["metadata"]
    more = {"interrupted": 1, "rows_dropped": 1, "open": 1}
    lies = {**dict.fromkeys([*told, *more], "a lie"), "error_code": "a lie", "cost_usd": -5, "theirs": 1}
    made = call("gpt-test", parent=Parent(object_id="p", propagated={"metadata": lies}))
    for attempts in ([said(*GOOD)], []):
        root, spans = finished(made, *attempts)
        for row in (root, *spans):
            assert row["metadata"]["theirs"] == 1
            assert not {"a lie", -5} & {value for value in row["metadata"].values() if isinstance(value, str | int)}
            assert not more.keys() & row["metadata"].keys()


@pytest.mark.parametrize(
    "event", [{"metadata": 1, "metrics": "x", "tags": 1}, {"tags": [1, {}, "t"]}, {"span_attributes": []}]
)
def test_a_parent_that_hands_down_nonsense_loses_no_trace(event: JSON) -> None:
    root, [_] = finished(call(parent=Parent(object_id="p", propagated=event)), said(*GOOD))
    assert root["metadata"]["status"] == 200


# Redaction.

CANARY = "sk-canary-0123456789abcdefghij"


@pytest.mark.parametrize(
    "made",
    [
        call(text=f"my key is {CANARY}"),
        call(body={"metadata": {"note": CANARY}}),
        call(body={CANARY: 1}),
        call(body={"tools": [{"function": {"description": CANARY}}]}),
        call(tags=(CANARY,)),
        call(f"openai/{CANARY}"),
        call(client_request_id=CANARY),
        call(parent=Parent(object_id="p", propagated={"metadata": {"note": CANARY}, "tags": [CANARY]})),
    ],
    ids=["prompt", "value", "field", "tool", "tag", "model", "request id", "handed down"],
)
def test_a_credential_in_a_request_is_in_no_row(made: Call) -> None:
    tried = said(*GOOD, name=made.model if "/" in made.model else "openai/x", dropped=tuple(made.body))
    root, spans = finished(made, tried, secrets=[CANARY])
    assert CANARY not in json.dumps([root, *spans])


@pytest.mark.parametrize(
    "chunk",
    [
        delta(f"here: {CANARY}"),
        delta(reasoning_content=CANARY),
        delta(tool_calls=[{"index": 0, "function": {"arguments": f'{{"key": "{CANARY}"}}'}}]),
        delta(own={CANARY: [CANARY]}),
        {**delta("a"), "id": CANARY, "model": CANARY},
    ],
    ids=["content", "reasoning", "tool", "own field", "id and model"],
)
def test_a_credential_in_an_answer_is_in_no_row(chunk: JSON) -> None:
    root, spans = finished(call(), said(chunk, finish()), secrets=[CANARY])
    assert CANARY not in json.dumps([root, *spans])


def test_a_credential_in_an_error_is_in_no_row() -> None:
    error = ProviderFailed(f"bad key {CANARY}", code=CANARY, provider="openai")
    root, spans = finished(call(), said(error=error), error=error)
    assert CANARY not in json.dumps([root, *spans])


def test_media_become_digests() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "QUJD" * 1000}}
    root, _ = finished(call(body={"messages": [{"role": "user", "content": [image]}]}), said(*GOOD))
    [part] = root["input"][0]["content"]
    assert part["image_url"]["url"].startswith("[image/png, 3000 bytes, sha256 ")


def test_an_answer_of_great_depth_is_traced_all_the_same() -> None:
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    root, [span] = finished(call(), said(delta("a", own=deep), finish()))
    assert root["output"][0]["message"]["content"] == "a"
    assert len(json.dumps([root, span])) < 10_000


# How much is recorded.

SECRET = "a-secret-nobody-may-read"


def rich() -> JSON:
    """A call that has a secret wherever a caller can put words."""
    return {
        "messages": [{"role": "user", "content": SECRET}],
        "metadata": {"note": SECRET},
        "user": SECRET,
        "stop": [SECRET],
        "tools": [{"type": "function", "function": {"name": SECRET}}],
        "prediction": {"content": SECRET},
        "prompt_cache_key": SECRET,
        "own": SECRET,
        "temperature": 0.5,
        "reasoning_effort": "low",
    }


@pytest.mark.parametrize(("recorded", "content"), [("metadata", True), ("full", False)])
def test_without_content_no_word_of_the_caller_or_the_model_is_kept(recorded: str, content: bool) -> None:
    recorder = Recorder()
    traced = tracer(recorder, prices=PRICES)
    traced._content = content
    error = ProviderFailed(f"bad prompt: {SECRET}", code="x", provider="openai")
    tried = said({"model": "served"}, delta(SECRET), delta(reasoning_content=SECRET), finish(), {"usage": USAGE})
    tried.error = error
    trace = traced.start(call("gpt-test", recorded=recorded, body=rich()))
    trace.begin()
    trace.finish(Outcome(200, (tried,), ended_s=1002.0, error=error))
    [span, root] = recorder.traces[0]
    assert SECRET not in json.dumps([span, root])
    assert (root["error"], span["error"]) == ("502 x", "502 x")
    assert root.get("input") is root.get("output") is span.get("input") is span.get("output") is None
    assert (span["metadata"]["temperature"], span["metadata"]["reasoning_effort"]) == (0.5, "low")
    assert (span["metrics"]["tokens"], root["metadata"]["cost_usd"]) == (15, 0.06)


def test_with_content_all_of_it_is_kept() -> None:
    root, [span] = finished(call("gpt-test", body=rich()), said(*GOOD))
    assert root["metadata"]["metadata"] == {"note": SECRET}
    assert span["metadata"]["own"] == SECRET


def test_a_call_that_is_not_to_be_recorded_leaves_no_trace_and_no_memory(catcher: Catcher) -> None:
    recorder = Recorder()
    trace = tracer(recorder, catcher=catcher).start(call(recorded="off"))
    trace.begin()
    tried = said(*GOOD)
    with trace.around(tried):
        braintrust.start_span(name="Completion").end()
    assert trace.headers() == {}
    trace.finish(Outcome(200, (tried,), ended_s=1002.0))
    assert recorder.traces == []
    assert catcher._by_span == {}


# Sinks.


class Broken:
    """A sink that raises."""

    def start(self) -> None:
        """Nothing to make ready."""

    def write(self, rows: Sequence[JSON], parent: Parent | None) -> None:
        raise RuntimeError("the disk is full")

    def close(self, timeout_s: float) -> None:
        """Nothing is held."""


def test_a_sink_that_raises_fails_no_call_and_no_other_sink(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    trace = tracer(Broken(), recorder).start(call())
    trace.begin()
    with caplog.at_level(logging.ERROR):
        trace.finish(Outcome(200, (said(*GOOD),), ended_s=1002.0))
    assert len(recorder.traces) == 1
    assert "could not be handed to Broken" in caplog.text


def test_every_sink_is_started_and_closed_within_the_time_that_is_left() -> None:
    seen: list[Any] = []

    class Slow(Recorder):
        def start(self) -> None:
            seen.append("start")

        def close(self, timeout_s: float, *, insist: bool = False) -> None:
            seen.append(timeout_s)
            time.sleep(0.1)

    traced = tracer(Slow(), Slow())
    traced.start_process()
    traced.close(0.15)
    assert seen[:2] == ["start", "start"]
    assert 0.1 <= seen[2] <= 0.15
    assert 0 <= seen[3] <= 0.05


# Refusals.


def refusal(status: int = 401, **more: Any) -> Refusal:
    error = NotAuthenticated("Incorrect or missing API key.") if status == 401 else InvalidRequest("bad", param="n")
    return Refusal("req_1", "/v1/chat/completions", status, error, started_s=time.time(), **more)


def test_a_refused_request_is_a_root_alone() -> None:
    recorder = Recorder()
    headers = tracer(recorder).refused(refusal(400, caller=Caller("tok_1", "tok_1"), client_request_id="mine"))
    [[root]] = recorder.traces
    assert headers["x-bt-span-id"] == root["span_id"]
    assert root["span_attributes"] == {"name": "refused /v1/chat/completions", "type": "task"}
    assert root["error"] == "bad"
    assert root["metadata"] == {
        "request_id": "req_1",
        "client_request_id": "mine",
        "caller": "tok_1",
        "path": "/v1/chat/completions",
        "status": 400,
    }
    assert root["metrics"]["end"] >= root["metrics"]["start"]
    assert recorder.parents == [None]


def test_of_401s_one_a_second_is_recorded_with_the_count_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr("gateway.tracing.time.monotonic", lambda: now_s[0])
    recorder = Recorder()
    traced = tracer(recorder)
    for _ in range(1000):
        traced.refused(refusal())
    assert len(recorder.traces) == 1
    now_s[0] = 100.999
    traced.refused(refusal())
    assert len(recorder.traces) == 1
    now_s[0] = 101.0
    traced.refused(refusal())
    now_s[0] = 102.5
    traced.refused(refusal())
    assert [root["metadata"].get("suppressed") for root in recorder.roots] == [None, 1000, None]


def test_strangers_fill_no_trace_store_while_nobody_can_be_known() -> None:
    recorder = Recorder()
    traced = tracer(recorder)
    for _ in range(100):
        traced.refused(refusal(503))
    assert len(recorder.traces) == 1
    for _ in range(2):
        traced.refused(refusal(503, caller=Caller("tok_1", "tok_1")))
    assert len(recorder.traces) == 3


def test_a_refusal_that_is_not_recorded_names_no_trace() -> None:
    traced = tracer(Recorder())
    assert traced.refused(refusal())
    assert traced.refused(refusal()) == {}


def test_a_refused_request_goes_where_its_caller_wants_it() -> None:
    recorder, parent = Recorder(), Parent(object_id="p", row_id="r", span_id="b" * 16, root_span_id="a" * 32)
    tracer(recorder).refused(refusal(400, parent=parent))
    assert recorder.parents == [parent]
    assert (recorder.roots[0]["span_parents"], recorder.roots[0]["root_span_id"]) == (["b" * 16], "a" * 32)


def test_other_refusals_are_all_recorded() -> None:
    recorder = Recorder()
    traced = tracer(recorder)
    for _ in range(20):
        traced.refused(refusal(400))
    assert len(recorder.traces) == 20


def test_a_credential_in_a_refused_request_is_in_no_row() -> None:
    recorder = Recorder()
    error = InvalidRequest(f"Unknown request URL: POST /v1/{CANARY}.")
    tracer(recorder, secrets=[CANARY]).refused(
        Refusal("req_1", f"/v1/{CANARY}", 404, error, time.time(), client_request_id=CANARY)
    )
    assert CANARY not in json.dumps(recorder.traces)


KEY = Caller(
    *("key_abc", "proj_secret"), kind="key", key_id="abc", key_name="laptop", project="team", user="ann", tags=("blue",)
)
OF_KEY = {
    "caller": "key_abc",
    "key_id": "abc",
    "key_name": "laptop",
    "caller_project": "team",
    "caller_user": "ann",
}


def test_the_root_says_whose_key_it_was_and_the_spans_below_do_not() -> None:
    root, spans = finished(call(caller=KEY), said(*GOOD))
    assert root["metadata"].items() >= OF_KEY.items()
    assert not any(set(span["metadata"]) & set(OF_KEY) for span in spans)
    recorder = Recorder()
    tracer(recorder).refused(refusal(403, caller=KEY))
    assert recorder.roots[0]["metadata"].items() >= OF_KEY.items()
    assert recorder.roots[0]["tags"] == ["blue"]


def test_a_call_that_has_begun_says_whose_key_it_is() -> None:
    recorder = Recorder()
    tracer(recorder).start(call(caller=KEY)).begin()
    assert recorder.begun[0]["metadata"].items() >= OF_KEY.items()


def test_who_called_stands_in_the_trace_by_its_id_alone() -> None:
    root, spans = finished(call(caller=Caller("tok_abcdef01", "tenant-secret")), said(*GOOD))
    assert root["metadata"]["caller"] == "tok_abcdef01"
    assert "tenant-secret" not in json.dumps([root, *spans])
