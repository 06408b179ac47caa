"""What a trace costs: CPU of a call without traces, with Braintrust's SDK as it comes, and with the gateway's spool.

    uv run python bench/trace_cost.py

CPU is that of the whole process, its sender's thread included, until all is delivered to a fake Braintrust in another
process. The upstream is a stub. Each round measures the three one after another, each in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import braintrust

from gateway.core.calls import Attempt, Call, Outcome
from gateway.pipeline import Gateway
from gateway.secret import Secret
from gateway.tracing import Sink
from gateway.tracing.braintrust import Braintrust
from gateway.tracing.sender import Sender
from gateway.tracing.spool import Spool
from tests import builders
from tests.fakes.braintrust_server import FakeBraintrust, Row

JSON = dict[str, Any]

MODES = ("none", "sdk", "spool")
KINDS = ("whole", "stream")
KEY = "bt-bench-key-0123456789"
PROJECT = "bench"
MODEL = "openai/gpt-test"
CHUNKS = 100
WARM_CALLS = 20
#: In which they are delivered: signing in and connecting are done once in a process, and not counted.
_WARM_S = 1.0
_SENTENCE = "Nine of the ten ships that left the harbour on that morning came back before the storm. "
PROMPT = (_SENTENCE * 60)[:4096]
ANSWER = [f"{word} " for word in (_SENTENCE * 10).split()[:CHUNKS]]
_CAP_BYTES = 1 << 30


class NoTracer:
    """Stands in for tracing.Tracer, and traces nothing."""

    def start_process(self) -> None:
        """Nothing to make ready."""

    def close(self, timeout_s: float, *, insist: bool = False) -> None:
        """Nothing is held."""

    def start(self, call: Call) -> _NoTrace:
        """Begin nothing."""
        return _NoTrace()


class _NoTrace:
    def begin(self) -> None:
        pass

    def headers(self) -> dict[str, str]:
        return {}

    def around(self, attempt: Attempt) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def finish(self, outcome: Outcome) -> None:
        pass


class SdkTracer(NoTracer):
    """Traces as a program that uses the SDK does (stands in for tracing.Tracer).

    What a span says beside input, output and times is taken from the gateway's own rows, so that it costs nothing here
    to find it out.
    """

    def __init__(self, examples: Mapping[bool, list[Row]]) -> None:
        self.logger = braintrust.init_logger(project=PROJECT)
        self.examples = examples

    def close(self, timeout_s: float, *, insist: bool = False) -> None:
        """Deliver all."""
        braintrust.flush()

    def start(self, call: Call) -> _SdkTrace:
        """Begin the trace of a call."""
        return _SdkTrace(self, call)


class _SdkTrace(_NoTrace):
    def __init__(self, tracer: SdkTracer, call: Call) -> None:
        self._tracer = tracer
        self._call = call
        self._llm, self._root = tracer.examples[call.stream]
        self._span: Any = None
        self._child: Any = None

    def begin(self) -> None:
        name = self._root["span_attributes"]["name"]
        self._span = self._tracer.logger.start_span(name=name, type="task", start_time=self._call.started_s)

    @contextlib.contextmanager
    def around(self, attempt: Attempt) -> Iterator[None]:
        self._child = self._span.start_span(name="Completion", type="llm", start_time=attempt.started_s)
        yield

    def finish(self, outcome: Outcome) -> None:
        [attempt] = outcome.attempts
        asked, said = self._call.body["messages"], attempt.transcript.said()
        self._child.log(
            input=asked, output=said, metadata=self._llm["metadata"], metrics=_without_times(self._llm["metrics"])
        )
        self._child.end(attempt.ended_s)
        metadata = {**self._root["metadata"], "request_id": self._call.id}
        self._span.log(input=asked, output=said, metadata=metadata)
        self._span.end(outcome.ended_s)


def _without_times(metrics: JSON) -> JSON:
    return {name: value for name, value in metrics.items() if name not in ("start", "end")}


def _calls(kind: str, count: int) -> Iterator[Call]:
    for _ in range(count):
        id = f"req_{secrets.token_hex(16)}"
        yield builders.call(MODEL, PROMPT, stream=kind == "stream", id=id, body_bytes=len(PROMPT) + 100)


def _answer(gateway: Gateway, call: Call) -> None:
    reply = gateway.run(call)
    if call.stream:
        assert sum(chunk is not None for chunk in reply) > CHUNKS
    else:
        assert reply.body


def _gateway(kind: str, *sinks: Sink) -> Gateway:
    words = ANSWER if kind == "stream" else ["".join(ANSWER)]
    return builders.gateway(builders.Script([builders.says(*words)]), *sinks, tick_s=0.2)


def _examples() -> dict[bool, list[Row]]:
    found = {}
    for kind in KINDS:
        recorder = builders.Recorder()
        gateway = _gateway(kind, recorder)
        [call] = _calls(kind, 1)
        _answer(gateway, call)
        [found[call.stream]] = recorder.traces
    return found


def _made(mode: str, kind: str, url: str, folder: Path, stand_in: NoTracer) -> Gateway:
    if mode != "spool":
        gateway = _gateway(kind)
        gateway.tracer = stand_in  # type: ignore[assignment]
        return gateway
    sender = Sender(folder, Braintrust(Secret(KEY), PROJECT, url, url), name="bench", cap_bytes=_CAP_BYTES)
    return _gateway(kind, Spool(folder, sender, cap_bytes=_CAP_BYTES, place={"project_name": PROJECT}))


def measure(mode: str, url: str, counts: Mapping[str, int]) -> dict[str, float]:
    """Return the µs of CPU per call of each kind, in this process."""
    stand_in = SdkTracer(_examples()) if mode == "sdk" else NoTracer()
    spent = {}
    with tempfile.TemporaryDirectory(prefix="trace-cost-") as folder:
        for kind, count in counts.items():
            gateway = _made(mode, kind, url, Path(folder) / kind, stand_in)
            gateway.open()
            for call in _calls(kind, WARM_CALLS):
                _answer(gateway, call)
            time.sleep(_WARM_S)
            calls = list(_calls(kind, count))
            began_s = time.process_time()
            for call in calls:
                _answer(gateway, call)
            gateway.close(60, insist=True)
            spent[kind] = 1e6 * (time.process_time() - began_s) / count
    return spent


def _measured_apart(mode: str, url: str, counts: Mapping[str, int]) -> dict[str, float]:
    keys = {"BRAINTRUST_API_KEY": KEY, "BRAINTRUST_APP_URL": url, "BRAINTRUST_API_URL": url}
    told = json.dumps({"mode": mode, "url": url, "counts": counts})
    child = subprocess.run(
        [sys.executable, __file__, "--child", told],
        env=os.environ | keys,
        stdout=subprocess.PIPE,
        check=True,
        timeout=300,
    )
    found: dict[str, float] = json.loads(child.stdout.splitlines()[-1])
    return found


def _check(rows: list[Row], calls: int) -> None:
    """All is delivered, and it is what the call was about."""
    assert len(rows) == 2 * calls, f"{len(rows)} rows of {calls} calls"
    for row in rows:
        assert row["input"][0]["content"] == PROMPT, row
        assert "".join(ANSWER).strip() in row["output"][0]["message"]["content"], row
        assert row["metrics"]["end"] >= row["metrics"]["start"], row
        assert row["span_attributes"]["type"] == "task" or row["metrics"]["completion_tokens"] > 0, row


def compare(rounds: int, counts: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Return the median µs per call, by kind and mode."""
    found: dict[str, dict[str, list[float]]] = {kind: {mode: [] for mode in MODES} for kind in KINDS}
    for number in range(rounds):
        for mode in (*MODES[number % 3 :], *MODES[: number % 3]):
            with FakeBraintrust(KEY) as fake:
                spent = _measured_apart(mode, fake.url, counts)
                if mode != "none":
                    _check(fake.rows(), sum(counts.values()) + WARM_CALLS * len(counts))
            for kind, microseconds in spent.items():
                found[kind][mode].append(microseconds)
            print(f"round {number + 1}, {mode}: {', '.join(f'{k} {v:.0f} µs' for k, v in spent.items())}", flush=True)
    return {kind: {mode: statistics.median(some) for mode, some in by.items()} for kind, by in found.items()}


def main() -> int:
    """Print the table; 1 where the spool costs more than the SDK."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--whole", type=int, default=500, help="calls a round that are not streamed")
    parser.add_argument(
        "--stream", type=int, default=200, help=f"calls a round that are streamed, {CHUNKS} chunks each"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        print(json.dumps(measure(**json.loads(chosen.child))))
        return 0
    medians = compare(chosen.rounds, {"whole": chosen.whole, "stream": chosen.stream})
    print(f"\nCPU per call, median of {chosen.rounds} rounds (4 KB prompt):\n")
    print("| call | no traces | SDK | spool | spool / SDK | SDK adds | spool adds | ratio of these |")
    print("|---|---|---|---|---|---|---|---|")
    for kind, by in medians.items():
        none, sdk, spool = (by[mode] for mode in MODES)
        print(
            f"| {kind} | {none:.0f} µs | {sdk:.0f} µs | {spool:.0f} µs | {spool / sdk:.2f} "
            f"| {sdk - none:.0f} µs | {spool - none:.0f} µs | {(spool - none) / (sdk - none):.2f} |"
        )
    return int(any(by["spool"] > by["sdk"] for by in medians.values()))


if __name__ == "__main__":
    sys.exit(main())
