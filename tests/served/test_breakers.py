"""A deployment that fails, at a gateway of two workers: hardly any call more, left alone in both, and called again."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.fakes.provider import FakeProvider, answer, error
from tests.served.caller import CHAT, body
from tests.served.process import TOKEN, Served

pytestmark = pytest.mark.long

ROUTES = """\
model_list:
  - {{model_name: alone, litellm_params: {{model: hosted_vllm/alone, api_base: "{base}", api_key: k}}}}
  - {{model_name: pair, litellm_params: {{model: hosted_vllm/first, api_base: "{base}", api_key: k}}}}
  - {{model_name: pair, litellm_params: {{model: hosted_vllm/second, api_base: "{base}", api_key: k}}}}
open_catalogue: false
"""


@pytest.fixture(scope="module")
def place() -> Iterator[FakeProvider]:
    with FakeProvider() as fake:
        yield fake


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, place: FakeProvider) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("breakers")
    settings = {
        "GATEWAY_AUTH_TOKEN": TOKEN,
        "GATEWAY_CONFIG_YAML": ROUTES.format(base=place.base_url),
        "GATEWAY_RELAY": "all",
        "WEB_CONCURRENCY": "2",
    }
    with Served(folder / "start", settings) as one:
        yield one


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[httpx.Client]:
    """Makes a connection for each call, so that either worker may have it."""
    headers, limits = {"Authorization": f"Bearer {TOKEN}"}, httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=served.url, headers=headers, limits=limits, timeout=30, trust_env=False) as one:
        yield one


def ask(client: httpx.Client, model: str) -> httpx.Response:
    return client.post(CHAT, json=body(model))


def test_a_provider_that_fails_a_thousand_calls_sees_eleven_hundred_at_most(
    client: httpx.Client, place: FakeProvider
) -> None:
    place.script("alone", error(503))
    with ThreadPoolExecutor(16) as callers:
        statuses = {one.status_code for one in callers.map(lambda _: ask(client, "alone"), range(1000))}
    assert statuses == {503}
    assert 1000 <= len(place.requests("alone")) <= 1100


def test_a_deployment_that_fails_is_left_alone_in_both_workers_and_called_again_soon_after_it_recovers(
    client: httpx.Client, place: FakeProvider
) -> None:
    place.script("first", error(500))
    place.script("second", answer("second"))
    for _ in range(100):
        assert ask(client, "pair").status_code == 200
    failed = len(place.requests("first"))
    assert failed <= 20
    time.sleep(1.5)  # whichever worker has not opened its own by now has heard of the other's
    for _ in range(40):
        assert ask(client, "pair").headers["x-gateway-model-id"] == "hosted_vllm/second"
    assert len(place.requests("first")) <= failed + 2
    place.script("first", answer("first"))
    recovered_s = time.monotonic()
    row = 0
    while row < 20:
        assert time.monotonic() - recovered_s < 7, "5 s after the recovery, and what twenty calls in a row take"
        row = row + 1 if ask(client, "pair").headers["x-gateway-model-id"] == "hosted_vllm/first" else 0
