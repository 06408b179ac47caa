"""What a hit of the cache costs: CPU of a call that a provider answers, and of one that the cache answers.

    uv run python bench/cache_cost.py

In one process, without a server: the request goes into the WSGI app as gunicorn would hand it over, and all that the
app gives back is read; then the same without Flask, from the call to the reply. The provider is another process. Traces
go to the log, which is not written. A call goes to the provider by way of LiteLLM, and, relayed, by the cheapest lane
that there is. A hit is authenticated, checked, counted and traced as every call is, which is most of what it costs.
Prints medians of rounds in which the kinds take turns, and returns 1 where a hit of the whole app costs more than a
quarter of the call by way of LiteLLM.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from werkzeug.test import EnvironBuilder

from gateway import assembly
from gateway.app import create_app
from gateway.core.cachekey import Wish
from gateway.pipeline import Gateway
from gateway.settings import Settings
from tests import builders
from tests.fakes import provider as says
from tests.fakes.provider import FakeProvider

TOKEN = "bench-token-0123456789"
MOST_SHARE = 0.25
CHUNKS = 100
PROMPT = "Nine of the ten ships that left the harbour on that morning came back before the storm. " * 40
KINDS = {"whole": False, "stream": True}
MODEL = "openai/bench-{}"


def play_provider() -> None:
    """Answer as a provider, until standard input ends."""
    with FakeProvider() as provider:
        words = [says.delta({"content": f"word {number} "}) for number in range(CHUNKS)]
        provider.script("bench-stream", says.sse(*words, says.delta({}, "stop"), says.usage(900, CHUNKS), says.done()))
        provider.script("bench-whole", says.answer(PROMPT[:2000]))
        print(provider.base_url, flush=True)
        sys.stdin.read()


@contextmanager
def provider() -> Iterator[str]:
    """A provider in another process, by its base URL."""
    child = subprocess.Popen(
        [sys.executable, __file__, "--provider"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        yield child.stdout.readline().strip()
    finally:
        child.stdin.close()
        child.wait(10)


def environ_of(kind: str, use: str) -> dict[str, Any]:
    """A request as a server hands it over."""
    body = {"model": MODEL.format(kind), "messages": [{"role": "user", "content": PROMPT}], "stream": KINDS[kind]}
    headers = {"Authorization": f"Bearer {TOKEN}", "x-bt-use-cache": use}
    return EnvironBuilder("/v1/chat/completions", method="POST", json=body, headers=headers).get_environ()


def through_the_app(app: Any, environ: dict[str, Any]) -> str | None:
    """Send one request into the app, read all of the answer, and return what it says of the cache."""
    said: dict[str, Any] = {}

    def start(status: str, headers: list[tuple[str, str]], _fault: Any = None) -> Callable[[bytes], object]:
        said.update(dict(headers), status=status)
        return lambda _data: None

    pieces = app(environ, start)
    try:
        size = sum(map(len, pieces))
    finally:
        pieces.close()
    assert said["status"] == "200 OK"
    assert size > 1000
    return said.get("x-bt-cached")


def through_the_pipeline(gateway: Gateway, kind: str, use: str) -> None:
    """Run one call and read all of the reply."""
    wish = Wish(use=use) if use != "never" else None
    text = json.dumps({"model": MODEL.format(kind), "messages": [{"role": "user", "content": PROMPT}]}).encode()
    call = builders.call(MODEL.format(kind), PROMPT, stream=KINDS[kind], cache=wish, raw=text, body_bytes=len(text))
    reply = gateway.run(call)
    size = len(reply.body) if reply.body is not None else sum(len(chunk.data) for chunk in reply if chunk)
    reply.close()
    assert size > 1000


def cpu_us(work: Callable[[], None], count: int) -> float:
    """µs of this process's CPU for each of `count` calls."""
    began_s = time.process_time()
    for _ in range(count):
        work()
    return 1e6 * (time.process_time() - began_s) / count


def measured(url: str, calls: int, rounds: int) -> dict[tuple[str, str, str], float]:
    """The median µs of a call, by way (`app`, `pipeline`), kind and who answers (`litellm`, `relay`, `cache`)."""
    logging.disable(logging.CRITICAL)
    found: dict[tuple[str, str, str], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="cache-cost-") as folder:
        gateways = {"litellm": opened(url, folder, ""), "relay": opened(url, folder, "openai")}
        gateways["cache"] = gateways["relay"]
        apps = {name: create_app(gateway=gateway) for name, gateway in gateways.items()}
        for kind in KINDS:
            for name, gateway in gateways.items():  # made, and kept
                use = "always" if name == "cache" else "never"
                through_the_pipeline(gateway, kind, use)
                through_the_app(apps[name], environ_of(kind, use))
            assert through_the_app(apps["cache"], environ_of(kind, "always")) == "HIT"
        for _ in range(rounds):
            for kind in KINDS:
                for name, gateway in gateways.items():
                    use = "always" if name == "cache" else "never"
                    environs = iter([environ_of(kind, use) for _ in range(calls)])
                    app_us = cpu_us(
                        lambda name=name, environs=environs: through_the_app(apps[name], next(environs)), calls
                    )
                    own_us = cpu_us(
                        lambda gateway=gateway, kind=kind, use=use: through_the_pipeline(gateway, kind, use), calls
                    )
                    found.setdefault(("app", kind, name), []).append(app_us)
                    found.setdefault(("pipeline", kind, name), []).append(own_us)
        for name in ("litellm", "relay"):
            gateways[name].close(1)
    return {key: statistics.median(values) for key, values in found.items()}


def opened(url: str, folder: str, relayed: str) -> Gateway:
    """A gateway in front of the provider, as its settings make it."""
    settings = Settings.load(
        {
            "GATEWAY_AUTH_TOKEN": TOKEN,
            "GATEWAY_DATA_DIR": folder,
            "GATEWAY_RELAY": relayed,
            "GATEWAY_LOCAL_TRACES": "off",
            "OPENAI_API_KEY": "sk-bench",
            "OPENAI_BASE_URL": url,
        }
    )
    assembly.migrate(settings)
    gateway = assembly.build(settings)
    gateway.open()
    return gateway


def report(costs: dict[tuple[str, str, str], float]) -> tuple[str, bool]:
    """Write the table, and say whether every hit of the app is cheap enough."""
    lines, well = ["| way | kind | by LiteLLM, µs | relayed, µs | hit, µs | of LiteLLM | of relayed |"], True
    lines.append("|---|---|---|---|---|---|---|")
    for way in ("app", "pipeline"):
        for kind in KINDS:
            litellm_us, relay_us, hit_us = (costs[way, kind, name] for name in ("litellm", "relay", "cache"))
            well = well and (way != "app" or hit_us <= MOST_SHARE * litellm_us)
            shares = f"{hit_us / litellm_us:.0%} | {hit_us / relay_us:.0%}"
            lines.append(f"| {way} | {kind} | {litellm_us:,.0f} | {relay_us:,.0f} | {hit_us:,.0f} | {shares} |")
    return "\n".join(lines), well


def main() -> int:
    """Print the table, and return 1 where a hit costs too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100, help="of each kind in a round (100)")
    parser.add_argument("--rounds", type=int, default=5, help="of which medians are taken (5)")
    parser.add_argument("--provider", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.provider:
        play_provider()
        return 0
    with provider() as url:
        text, well = report(measured(url, options.calls, options.rounds))
    print(text)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
