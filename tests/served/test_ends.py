"""However the process ends: no caller is cut in silence, no trace is lost or doubled, and the end comes in time."""

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import pytest

from tests.fakes.braintrust_server import FakeBraintrust
from tests.fakes.provider import Action, FakeProvider, Reply, Turn, answer, delta, done, hang, pause, repeat, sse
from tests.served.caller import Caller, body
from tests.served.process import BRAINTRUST_KEY, TOKEN, Served, is_gone
from tests.served.traces import is_root
from tests.served.wire import Wire, chat_request

pytestmark = pytest.mark.long

GRACE_S = 5
AFTER_GRACE_S = 2.0
#: Two interpreters with LiteLLM take 1 to 3 s to end; whoever waited for the grace would take longer.
IDLE_S = 4.5
#: The worker timeout of the stuck one; then until somebody answers again.
STUCK_S = 3
ANSWERS_AGAIN_S = 5.0
STREAMS = 30
#: Opened one by one until each worker has some.
MORE = 40

Seen = Literal["whole", "error", "cut"]
Braintrust = Literal["ok", "slow", "hang", "refused"]
SOON: tuple[Action, ...] = (pause(0.5), delta({"content": "the end"}, "stop"), done())


@dataclass(frozen=True)
class Kind:
    """Calls of one kind: how many, and whether each can be answered once the end has begun."""

    count: int
    stream: bool
    reply: Callable[[threading.Event], Reply]
    in_time: bool = False


KINDS = {
    "short": Kind(25, True, lambda ending: sse(delta({"content": "until "}), _until(ending), *SOON), in_time=True),
    "long": Kind(25, True, lambda _: sse(repeat(600, delta({"content": "tok"}), pause(0.1)))),
    "soon": Kind(10, False, lambda ending: Reply(_answer_after(ending)), in_time=True),
    "late": Kind(10, False, lambda _: answer("too late", delay=60)),
    "silent": Kind(5, True, lambda _: hang()),
    "silent-whole": Kind(5, False, lambda _: hang()),
}
CALLS = sum(kind.count for kind in KINDS.values())


def _until(event: threading.Event) -> Action:
    def wait(_: Turn) -> None:
        event.wait(30)

    return wait


def _answer_after(event: threading.Event) -> Action:
    def play(turn: Turn) -> None:
        event.wait(30)
        turn.exchange.wait(0.5)
        answer("in time").play(turn)

    return play


def _call(wire: Wire, model: str, stream: bool) -> Seen:
    """Send a chat and say what its caller was left with; anything else than the three fails."""
    wire.send(chat_request(body(f"openai/{model}", stream=stream)))
    try:
        status, raw = wire.read_answer()
    except (OSError, AssertionError):
        return "cut"
    if status == 503 or not stream:
        assert ("choices" if status == 200 else "error") in json.loads(raw), raw
        assert status in (200, 503), raw
        return "whole" if status == 200 else "error"
    assert status == 200, raw
    *events, last = [event.removeprefix(b"data: ") for event in raw.split(b"\n\n") if event.startswith(b"data: ")]
    if last == b"[DONE]":
        assert any(choice["finish_reason"] for event in events for choice in json.loads(event).get("choices", ()))
        return "whole"
    assert b"data: [DONE]" not in raw
    return "error" if "error" in json.loads(last) else "cut"


def _call_alone(served: Served, model: str, stream: bool) -> Seen:
    with Wire(served, timeout_s=40) as wire:
        return _call(wire, model, stream)


def _ports(served: Served, worker: psutil.Process) -> set[int]:
    """The callers' ends of the connections that a worker has."""
    return {
        one.raddr.port
        for one in worker.net_connections("tcp")
        if one.laddr.port == served.port and one.status == psutil.CONN_ESTABLISHED
    }


def _answers(served: Served, worker: psutil.Process) -> bool:
    """Whether a new call was answered by this very worker."""
    with Wire(served) as wire:
        assert _call(wire, "a", False) == "whole"
        return wire.port in _ports(served, worker)


def _wait(holds: Callable[[], bool], within_s: float) -> None:
    end_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end_s, f"not within {within_s} s"
        time.sleep(0.02)


@pytest.fixture
def taker() -> Iterator[FakeBraintrust]:
    """A Braintrust of one test alone, so that its traces can be counted."""
    with FakeBraintrust(BRAINTRUST_KEY) as fake:
        yield fake
        fake.mode = "ok"


@pytest.mark.parametrize(
    ("number", "state"),
    [
        (signal.SIGTERM, "ok"),
        (signal.SIGTERM, "refused"),
        (signal.SIGTERM, "hang"),
        (signal.SIGINT, "slow"),
        (signal.SIGKILL, "ok"),  # of the master alone: its worker has to notice
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else value,
)
def test_every_caller_gets_an_answer_or_an_error_and_every_call_one_trace(
    tmp_path: Path,
    settings: dict[str, str],
    provider: FakeProvider,
    taker: FakeBraintrust,
    model: str,
    number: signal.Signals,
    state: Braintrust,
) -> None:
    ending = threading.Event()
    for name, kind in KINDS.items():
        provider.script(f"{model}-{name}", kind.reply(ending))
    environment = settings | taker.environment() | {"GATEWAY_KEEPALIVE_S": "1"}
    if state == "refused":
        taker.close()
    else:
        taker.mode = state
    with (
        Served(tmp_path, environment, ["--graceful-timeout", str(GRACE_S)]) as served,
        ThreadPoolExecutor(CALLS) as pool,
    ):
        try:
            calls = {
                name: [pool.submit(_call_alone, served, f"{model}-{name}", kind.stream) for _ in range(kind.count)]
                for name, kind in KINDS.items()
            }
            for name, kind in KINDS.items():
                provider.wait_for(kind.count, f"{model}-{name}", timeout=30)
            everyone = [psutil.Process(served.pid), *served.workers()]
            assert len(everyone) == 2
            began_s = time.monotonic()
            os.kill(served.pid, number)
        finally:
            ending.set()
        _wait(lambda: all(map(is_gone, everyone)), GRACE_S + AFTER_GRACE_S)
        exit_s = time.monotonic() - began_s
        assert served.wait_exit() == (-signal.SIGKILL if number == signal.SIGKILL else 0)
        seen = {name: Counter(call.result(5) for call in some) for name, some in calls.items()}
    print(f"\n{number.name}, Braintrust {state}: gone after {exit_s:.2f} s;", {k: dict(v) for k, v in seen.items()})
    assert "Traceback" not in served.log, served.log[-4000:]
    assert sum(count["cut"] for count in seen.values()) == 0
    if number == signal.SIGTERM:  # only this one gives time
        assert {name: set(count) for name, count in seen.items()} == {
            name: {"whole" if kind.in_time else "error"} for name, kind in KINDS.items()
        }
    if state in ("ok", "slow"):
        rows = taker.rows()
        roots = [row for row in rows if is_root(row)]
        print(f"{len(rows)} rows, {len(roots)} roots")
        assert len(roots) == CALLS
        assert len({row["metadata"]["request_id"] for row in roots}) == CALLS
        assert Counter(parent for row in rows for parent in row.get("span_parents") or ()) == {
            root["span_id"]: 1 for root in roots
        }
        assert all(row["metrics"]["end"] >= row["metrics"]["start"] for row in rows)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]) -> Iterator[Served]:
    """Two workers, of which one may be lost: another takes its place."""
    two = settings | {"WEB_CONCURRENCY": "2"}
    with Served(tmp_path_factory.mktemp("pair"), two, ["--timeout", str(STUCK_S)]) as served:
        yield served


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stuck"])
def test_a_worker_that_is_lost_takes_no_call_of_another_with_it(
    pair: Served, provider: FakeProvider, model: str, number: signal.Signals
) -> None:
    ending = threading.Event()
    provider.script(model, sse(delta({"content": "until "}), _until(ending), *SOON))
    _wait(lambda: len(pair.workers()) == 2, 10)
    with ExitStack() as stack, ThreadPoolExecutor(STREAMS + MORE) as pool:
        try:
            wires = [stack.enter_context(Wire(pair, timeout_s=40)) for _ in range(STREAMS)]
            calls = [pool.submit(_call, wire, model, True) for wire in wires]
            provider.wait_for(STREAMS, model, timeout=30)
            lost, other = pair.workers()
            for _ in range(MORE):  # one worker may have taken them all
                if _ports(pair, lost) and _ports(pair, other):
                    break
                wires.append(stack.enter_context(Wire(pair, timeout_s=40)))
                calls.append(pool.submit(_call, wires[-1], model, True))
                provider.wait_for(len(wires), model, timeout=30)
            of_lost, of_other = _ports(pair, lost), _ports(pair, other)
            lost.send_signal(number)
            began_s = time.monotonic()
            assert _call_alone(pair, "a", True) == "whole"
            answered_s = time.monotonic() - began_s
            _wait(lambda: is_gone(lost), 2 * STUCK_S + 2)
            gone_s = time.monotonic() - began_s
            _wait(lambda: any(_answers(pair, one) for one in pair.workers() if one != other), ANSWERS_AGAIN_S)
            replaced_s = time.monotonic() - began_s
        finally:
            ending.set()
        seen = {wire.port: call.result(30) for wire, call in zip(wires, calls, strict=True)}
    print(
        f"\n{number.name}: {len(of_lost)} streams lost, {len(of_other)} of the other worker;"
        f" a call answered after {answered_s:.2f} s, gone after {gone_s:.2f} s, replaced after {replaced_s:.2f} s"
    )
    assert answered_s < ANSWERS_AGAIN_S
    assert of_lost, "all were at the other worker"
    assert of_other, "all were at the worker that was lost"
    assert seen == dict.fromkeys(of_lost, "cut") | dict.fromkeys(of_other, "whole")


def test_an_idle_gatewayis_gone_at_once(pair: Served) -> None:
    _wait(lambda: len(pair.workers()) == 2, 10)
    with Caller(pair.url, TOKEN) as caller:
        assert caller.chat("openai/a").status_code == 200
    exit_s = pair.stop()
    print(f"\nidle: gone after {exit_s:.2f} s")
    assert exit_s < IDLE_S
