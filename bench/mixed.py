"""Whether the gateway grows: mixed load for minutes, while memory, sockets, greenlets and threads are counted.

    uv run python bench/mixed.py --minutes 10

Whole and streamed chats, embeddings, Anthropic's messages, a bridged chat, and calls that the provider or the gateway
refuses; one caller in twenty leaves in the middle of its answer. The open loop of callers, the provider and Braintrust
(`bench/load`) share core 1; the gateway has core 0.

After a warm-up of a tenth, the last third of the samples may not be above the first: memory (what the processes have
written, so that no other program's files count) by 3 %, descriptors (sockets, most of them) and greenlets by 15 %,
native threads by 10. When the load is over no call may be left, and but for a handful no more greenlets than before it.
Where the gateway's core was full (it runs, or waits behind other programs, nearly all of the time), calls pile up and
nothing is known of leaks: no verdict, and the exit status is 2.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import aiohttp
import psutil

from bench import figures
from bench.figures import Bound, Drift, drifts
from bench.peers import KEY, Contender, gateway
from bench.processes import GATEWAY_CORE, JSON, Process, Programs, Provider, answers, pin, run_and_waited_s
from bench.stamp import stamp

PLACE = "mixed"
_START_S = 120.0
_SAMPLE_S = 10.0
_CALL_S = 60.0
#: Greenlets that may be there after the load and were not before it: of timers, and of connections that are kept.
_MOST_LEFT = 10
#: Of a core: beyond it calls wait for each other, and what lives grows with the queue.
_FULL = 0.85
#: After the load: for the watcher and the readers of the last callers that left.
_ENDS_S = 30.0
_MB = 1 << 20

BOUNDS: Mapping[str, Bound] = {
    "memory, MB": Bound(0.03, 0.0),
    # these follow the calls under way, which come by chance; a leak for each caller that leaves would be hundreds
    "descriptors": Bound(0.15, 15),
    "greenlets": Bound(0.15, 15),
    "threads": Bound(0.0, 10),  # gevent's pool of native threads has ten, made when they are needed
}


@dataclass(frozen=True)
class Kind:
    """One kind of call.

    Attributes:
        weight: how many of all calls, in relation to the other kinds.
        statuses: the right ones.
        body: what is asked, but for the model.
        provider: of the model; the gateway bridges or relays by it.
        last_words: what the answer of a stream must end with.
        lasts_s: how long the provider takes; a caller leaves within that. 0 for what is over at once.
    """

    name: str
    weight: int
    path: str
    body: JSON
    provider: str = "openai"
    statuses: tuple[int, ...] = (200,)
    last_words: bytes = b""
    lasts_s: float = 0.0
    key: str = KEY


def _says(words: str, **more: object) -> JSON:
    content = f"{words} Say in one sentence what became of the ten ships that left the harbour."
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 256, **more}


_CHAT, _MESSAGES = "/v1/chat/completions", "/v1/messages"
_DONE, _STOP = b"data: [DONE]\n\n", b'data: {"type":"message_stop"}\n\n'

KINDS = (
    Kind("whole", 20, _CHAT, _says("@LAT=200@"), lasts_s=0.2),
    Kind("stream", 30, _CHAT, _says("@N=40@ @GAP=50@", stream=True), last_words=_DONE, lasts_s=2.0),
    Kind("embeddings", 15, "/v1/embeddings", {"input": "Nine of the ten ships came back."}),
    Kind("messages", 8, _MESSAGES, _says("@LAT=200@"), "anthropic", lasts_s=0.2),
    Kind(
        "messages stream",
        12,
        _MESSAGES,
        _says("@N=40@ @GAP=50@", stream=True),
        "anthropic",
        last_words=_STOP,
        lasts_s=2.0,
    ),
    Kind("bridged messages", 5, _MESSAGES, _says("@LAT=200@"), lasts_s=0.2),
    Kind("refused by the provider", 4, _CHAT, _says("@ERR=400@"), statuses=(400,)),
    Kind("provider fails", 3, _CHAT, _says("@ERR=500@"), statuses=(500, 502, 503)),
    Kind("refused by the gateway", 2, _CHAT, {"messages": "none"}, statuses=(400,)),
    Kind("unknown caller", 1, _CHAT, _says(""), statuses=(401,), key="sk-nobody"),
)

_WEIGHTS = [kind.weight for kind in KINDS]
_LASTING = sum(kind.weight for kind in KINDS if kind.lasts_s) / sum(_WEIGHTS)


@dataclass
class Callers:
    """An open loop of callers: calls begin at fixed times, whatever became of those before.

    Args:
        port: the gateway's.
        rate: calls a second.
        leaving: the share of callers that leave in mid-answer, 0 to 1.
        chance: picks kinds and moments.
    """

    port: int
    rate: float
    leaving: float
    chance: random.Random
    answered: Counter[str] = field(default_factory=Counter)
    left: int = 0
    wrong: Counter[str] = field(default_factory=Counter)

    async def run(self, seconds: float) -> None:
        """Call for so long, then wait for the last answers."""
        under_way: set[asyncio.Task[None]] = set()
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
        timeout = aiohttp.ClientTimeout(total=_CALL_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            began_s = time.monotonic()
            for number in range(int(seconds * self.rate)):
                await asyncio.sleep(max(0.0, began_s + number / self.rate - time.monotonic()))
                [kind] = self.chance.choices(KINDS, _WEIGHTS)
                leaves = self.chance.random() < self.leaving / _LASTING
                after_s = self.chance.uniform(0, kind.lasts_s) if leaves and kind.lasts_s else None
                task = asyncio.create_task(self._call(session, kind, after_s))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            await asyncio.gather(*under_way)

    async def _call(self, session: aiohttp.ClientSession, kind: Kind, leaves_after_s: float | None) -> None:
        """Make one call, or leave it after some seconds."""
        try:
            async with asyncio.timeout(leaves_after_s):
                fault = await self._answer(session, kind)
        except TimeoutError:
            if leaves_after_s is None:
                self.wrong[f"{kind.name}: no answer in {_CALL_S:g} s"] += 1
            else:
                self.left += 1
            return
        except aiohttp.ClientError as error:
            fault = repr(error)[:200]
        if fault is None:
            self.answered[kind.name] += 1
        else:
            self.wrong[f"{kind.name}: {fault}"] += 1

    async def _answer(self, session: aiohttp.ClientSession, kind: Kind) -> str | None:
        """Make one call to its end; returns what is wrong with the answer."""
        body = {**kind.body, "model": f"{kind.provider}/bench-model"}
        headers = {"Authorization": f"Bearer {kind.key}"}
        async with session.post(f"http://127.0.0.1:{self.port}{kind.path}", json=body, headers=headers) as answer:
            content = await answer.read()
        if answer.status not in kind.statuses:
            return f"{answer.status} {content[:120]!r}"
        if not content.endswith(kind.last_words):
            return f"ends with {content[-80:]!r}"
        return None


class Samples:
    """What lives in the gateway, looked at every so often."""

    def __init__(self, process: Process, port: int, say: Callable[[str], None]) -> None:
        self._process = process
        self._url = f"http://127.0.0.1:{port}/bench/counts"
        self._say = say
        self._seen: tuple[float, float] | None = None
        self.taken: list[dict[str, float]] = []

    async def run(self, every_s: float) -> None:
        """Take one at fixed times, until it is cancelled."""
        began_s = time.monotonic()
        async with aiohttp.ClientSession() as session:
            for number in range(1, sys.maxsize):
                await asyncio.sleep(max(0.0, began_s + number * every_s - time.monotonic()))
                self.taken.append(await self._take(session))
                self._say(f"{number * every_s:5.0f} s  {_told(self.taken[-1])}")

    async def settled(self, timeout_s: float) -> dict[str, float]:
        """Wait until no call is under way; returns a sample, with calls in it where that does not come."""
        async with aiohttp.ClientSession() as session:
            for _ in range(int(timeout_s / 0.5)):
                sample = await self._take(session)
                if not sample["calls"]:
                    break
                await asyncio.sleep(0.5)
            return sample

    async def _take(self, session: aiohttp.ClientSession) -> dict[str, float]:
        async with session.get(self._url) as answer:
            inside = await answer.json()
        [worker] = psutil.Process(self._process.pid).children()
        now = time.monotonic(), sum(run_and_waited_s(worker.pid))
        before, self._seen = self._seen or now, now
        return {
            "core used, %": 100 * (now[1] - before[1]) / max(0.1, now[0] - before[0]),
            "memory, MB": self._process.own_bytes() / _MB,
            "descriptors": worker.num_fds(),
            "greenlets": inside["greenlets"],
            "threads": worker.num_threads(),
            "calls": inside["calls"],
        }


def _told(sample: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:,.0f}" for name, value in sample.items())


async def _drive(callers: Callers, samples: Samples, seconds: float, every_s: float) -> tuple[JSON, JSON]:
    """Put the load on and look meanwhile; returns what lives before it and when all is over."""
    before = await samples.settled(_ENDS_S)
    looking = asyncio.create_task(samples.run(every_s))
    try:
        await callers.run(seconds)
    finally:
        looking.cancel()
        await asyncio.wait([looking])
    if not looking.cancelled() and (error := looking.exception()) is not None:
        raise error
    return before, await samples.settled(_ENDS_S)


def _contender(provider: Provider, lane: str) -> Contender:
    anthropic = {"ANTHROPIC_API_KEY": "sk-bench-provider", "ANTHROPIC_API_BASE": provider.url}
    return gateway(provider, lane, "bench.probed:app", **anthropic)


def full(samples: Sequence[Mapping[str, float]]) -> bool:
    """Whether the gateway's core was full for more than one sample in ten."""
    over = sum(sample["core used, %"] > 100 * _FULL for sample in samples)
    return over > len(samples) / 10


def unmet(
    found: Sequence[Drift], wrong: Counter[str], before: Mapping[str, float], after: Mapping[str, float]
) -> list[str]:
    """Say which demands are not met.

    Args:
        found: what moved.
        wrong: what was wrong with answers, and how often.
        before: what lives before the load.
        after: what lives when it is over.
    """
    faults = [str(drift) for drift in found if not drift.good]
    if after["calls"]:
        faults.append(f"{after['calls']:.0f} calls are still under way {_ENDS_S:g} s after the load")
    elif after["greenlets"] > before["greenlets"] + _MOST_LEFT:
        faults.append(f"{before['greenlets']:.0f} greenlets before the load, {after['greenlets']:.0f} after it")
    return faults + [f"{count} times {what}" for what, count in wrong.most_common(5)]


def report(lane: str, found: Sequence[Drift], callers: Callers, minutes: float) -> str:
    """Write the table: first and last third."""
    rows = [
        [drift.name, f"{drift.first:,.1f}", f"{drift.last:,.1f}", f"{drift.most:,.1f}", "yes" if drift.good else "NO"]
        for drift in found
    ]
    calls = sum(callers.answered.values())
    return (
        f"{minutes:g} minutes, {lane} lane: {calls:,} calls answered as they should be, {callers.left:,} callers left, "
        f"{sum(callers.wrong.values()):,} answered wrongly.\n\n"
        + figures.table(["one worker and its master", "first third", "last third", "at most", "kept"], rows)
    )


def main() -> int:
    """Run it; 1 where something grew, a call stayed, or an answer was wrong; 2 where that cannot be told."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=15.0, help="calls a second")
    parser.add_argument("--leaving", type=float, default=0.05, help="the share of callers that leave in mid-answer")
    parser.add_argument("--lane", choices=("default", "relay"), default="default")
    parser.add_argument("--seed", type=int, default=1, help="of the kinds and the moments")
    parser.add_argument("--write", type=Path, help="a Markdown file to put the table into, too")
    chosen = parser.parse_args()
    pin()
    seconds = 60 * chosen.minutes
    with tempfile.TemporaryDirectory(prefix="gateway-mixed-") as place:
        folder = Path(place)
        programs = Programs(folder)
        with programs.provider() as provider:
            contender = _contender(provider, chosen.lane)
            contender.lay_out(folder / "home")
            port = contender.port or 0
            with Process("gateway", contender.command, folder / "home", contender.environment, GATEWAY_CORE) as process:
                first = json.dumps({"model": contender.model, "messages": [{"role": "user", "content": "hi"}]}).encode()
                process.wait_for(partial(answers, port, contender.path, first, contender.headers), _START_S)
                callers = Callers(port, chosen.rate, chosen.leaving, random.Random(chosen.seed))
                samples = Samples(process, port, partial(print, flush=True))
                before, after = asyncio.run(_drive(callers, samples, seconds, min(_SAMPLE_S, seconds / 30)))
    print(f"before it  {_told(before)}")
    print(f"after it   {_told(after)}")
    print(f"answered: {dict(callers.answered)}; left: {callers.left}")
    found = drifts(samples.taken, BOUNDS)
    command = f"bench/mixed.py --minutes {chosen.minutes:g} --rate {chosen.rate:g} --lane {chosen.lane}"
    text = f"{report(chosen.lane, found, callers, chosen.minutes)}\n\n{stamp(command)}"
    print(text)
    if full(samples.taken):
        print(f"NO VERDICT: the gateway's core was full; try --rate {chosen.rate / 2:g}, or a quiet machine")
        return 2
    if chosen.write is not None:
        chosen.write.write_text(figures.replaced(chosen.write.read_text(), PLACE, text))
    faults = unmet(found, callers.wrong, before, after)
    for fault in faults:
        print(f"NOT MET: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
