"""Equal calls that reach two workers at once: one call to the provider, on each store, where a worker is killed too."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import psutil
import pytest

from tests.fakes.provider import FakeProvider, answer, error
from tests.served.caller import CHAT, body
from tests.served.process import OTHER_TOKEN, TOKEN, Served

pytestmark = pytest.mark.long

CALLERS = 16
#: Longer than the lease of a claim, and than what a busy machine adds.
TAKEN_OVER_S = 25.0


@pytest.fixture(scope="module", params=["sqlite", "postgres", "redis"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]
) -> Iterator[Served]:
    """A gateway of two workers whose cache is in one of the stores."""
    own = {"WEB_CONCURRENCY": "2", "GATEWAY_RELAY": "all"}
    postgres = None
    if request.param == "postgres":
        postgres = request.getfixturevalue("postgres")
        own["DATABASE_URL"] = postgres.make("one_call")
    if request.param == "redis":
        own["REDIS_URL"] = request.getfixturevalue("redis_servers")["redis"].url
    with Served(tmp_path_factory.mktemp("one-call"), settings | own) as one:
        yield one
    if postgres is not None:
        postgres.remove("one_call")


def ask(served: Served, model: str, *, stream: bool = False, token: str = TOKEN, **headers: str) -> httpx.Response:
    """Ask on a connection of its own, so that either worker may have it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(
        f"{served.url}{CHAT}",
        json=body(f"openai/{model}", stream=stream),
        headers={"Authorization": f"Bearer {token}", **named},
        timeout=60,
        trust_env=False,
    )


def told(response: httpx.Response) -> bytes:
    return re.sub(rb": keep-alive\n\n", b"", response.content)


def ports(worker: psutil.Process) -> set[int]:
    """The worker's ends of its connections."""
    try:
        found = worker.net_connections("tcp")
    except psutil.Error:  # it has just ended
        return set()
    return {one.laddr.port for one in found if one.status == psutil.CONN_ESTABLISHED}


def wait_for_both(served: Served) -> None:
    """Wait until each worker has a call, so that it is two workers that have to agree."""
    end_s = time.monotonic() + 10
    while not all(served.port in ports(one) for one in served.workers()):
        assert time.monotonic() < end_s, "one worker has them all"
        time.sleep(0.02)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_named_call_is_made_once_whichever_workers_it_reaches(
    served: Served, provider: FakeProvider, model: str, stream: bool
) -> None:
    provider.script(model, answer("once", delay=3))
    with ThreadPoolExecutor(CALLERS) as pool:
        calls = [pool.submit(ask, served, model, stream=stream, Idempotency_Key=model) for _ in range(CALLERS)]
        wait_for_both(served)
        got = [one.result() for one in calls]
    assert {one.status_code for one in got} == {200}
    assert len({told(one) for one in got}) == 1
    assert len(provider.requests(model)) == 1
    assert sum(one.headers.get("idempotent-replayed") == "true" for one in got) == CALLERS - 1
    assert ask(served, model, stream=not stream, Idempotency_Key=model).status_code == 409


def test_cacheable_calls_that_are_not_streamed_are_made_once_too(
    served: Served, provider: FakeProvider, model: str
) -> None:
    provider.script(model, answer("once", delay=3))
    with ThreadPoolExecutor(CALLERS) as pool:
        calls = [pool.submit(ask, served, model, x_bt_use_cache="always") for _ in range(CALLERS)]
        wait_for_both(served)
        got = [one.result() for one in calls]
    assert len({one.content for one in got}) == 1
    assert len(provider.requests(model)) == 1
    assert ask(served, model, token=OTHER_TOKEN, x_bt_use_cache="always").headers["x-bt-cached"] == "MISS"


def test_another_body_under_the_name_is_refused_by_either_worker_while_the_first_is_made(
    served: Served, provider: FakeProvider, model: str
) -> None:
    provider.script(model, answer("once", delay=4))
    with ThreadPoolExecutor(CALLERS) as pool:
        first = pool.submit(ask, served, model, Idempotency_Key=model)
        while not provider.requests(model):
            time.sleep(0.02)
        others = [pool.submit(ask, served, model, stream=True, Idempotency_Key=model) for _ in range(CALLERS - 1)]
        assert {one.result().status_code for one in others} == {409}
        assert not first.done()
        assert first.result().status_code == 200
    assert len(provider.requests(model)) == 1


def test_where_the_first_call_fails_another_is_made(served: Served, provider: FakeProvider, model: str) -> None:
    provider.script(model, error(500, delay=2), answer("second", delay=1))
    with ThreadPoolExecutor(CALLERS) as pool:
        calls = [pool.submit(ask, served, model, Idempotency_Key=model) for _ in range(CALLERS)]
        wait_for_both(served)
        got = [one.result() for one in calls]
    assert sorted(one.status_code for one in got) == [200] * (CALLERS - 1) + [500]
    assert len({one.content for one in got if one.status_code == 200}) == 1
    assert len(provider.requests(model)) == 2


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_another_worker_takes_over_from_one_that_is_killed(
    served: Served, provider: FakeProvider, model: str, stream: bool
) -> None:
    provider.script(model, answer("never told", delay=60), answer("taken over", delay=1))
    with ThreadPoolExecutor(CALLERS) as pool:
        calls = [pool.submit(ask, served, model, stream=stream, Idempotency_Key=model) for _ in range(CALLERS)]
        wait_for_both(served)
        while not provider.requests(model):
            time.sleep(0.02)
        [asked] = provider.requests(model)
        [maker] = [one for one in served.workers() if asked.port in ports(one)]
        os.kill(maker.pid, signal.SIGKILL)
        killed_s = time.monotonic()
        got = [one for one in map(answered, calls) if one is not None]
    assert time.monotonic() - killed_s < TAKEN_OVER_S
    assert 0 < len(got) < CALLERS, "those of the killed worker were cut off"
    assert len({told(one) for one in got}) == 1
    assert b"".join(re.findall(rb'"content": ?"([^"]*)"', told(got[0]))) == b"taken over"
    assert len(provider.requests(model)) == 2
    again = ask(served, model, stream=stream, Idempotency_Key=model)
    assert told(again) == told(got[0]), "who was cut off asks again, and pays nothing"
    assert len(provider.requests(model)) == 2


def answered(call: Future[httpx.Response]) -> httpx.Response | None:
    """What came of a call; None where its worker was killed."""
    try:
        return call.result()
    except httpx.HTTPError:
        return None
