"""Traces at an OpenTelemetry collector, beside Braintrust: the same spans, once, also over an outage."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.fakes.braintrust_server import FakeBraintrust
from tests.fakes.collector import FakeCollector, Got
from tests.fakes.provider import FakeProvider, answer, error
from tests.served.caller import Caller, body
from tests.served.process import TOKEN, Served
from tests.served.traces import WAIT_S, trace_of

THEIRS = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def collector() -> Iterator[FakeCollector]:
    with FakeCollector() as fake:
        yield fake


@pytest.fixture(scope="module")
def traced(
    tmp_path_factory: pytest.TempPathFactory,
    settings: dict[str, str],
    braintrust: FakeBraintrust,
    collector: FakeCollector,
) -> Iterator[Caller]:
    own = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-team=ml%20ops",
        "OTEL_SERVICE_NAME": "front-door",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "GATEWAY_RELAY": "all",
    }
    with (
        Served(tmp_path_factory.mktemp("traced"), settings | own | braintrust.environment()) as served,
        Caller(served.url, TOKEN) as caller,
    ):
        yield caller


def spans_of(collector: FakeCollector, span_id: str) -> tuple[Got, list[Got]]:
    """The root with that id, and the spans under it."""
    end_s = time.monotonic() + WAIT_S
    while time.monotonic() < end_s:
        under = [span for span in collector.spans if span.parent_span_id == span_id]
        roots = [span for span in collector.spans if span.span_id == span_id]
        if roots and under:
            return roots[0], under
        time.sleep(0.02)
    pytest.fail(f"no root with a span under it, of {len(collector.spans)} spans")


def test_a_call_is_the_same_trace_at_both_places(
    traced: Caller, provider: FakeProvider, collector: FakeCollector, braintrust: FakeBraintrust, model: str
) -> None:
    provider.script(model, answer("told twice", usage=(12, 3)))
    question = f"what does {model} say?"
    answered = traced.post(body(f"openai/{model}", question, temperature=0.5))
    root, (llm,) = spans_of(collector, answered.headers["x-bt-span-id"])
    at_braintrust = trace_of(braintrust, question)
    assert root.trace_id == at_braintrust.root["root_span_id"]
    assert llm.span_id == at_braintrust.llm["span_id"]
    assert (root.name, llm.name) == (f"chat openai/{model}", f"chat {model}")
    assert root.resource["service.name"] == "front-door"
    assert root.resource["deployment.environment.name"] == "test"
    assert root.attributes["http.response.status_code"] == 200
    assert llm.attributes["gen_ai.provider.name"] == "openai"
    assert llm.attributes["gen_ai.usage.input_tokens"] == 12
    assert llm.attributes["gen_ai.usage.output_tokens"] == 3
    assert llm.attributes["gen_ai.request.temperature"] == 0.5
    assert "told twice" not in str(collector.spans), "content is told only when asked for"
    assert collector.requests()[0].headers["x-team"] == "ml ops"


def test_an_opentelemetry_clients_trace_goes_on_here(
    traced: Caller, provider: FakeProvider, collector: FakeCollector, model: str
) -> None:
    provider.script(model, answer("joined"))
    answered = traced.post(body(f"openai/{model}"), Traceparent=THEIRS)
    root, (llm,) = spans_of(collector, answered.headers["x-bt-span-id"])
    assert (root.trace_id, root.parent_span_id) == (THEIRS[3:35], THEIRS[36:52])
    assert (llm.trace_id, llm.parent_span_id) == (THEIRS[3:35], root.span_id)


def test_a_failure_is_a_failure_there_too(
    traced: Caller, provider: FakeProvider, collector: FakeCollector, model: str
) -> None:
    provider.script(model, error(400))
    answered = traced.post(body(f"openai/{model}"))
    root, (llm,) = spans_of(collector, answered.headers["x-bt-span-id"])
    assert root.error is not None
    assert llm.error is not None
    assert root.attributes["http.response.status_code"] == 400


def test_what_was_traced_while_the_collector_was_away_arrives_when_it_is_back(
    traced: Caller, provider: FakeProvider, collector: FakeCollector, model: str
) -> None:
    provider.script(model, answer("kept"))
    collector.close()
    try:
        answered = traced.post(body(f"openai/{model}"))
    finally:
        collector.come_back()
    root, under = spans_of(collector, answered.headers["x-bt-span-id"])
    assert (root.span_id, len(under)) == (answered.headers["x-bt-span-id"], 1)
