"""Where the CPU of a call goes, stage by stage of ARCHITECTURE.md: µs a call, on both lanes, streamed and not.

    uv run python bench/stages.py

The real command serves (gunicorn, gevent), with everything on; timers are put around the stages from outside
(`bench/probed.py`), so `gateway/` is measured as it is. What a stage spends is without the stages inside it, and all
lines together are all CPU of the worker until the traces are delivered. The last line is the same load in the same
process before the timers ran: the difference is what the timers cost.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import figures
from bench.figures import median, shown
from bench.ledger import LOOP, OTHERS
from bench.peers import Contender, gateway
from bench.processes import GATEWAY_CORE, JSON, Process, Programs, Provider, answers, pin
from bench.stamp import stamp

LANES = ("default", "relay")
PLACE = "stages"
#: Names of what bench/probed.py tells; it cannot be imported here, since it builds the app.
FLASK, NATIVE, GUNICORN = "Flask", "other threads", "gunicorn"
_START_S = 120.0
_NOTES = {
    FLASK: "routing, hooks, headers",
    GUNICORN: "parser, writer; the access line",
    OTHERS: "LiteLLM's own threads, the most of it",
    LOOP: "gevent: the loop, system calls of waiting",
}


def kinds(calls: int) -> Mapping[str, tuple[JSON, tuple[str, ...]]]:
    """The bodies and the options of the load, by kind of call.

    Args:
        calls: that are not streamed; a quarter as many are.
    """
    said = {"role": "user", "content": "@N=100@ @GAP=20@ Say in one sentence what became of the ten ships."}
    asked: JSON = {"messages": [{"role": "system", "content": "You are a helpful assistant."}, said]}
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    return {
        "whole": (asked, ("-c", "8", "-n", str(calls), "-d", "120")),
        "stream": ({**asked, **streamed}, ("-s", "-c", "50", "-g", "1.9", "-n", str(calls // 4), "-d", "120")),
    }


class _Measured:
    """One gateway with timers in it."""

    def __init__(self, programs: Programs, provider: Provider, contender: Contender, process: Process) -> None:
        self._programs = programs
        self._provider = provider
        self._contender = contender
        self._process = process

    def microseconds(self, asked: JSON, options: Sequence[str]) -> float:
        """Put a load on it; returns the µs of CPU a call, of all its processes."""
        before_s = self._process.cpu_s()
        count = self._load(asked, options)
        return 1e6 * (self._process.cpu_s() - before_s) / count

    def by_stage(self, asked: JSON, options: Sequence[str]) -> dict[str, float]:
        """The same by stage, as the timers say."""
        before = self._told()
        count = self._load(asked, options)
        return {stage: (ns - before.get(stage, 0)) / 1000 / count for stage, ns in self._told().items()}

    def _load(self, asked: JSON, options: Sequence[str]) -> int:
        body = {**asked, "model": self._contender.model}
        told = self._programs.load(
            self._contender.port or 0, self._contender.path, body, self._contender.headers, *options
        )
        self._provider.wait_delivered()
        if bad := {name: told[name] for name in ("failed", "refused", "unfinished") if told[name]}:
            raise RuntimeError(f"calls were not answered: {bad} {told['complaint']}")
        return int(told["right"])

    def _told(self) -> dict[str, int]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._contender.port}/bench/stages", timeout=30) as answer:
            told: dict[str, int] = json.load(answer)
            return told


def measure(programs: Programs, folder: Path, lane: str, calls: int) -> dict[str, tuple[float, dict[str, float]]]:
    """Return the µs a call without timers and by stage, for each kind of call."""
    with programs.provider(posted=folder / f"posted-{lane}") as provider:
        contender = gateway(provider, lane, "bench.probed:app", BENCH_STAGES="1")
        home = folder / f"home-{lane}"
        contender.lay_out(home)
        with Process(contender.name, contender.command, home, contender.environment, GATEWAY_CORE) as process:
            first = json.dumps({"model": contender.model, "messages": [{"role": "user", "content": "hi"}]}).encode()
            call = partial(answers, contender.port or 0, contender.path, first, contender.headers)
            process.wait_for(call, _START_S)
            measured = _Measured(programs, provider, contender, process)
            loads = kinds(calls)
            for asked, options in kinds(max(calls // 4, 4)).values():
                measured.microseconds(asked, options)  # warms it
            bare = {kind: measured.microseconds(*load) for kind, load in loads.items()}
            time.sleep(1)
            return {kind: (bare[kind], measured.by_stage(*load)) for kind, load in loads.items()}


def ordered(stages: Sequence[str]) -> list[str]:
    """Put stages in a reader's order: those with a number by it, then the others."""
    last = [FLASK, GUNICORN, LOOP, OTHERS, NATIVE]
    return sorted(stages, key=lambda stage: (stage in last, last.index(stage) if stage in last else 0, stage))


def report(found: Mapping[str, Mapping[str, tuple[float, Mapping[str, float]]]]) -> str:
    """Write the table: a line a stage, a column for each lane and kind."""
    columns = [(lane, kind) for lane, by_kind in found.items() for kind in by_kind]
    stages = {stage for lane, kind in columns for stage in found[lane][kind][1]}
    rows = []
    for stage in ordered(list(stages)):
        label = f"{stage} ({_NOTES[stage]})" if stage in _NOTES else stage
        rows.append([label, *(shown(found[lane][kind][1].get(stage, 0.0)) for lane, kind in columns)])
    rows.append(["**all**", *(shown(sum(found[lane][kind][1].values())) for lane, kind in columns)])
    rows.append(["without the timers", *(shown(found[lane][kind][0]) for lane, kind in columns)])
    return figures.table(["µs of CPU a call", *(f"{lane}, {kind}" for lane, kind in columns)], rows)


def middle(
    rounds: Sequence[Mapping[str, tuple[float, Mapping[str, float]]]],
) -> dict[str, tuple[float, dict[str, float]]]:
    """The medians over the rounds, by kind and stage."""
    return {
        kind: (
            median(one[kind][0] for one in rounds) or 0.0,
            {stage: median(one[kind][1].get(stage) for one in rounds) or 0.0 for stage in rounds[0][kind][1]},
        )
        for kind in rounds[0]
    }


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=600, help="that are not streamed; a quarter as many are")
    parser.add_argument("--write", type=Path, help="a Markdown file to put the table into, too")
    chosen = parser.parse_args()
    pin()
    rounds: dict[str, list[dict[str, tuple[float, dict[str, float]]]]] = {lane: [] for lane in LANES}
    with tempfile.TemporaryDirectory(prefix="gateway-stages-") as place:
        programs = Programs(Path(place))
        for number in range(chosen.rounds):
            for lane in LANES if number % 2 == 0 else reversed(LANES):
                folder = Path(place) / str(number)
                folder.mkdir(exist_ok=True)
                rounds[lane].append(measure(programs, folder, lane, chosen.calls))
                print(f"round {number + 1}, {lane}", file=sys.stderr, flush=True)
    table = report({lane: middle(some) for lane, some in rounds.items()})
    text = f"{table}\n\n{stamp(f'bench/stages.py --rounds {chosen.rounds} --calls {chosen.calls}')}"
    print(text)
    if chosen.write is not None:
        chosen.write.write_text(figures.replaced(chosen.write.read_text(), PLACE, text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
