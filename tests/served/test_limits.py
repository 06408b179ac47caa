"""A budget of 10 lets 10 through, on every store, whoever leaves; and what happens while the store is away."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from gateway.core.rules import LIMIT, MICRO, PARALLEL, Rule
from gateway.secret import Secret
from tests.fakes.provider import FakeProvider
from tests.fakes.stores import Postgres, Redis, folder_for_servers, redis_programs
from tests.served.limited import MODEL, Crowd, Limited, a_dollar, budget, leases, rpm
from tests.served.process import TOKEN

HEADERS = {"Authorization": f"Bearer {TOKEN}"}
BODY = {"model": f"openai/{MODEL}", "max_tokens": 1, "messages": [{"role": "user", "content": "?"}]}


@pytest.fixture
def dollars(provider: FakeProvider) -> Iterator[FakeProvider]:
    """The provider, whose model takes its time; nothing was asked of it before."""
    provider.forget()
    provider.script(MODEL, a_dollar(delay=0.3))
    yield provider
    provider.script(MODEL)


def asked_of(provider: FakeProvider) -> int:
    return len(provider.requests(MODEL))


def ask(gateway: Limited, **more: object) -> httpx.Response:
    return httpx.post(f"{gateway.url}/v1/chat/completions", json={**BODY, **more}, headers=HEADERS, timeout=30)


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis"])
def store(request: pytest.FixtureRequest) -> tuple[dict[str, str], Secret | Redis | None]:
    """The settings that name a store, and the store; None where it is in the gateway's own folder or memory."""
    if request.param == "postgres":
        address: Secret = request.getfixturevalue("empty_postgres_address")
        return {"DATABASE_URL": address.reveal()}, address
    if request.param == "redis":
        server: Redis = request.getfixturevalue("redis_servers")["redis"]
        with server.client() as client:
            client.flushall()
        return {"REDIS_URL": server.url}, server
    if request.param == "memory":
        return {"GATEWAY_COUNTERS": "memory", "WEB_CONCURRENCY": "1"}, None
    return {}, None


def test_of_200_calls_at_once_a_budget_of_10_lets_10_through(
    store: tuple[dict[str, str], Secret | Redis | None], dollars: FakeProvider, tmp_path: Path
) -> None:
    own, place = store
    with Limited(tmp_path, dollars, [budget()], {**own, "GATEWAY_LIMITS_FAIL": "closed"}) as gateway:
        crowd = Crowd(gateway.port).ask(200, again_s=60)
        assert crowd.statuses == {200: 10, 429: 190}
        assert asked_of(dollars) == 10
        for error in crowd.errors():
            assert (error["code"], error["type"]) == ("budget_exceeded", "insufficient_quota")
            assert "The budget bud_abcdefghijkl has 10.00 USD" in error["message"]
        late = ask(gateway)
        assert (late.status_code, late.headers["x-should-retry"]) == (429, "false")
        assert "10.00 USD are used or reserved" in late.json()["error"]["message"], "that is what was spent"
        if own.get("GATEWAY_COUNTERS") != "memory":
            assert leases(place or gateway.data_dir / "gateway.db") == 0


def test_callers_that_leave_their_streams_are_charged_and_hold_nothing(
    dollars: FakeProvider, tmp_path: Path, redis_servers: Mapping[str, Redis]
) -> None:
    server = redis_servers["valkey"]
    with server.client() as client:
        client.flushall()
    at_once = Rule("lim_parallelcall", LIMIT, PARALLEL, 100, None)
    own = {"REDIS_URL": server.url, "GATEWAY_LIMITS_FAIL": "closed"}
    with Limited(tmp_path, dollars, [budget(), at_once], own) as gateway:
        crowd = Crowd(gateway.port).ask(60, leaving=30, again_s=60)
        assert crowd.statuses[200] + crowd.broken == 10
        end_s = time.monotonic() + 10
        while leases(server):
            assert time.monotonic() < end_s, "a call that was left holds something"
            time.sleep(0.1)
        assert asked_of(dollars) <= 10
        rest = Crowd(gateway.port).ask(30, again_s=60)
        assert asked_of(dollars) <= 10 + crowd.broken, "a stream that ended before its answer was not charged"
        assert crowd.statuses[200] + rest.statuses[200] <= 10


def test_a_limit_of_the_settings_is_kept_across_workers_and_told(dollars: FakeProvider, tmp_path: Path) -> None:
    with Limited(tmp_path, dollars, [], {"GATEWAY_RATE_LIMIT_RPM": "20", "GATEWAY_LIMITS_FAIL": "closed"}) as gateway:
        crowd = Crowd(gateway.port).ask(40, again_s=60)
        assert crowd.statuses == {200: 20, 429: 20}
        refused = ask(gateway)
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert "GATEWAY_RATE_LIMIT_RPM" in refused.json()["error"]["message"]
        assert 1 <= int(refused.headers["retry-after"]) <= 62
        assert refused.headers["x-ratelimit-limit-requests"] == "20"
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        numbers = httpx.get(f"{gateway.url}/metrics", headers=HEADERS, timeout=30).text
        assert 'gateway_limit_refusals_total{kind="limit",measure="requests"} 21.0' in numbers


def test_memory_is_refused_for_more_than_one_worker(dollars: FakeProvider, tmp_path: Path) -> None:
    served = Limited(tmp_path, dollars, [], {"GATEWAY_COUNTERS": "memory", "WEB_CONCURRENCY": "2"})
    assert served.wait_exit() != 0
    assert "GATEWAY_COUNTERS is memory" in served.log


# The store goes away.


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    """A server of the test's own, which may be stopped and paused."""
    (tmp_path / "redis").mkdir()
    made = Redis(tmp_path / "redis", redis_programs()["valkey"])
    made.start()
    yield made
    made.stop()


def within(most_s: float, gateway: Limited, words: str, count: int) -> None:
    end_s = time.monotonic() + most_s
    while gateway.log.count(words) < count:
        assert time.monotonic() < end_s, gateway.log[-2000:]
        time.sleep(0.05)


AWAY, BACK = "limits have lost their store", "limits have their store again"


@pytest.mark.long
@pytest.mark.parametrize("how", ["stopped", "silent"])
def test_calls_go_on_while_redis_is_away_and_are_charged_when_it_is_back(
    how: str, server: Redis, dollars: FakeProvider, tmp_path: Path
) -> None:
    dollars.script(MODEL, a_dollar())
    own = {"REDIS_URL": server.url, "WEB_CONCURRENCY": "1", "LOG_LEVEL": "info"}
    with Limited(tmp_path / "gateway", dollars, [budget()], own) as gateway:
        assert ask(gateway).status_code == 200
        if how == "stopped":
            server.stop()
        else:
            server.pause()
        spent_s = []
        for _ in range(5):
            began_s = time.monotonic()
            assert ask(gateway).status_code == 200
            spent_s.append(time.monotonic() - began_s)
        assert sum(spent_s) < 5, "one call finds out, the others do not wait"
        if how == "stopped":
            gateway.ledger_says(6 * MICRO)  # nothing was kept over the restart
            server.start()
        else:
            server.resume()
        within(15, gateway, BACK, 1)
        time.sleep(0.5)
        crowd = Crowd(gateway.port).ask(20, again_s=30)
        # a server that was silent does what it was asked before: one reservation is held that nobody waits for
        assert crowd.statuses[200] in ((4,) if how == "stopped" else (3, 4))
        assert crowd.statuses[200] + crowd.statuses[429] == 20
        assert gateway.log.count(AWAY) == gateway.log.count(BACK) == 1


@pytest.mark.long
@pytest.mark.parametrize("how", ["stopped", "silent"])
def test_calls_go_on_while_postgres_is_away_and_are_charged_when_it_is_back(
    how: str, dollars: FakeProvider, tmp_path: Path
) -> None:
    dollars.script(MODEL, a_dollar())
    with folder_for_servers() as folder:
        (folder / "postgres").mkdir()
        server = Postgres(folder / "postgres")
        server.start()
        try:
            own = {"DATABASE_URL": server.make("limits"), "WEB_CONCURRENCY": "1"}
            with Limited(tmp_path / "gateway", dollars, [budget()], own) as gateway:
                assert ask(gateway).status_code == 200
                if how == "stopped":
                    server.stop()
                else:
                    server.pause()
                began_s = time.monotonic()
                assert [ask(gateway).status_code for _ in range(5)] == [200] * 5
                assert time.monotonic() - began_s < 6, "one call finds out, the others do not wait"
                if how == "stopped":
                    server.start()
                else:
                    server.resume()
                end_s = time.monotonic() + 30
                while "6.00 USD are used" not in (said := ask(gateway, max_tokens=9).text):
                    assert time.monotonic() < end_s, said + gateway.log[-2000:]
                    time.sleep(0.3)
        finally:
            server.stop()


@pytest.mark.long
def test_a_redis_that_was_started_empty_does_not_begin_a_budget_anew(
    server: Redis, dollars: FakeProvider, tmp_path: Path
) -> None:
    dollars.script(MODEL, a_dollar())
    with Limited(tmp_path / "gateway", dollars, [budget()], {"REDIS_URL": server.url}) as gateway:
        assert Crowd(gateway.port).ask(9, again_s=30).statuses == {200: 9}
        gateway.ledger_says(9 * MICRO)
        with server.client() as client:
            client.flushall()
        assert Crowd(gateway.port).ask(20, again_s=30).statuses == {200: 1, 429: 19}


@pytest.mark.long
def test_calls_are_refused_while_redis_is_away_where_the_operator_wants_that(
    server: Redis, dollars: FakeProvider, tmp_path: Path
) -> None:
    dollars.script(MODEL, a_dollar())
    own = {"REDIS_URL": server.url, "GATEWAY_LIMITS_FAIL": "closed"}
    with Limited(tmp_path / "gateway", dollars, [rpm(100)], own) as gateway:
        assert ask(gateway).status_code == 200
        server.stop()
        refused = ask(gateway)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
        assert refused.headers["retry-after"] == "1"
        server.start()
        end_s = time.monotonic() + 15
        while ask(gateway).status_code != 200:
            assert time.monotonic() < end_s, gateway.log[-2000:]
            time.sleep(0.2)
