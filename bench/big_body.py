"""What a 30 MB body does to the streams beside it: the longest gap between two chunks, and the memory that it takes.

    uv run python bench/big_body.py

100 streams get a chunk every 50 ms, which leaves most of the core free, while another caller sends chats with an image
of 30 MB (a data URL), one after the other. Rounds without and with bodies take turns on one gateway, so that a noisy
machine hits both alike; chunks count once all streams are open.
Memory is looked at in a run of its own: to read it holds the process up (the kernel walks its pages).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import figures
from bench.figures import at_share, median, pair, shown
from bench.peers import Contender, gateway
from bench.processes import GATEWAY_CORE, JSON, Process, Programs, answers, pin, post
from bench.stamp import stamp

LANES = ("relay", "default")
PLACE = "big body"
_MB = 1 << 20
_START_S = 120.0
_STREAMS = 100
_GAP_MS = 50
_CHUNKS = 180
#: In which the streams are opened, and what that took is over.
_RAMP_S, _CALM_S = 2.0, 4.5
_APART_S = 0.5
_LOOK_S = 0.02


def large(model: str, size_bytes: int) -> bytes:
    """A chat with an image as a data URL, of this many bytes in all.

    Args:
        model: the gateway's name for it.
        size_bytes: more than the some 200 that the rest of the body takes.
    """
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
    asked: JSON = {"model": model, "messages": [{"role": "user", "content": [{"type": "text", "text": "?"}, image]}]}
    image["image_url"]["url"] += "iVBORw0K" * ((size_bytes - len(json.dumps(asked))) // 8)  # type: ignore[index]
    body = json.dumps(asked).encode()
    return body + b" " * (size_bytes - len(body))


@dataclass
class Found:
    """What a lane gave.

    Attributes:
        healthy_ms, beside_ms: the longest gap between two chunks of a stream, of each round without and with bodies.
        delay_ms: p99 of how late a chunk came, of each round without and with bodies.
        took_s: of each large call, from the first byte to the answer.
        grown_bytes: the most memory that a large call took above what was used before it.
    """

    healthy_ms: list[float] = field(default_factory=list)
    beside_ms: list[float] = field(default_factory=list)
    delay_ms: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    took_s: list[float] = field(default_factory=list)
    grown_bytes: list[int] = field(default_factory=list)


class _Callers(threading.Thread):
    """Sends large bodies, one after the other, once `wait_s` have passed."""

    def __init__(self, contender: Contender, body: bytes, count: int, wait_s: float = 0.0) -> None:
        super().__init__(name="large bodies")
        self._send = partial(post, contender.port or 0, contender.path, body, contender.headers, 120.0)
        self._count = count
        self._wait_s = wait_s
        self.took_s: list[float] = []
        self.wrong: list[str] = []

    def run(self) -> None:
        """Send them; what goes wrong is told in `wrong`."""
        time.sleep(self._wait_s)
        for _ in range(self._count):
            time.sleep(_APART_S)
            began_s = time.monotonic()
            try:
                status, content = self._send()
            except OSError as error:
                self.wrong.append(repr(error))
                continue
            self.took_s.append(time.monotonic() - began_s)
            if status != 200:
                self.wrong.append(f"{status}: {content[:200]!r}")


class Memory(threading.Thread):
    """Looks at a process's memory until it is stopped."""

    def __init__(self, process: Process) -> None:
        super().__init__(name="memory")
        self._process = process
        self._over = threading.Event()
        self.most_bytes = 0

    def run(self) -> None:
        """Keep the largest value."""
        while not self._over.wait(_LOOK_S):
            self.most_bytes = max(self.most_bytes, self._process.pss_bytes())

    def stop(self) -> int:
        """Return the largest value that was seen."""
        self._over.set()
        self.join()
        return self.most_bytes


def measure(programs: Programs, folder: Path, lane: str, size_bytes: int, rounds: int, bodies: int) -> Found:
    """Run all rounds of one lane, on one start of the gateway.

    Raises:
        RuntimeError: a call was not answered.
    """
    found = Found()
    with programs.provider(posted=folder / f"posted-{lane}") as provider:
        contender = gateway(provider, lane)
        contender.lay_out(folder / lane)
        with Process(lane, contender.command, folder / lane, contender.environment, GATEWAY_CORE) as process:
            first = json.dumps({"model": contender.model, "messages": [{"role": "user", "content": "hi"}]}).encode()
            process.wait_for(partial(answers, contender.port or 0, contender.path, first, contender.headers), _START_S)
            body = large(contender.model, size_bytes)
            streams = partial(watched, programs, contender)
            streams(110)  # warms it
            provider.wait_delivered()
            for _ in range(rounds):  # first: later the allocator has memory of earlier bodies left
                found.grown_bytes.append(_grown(process, contender, body))
                provider.wait_delivered()
            for _ in range(rounds):
                for count in (0, bodies):
                    callers = _Callers(contender, body, count, _CALM_S)
                    callers.start()
                    told = streams(_CHUNKS)
                    callers.join()
                    _check(told, callers.wrong)
                    (found.beside_ms if count else found.healthy_ms).append(told["gap_max_ms"])
                    found.delay_ms[count > 0].append(told["delay_p99_ms"])
                    found.took_s += callers.took_s
                    provider.wait_delivered()
    return found


def watched(programs: Programs, contender: Contender, chunks: int) -> JSON:
    """Have 100 streams of so many chunks, one every 50 ms; returns what the load generator found."""
    asked = {
        "model": contender.model,
        "messages": [{"role": "user", "content": f"@N={chunks}@ @GAP={_GAP_MS}@ What became of the ten ships?"}],
        "stream": True,
    }
    options = ("-s", "-1", "-c", str(_STREAMS), "-g", str(_RAMP_S), "-k", str(_CALM_S), "-d", "60", "-t", "60")
    return programs.load(contender.port or 0, contender.path, asked, contender.headers, *options)


def _check(told: Mapping[str, float], wrong: Sequence[str]) -> None:
    if wrong or told["right"] != _STREAMS:
        raise RuntimeError(f"calls were not answered: {told['right']} of {_STREAMS} streams, {wrong[:3]}")


def _grown(process: Process, contender: Contender, body: bytes) -> int:
    before_bytes = process.pss_bytes()
    memory = Memory(process)
    memory.start()
    callers = _Callers(contender, body, 1)
    callers.start()
    callers.join()
    most_bytes = memory.stop()
    if callers.wrong:
        raise RuntimeError(f"the large call was not answered: {callers.wrong}")
    return most_bytes - before_bytes


HEADS = (
    "lane",
    "longest gap without / with bodies, ms",
    "p99 of a chunk's delay without / with, ms",
    "large call p50 / longest, s",
    "peak memory of one, times its size",
)


def line(lane: str, found: Found, size_bytes: int) -> list[str]:
    """Write a lane's line of the table: medians over the rounds, and the most memory."""
    return [
        lane,
        pair(median(found.healthy_ms), median(found.beside_ms)),
        pair(median(found.delay_ms[0]), median(found.delay_ms[1]), 1),
        pair(at_share(found.took_s, 0.5), at_share(found.took_s, 1.0), 2),
        shown(max(found.grown_bytes) / size_bytes, 1),
    ]


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bodies", type=int, default=3, help="in each round that has some")
    parser.add_argument("--mb", type=int, default=30, help="of 1,048,576 bytes, of each; 32 is the gateway's most")
    parser.add_argument("--only", choices=LANES, help="one lane")
    parser.add_argument("--write", type=Path, help="a Markdown file to put the table into, too")
    chosen = parser.parse_args()
    pin()
    lines = []
    with tempfile.TemporaryDirectory(prefix="gateway-big-body-") as place:
        programs = Programs(Path(place))
        for lane in [chosen.only] if chosen.only else LANES:
            found = measure(programs, Path(place), lane, chosen.mb * _MB, chosen.rounds, chosen.bodies)
            print(f"{lane}: {found}", file=sys.stderr, flush=True)
            lines.append(line(lane, found, chosen.mb * _MB))
    command = f"bench/big_body.py --rounds {chosen.rounds} --bodies {chosen.bodies} --mb {chosen.mb}"
    text = f"{figures.table(HEADS, lines)}\n\n{stamp(command)}"
    print(text)
    if chosen.write is not None:
        chosen.write.write_text(figures.replaced(chosen.write.read_text(), PLACE, text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
