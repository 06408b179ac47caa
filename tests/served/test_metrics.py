"""/metrics of a gateway with two workers: exact sums, whichever worker answers and whichever dies."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.provider import FakeProvider, answer, delta, error, silence, sse
from tests.served.caller import CHAT, body
from tests.served.process import PROVIDER_KEY, TOKEN, Served
from tests.served.wire import Wire, chat_request

AUTH = {"Authorization": f"Bearer {TOKEN}"}
PROMPT = "a prompt that no label may hold"
ROUTE = "/v1/chat/completions"
Scrape = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def get(served: Served, path: str = "/metrics", method: str = "GET", **headers: str) -> httpx.Response:
    """Ask on a connection of its own, so that either worker may take it."""
    return httpx.request(method, served.url + path, headers={**AUTH, **headers}, trust_env=False, timeout=20)


def scraped(served: Served) -> Scrape:
    text = get(served).text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(scrape: Scrape, name: str, **labels: str) -> float:
    return sum(value for (found, held), value in scrape.items() if found == name and set(labels.items()) <= held)


def in_flight(scrape: Scrape) -> float:
    """Without the scrape itself."""
    return total(scrape, "gateway_requests_in_flight") - 1


def until(served: Served, holds: Callable[[Scrape], bool]) -> Scrape:
    """Scrape until it holds: a request is counted a moment after its last byte."""
    end_s = time.monotonic() + 10
    while not holds(found := scraped(served)):
        assert time.monotonic() < end_s, found
        time.sleep(0.05)
    return found


def workers(served: Served) -> dict[int, psutil.Process]:
    return {child.pid: child for child in psutil.Process(served.pid).children()}


def streams(worker: psutil.Process, port: int) -> int:
    """How many callers' connections a worker holds."""
    held = worker.net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port for one in held)


def folders(pid: int) -> set[Path]:
    """The folders of the metric files that a process has mapped."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return {Path(name).parent for name in re.findall(r"(/\S+_\d+\.db)$", maps, re.MULTILINE)}


@pytest.fixture(scope="module")
def settings(settings: dict[str, str]) -> dict[str, str]:
    return settings | {"GATEWAY_DEMO": "on"}


@pytest.fixture(scope="module")
def light(settings: dict[str, str]) -> dict[str, str]:
    """For starts that are about folders and processes: without LiteLLM, whose import takes most of a start."""
    return settings | {"GATEWAY_RELAY": "all", "ANTHROPIC_API_KEY": ""}


@pytest.fixture
def pair(tmp_path: Path, settings: dict[str, str]) -> Iterator[Served]:
    with Served(tmp_path / "pair", settings | {"WEB_CONCURRENCY": "2"}) as served:
        yield served


@pytest.fixture
def light_pair(tmp_path: Path, light: dict[str, str]) -> Iterator[Served]:
    with Served(tmp_path / "pair", light | {"WEB_CONCURRENCY": "2"}) as served:
        yield served


def ask(served: Served, model: str, **fields: Any) -> int:
    response = httpx.post(
        served.url + CHAT, json=body(model, PROMPT, **fields), headers=AUTH, trust_env=False, timeout=20
    )
    assert response.read()
    return response.status_code


def check_text(text: str) -> None:
    """What promtool checks: HELP and TYPE before each family, no family twice, names that fit their type."""
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    helped = re.findall(r"^# HELP (\S+) \S", text, re.MULTILINE)
    typed = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert sorted(helped) == sorted(typed)
    for line in filter(lambda line: line and not line.startswith("#"), text.splitlines()):
        name = re.split(r"[{ ]", line)[0]
        family = name if name in typed else re.sub(r"_(bucket|sum|count)$", "", name)
        assert family in typed, line
        assert (typed[family] == "counter") == family.endswith("_total"), line
    for family in families:
        seen = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in family.samples]
        assert len(seen) == len(set(seen)), family.name
        for sample in family.samples:
            assert "pid" not in sample.labels
            for value in sample.labels.values():
                assert PROMPT not in value
                assert TOKEN not in value
                assert PROVIDER_KEY not in value


def test_forty_requests_over_two_workers_are_summed_exactly(pair: Served, provider: FakeProvider) -> None:
    provider.script("gpt-4o-mini", answer("fine", usage=(100, 10)))
    provider.script("made-up-model", error(503))
    before = total(scraped(pair), "gateway_requests_total")
    kinds: list[tuple[int, Callable[[], int]]] = [
        (10, lambda: ask(pair, "openai/gpt-4o-mini")),
        (10, lambda: ask(pair, "openai/gpt-4o-mini", stream=True)),
        (5, lambda: ask(pair, "openai/made-up-model")),
        (5, lambda: ask(pair, "demo/echo")),
        (2, lambda: ask(pair, "no-such-model")),
        (3, lambda: get(pair, "/nowhere", "GET").status_code),
        (3, lambda: get(pair, "/v1/models", "HEAD").status_code),
        (2, lambda: get(pair, "/v1/models", Authorization="Bearer wrong").status_code),
    ]
    with ThreadPoolExecutor(8) as pool:
        statuses = [job.result() for job in [pool.submit(ask_it) for count, ask_it in kinds for _ in range(count)]]
    assert len(statuses) == 40
    for status, count in {200: 28, 503: 5, 404: 5, 401: 2}.items():
        assert statuses.count(status) == count

    def counted(scrape: Scrape) -> float:
        # scrapes, and the readiness before them, count too
        own = sum(total(scrape, "gateway_requests_total", route=route) for route in ("/metrics", "/health/readiness"))
        return total(scrape, "gateway_requests_total") - own

    found = until(pair, lambda scrape: counted(scrape) == 40)
    assert before >= 1
    assert in_flight(found) == 0
    requests = "gateway_requests_total"
    assert total(found, requests, route=ROUTE, method="POST", status="200") == 25
    assert total(found, requests, route=ROUTE, method="POST", status="503") == 5
    assert total(found, requests, route=ROUTE, method="POST", status="404") == 2
    assert total(found, requests, route="unmatched", method="GET", status="404") == 3
    assert total(found, requests, route="/v1/models", method="HEAD", status="200") == 3
    assert total(found, requests, route="/v1/models", method="GET", status="401") == 2
    assert total(found, "gateway_auth_refusals_total") == 2
    assert total(found, "gateway_attempts_total", provider="openai", outcome="ok") == 20
    assert total(found, "gateway_attempts_total", provider="openai", outcome="provider_error") == 5
    assert total(found, "gateway_attempts_total", provider="demo", outcome="ok") == 5
    mini = {"provider": "openai", "model": "gpt-4o-mini"}
    assert total(found, "gateway_tokens_total", **mini, type="input") == 2000
    assert total(found, "gateway_tokens_total", **mini, type="output") == 200
    assert total(found, "gateway_cost_usd_total", **mini) == pytest.approx(2000 * 0.15e-6 + 200 * 0.6e-6)
    durations = "gen_ai_server_request_duration_seconds_count"
    assert total(found, durations) == 32
    assert total(found, durations, gen_ai_request_model="other", error_type="provider_error") == 5
    assert total(found, durations, gen_ai_provider_name="none", error_type="model_not_found") == 2
    assert total(found, "gen_ai_server_time_to_first_token_seconds_count") == 10
    assert total(found, "gateway_overhead_seconds_count") == 32
    text = get(pair).text
    check_text(text)
    assert "made-up-model" not in text
    response = get(pair, Accept="application/openmetrics-text; version=1.0.0")
    assert {family.name for family in openmetrics_families(response.text)} >= {"gateway_requests", "gateway_build"}


def test_a_killed_worker_leaves_its_counts_and_takes_what_it_had_under_way(
    light_pair: Served, provider: FakeProvider
) -> None:
    provider.script("silent", sse(delta({"content": "tok0"}), silence()))
    assert [ask(light_pair, "demo/echo") for _ in range(10)] == [200] * 10
    with ExitStack() as callers:
        for _ in range(12):
            wire = callers.enter_context(Wire(light_pair))
            wire.send(chat_request(body("openai/silent", PROMPT, stream=True)))
            wire.read_until(b"tok0")
        until(light_pair, lambda scrape: in_flight(scrape) == 12)
        held = {pid: streams(worker, light_pair.port) for pid, worker in workers(light_pair).items()}
        assert sum(held.values()) == 12
        victim = max(held, key=lambda pid: held[pid])
        alive = 12 - held[victim]
        os.kill(victim, signal.SIGKILL)
        found = until(light_pair, lambda scrape: in_flight(scrape) == alive)
        assert total(found, "gateway_attempts_total", provider="demo", outcome="ok") == 10
        end_s = time.monotonic() + 20
        while len(workers(light_pair)) < 2:
            assert time.monotonic() < end_s
            time.sleep(0.05)
        assert [ask(light_pair, "demo/echo") for _ in range(10)] == [200] * 10
    found = until(light_pair, lambda scrape: in_flight(scrape) == 0)
    assert total(found, "gateway_attempts_total", provider="demo", outcome="ok") == 20
    gone = {"gen_ai_provider_name": "openai", "error_type": "caller_gone"}
    assert total(found, "gen_ai_server_request_duration_seconds_count", **gone) == alive


def test_a_reload_keeps_the_counts_and_the_end_leaves_no_folder(tmp_path: Path, light: dict[str, str]) -> None:
    inherited = tmp_path / "of-somebody-else"
    inherited.mkdir()
    own = {"WEB_CONCURRENCY": "2", "PROMETHEUS_MULTIPROC_DIR": str(inherited)}
    with Served(tmp_path / "one", light | own) as served:
        assert ask(served, "demo/echo") == 200
        (made,) = {place for pid in workers(served) for place in folders(pid)}
        assert made.stat().st_mode & 0o777 == 0o700
        before = set(workers(served))
        os.kill(served.pid, signal.SIGHUP)
        end_s = time.monotonic() + 30
        while len(now := set(workers(served))) != 2 or before & now:
            assert time.monotonic() < end_s
            time.sleep(0.05)
        assert ask(served, "demo/echo") == 200
        until(served, lambda scrape: total(scrape, "gateway_attempts_total", outcome="ok") == 2)
        for pid in workers(served):
            assert folders(pid) <= {made}
            maps = Path(f"/proc/{pid}/maps").read_text()
            assert not re.search(rf"_{served.pid}\.db$", maps, re.MULTILINE), "the master's files are the master's"
        assert list(inherited.iterdir()) == []
        served.stop()
        assert not made.exists()


def test_a_start_that_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    # others start meanwhile and make folders too: this start tells which ones are its own
    (tmp_path / "sitecustomize.py").write_text(
        "import tempfile\nmake = tempfile.mkdtemp\ndef mkdtemp(*args, **named):\n    made = make(*args, **named)\n"
        "    print('made', made, flush=True)\n    return made\ntempfile.mkdtemp = mkdtemp\n"
    )
    own = {"WEB_CONCURRENCY": "1", "GATEWAY_TIMEOUT_S": "soon", "PYTHONPATH": str(tmp_path)}
    served = Served(tmp_path / "one", own)
    assert served.wait_exit() != 0
    made = [Path(one) for one in re.findall(r"^made (.+)$", served.log, re.MULTILINE)]
    assert [one.name.startswith("gateway-metrics-") for one in made] == [True]
    assert not made[0].exists()


def test_what_a_killed_master_leaves_is_removed_by_the_next_start_and_nothing_that_is_in_use(
    tmp_path: Path, light: dict[str, str]
) -> None:
    def folder(served: Served) -> Path:
        assert ask(served, "demo/echo") == 200
        (made,) = {place for pid in workers(served) for place in folders(pid)}
        return made

    with Served(tmp_path / "living", light) as living, Served(tmp_path / "killed", light) as killed:
        left, used = folder(killed), folder(living)
        killed.kill(workers_too=True)
        with Served(tmp_path / "next", light) as served:
            assert not left.exists()
            assert used.exists()
            assert folder(served).exists()


def test_without_a_folder_each_worker_counts_alone_and_says_so(tmp_path: Path, light: dict[str, str]) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import tempfile\ndef mkdtemp(*_, **__):\n    raise OSError(30, 'Read-only file system')\n"
        "tempfile.mkdtemp = mkdtemp\n"
    )
    with Served(tmp_path / "one", light | {"PYTHONPATH": str(tmp_path), "GATEWAY_METRICS": "open"}) as served:
        assert served.log.count("no folder can be made") == 1
        assert ask(served, "demo/echo") == 200
        open_to_all = httpx.get(f"{served.url}/metrics", trust_env=False)
        assert open_to_all.status_code == 200
        check_text(open_to_all.text)
        assert total(scraped(served), "gateway_attempts_total", provider="demo", outcome="ok") == 1


def test_who_may_read_it(light_pair: Served, tmp_path: Path, light: dict[str, str]) -> None:
    assert httpx.get(f"{light_pair.url}/metrics", trust_env=False).status_code == 401
    assert get(light_pair, "/metrics/").status_code == 200
    with Served(tmp_path / "off", light | {"GATEWAY_METRICS": "off"}) as off:
        assert httpx.get(f"{off.url}/metrics", trust_env=False).status_code == 401
        response = get(off)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_url")
