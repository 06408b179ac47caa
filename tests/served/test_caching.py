"""The cache as callers see it: headers, bytes, who shares with whom, and what it does to the provider."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import provider as says
from tests.fakes.braintrust_server import FakeBraintrust
from tests.fakes.provider import FakeProvider, answer
from tests.served.caller import Caller, Streamed, body, fault
from tests.served.process import OTHER_TOKEN, TOKEN, TOP, Served
from tests.served.traces import trace_of_request

pytestmark = pytest.mark.long

ALWAYS = {"x_bt_use_cache": "always"}
JSON = dict[str, Any]


@pytest.fixture(scope="module", params=["litellm", "relay"])
def lane(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    settings: dict[str, str],
    braintrust: FakeBraintrust,
) -> Iterator[Served]:
    """A gateway whose chats go by way of LiteLLM, and one that passes them on itself."""
    own = {"GATEWAY_RELAY": "openai"} if request.param == "relay" else {}
    folder = tmp_path_factory.mktemp(f"caching-{request.param}")
    with Served(folder, {**settings, **braintrust.environment(), **own}) as served:
        yield served


@pytest.fixture
def one(lane: Served) -> Iterator[Caller]:
    with Caller(lane.url, TOKEN) as caller:
        yield caller


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]) -> Iterator[Served]:
    """A gateway of two workers that caches what is asked for without chance."""
    own = {"WEB_CONCURRENCY": "2", "GATEWAY_CACHE": "auto", "GATEWAY_DEMO": "on"}
    with Served(tmp_path_factory.mktemp("caching-two"), settings | own) as served:
        yield served


def marks(response: httpx.Response | Streamed) -> tuple[str | None, bool]:
    return response.headers.get("x-bt-cached"), "age" in response.headers


def test_the_same_again_is_a_hit_with_the_same_bytes(one: Caller, provider: FakeProvider, model: str) -> None:
    asked = body(f"openai/{model}")
    first, second = one.post(asked, **ALWAYS), one.post(asked, **ALWAYS)
    assert (marks(first), marks(second)) == (("MISS", False), ("HIT", True))
    assert first.content == second.content
    assert 0 <= int(second.headers["age"]) < 30
    assert len(provider.requests(model)) == 1
    for name in ("x-gateway-provider", "x-gateway-model-id", "content-type"):
        assert second.headers[name] == first.headers[name]
    assert second.headers["request-id"] != first.headers["request-id"]


def test_a_stream_comes_again_with_the_bytes_that_it_had(one: Caller, provider: FakeProvider, model: str) -> None:
    provider.script(model, says.answer("one two three four", extra={"service_tier": "default"}))
    for fields in ({}, {"stream_options": {"include_usage": True}}):
        asked = body(f"openai/{model}", **fields)
        first, second = one.read(asked, **ALWAYS), one.read(asked, **ALWAYS)
        assert marks(second) == ("HIT", True)
        assert first.raw == second.raw
        assert second.ends_well
        assert ("usage" in second.chunks[-1]) is bool(fields)


def test_nothing_is_said_of_the_cache_where_nobody_asked(one: Caller, provider: FakeProvider, model: str) -> None:
    for headers in ({}, {"x_bt_use_cache": "never"}, {"Cache_Control": "no-cache"}):
        assert marks(one.post(body(f"openai/{model}", temperature=0), **headers)) == (None, False)
    assert len(provider.requests(model)) == 3


def test_two_tenants_have_answers_of_their_own(lane: Served, one: Caller, provider: FakeProvider, model: str) -> None:
    with Caller(lane.url, OTHER_TOKEN) as other:
        asked = body(f"openai/{model}")
        assert [marks(who.post(asked, **ALWAYS))[0] for who in (one, other, one, other)] == ["MISS"] * 2 + ["HIT"] * 2
    assert len(provider.requests(model)) == 2


def test_a_cut_stream_is_never_kept(one: Caller, provider: FakeProvider, model: str) -> None:
    provider.script(model, says.sse(says.delta({"content": "half"}), says.reset()), answer("whole"))
    cut = one.read(body(f"openai/{model}"), **ALWAYS)
    assert cut.fails_once
    again = one.read(body(f"openai/{model}"), **ALWAYS)
    assert marks(again) == ("MISS", False)
    assert again.text() == "whole"
    assert again.ends_well


def test_an_error_is_never_kept(one: Caller, provider: FakeProvider, model: str) -> None:
    provider.script(model, says.error(400), answer("well"))
    assert one.post(body(f"openai/{model}"), **ALWAYS).status_code == 400
    assert marks(one.post(body(f"openai/{model}"), **ALWAYS)) == ("MISS", False)


def test_cache_control_is_kept_to(one: Caller, provider: FakeProvider, model: str) -> None:
    asked = body(f"openai/{model}")
    refused = one.post(asked, **ALWAYS, Cache_Control="only-if-cached")
    assert refused.status_code == 504
    assert fault(refused)["code"] == "not_cached"
    assert refused.headers["x-should-retry"] == "false"
    assert marks(one.post(asked, **ALWAYS, Cache_Control="no-store")) == ("MISS", False)
    assert marks(one.post(asked, **ALWAYS, Cache_Control="no-cache")) == ("MISS", False)
    assert marks(one.post(asked, **ALWAYS, Cache_Control="max-age=600")) == ("HIT", True)
    assert marks(one.post(asked, **ALWAYS, Cache_Control="Only-If-Cached, max-age=600")) == ("HIT", True)
    assert marks(one.post(asked, **ALWAYS, Cache_Control="min-fresh=7200")) == ("MISS", False)
    assert len(provider.requests(model)) == 3


def test_504_comes_in_the_callers_dialect(one: Caller) -> None:
    asked = {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    for path, kind in (("/v1/messages", "error"), ("/v1/responses", None)):
        sent = asked if kind else {"model": "gpt-4o", "input": "hi", "store": False}
        refused = one.http.post(path, json=sent, headers={"cache-control": "only-if-cached"})
        assert refused.status_code == 504
        assert refused.json().get("type") == kind
        assert refused.json()["error"]["code"] == "not_cached"


@pytest.mark.parametrize(
    ("name", "value"), [("x_bt_use_cache", "yes"), ("x_bt_cache_ttl", "604801"), ("x_bt_cache_ttl", "-1")]
)
def test_a_header_that_says_what_it_cannot_is_400(one: Caller, model: str, name: str, value: str) -> None:
    refused = one.post(body(f"openai/{model}"), **{name: value})
    assert refused.status_code == 400
    assert fault(refused)["param"] == name.replace("_", "-")


def test_an_answer_is_kept_as_long_as_the_caller_says(one: Caller, provider: FakeProvider, model: str) -> None:
    asked = body(f"openai/{model}")
    one.post(asked, **ALWAYS, x_bt_cache_ttl="1")
    time.sleep(1.2)
    assert marks(one.post(asked, **ALWAYS)) == ("MISS", False)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/messages", {"model": "anthropic/{}", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/messages", {"model": "openai/{}", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/responses", {"model": "openai/{}", "input": "hi", "store": False}),
        ("/v1/responses", {"model": "anthropic/{}", "input": "hi", "store": False}),
        ("/v1/completions", {"model": "openai/{}", "prompt": "hi"}),
    ],
)
def test_the_other_operations_are_kept_in_both_forms(
    one: Caller, provider: FakeProvider, model: str, path: str, asked: JSON, stream: bool
) -> None:
    sent = {**asked, "model": asked["model"].format(model), "stream": stream}
    headers = {"x-bt-use-cache": "always"}
    first, second = (one.http.post(path, json=sent, headers=headers) for _ in range(2))
    assert (marks(first), marks(second)) == (("MISS", False), ("HIT", True))
    assert first.content == second.content
    assert first.headers["content-type"] == second.headers["content-type"]
    assert len(provider.requests(model)) == 1


def test_embeddings_are_kept_under_auto(one: Caller, provider: FakeProvider, model: str) -> None:
    sent = {"model": f"openai/{model}", "input": "hi"}
    got = [one.http.post("/v1/embeddings", json=sent, headers={"x-bt-use-cache": "auto"}) for _ in range(2)]
    assert [marks(each)[0] for each in got] == ["MISS", "HIT"]
    assert got[0].content == got[1].content


def test_a_response_that_is_stored_elsewhere_is_not_kept(one: Caller, provider: FakeProvider, model: str) -> None:
    sent = {"model": f"openai/{model}", "input": "hi"}
    got = [one.http.post("/v1/responses", json=sent, headers={"x-bt-use-cache": "always"}) for _ in range(2)]
    assert [marks(each) for each in got] == [("MISS", False)] * 2
    assert got[0].json()["id"] != got[1].json()["id"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_a_named_request_that_comes_again_pays_once(one: Caller, provider: FakeProvider, model: str, path: str) -> None:
    asked = body(f"openai/{model}") if "chat" in path else {"model": f"openai/{model}", "input": "hi"}
    headers = {"Idempotency-Key": f"order-{model}"}
    first, second = (one.http.post(path, json=asked, headers=headers) for _ in range(2))
    assert first.content == second.content
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert len(provider.requests(model)) == 1
    reused = one.http.post(path, json={**asked, "user": "another"}, headers=headers)
    assert reused.status_code == 409
    assert reused.json()["error"]["code"] == "idempotency_key_reused"
    assert reused.headers["x-should-retry"] == "false"
    assert one.http.post(path, json=asked, headers={"Idempotency-Key": ""}).status_code == 400


@pytest.mark.parametrize("stream", [False, True])
def test_a_hit_is_traced_and_costs_nothing(one: Caller, braintrust: FakeBraintrust, model: str, stream: bool) -> None:
    asked = body(f"openai/{model}")
    for number in range(2):
        got = one.read(asked, **ALWAYS) if stream else one.post(asked, **ALWAYS)
        found = trace_of_request(braintrust, got.headers["request-id"])
        root = found.root
        assert root["metadata"]["cached"] is (number == 1)
        assert len(found.under) == 1 - number
        assert root["output"][0]["message"]["content"] == "hello there"
        assert root["input"] == asked["messages"]
        assert root["metadata"]["usage"]["completion_tokens"] == 7
    assert root["metadata"]["cost_usd"] == 0
    assert root["metadata"]["attempts"] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_hundred_at_once_make_one_call(lane: Served, provider: FakeProvider, model: str, stream: bool) -> None:
    provider.script(model, answer("shared", delay=1.5))
    asked = {**body(f"openai/{model}"), "stream": stream}

    def ask(_number: int) -> bytes:
        headers = {"Authorization": f"Bearer {TOKEN}", "x-bt-use-cache": "always"}
        got = httpx.post(f"{lane.url}/v1/chat/completions", json=asked, headers=headers, timeout=60, trust_env=False)
        assert got.status_code == 200, got.text
        return re.sub(rb": keep-alive\n\n", b"", got.content)

    with ThreadPoolExecutor(100) as pool:
        got = set(pool.map(ask, range(100)))
    assert len(got) == 1
    assert len(provider.requests(model)) == 1


def test_who_asked_first_may_leave_a_stream_that_others_read(
    lane: Served, one: Caller, provider: FakeProvider, model: str
) -> None:
    half = says.delta({"role": "assistant", "content": "one "})
    provider.script(model, says.sse(half, says.pause(2.0), says.delta({"content": "two"}, "stop"), says.done()))
    asked = {**body(f"openai/{model}"), "stream": True}
    followed: list[Streamed] = []
    with httpx.Client(base_url=lane.url, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False) as leaving:
        headers = {"x-bt-use-cache": "always"}
        with leaving.stream("POST", "/v1/chat/completions", json=asked, headers=headers) as response:
            assert b"one" in next(response.iter_raw())
            follower = threading.Thread(target=lambda: followed.append(one.read(asked, **ALWAYS)))
            follower.start()
            time.sleep(0.5)
    follower.join(20)
    [got] = followed
    assert got.text() == "one two"
    assert got.ends_well
    assert len(provider.requests(model)) == 1


def test_workers_share_what_they_keep(two_workers: Served, provider: FakeProvider, model: str) -> None:
    asked = body(f"openai/{model}", temperature=0)

    def ask(_number: int) -> str | None:
        with Caller(two_workers.url, TOKEN) as caller:
            return marks(caller.post(asked))[0]

    assert ask(0) == "MISS"
    assert [ask(number) for number in range(12)] == ["HIT"] * 12, "whichever worker it is"
    assert len(provider.requests(model)) == 1


def test_a_hundred_at_once_over_two_workers_make_two_calls_at_most(
    two_workers: Served, provider: FakeProvider, model: str
) -> None:
    provider.script(model, answer("shared", delay=1.5))
    asked = body(f"openai/{model}", seed=7)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    url = f"{two_workers.url}/v1/chat/completions"
    with ThreadPoolExecutor(100) as pool:
        send = lambda _number: httpx.post(url, json=asked, headers=headers, timeout=60, trust_env=False)  # noqa: E731
        assert {one.status_code for one in pool.map(send, range(100))} == {200}
    assert 1 <= len(provider.requests(model)) <= 2


def test_the_database_going_away_is_only_a_miss(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str], provider: FakeProvider, model: str
) -> None:
    own = {"REDIS_URL": "redis://127.0.0.1:1/0", "GATEWAY_CACHE": "always"}
    with Served(tmp_path_factory.mktemp("caching-away"), settings | own) as served, Caller(served.url, TOKEN) as one:
        for number in range(3):
            assert marks(one.post(body(f"openai/{model}", f"say {number}"))) == ("MISS", False)
        lines = [line for line in served.log.splitlines() if "store of the cache" in line]
        assert len(lines) == 1
        metrics = httpx.get(f"{served.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False)
        assert 'gateway_cache_total{result="miss"} 3.0' in metrics.text
    assert len(provider.requests(model)) == 3


def test_what_the_guide_shows_is_what_happens(two_workers: Served) -> None:
    guide = (TOP / "docs/caching.md").read_text(encoding="utf-8")
    [sent] = re.findall(r"-d '(\{.*\})'", guide)
    headers = {"Authorization": f"Bearer {TOKEN}", "x-bt-use-cache": "always"}
    url = f"{two_workers.url}/v1/chat/completions"
    got = [httpx.post(url, content=sent, headers=headers, trust_env=False) for _ in range(2)]
    assert [marks(one) for one in got] == [("MISS", False), ("HIT", True)]
    shown = command("show", two_workers)
    assert re.search(r"^answers: [1-9]", shown, re.MULTILINE)
    tenant = f"tok_{hashlib.sha256(TOKEN.encode()).hexdigest()[:8]}"
    assert command("clear", two_workers, "--tenant", "tok_00000000") == "answers forgotten: 0\n"
    assert re.fullmatch(r"answers forgotten: [1-9]\d*\n", command("clear", two_workers, "--tenant", tenant))
    assert command("show", two_workers) == "answers: 0\nbytes: 0\n"


def command(verb: str, served: Served, *more: str) -> str:
    """Run a command of the guide as its operator does, and return what it prints."""
    program = Path(sys.executable).with_name("gateway")
    environment = {"PATH": os.environ["PATH"], "GATEWAY_DATA_DIR": str(served.data_dir)}
    return subprocess.run(
        [program, "cache", verb, *more], env=environment, cwd=served.top, capture_output=True, check=True, text=True
    ).stdout
