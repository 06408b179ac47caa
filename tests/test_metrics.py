"""What is counted, under which names, and how /metrics shows it."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from gateway.app import create_app
from gateway.core.calls import Attempt, Outcome
from gateway.core.pricing import Meter, Prices
from gateway.core.routing import Alias, Catalogue, Reach, Target, is_named
from gateway.errors import CallerGone, GatewayError, InternalError, ProviderFailed, ProviderRefused
from gateway.metrics import Metrics, SpoolState
from tests.builders import TOKEN, Recorder, Script, attempt, call, catalogue, delta, finish, gateway, says, settings

AUTH = {"Authorization": f"Bearer {TOKEN}"}
PATH = "/v1/chat/completions"
PROMPT = "the words of a prompt"
HELLO = {"model": "openai/m", "messages": [{"role": "user", "content": PROMPT}]}
ROWS: Mapping[str, Mapping[str, Any]] = {
    "m": {"litellm_provider": "openai", "input_cost_per_token": 0.001, "output_cost_per_token": 0.01},
    "bedrock/big": {"litellm_provider": "bedrock_converse"},
}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@dataclass
class Counted:
    """Metrics and what they say now."""

    metrics: Metrics

    @property
    def text(self) -> str:
        return self.metrics.text()[0].decode()

    def value(self, name: str, **labels: str) -> float:
        """The value of one series; 0 where there is none."""
        return samples(self.text).get((name, frozenset(labels.items())), 0.0)

    def total(self, name: str, **labels: str) -> float:
        """The sum of all series that have these labels."""
        wanted = set(labels.items())
        return sum(value for (found, held), value in samples(self.text).items() if found == name and wanted <= held)


@pytest.fixture
def counted() -> Counted:
    return Counted(Metrics(Catalogue(models=ROWS, demo=frozenset({"demo/echo"})), Meter(Prices(ROWS))))


def tried(name: str = "openai/m", *chunks: Any, error: GatewayError | None = None, **times: float) -> Attempt:
    made = attempt(name)
    for chunk in chunks:
        made.transcript.add(chunk)
    made.error = error
    made.started_s, made.first_content_s, made.ended_s = 1000.0, times.get("first_s"), 1001.0
    return made


def ended(*attempts: Attempt, error: GatewayError | None = None, gone: bool = False) -> Outcome:
    return Outcome(200, attempts, 1002.0, error=error, caller_gone=gone, waited_s=1.5)


USED = {
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 40},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
}
GOOD = (delta("hi"), finish(), USED)
MODEL = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "openai", "gen_ai_request_model": "m"}


# Calls.


def test_an_answered_call_is_counted_with_its_times_tokens_and_cost(counted: Counted) -> None:
    counted.metrics.call_ended(call("m", started_s=999.5), ended(tried("openai/m", *GOOD, first_s=1000.25)))
    assert counted.value("gen_ai_server_request_duration_seconds_sum", **MODEL, error_type="") == 2.5
    assert counted.value("gen_ai_server_request_duration_seconds_count", **MODEL, error_type="") == 1
    assert counted.value("gen_ai_server_time_to_first_token_seconds_sum", **MODEL) == 0.75
    assert counted.value("gateway_overhead_seconds_sum") == 1.0
    for kind, tokens in (("input", 100), ("output", 10)):
        assert counted.value("gen_ai_client_token_usage_sum", **MODEL, gen_ai_token_type=kind) == tokens
        assert counted.value("gen_ai_client_token_usage_count", **MODEL, gen_ai_token_type=kind) == 1
    kinds = {"input": 100, "output": 10, "cached": 40, "cache_write": 0, "reasoning": 3}
    for kind, tokens in kinds.items():
        assert counted.value("gateway_tokens_total", provider="openai", model="m", type=kind) == tokens
    assert counted.value("gateway_cost_usd_total", provider="openai", model="m") == pytest.approx(0.2)
    assert counted.value("gateway_attempts_total", provider="openai", outcome="ok") == 1


def test_each_attempt_is_counted_with_what_became_of_it(counted: Counted) -> None:
    failed = tried("bedrock/big", error=ProviderFailed("no", code="a code of the provider's own"))
    counted.metrics.call_ended(call("m"), ended(failed, tried("openai/m", *GOOD)))
    assert counted.value("gateway_attempts_total", provider="bedrock", outcome="provider_error") == 1
    assert counted.value("gateway_attempts_total", provider="openai", outcome="ok") == 1
    assert counted.value("gen_ai_server_request_duration_seconds_count", **MODEL, error_type="") == 1
    assert "a code of" not in counted.text


@pytest.mark.parametrize(
    ("error", "gone", "kind"),
    [
        pytest.param(CallerGone("left"), True, "caller_gone", id="the caller left"),
        pytest.param(InternalError("oh"), False, "internal_error", id="the gateway failed"),
    ],
)
def test_an_attempt_that_ended_with_its_call_is_not_ok(
    counted: Counted, error: GatewayError, gone: bool, kind: str
) -> None:
    counted.metrics.call_ended(call("m"), ended(tried("openai/m", delta("ha")), error=error, gone=gone))
    assert counted.value("gateway_attempts_total", provider="openai", outcome=kind) == 1
    assert counted.value("gen_ai_server_request_duration_seconds_count", **MODEL, error_type=kind) == 1
    counted.metrics.call_ended(call("m"), ended(tried("openai/m", *GOOD), error=error, gone=gone))
    assert counted.value("gateway_attempts_total", provider="openai", outcome="ok") == 1, "its answer was whole"


def test_a_call_without_an_attempt_is_nobodys(counted: Counted) -> None:
    counted.metrics.call_ended(call("nothing"), ended(error=ProviderRefused("no")))
    labels = {**MODEL, "gen_ai_provider_name": "none", "gen_ai_request_model": "other"}
    labels["error_type"] = "invalid_request_error"
    assert counted.value("gen_ai_server_request_duration_seconds_count", **labels) == 1
    assert counted.total("gateway_attempts_total") == 0


def test_a_clock_that_was_set_back_breaks_nothing(counted: Counted) -> None:
    counted.metrics.call_ended(call("m", started_s=5000.0), ended(tried("openai/m", *GOOD, first_s=1000.0)))
    assert counted.value("gen_ai_server_request_duration_seconds_sum", **MODEL, error_type="") == 0
    assert counted.value("gateway_overhead_seconds_count") == 1


def test_an_answer_without_usage_is_estimated_once_for_trace_and_metrics(counted: Counted) -> None:
    one = tried("openai/m", delta("y" * 40), finish())
    billed = Meter(Prices(ROWS)).bill(call("m", "x" * 400), one)
    assert (billed.estimated, billed.cost_usd) == (True, Decimal("0.2"))
    counted.metrics.call_ended(call("m", "another question"), ended(one))
    assert counted.value("gateway_tokens_total", provider="openai", model="m", type="input") == 100
    counted.metrics.call_ended(call("m", "z" * 80), ended(tried("openai/m", delta("y" * 40), finish())))
    assert counted.value("gateway_tokens_total", provider="openai", model="m", type="input") == 120


# Labels.


def test_models_that_callers_invent_are_all_one(counted: Counted) -> None:
    for number in range(10_000):
        counted.metrics.call_ended(call(), ended(tried(f"openai/invented-{number}", *GOOD)))
    assert "invented" not in counted.text
    assert counted.value("gateway_tokens_total", provider="openai", model="other", type="output") == 100_000
    counted.metrics.call_ended(call(), ended(tried("openai/m", *GOOD)))
    assert counted.value("gateway_tokens_total", provider="openai", model="m", type="output") == 10


def test_of_the_models_that_are_known_500_have_a_name() -> None:
    rows = {f"known-{number}": {"litellm_provider": "openai"} for number in range(600)}
    counted = Counted(Metrics(Catalogue(models=rows)))
    for name in rows:
        counted.metrics.call_ended(call(), ended(tried(f"openai/{name}", *GOOD)))
    shown = {labels for name, labels in samples(counted.text) if name == "gateway_tokens_total"}
    assert len({dict(labels)["model"] for labels in shown}) == 501
    assert counted.value("gateway_tokens_total", provider="openai", model="other", type="input") == 100 * 100


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("openai/m", True),
        ("bedrock/big", True),
        ("demo/echo", True),
        ("anthropic/m", False),
        ("openai/big", False),
        ("demo/else", False),
        ("hosted_vllm/m", False),
    ],
)
def test_what_the_catalogue_names(name: str, known: bool) -> None:
    provider, _, model = name.partition("/")
    assert is_named(provider, model, Catalogue(models=ROWS, demo=frozenset({"demo/echo"}))) is known


def test_a_model_that_the_operator_has_priced_has_a_name() -> None:
    own = {"hosted_vllm/ours": {"input_cost_per_token": 1, "output_cost_per_token": 1}}
    counted = Counted(Metrics(catalogue(), Meter(Prices({}, own))))
    counted.metrics.call_ended(call(), ended(tried("hosted_vllm/ours", *GOOD)))
    assert counted.value("gateway_cost_usd_total", provider="hosted_vllm", model="ours") == 110


# Traces.


def test_the_counters_of_the_trace_sinks(counted: Counted) -> None:
    metrics = counted.metrics
    steps: dict[str, Callable[[str, int], None]] = {
        "gateway_trace_rows_sent_total": metrics.rows_sent,
        "gateway_trace_rows_dropped_total": metrics.rows_dropped,
        "gateway_trace_rows_quarantined_total": metrics.rows_quarantined,
        "gateway_trace_frames_damaged_total": metrics.frames_damaged,
        "gateway_traces_interrupted_total": metrics.traces_interrupted,
    }
    metrics.expect_sinks(["braintrust"])
    for name, step in steps.items():
        assert (name, frozenset({("sink", "braintrust")})) in samples(counted.text), "it begins at 0"
        step("braintrust", 3)
        step("braintrust", 4)
        assert counted.value(name, sink="braintrust") == 7


def test_the_spools_are_asked_at_each_scrape(counted: Counted, caplog: pytest.LogCaptureFixture) -> None:
    states: Sequence[SpoolState] = [SpoolState("braintrust", bytes=10, oldest_s=2.5)]
    counted.metrics.watch_spools(lambda: states)
    assert counted.value("gateway_spool_bytes", sink="braintrust") == 10
    assert counted.value("gateway_spool_oldest_seconds", sink="braintrust") == 2.5
    states = []
    assert "gateway_spool" not in counted.text

    def fail() -> Sequence[SpoolState]:
        raise OSError("gone")

    counted.metrics.watch_spools(fail)
    for _ in range(3):
        assert "gateway_build_info" in counted.text
    assert len([record for record in caplog.records if "spools" in record.message]) == 1


def test_reloads_of_the_routes_file_are_counted_by_what_became_of_them(counted: Counted) -> None:
    counted.metrics.start_process()
    assert "gateway_routes_info" not in counted.text, "there is no file"
    assert counted.value("gateway_routes_loaded_timestamp_seconds") == 0
    counted.metrics.follow(Catalogue(models=ROWS, revision="0123456789abcdef"))
    counted.metrics.start_process()
    assert counted.value("gateway_routes_info", revision="0123456789abcdef") == 1
    for result in ("ok", "refused"):
        assert ("gateway_routes_reloads_total", frozenset({("result", result)})) in samples(counted.text)
    began_s = counted.value("gateway_routes_loaded_timestamp_seconds")
    counted.metrics.routes_reloaded("refused")
    assert counted.value("gateway_routes_loaded_timestamp_seconds") == began_s
    counted.metrics.routes_reloaded("ok")
    assert counted.value("gateway_routes_loaded_timestamp_seconds") > began_s > 1_700_000_000
    for result in ("ok", "refused"):
        assert counted.value("gateway_routes_reloads_total", result=result) == 1


def test_the_models_of_a_new_routes_file_are_labels(counted: Counted) -> None:
    unknown = tried("hosted_vllm/own", *GOOD)
    counted.metrics.call_ended(call("own"), ended(unknown))
    assert counted.value("gateway_tokens_total", provider="hosted_vllm", model="other", type="input") == 100
    alias = Alias((Target("hosted_vllm", "own", Reach()),))
    counted.metrics.follow(Catalogue(models=ROWS, aliases={"fast": alias}))
    counted.metrics.call_ended(call("own"), ended(tried("hosted_vllm/own", *GOOD)))
    assert counted.value("gateway_tokens_total", provider="hosted_vllm", model="own", type="input") == 100


def test_what_cannot_be_counted_is_logged_once_and_felt_by_nobody(
    counted: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        counted.metrics.rows_sent("braintrust", -1)
    [record] = caplog.records
    assert (record.levelno, "rows_sent" in record.message) == (logging.ERROR, True)


# Requests, through the app.


class Served:
    def __init__(self, *script: Any, access: str = "token", **more: Any) -> None:
        self.gateway = gateway(Script([list(script) or says("hello")]), Recorder(), **more)
        self.gateway.metrics = Metrics(catalogue("openai", models=ROWS), Meter(Prices(ROWS)), access=access)
        self.app: Flask = create_app(gateway=self.gateway)
        self.client: FlaskClient = self.app.test_client()
        self.counted = Counted(self.gateway.metrics)

    @property
    def in_flight(self) -> float:
        return self.counted.value("gateway_requests_in_flight")

    def requests(self, **labels: str) -> float:
        return self.counted.total("gateway_requests_total", **labels)


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.gateway.close(0.1)


@pytest.mark.parametrize("path", ["/metrics", "/metrics/"])
def test_a_scrape_needs_a_key_and_is_counted_itself(served: Served, path: str) -> None:
    with served.client.get(path) as refused:
        assert refused.status_code == 401
    response = served.client.get(path, headers=AUTH)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert samples(response.text)["gateway_requests_in_flight", frozenset()] == 1, "the scrape"
    response.close()
    assert served.requests(route="/metrics", method="GET", status="200") == 1
    assert served.requests(route="/metrics", method="GET", status="401") == 1
    assert served.counted.value("gateway_auth_refusals_total") == 1
    assert served.in_flight == 0


def test_openmetrics_is_for_whoever_names_it(served: Served) -> None:
    served.client.post(PATH, json=HELLO, headers=AUTH).close()
    accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    response = served.client.get("/metrics", headers={**AUTH, "Accept": accept})
    assert response.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert {family.name for family in openmetrics_families(response.text)} >= {"gateway_requests", "gateway_build"}
    for accept in ("*/*", "text/plain", "application/openmetrics"):
        response = served.client.get("/metrics", headers={**AUTH, "Accept": accept})
        assert response.mimetype == "text/plain"


def test_whoever_may_read_it_is_a_setting() -> None:
    with_all, with_none = Served(access="open"), Served(access="off")
    assert with_all.client.get("/metrics").status_code == 200
    assert with_none.client.get("/metrics").status_code == 401
    response = with_none.client.get("/metrics", headers=AUTH)
    assert (response.status_code, response.json["error"]["code"]) == (404, "unknown_url")  # type: ignore[index]
    assert Served().client.get("/metrics").status_code == 401, "another app of this process is not opened with it"


@pytest.mark.parametrize("access", ["token", "open", "off"])
def test_the_setting_reaches_the_metrics(access: str) -> None:
    app = create_app(settings(GATEWAY_METRICS=access, GATEWAY_AUTH_TOKEN=TOKEN))
    assert app.extensions["gateway"].metrics.access == access


def test_requests_of_every_kind_are_counted_by_their_route_and_end(served: Served) -> None:
    def fault() -> str:
        raise RuntimeError("a bug")

    served.app.add_url_rule("/fault", "fault", fault)
    client = served.client
    client.post(PATH, json=HELLO, headers=AUTH).close()
    client.post("/chat/completions", json={**HELLO, "stream": True}, headers=AUTH).close()
    client.post(PATH, json=HELLO).close()
    client.post(PATH, data="no json", headers=AUTH).close()
    client.head("/health").close()
    client.options(PATH).close()
    client.get("/health", query_string={"key": "sk-1"}).close()
    client.get("/no/such/route/as-this", headers=AUTH).close()
    client.open("/health", method="BREW", headers=AUTH).close()
    client.get("/fault", headers=AUTH).close()
    route = "/v1/chat/completions"
    assert served.requests(route=route, method="POST", status="200") == 1
    assert served.requests(route="/chat/completions", method="POST", status="200") == 1
    assert served.requests(route=route, method="POST", status="401") == 1
    assert served.requests(route=route, method="POST", status="400") == 1
    assert served.requests(route=route, method="OPTIONS", status="204") == 1
    assert served.requests(route="/health", method="HEAD", status="200") == 1
    assert served.requests(route="/health", method="GET", status="200") == 1
    assert served.requests(route="unmatched", method="GET", status="404") == 1
    assert served.requests(route="unmatched", method="other", status="405") == 1
    assert served.requests(route="/fault", status="500") == 1
    assert served.requests() == 10
    assert served.in_flight == 0
    assert served.counted.total("gen_ai_server_request_duration_seconds_count") == 2
    for secret in (PROMPT, TOKEN, "as-this", "sk-1", "BREW"):
        assert secret not in served.counted.text


def test_a_stream_is_in_flight_until_its_end_or_its_callers() -> None:
    served = Served(delta("a"), lambda _call: time.sleep(0.05), *[delta("b")] * 200, finish())
    whole, left = (
        served.client.post(PATH, json={**HELLO, "stream": True}, headers=AUTH, buffered=False) for _ in range(2)
    )
    assert served.in_flight == 2
    assert served.requests() == 0
    assert whole.data.endswith(b"[DONE]\n\n")
    whole.close()
    next(iter(left.response))
    left.close()
    left.close()
    assert served.in_flight == 0
    assert served.requests(status="200") == 2
    assert served.counted.total("gen_ai_server_request_duration_seconds_count", error_type="caller_gone") == 1
    assert served.counted.total("gen_ai_server_request_duration_seconds_count", error_type="") == 1
    assert served.counted.total("gen_ai_server_time_to_first_token_seconds_count") == 2


def test_a_request_that_is_killed_is_in_flight_no_more(served: Served) -> None:
    class Killed(BaseException):
        pass

    def die() -> str:
        raise Killed

    served.app.add_url_rule("/die", "die", die)
    with pytest.raises(Killed):
        served.client.get("/die", headers=AUTH)
    assert served.in_flight == 0
    assert served.requests(route="/die", status="500") == 1


def test_metrics_that_are_broken_are_felt_by_no_caller(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    for name in ("_in_flight", "_requests", "_durations", "_refusals"):
        broken = type("Broken", (), {"inc": fail, "labels": fail})()
        monkeypatch.setattr(served.gateway.metrics, name, broken)
    served.gateway.metrics.start_process()
    for _ in range(2):
        for headers, status in ((AUTH, 200), ({}, 401)):
            with served.client.post(PATH, json=HELLO, headers=headers) as response:
                assert response.status_code == status
    told = [record.message for record in caplog.records if "metrics are wrong" in record.message]
    assert len(told) == len(set(told)) == 4 + 1


def test_many_threads_lose_no_count(counted: Counted) -> None:
    def work() -> None:
        for _ in range(200):
            request = counted.metrics.request_began("/x", "GET")
            counted.metrics.call_ended(call("m"), ended(tried("openai/m", *GOOD)))
            request.ended(200)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted.value("gateway_requests_total", route="/x", method="GET", status="200") == 1600
    assert counted.value("gateway_tokens_total", provider="openai", model="m", type="input") == 160_000
    assert counted.value("gateway_requests_in_flight") == 0


# Several processes.

FORKED = """
import os
from gateway.metrics import Metrics
from prometheus_client import multiprocess
metrics = Metrics()
metrics.expect_sinks(["a"])
master = os.getpid()
def maps():
    with open("/proc/self/maps") as file:
        return {line.split()[-1] for line in file if line.rstrip().endswith(".db")}
assert maps()
for number in (1, 2, 3):
    if (child := os.fork()) == 0:
        metrics.start_process()
        assert all(name.endswith(f"_{os.getpid()}.db") for name in maps()), maps()
        metrics.request_began("/x", "GET")
        metrics.request_began("/x", "GET").ended(200)
        metrics.rows_sent("a", number)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    if number != 3:
        multiprocess.mark_process_dead(child)
print(metrics.text()[0].decode())
"""


def test_what_is_made_before_the_fork_counts_after_it_for_each_process_alone(tmp_path: Any) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKED], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = samples(done.stdout)
    assert found["gateway_requests_total", frozenset({("route", "/x"), ("method", "GET"), ("status", "200")})] == 3
    assert found["gateway_trace_rows_sent_total", frozenset({("sink", "a")})] == 6
    assert found["gateway_requests_in_flight", frozenset()] == 1, "of the one that is not marked dead"


def test_metrics_of_one_process_share_nothing() -> None:
    one, other = Counted(Metrics()), Counted(Metrics())
    one.metrics.auth_refused()
    assert (one.value("gateway_auth_refusals_total"), other.value("gateway_auth_refusals_total")) == (1, 0)
    gc.collect()
