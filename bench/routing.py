"""How strategies do where one of three deployments is slow.

    uv run python bench/routing.py --seconds 10

In one process, on no wire: callers in threads make streamed calls at the gateway's own pipeline, and an upstream of the
bench's waits as a provider would. Two deployments have their first content after 30 ms, the third after 600 ms. For
each strategy: the calls, how long they took in all, and the share that the slow deployment had.

Exit status 1 where least busy or lowest latency is not better than round robin at the 95th percentile.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gateway.core import policies
from gateway.core.calls import Attempt, Call, Chunk
from gateway.core.policies import Policy
from gateway.core.routing import Alias, Catalogue, Reach, Target
from gateway.core.wire import data_event
from gateway.health import Health
from gateway.pipeline import Gateway
from gateway.secret import Secret
from tests import builders

_FIRST_CONTENT_S = {"quick-1": 0.03, "quick-2": 0.03, "slow": 0.6}
_STRATEGIES = (policies.ROUND_ROBIN, policies.WEIGHTED, policies.LEAST_BUSY, policies.LATENCY)


class _Waiting:
    """An upstream whose streams have their first content after the deployment's own time (upstream.Upstream)."""

    def start(self) -> None:
        """Nothing to make ready."""

    def opens_in_time(self, _attempt: Attempt, _call: Call) -> bool:
        """Nobody has to be told of 600 ms of silence."""
        return True

    def open(self, attempt: Attempt, call: Call) -> _Answer:
        """Begin an answer."""
        return _Answer(attempt, call)


class _Answer:
    """One stream (upstream.Answer)."""

    tells_silence = True
    body = b""

    def __init__(self, attempt: Attempt, _call: Call) -> None:
        self._attempt = attempt

    def chunks(self) -> Iterator[Chunk | None]:
        """Wait, say a word, and end."""
        time.sleep(_FIRST_CONTENT_S[self._attempt.deployment.model])
        for piece in (builders.delta("word"), builders.finish()):
            yield Chunk(data_event(piece), self._attempt.transcript.add(piece))

    def close(self) -> None:
        """Nothing is held."""


def _gateway(strategy: str) -> Gateway:
    made = builders.gateway(_Waiting())
    targets = tuple(Target("openai", model, Reach(Secret("k"))) for model in _FIRST_CONTENT_S)
    made.catalogue = Catalogue(aliases={"m": Alias(targets, policy=Policy(strategy))}, open=False)
    made.health = Health()
    made.open()
    return made


def _run(strategy: str, callers: int, seconds: float) -> tuple[list[float], Counter[str]]:
    """Make calls for a while; returns how long each took, in ms, and who answered how often."""
    gateway, until_s = _gateway(strategy), time.monotonic() + seconds
    took_ms: list[float] = []
    who: Counter[str] = Counter()

    def work() -> None:
        while time.monotonic() < until_s:
            began_s = time.monotonic()
            reply = gateway.run(builders.call("m", stream=True))
            for _ in reply:
                pass
            who[reply.headers()["x-gateway-model-id"]] += 1
            reply.close()
            took_ms.append(1000 * (time.monotonic() - began_s))

    threads = [threading.Thread(target=work) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gateway.close(0.1)
    return took_ms, who


def main() -> int:
    """Run each strategy and print the table; 1 where one is no better than round robin."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=10.0, help="of each strategy")
    arguments.add_argument("--callers", type=int, default=8, help="at once")
    given = arguments.parse_args()
    print("| strategy | calls | p50 ms | p95 ms | at the slow one |\n|---|---|---|---|---|", flush=True)
    p95_ms: dict[str, float] = {}
    for strategy in _STRATEGIES:
        took_ms, who = _run(strategy, given.callers, given.seconds)
        p95_ms[strategy] = statistics.quantiles(took_ms, n=20)[-1]
        share = who["openai/slow"] / len(took_ms)
        cells = (strategy, len(took_ms), f"{statistics.median(took_ms):.0f}", f"{p95_ms[strategy]:.0f}", f"{share:.1%}")
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    worse = [one for one in (policies.LEAST_BUSY, policies.LATENCY) if p95_ms[one] >= p95_ms[policies.ROUND_ROBIN]]
    for one in worse:
        print(f"NOT MET: {one} is no better than round robin at the 95th percentile")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
