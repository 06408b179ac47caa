"""The gateway on both lanes beside other gateways, in one run: prints a Markdown table.

    uv run python bench/peers.py                                  # once: installs the peers
    uv run python bench/compare.py --write docs/performance.md    # some 20 minutes

Each gateway runs alone on core 0; the provider and the load (`bench/load`, C) share core 1. In each round each gateway
is started anew, and every other round goes backwards, so that a noisy machine hits all alike. What a column says is the
median over the rounds, and what is *added* is compared with the provider asked directly in the same round.

This gateway has everything on: authentication, metrics, traces through the spool to a Braintrust on loopback. Its CPU
seconds are those of all its processes and threads, the sender's included, until the last trace is delivered. The peers
trace nothing. `docs/performance.md` says what each column is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import figures
from bench.figures import NOTHING, added, median, pair, per, shown
from bench.peers import CONTENDERS, PEERS, Contender
from bench.processes import (
    GATEWAY_CORE,
    JSON,
    Process,
    Programs,
    Provider,
    answers,
    clean_environment,
    on_core,
    pin,
    post,
)
from bench.stamp import stamp

#: Of the markers in docs/performance.md.
PLACE = "compare"
_START_S = 180.0
_SLOW_STREAMS = 1000
_MB = 1 << 20
_PROMPT = (
    "Say in one sentence, for readers who know nothing of ships, what the following paragraph is about. "
    "Nine of the ten ships that left the harbour on that morning came back before the storm."
)


@dataclass
class Round:
    """What one start of one gateway gave; None where it was not measured.

    Attributes:
        per_cpu_s: requests for each CPU second.
        chunks_per_cpu_s: of 200 paced streams.
        latency_ms, first_ms: p50 and p99.
        whole: of `_SLOW_STREAMS` slow streams, those that came to their end.
        traces: of these, those whose trace was delivered.
        idle_bytes, after_bytes: memory (PSS) before any load and after the slow streams, of all its processes.
        worker_bytes: of the one that has the most, before and after: the worker, where there are several.
        start_s: from the command to the first call that was answered.
    """

    per_cpu_s: float | None = None
    chunks_per_cpu_s: float | None = None
    latency_ms: tuple[float, float] | None = None
    first_ms: tuple[float, float] | None = None
    whole: int | None = None
    traces: int | None = None
    idle_bytes: int | None = None
    after_bytes: int | None = None
    worker_bytes: tuple[int, int] | None = None
    start_s: float | None = None
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Bench:
    """What all rounds have in common."""

    programs: Programs
    provider: Provider
    folder: Path
    pace: float

    def run(self, contender: Contender, number: int, *, slow: bool) -> Round:
        """Start a gateway, measure it, and stop it.

        Args:
            contender: the gateway.
            number: of the round.
            slow: whether the slow streams are measured, too; they take the most time.
        """
        found = Round()
        home = self.folder / f"{contender.name}-{number}"
        contender.lay_out(home)
        process = (
            Process(contender.name, contender.command, home, contender.environment, GATEWAY_CORE)
            if contender.command
            else None
        )
        with process or nullcontext():
            under = _Under(self, contender, process, contender.port or 0, found)
            under.start(home)
            under.measure()
            if slow:
                under.measure_slow()
        return found


class _Under:
    """One gateway under load."""

    def __init__(self, bench: Bench, contender: Contender, process: Process | None, port: int, found: Round) -> None:
        self._bench = bench
        self._contender = contender
        self._process = process
        self._port = port
        self._found = found
        self._idle_worker_bytes = 0

    def start(self, home: Path) -> None:
        """Wait for the first answer, and make sure that answers are right."""
        if self._process is not None:
            if self._contender.port is None:
                self._process.wait_for(partial(_has_address, home / "url"), _START_S)
                self._port = int((home / "url").read_text().rsplit(":", 1)[1].split("/")[0])
            call = partial(answers, self._port, self._contender.path, self._body(), self._contender.headers)
            self._found.start_s = self._process.wait_for(call, _START_S)
            time.sleep(1)
            self._found.idle_bytes = self._process.pss_bytes()
            self._idle_worker_bytes = self._process.largest_pss_bytes()
        whole = self._post("@N=5@", stream=False)
        stream = self._post("@N=5@", stream=True)
        if b'"completion_tokens":137' not in whole.replace(b" ", b""):
            raise RuntimeError(f"another answer: {whole[:500]!r}")
        if stream.count(b"@t=") != 5 or b"[DONE]" not in stream:
            raise RuntimeError(f"another stream: {stream[:500]!r}")

    def measure(self) -> None:
        """Measure requests, latency and paced streams."""
        pace, found = self._bench.pace, self._found
        self._load("", "-c", "8", "-d", "1", "-t", "30")  # warms it
        spent_s, told = self._load("", "-c", "64", "-d", f"{3 * pace}", "-t", "30")
        found.per_cpu_s = per(told["right"], spent_s)
        _, told = self._load("@LAT=50@", "-c", "32", "-r", "25", "-w", "0.5", "-d", f"{8 * pace}", "-t", "30")
        found.latency_ms = told["latency_p50_ms"], told["latency_p99_ms"]
        count = str(round(600 * pace))
        spent_s, told = self._load(
            "@N=100@ @GAP=20@", "-s", "-c", "200", "-g", "1.9", "-n", count, "-d", f"{6 * pace}", "-t", "60"
        )
        found.chunks_per_cpu_s = per(told["chunks"], spent_s)
        found.first_ms = told["first_chunk_p50_ms"], told["first_chunk_p99_ms"]

    def measure_slow(self) -> None:
        """Measure 1,000 streams of 15 s at once, and the memory that they leave."""
        provider = self._bench.provider
        before = provider.traces() if self._contender.traced else 0
        count = str(_SLOW_STREAMS)
        _, told = self._load("@N=15@ @GAP=1000@", "-s", "-1", "-c", count, "-g", "1", "-d", "30", "-t", "90")
        self._found.whole = told["right"]
        if self._contender.traced:
            self._found.traces = provider.traces() - before
        if self._process is not None:
            self._found.after_bytes = self._process.pss_bytes()
            self._found.worker_bytes = self._idle_worker_bytes, self._process.largest_pss_bytes()

    def _load(self, words: str, *options: str) -> tuple[float, JSON]:
        """Put load on it. Returns the CPU seconds that it took, and what the load generator found."""
        before_s = self._process.cpu_s() if self._process is not None else 0.0
        body = self._asked(words, stream="-s" in options)
        told = self._bench.programs.load(self._port, self._contender.path, body, self._contender.headers, *options)
        if self._contender.traced:
            self._bench.provider.wait_delivered()
        spent_s = self._process.cpu_s() - before_s if self._process is not None else 0.0
        if bad := {name: told[name] for name in ("failed", "refused", "unfinished", "unsent") if told[name]}:
            self._found.wrong.append(f"{' '.join(options)}: {bad} {told['complaint'][:120]}")
        return spent_s, told

    def _asked(self, words: str, *, stream: bool) -> JSON:
        asked: JSON = {
            "model": self._contender.model,
            "messages": [
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": f"{words} {_PROMPT}"},
            ],
            "temperature": 0.7,
            "max_tokens": 256,
        }
        return {**asked, "stream": True, "stream_options": {"include_usage": True}} if stream else asked

    def _body(self) -> bytes:
        return json.dumps(self._asked("", stream=False)).encode()

    def _post(self, words: str, *, stream: bool) -> bytes:
        body = json.dumps(self._asked(words, stream=stream)).encode()
        status, content = post(self._port, self._contender.path, body, self._contender.headers)
        if status != 200:
            raise RuntimeError(f"{status}: {content[:500]!r}")
        return content


def _has_address(file: Path) -> bool:
    return file.exists() and file.read_text().startswith("http")


def import_s(folder: Path) -> float:
    """Seconds that `python -c "import litellm"` takes on the gateway's core: the most of a start by way of LiteLLM."""
    began_s = time.monotonic()
    with on_core(GATEWAY_CORE):
        subprocess.run(
            [sys.executable, "-c", "import litellm"],
            env=clean_environment(folder, {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}),
            check=True,
            timeout=120,
        )
    return time.monotonic() - began_s


HEADS = (
    "gateway",
    "requests / CPU-s",
    "added latency p50 / p99, ms",
    "paced chunks / CPU-s, 200 streams",
    "added first chunk p50 / p99, ms, 200 streams",
    "1,000 slow streams: whole",
    "their traces",
    "memory idle / after, MB",
    "of the worker, MB",
    "start, s",
)


def cells(label: str, rounds: Sequence[Round], direct: Sequence[Round]) -> list[str]:
    """Write one gateway's line of the table.

    Args:
        label: its name.
        rounds: what it gave, in order.
        direct: what the provider itself gave in the same rounds.
    """

    def over(name: str, place: int) -> float | None:
        pairs = zip(rounds, direct, strict=True)
        return median(added(_at(getattr(mine, name), place), _at(getattr(base, name), place)) for mine, base in pairs)

    slow = [one for one in rounds if one.whole is not None]
    is_direct = rounds is direct
    return [
        label,
        NOTHING if is_direct else shown(median(one.per_cpu_s for one in rounds)),
        NOTHING if is_direct else pair(over("latency_ms", 0), over("latency_ms", 1), 1),
        NOTHING if is_direct else shown(median(one.chunks_per_cpu_s for one in rounds)),
        NOTHING if is_direct else pair(over("first_ms", 0), over("first_ms", 1), 1),
        shown(median(one.whole for one in slow)),
        shown(median(one.traces for one in slow)),
        pair(_mb(median(one.idle_bytes for one in rounds)), _mb(median(one.after_bytes for one in slow))),
        pair(*(_mb(median(one.worker_bytes[place] for one in slow if one.worker_bytes)) for place in (0, 1))),
        shown(median(one.start_s for one in rounds), 2),
    ]


def _at(numbers: tuple[float, float] | None, place: int) -> float | None:
    return None if numbers is None or numbers[place] < 0 else numbers[place]


def _mb(size_bytes: float | None) -> float | None:
    return None if size_bytes is None else size_bytes / _MB


def compare(bench: Bench, contenders: Sequence[Contender], rounds: int) -> tuple[dict[str, list[Round]], list[float]]:
    """Run all rounds.

    Returns:
        What each gateway gave, and the seconds that importing LiteLLM took in each round.
    """
    found: dict[str, list[Round]] = {one.name: [] for one in contenders}
    imports: list[float] = []
    for number in range(rounds):
        imports.append(import_s(bench.folder))
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            try:
                one = bench.run(contender, number, slow=number == rounds - 1)
            except (RuntimeError, OSError, HTTPException, subprocess.SubprocessError) as error:
                one = Round(wrong=[f"it could not be measured: {error}"])  # the others still can
            found[contender.name].append(one)
            print(f"round {number + 1}, {contender.name}: {one}", file=sys.stderr, flush=True)
    return found, imports


def report(
    contenders: Sequence[Contender], found: Mapping[str, Sequence[Round]], imports: Sequence[float], command: str
) -> str:
    """Write the table, and beneath it what is needed to read it."""
    lines = [figures.table(HEADS, [cells(one.label, found[one.name], found["direct"]) for one in contenders])]
    lines.append(
        f"{stamp(command)} Medians of {len(imports)} round(s). "
        f'`python -c "import litellm"` alone takes {shown(median(imports), 2)} s here.'
    )
    wrong = [f"- {name}: {what}" for name, rounds in found.items() for one in rounds for what in one.wrong]
    if wrong:
        lines.append("What went wrong, by the options of the load:\n\n" + "\n".join(wrong))
    return "\n\n".join(lines)


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="(3; with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="half the load")
    parser.add_argument("--only", default="", help=f"names, separated by commas: {', '.join(CONTENDERS)}")
    parser.add_argument("--peers", type=Path, default=PEERS, help="where bench/peers.py has installed them")
    parser.add_argument("--write", type=Path, help="a Markdown file to put the table into, too")
    chosen = parser.parse_args()
    only = {name for name in chosen.only.split(",") if name}
    if unknown := only - set(CONTENDERS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    pin()
    with tempfile.TemporaryDirectory(prefix="gateway-compare-") as place:
        folder = Path(place)
        programs = Programs(folder)
        with programs.provider(posted=folder / "posted") as provider:
            made = [make(provider, chosen.peers.resolve()) for make in CONTENDERS.values()]
            wanted = [one for one in made if not only or one.name in only or one.name == "direct"]
            for one in wanted:
                if one.absent is not None:
                    print(f"{one.name} is left out: {one.absent}", file=sys.stderr)
            present = [one for one in wanted if one.absent is None]
            bench = Bench(programs, provider, folder, 0.5 if chosen.quick else 1.0)
            rounds = chosen.rounds or (1 if chosen.quick else 3)
            found, imports = compare(bench, present, rounds)
    command = f"bench/compare.py{' --quick' if chosen.quick else ''} --rounds {rounds}"
    text = report(present, found, imports, command)
    print(text)
    if chosen.write is not None:
        chosen.write.write_text(figures.replaced(chosen.write.read_text(), PLACE, text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
