"""One call in every place that tells of it: Braintrust, an OpenTelemetry collector, the local store, the ledger, the
log and the metrics have the same ids, tokens, cost and times.

By design two clocks differ: the log's line counts from the moment that the request was there to the moment that its
last byte was handed over, so it is longer than the call by what the edge takes (`EDGE_MS`); and the time to the first
token counts from the attempt in traces and ledger, from the call in metrics.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.braintrust_server import FakeBraintrust
from tests.fakes.collector import FakeCollector
from tests.fakes.provider import FakeProvider, answer, error
from tests.served.books import rows_of
from tests.served.caller import Caller, Streamed, body
from tests.served.process import PROVIDER_KEY, TOKEN, Served
from tests.served.traces import WAIT_S, trace_of_request

#: What the edge may take beside the call, on a busy machine.
EDGE_MS = 250.0
#: Of LiteLLM's map: US dollars for a token of the prompt, and of the answer.
MODEL, PROMPT_USD, ANSWER_USD = "gpt-4o-mini", 0.15e-6, 0.6e-6
PROMPT, SAID = "a prompt that stands in traces alone\r\n\x1b[31m", "an answer that stands in traces alone"
#: What is counted of one call, by the name of the metric.
COUNTED = ("gen_ai_server_request_duration_seconds_sum", "gen_ai_server_time_to_first_token_seconds_sum")
TOKENS, COST, DONE = "gateway_tokens_total", "gateway_cost_usd_total", "gen_ai_server_request_duration_seconds_count"

JSON = dict[str, Any]


@pytest.fixture(scope="module")
def collector() -> Iterator[FakeCollector]:
    with FakeCollector() as fake:
        yield fake


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory,
    settings: dict[str, str],
    braintrust: FakeBraintrust,
    collector: FakeCollector,
) -> Iterator[Served]:
    own = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "GATEWAY_LOCAL_TRACES": "on", "GATEWAY_RELAY": "all"}
    own["ANTHROPIC_API_KEY"] = ""  # with what is relayed alone LiteLLM is not imported, which takes most of a start
    with Served(tmp_path_factory.mktemp("told"), settings | own | braintrust.environment()) as served:
        yield served


@pytest.fixture
def caller(told: Served) -> Iterator[Caller]:
    with Caller(told.url, TOKEN) as one:
        yield one


def until(found: Callable[[], Any], what: str) -> Any:
    end_s = time.monotonic() + WAIT_S
    while not (value := found()):
        assert time.monotonic() < end_s, f"{what} tells nothing of it"
        time.sleep(0.05)
    return value


def local(folder: Path, table: str, **where: str) -> list[JSON]:
    with closing(sqlite3.connect(f"{(folder / 'gateway.db').as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        which = " AND ".join(f"{name} = :{name}" for name in where)
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table} WHERE {which}", where)]


def scraped(served: Served) -> JSON:
    """Sums of what is compared, over all labels but the kind of tokens."""
    text = httpx.get(f"{served.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False).text
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = f"{sample.name} {sample.labels['type']}" if sample.name == TOKENS else sample.name
            found[name] = found.get(name, 0.0) + sample.value
    return found


def line_of(served: Served, request_id: str) -> JSON:
    lines: list[JSON] = [json.loads(line) for line in served.log.splitlines() if request_id in line]
    return next((line for line in lines if line["logger"] == "gateway.access"), {})


def check(
    served: Served,
    braintrust: FakeBraintrust,
    collector: FakeCollector,
    headers: Mapping[str, str],
    before: JSON,
    expected: JSON,
) -> None:
    """Compare all places for one call that was made alone since `before` was scraped.

    Args:
        expected: `status`, `error` (a code, or None), `prompt`, `answer` (tokens; None for no attempt's) and `cached`.
    """
    id = headers["request-id"]
    tokens = (expected["prompt"], expected["answer"])
    cost_usd = None if tokens[0] is None else tokens[0] * PROMPT_USD + tokens[1] * ANSWER_USD
    cached = expected.get("cached", False)

    trace = trace_of_request(braintrust, id)
    root, llm = trace.root, trace.llm if not cached else None
    began_s, ended_s = root["metrics"]["start"], root["metrics"]["end"]
    assert root["metadata"]["status"] == expected["status"]
    assert root["metadata"].get("error_code") == expected["error"]
    assert root["span_id"] == headers["x-bt-span-id"]
    if llm is not None:
        assert (llm["metrics"].get("prompt_tokens"), llm["metrics"].get("completion_tokens")) == tokens
        assert llm["metrics"].get("estimated_cost") == pytest.approx(cost_usd)

    spans = until(lambda: [one for one in collector.spans if one.span_id == root["span_id"]], "the collector")
    (span,) = spans
    assert (span.trace_id, span.attributes["gateway.request_id"]) == (root["root_span_id"], id)
    assert (span.started_ns / 1e9, span.ended_ns / 1e9) == pytest.approx((began_s, ended_s), abs=1e-6)
    under = [one for one in collector.spans if one.parent_span_id == span.span_id]
    assert [one.span_id for one in under] == ([llm["span_id"]] if llm is not None else [])
    for one in under:
        said = [one.attributes.get(f"gen_ai.usage.{kind}_tokens") for kind in ("input", "output")]
        assert tuple(said) == tokens
        assert one.attributes.get("gateway.cost_usd") == pytest.approx(cost_usd)

    (kept,) = until(lambda: local(served.data_dir, "traces", request_id=id), "the local store")
    assert (kept["root_span_id"], kept["span_id"]) == (root["root_span_id"], root["span_id"])
    assert (kept["status"], kept["error_code"]) == (expected["status"], expected["error"])
    assert kept["started"] == pytest.approx(began_s, abs=1e-6)
    assert kept["duration_ms"] == pytest.approx(1000 * (ended_s - began_s), abs=0.1)
    whole = [json.loads(one["row"]) for one in local(served.data_dir, "spans", root_span_id=root["root_span_id"])]
    assert sorted(one["id"] for one in whole) == sorted(one["id"] for one in (root, llm) if one is not None)

    row = until(lambda: rows_of(served.data_dir).get(id), "the ledger")
    if row["state"] != "ended":
        row = until(lambda: (found := rows_of(served.data_dir)[id])["state"] == "ended" and found, "the ledger's end")
    assert (row["status"], row["error_code"]) == (expected["status"], expected["error"])
    assert (row["prompt_tokens"], row["completion_tokens"]) == tokens
    assert row["cost_nano"] == round(1e9 * (cost_usd or 0.0))
    assert (row["started"], row["ended"]) == pytest.approx((began_s, ended_s), abs=1e-6)
    assert row["attempts"] == len(under)

    line = until(lambda: line_of(served, id), "the log")
    assert (line["trace"], line["status"]) == (root["root_span_id"], expected["status"])
    assert line["caller"] == row["caller"] == root["metadata"]["caller"]
    assert (line.get("error"), line.get("cached", False)) == (expected["error"], cached)
    assert (line.get("prompt_tokens"), line.get("completion_tokens")) == tokens
    assert line.get("cost_usd") == (pytest.approx(cost_usd or 0.0) if not cached else None)
    assert 0 <= line["duration_ms"] - 1000 * (ended_s - began_s) < EDGE_MS

    now = until(lambda: (found := scraped(served))[DONE] == before.get(DONE, 0) + 1 and found, "metrics")
    added = {name: now.get(name, 0.0) - before.get(name, 0.0) for name in (*COUNTED, COST)}
    counted = [now.get(f"{TOKENS} {kind}", 0.0) - before.get(f"{TOKENS} {kind}", 0.0) for kind in ("input", "output")]
    assert counted == [tokens[0] or 0, tokens[1] or 0]
    assert added[COST] == pytest.approx(cost_usd or 0.0)
    assert added[COUNTED[0]] == pytest.approx(ended_s - began_s, abs=1e-3)
    if llm is not None and "time_to_first_token" in llm["metrics"]:
        first_s = llm["metrics"]["time_to_first_token"]
        assert span_first(under) == pytest.approx(first_s)
        assert row["time_to_first_token_s"] == pytest.approx(first_s)
        assert line["time_to_first_token_ms"] == pytest.approx(1000 * first_s, abs=0.1)
        assert added[COUNTED[1]] == pytest.approx(llm["metrics"]["start"] + first_s - began_s, abs=1e-3)


def span_first(under: list[Any]) -> float | None:
    found: float | None = under[0].attributes.get("gen_ai.response.time_to_first_chunk")
    return found


def test_a_call_is_the_same_in_all_places(
    told: Served, caller: Caller, provider: FakeProvider, braintrust: FakeBraintrust, collector: FakeCollector
) -> None:
    provider.script(MODEL, answer(SAID, usage=(1200, 340), delay=0.05))
    before = scraped(told)
    whole = caller.post(body(f"openai/{MODEL}", PROMPT), x_bt_use_cache="always")
    assert whole.json()["usage"]["cost"] == pytest.approx(1200 * PROMPT_USD + 340 * ANSWER_USD)
    assert float(whole.headers["x-gateway-response-cost"]) == pytest.approx(whole.json()["usage"]["cost"])
    check(
        told,
        braintrust,
        collector,
        whole.headers,
        before,
        {"status": 200, "error": None, "prompt": 1200, "answer": 340},
    )

    before = scraped(told)
    streamed: Streamed = caller.read(body(f"openai/{MODEL}", PROMPT + " in a stream", stream=True))
    assert streamed.ends_well
    expected: JSON = {"status": 200, "error": None, "prompt": 1200, "answer": 340}
    check(told, braintrust, collector, streamed.headers, before, expected)

    before = scraped(told)
    hit = caller.post(body(f"openai/{MODEL}", PROMPT), x_bt_use_cache="always")
    assert hit.headers["x-bt-cached"] == "HIT"
    expected = {"status": 200, "error": None, "prompt": None, "answer": None, "cached": True}
    check(told, braintrust, collector, hit.headers, before, expected)

    provider.script(
        MODEL, error(400, {"error": {"message": "no", "type": "invalid_request_error", "code": "bad_words"}})
    )
    before = scraped(told)
    failed = caller.post(body(f"openai/{MODEL}", PROMPT + " that fails"))
    expected = {"status": 400, "error": "bad_words", "prompt": None, "answer": None}
    check(told, braintrust, collector, failed.headers, before, expected)


def test_the_log_has_one_line_a_request_which_no_caller_can_forge(told: Served, caller: Caller) -> None:
    forged = '{"logger": "gateway.access", "status": 200}'
    model = f"openai/{MODEL}\r\n{forged}\x1b[31m\u2028"
    asked = [
        caller.post(body(model, PROMPT), x_gateway_tags=f"tag {forged}"),
        caller.post(body("openai/" + "x" * 9000, PROMPT)),
        caller.http.get(f"/v1/%0d%0a{forged}%1b[31m?key={PROVIDER_KEY}"),
        caller.http.post("/v1/chat/completions", content=b'{"model": "' + PROMPT.encode()),
        caller.http.get("/v1/models", headers={"Authorization": f"Bearer {PROVIDER_KEY}"}),
    ]
    until(lambda: all(line_of(told, one.headers["request-id"]) for one in asked), "the log")
    text = told.log
    for one in asked:
        assert text.count(one.headers["request-id"]) == 1, one.url
    for line in text.splitlines():
        assert line.isascii()
        assert line.isprintable()
        assert len(line) < 4096
        assert json.loads(line)["logger"]  # each is one whole record
    for secret in (TOKEN, PROVIDER_KEY, "stands in traces alone"):
        assert secret not in text
