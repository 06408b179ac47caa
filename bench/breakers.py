"""What a deployment that fails sees of its calls, and when it is called again.

    uv run python bench/breakers.py

A gateway of one worker and one of two, in processes of their own, and a provider on 127.0.0.1:

- *seen*: 1,000 calls, 16 at a time, of a name with one deployment, which fails them all: how many requests it sees;
- *opens*: a name with two deployments, of which the first begins to fail: how many requests that sees before it is left
  alone by every worker;
- *probes*: the same for 15 s, at 50 calls a second, behind the cooldown: the most requests that the first sees within
  any second, and in all;
- *closes*: then it recovers: seconds until 20 calls in a row are answered by it, each on a connection of its own.

Exit status 1 where a bound is not kept.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.stamp import stamp
from tests.fakes.provider import FakeProvider, answer, error
from tests.served.caller import CHAT, body
from tests.served.process import TOKEN, Served

_ROUTES = """\
model_list:
  - {{model_name: alone, litellm_params: {{model: hosted_vllm/alone, api_base: "{base}", api_key: k}}}}
  - {{model_name: pair, litellm_params: {{model: hosted_vllm/first, api_base: "{base}", api_key: k}}}}
  - {{model_name: pair, litellm_params: {{model: hosted_vllm/second, api_base: "{base}", api_key: k}}}}
open_catalogue: false
"""
_CALLS, _AT_ONCE = 1000, 16
_COOLDOWN_S = 5.0
#: Whatever a worker knows the others know after this.
_TOLD_S = 2.5
_PROBED_S, _A_SECOND = 15.0, 50
_ROW, _PATIENCE_S = 20, 30.0


@dataclass(frozen=True)
class Found:
    """The figures of one gateway, as the module describes them."""

    workers: int
    seen: int
    opens: int
    probes_a_second: int
    probes: int
    closes_s: float

    def unmet(self) -> list[str]:
        """Which bounds are not kept."""
        bounds = (
            ("requests seen of 1,000 calls", self.seen, 1100),
            ("failures before it is left alone", self.opens, 20),
            ("probes within a second", self.probes_a_second, 1),
            ("seconds until it is called again", self.closes_s, 5),
        )
        return [
            f"{self.workers} worker(s): {name}: {value}, not {most}" for name, value, most in bounds if value > most
        ]


def measured(folder: Path, workers: int) -> Found:
    """Measure a gateway of so many workers."""
    with FakeProvider() as place:
        settings = {
            "GATEWAY_AUTH_TOKEN": TOKEN,
            "GATEWAY_CONFIG_YAML": _ROUTES.format(base=place.base_url),
            "GATEWAY_RELAY": "all",
            "WEB_CONCURRENCY": str(workers),
        }
        with Served(folder / f"workers-{workers}", settings) as served, _client(served) as client:
            return _figures(client, place, workers)


def _client(served: Served) -> httpx.Client:
    """Makes a connection for each call, so that any worker may have it."""
    limits = httpx.Limits(max_keepalive_connections=0)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx.Client(base_url=served.url, headers=headers, limits=limits, timeout=30, trust_env=False)


def _figures(client: httpx.Client, place: FakeProvider, workers: int) -> Found:
    place.script("alone", error(503))
    place.script("second", answer("second"))
    with ThreadPoolExecutor(_AT_ONCE) as callers:
        list(callers.map(lambda _: _ask(client, "alone"), range(_CALLS)))
        seen = len(place.requests("alone"))
        place.script("first", answer("first"))
        list(callers.map(lambda _: _ask(client, "pair"), range(200)))  # each worker knows it as well
        before = len(place.requests("first"))
        place.script("first", error(500))
        until_s = time.monotonic() + _TOLD_S
        while time.monotonic() < until_s:
            _ask(client, "pair")
        opens = len(place.requests("first")) - before
        time.sleep(_COOLDOWN_S)
        before = len(place.requests("first"))
        _paced(client, callers)
        probed_s = [one.received for one in place.requests("first")[before:]]
        most = max((sum(0 <= later - first < 1 for later in probed_s) for first in probed_s), default=0)
        place.script("first", answer("first"))
        return Found(workers, seen, opens, most, len(probed_s), _closes_s(client))


def _paced(client: httpx.Client, callers: ThreadPoolExecutor) -> None:
    began_s, number = time.monotonic(), 0
    while (now_s := time.monotonic()) < began_s + _PROBED_S:
        callers.submit(_ask, client, "pair")
        number += 1
        time.sleep(max(0.0, began_s + number / _A_SECOND - now_s))


def _closes_s(client: httpx.Client) -> float:
    began_s = first_s = time.monotonic()
    row = 0
    while row < _ROW:
        asked_s = time.monotonic()
        if asked_s - began_s > _PATIENCE_S:
            return asked_s - began_s
        if _ask(client, "pair") != "hosted_vllm/first":
            row = 0
            continue
        first_s = asked_s if row == 0 else first_s
        row += 1
    return first_s - began_s


def _ask(client: httpx.Client, model: str) -> str:
    """Make one call, and say which deployment answered it."""
    return client.post(CHAT, json=body(model)).headers.get("x-gateway-model-id", "")


def main() -> int:
    """Measure both and print the table; 1 where a bound is not kept."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.parse_args()
    print("| workers | seen of 1,000 | opens after | probes in a second / in all | closes after, s |")
    print("|---|---|---|---|---|", flush=True)
    unmet: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for workers in (1, 2):
            found = measured(Path(folder), workers)
            cells = (workers, found.seen, found.opens, f"{found.probes_a_second} / {found.probes}", found.closes_s)
            print(f"| {' | '.join(f'{cell:.1f}' if isinstance(cell, float) else str(cell) for cell in cells)} |")
            unmet += found.unmet()
    print(f"\n{stamp('uv run python bench/breakers.py')}")
    for one in unmet:
        print(f"NOT MET: {one}")
    return 1 if unmet else 0


if __name__ == "__main__":
    sys.exit(main())
