"""The gateway under a steady load while Braintrust has its bad days: what `bench/sink_faults.py` measures and
`test_sink_faults.py` proves in short.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.braintrust_server import FakeBraintrust, Mode, Row
from tests.served.process import TOKEN
from tests.served.steady import MARKER, Called, Load
from tests.served.traces import is_root, text_of

#: What the gateway is started with.
SETTINGS = {"GATEWAY_AUTH_TOKEN": TOKEN, "GATEWAY_DEMO": "on", "WEB_CONCURRENCY": "1"}
#: Within so long after a fault is over, every row is there.
RECOVERY_S = 60.0
#: A call leaves its root and one LLM span.
ROWS_A_CALL = 2


@dataclass(frozen=True)
class Fault:
    """A bad day. `mode` None is a server that does not listen."""

    name: str
    mode: Mode | None
    slow_s: float = 0.0

    def begin(self, braintrust: FakeBraintrust) -> None:
        """Make it so."""
        braintrust.slow_s = self.slow_s
        if self.mode is None:
            braintrust.close()
        else:
            braintrust.mode = self.mode

    def end(self, braintrust: FakeBraintrust) -> None:
        """All is well again."""
        braintrust.mode = "ok"
        if self.mode is None:
            braintrust.come_back()


LOGIN_DOWN = Fault("login down at start", "login_down")


def faults(slow_s: float = 5.0) -> tuple[Fault, ...]:
    """All that can come while the gateway runs."""
    return (
        Fault("down", None),
        Fault("500", "refuse_500"),
        Fault("401", "unauthorized"),
        Fault("413", "too_large"),
        Fault("429, Retry-After 2", "limited"),
        Fault(f"slow, {slow_s:g} s", "slow", slow_s),
        Fault("reset in mid-reply", "reset"),
        Fault("200, reply lost", "lost_reply"),
    )


@dataclass
class Found:
    """What a fault did.

    Attributes:
        healthy_ms, fault_ms, recovering_ms: how long calls took that began in those phases.
        wrong: calls that failed, and rows that are missing, too many, or mixed up.
        recovered_s: of each round, from the fault's end until all rows of the calls before it were there.
    """

    fault: str
    requests: int = 0
    healthy_ms: list[float] = field(default_factory=list)
    fault_ms: list[float] = field(default_factory=list)
    recovering_ms: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    rows_expected: int = 0
    rows_there: int = 0
    wrong: list[str] = field(default_factory=list)
    recovered_s: list[float] = field(default_factory=list)

    def add(self, calls: Sequence[Called]) -> None:
        """Count calls and what failed of them."""
        self.requests += len(calls)
        self.failed += [one.fault for one in calls if one.fault is not None]

    def merge(self, other: Found) -> None:
        """Add what another start found."""
        self.requests += other.requests
        self.rows_expected += other.rows_expected
        self.rows_there += other.rows_there
        for name in ("healthy_ms", "fault_ms", "recovering_ms", "failed", "wrong", "recovered_s"):
            getattr(self, name).extend(getattr(other, name))

    def compare(self, calls: Sequence[Called], braintrust: FakeBraintrust) -> None:
        """Look whether each call has its rows, once, and nothing else is there."""
        rows = braintrust.rows()
        self.rows_expected += ROWS_A_CALL * len(calls)
        self.rows_there += len(rows)
        self.wrong += wrong_rows(rows, calls)


def run(
    port: int, braintrust: FakeBraintrust, fault: Fault, *, rate: float, healthy_s: float, fault_s: float, rounds: int
) -> Found:
    """Have healthy phases and a fault take turns under one load, on a gateway that runs."""
    braintrust.forget()
    found = Found(fault.name)
    with Load(port, TOKEN, rate) as load:
        _wait_for_calls(load)
        for _ in range(rounds):
            phases = [("healthy", time.monotonic())]
            time.sleep(healthy_s)
            fault.begin(braintrust)
            phases.append(("fault", time.monotonic()))
            time.sleep(fault_s)
            fault.end(braintrust)
            phases.append(("recovering", time.monotonic()))
            found.recovered_s.append(_wait_recovered(load, braintrust))
            phases.append(("", time.monotonic()))
            _share_out(load, phases, found)
    _settle(load, braintrust, found)
    return found


def run_from_start(
    port: int, braintrust: FakeBraintrust, fault: Fault, *, rate: float, healthy_s: float, fault_s: float
) -> Found:
    """The same for one round of a fault that was there when the gateway started, and is still there."""
    found = Found(fault.name)
    with Load(port, TOKEN, rate) as load:
        _wait_for_calls(load)
        phases = [("fault", time.monotonic())]
        time.sleep(fault_s)
        fault.end(braintrust)
        phases.append(("recovering", time.monotonic()))
        found.recovered_s.append(_wait_recovered(load, braintrust))
        phases.append(("healthy", time.monotonic()))
        time.sleep(healthy_s)
        phases.append(("", time.monotonic()))
    _share_out(load, phases, found)
    _settle(load, braintrust, found)
    return found


def run_bad_rows(port: int, braintrust: FakeBraintrust, data_dir: Path, *, rate: float, seconds: float) -> Found:
    """Every fifth call has rows that are refused, for good: those are put aside, and the others arrive meanwhile."""
    braintrust.forget()
    found = Found("bad rows")
    braintrust.marker, braintrust.mode = MARKER, "bad_rows"
    with Load(port, TOKEN, rate, mark_each=5) as load:
        _wait_for_calls(load)
        began_s = time.monotonic()
        time.sleep(seconds)
    phases = [("fault", began_s), ("", time.monotonic())]
    _share_out(load, phases, found)
    good = [one for one in load.calls() if not one.marked]
    bad = [one for one in load.calls() if one.marked]
    found.add(load.calls())
    found.recovered_s.append(_wait_rows(braintrust, good))  # the mode is still on: the head is not blocked
    aside: list[Row] = []
    end_s = time.monotonic() + RECOVERY_S
    while len(aside) < ROWS_A_CALL * len(bad) and time.monotonic() < end_s:
        time.sleep(0.1)
        aside = quarantined(data_dir)
    found.compare(good, braintrust)
    found.wrong += [f"put aside: {why}" for why in wrong_rows(aside, bad)]
    found.wrong += ["no call was bad"] * (not bad)
    braintrust.mode = "ok"
    return found


def quarantined(data_dir: Path) -> list[Row]:
    """The rows that were put aside."""
    return [
        json.loads(line)["row"]
        for path in sorted(data_dir.glob("spool/braintrust-*/quarantine/*.jsonl"))
        for line in path.read_bytes().splitlines()
    ]


def wrong_rows(rows: Iterable[Row], calls: Sequence[Called]) -> list[str]:
    """Say what is missing, there twice, or nobody's: of each call one root, by request id, and one LLM span under it,
    both with its nonce.
    """
    rows = list(rows)
    by_request = _grouped(rows, lambda row: row["metadata"]["request_id"] if is_root(row) else None)
    by_parent = _grouped(rows, lambda row: None if is_root(row) else (row.get("span_parents") or [""])[0])
    wrong: list[str] = []
    for call in calls:
        roots = by_request.get(call.request_id, [])
        under = by_parent.get(roots[0]["span_id"], []) if roots else []
        if (len(roots), len(under)) != (1, 1):
            wrong.append(f"{call.request_id}: {len(roots)} roots, {len(under)} spans under it")
        elif not all(call.nonce in text_of(row) for row in (*roots, *under)):
            wrong.append(f"{call.request_id}: the rows are another call's")
        elif "end" not in roots[0]["metrics"]:
            wrong.append(f"{call.request_id}: the root is still open")
    twice = [id for id, count in Counter(row["id"] for row in rows).items() if count > 1]
    wrong += [f"{id}: twice" for id in twice]
    if not wrong and len(rows) != ROWS_A_CALL * len(calls):
        wrong.append(f"{len(rows)} rows for {len(calls)} calls")
    return wrong


def _grouped(rows: Iterable[Row], key: Callable[[Row], str | None]) -> dict[str | None, list[Row]]:
    """Group rows by a key, whatever their order."""
    groups: dict[str | None, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _wait_for_calls(load: Load) -> None:
    """The load's own start is in no phase."""
    end_s = time.monotonic() + 10
    while len(load.calls()) < 5:
        assert time.monotonic() < end_s, "the load does not begin"
        time.sleep(0.02)


def _wait_recovered(load: Load, braintrust: FakeBraintrust) -> float:
    """Wait for the rows of all calls that have ended by now; returns how long that took."""
    began_s = time.monotonic()
    _wait_rows(braintrust, [one for one in load.calls() if one.ended_s <= began_s])
    return time.monotonic() - began_s


def _wait_rows(braintrust: FakeBraintrust, calls: Sequence[Called]) -> float:
    """Wait for the rows of these calls, as long as they may take; what is missing then shows in the comparison."""
    began_s = time.monotonic()
    missing = {one.request_id for one in calls if one.fault is None}

    def there(rows: Sequence[Row]) -> bool:
        found = {row["metadata"]["request_id"] for row in rows if is_root(row)}
        return missing <= found

    while time.monotonic() - began_s < RECOVERY_S and not braintrust.holds(there):
        time.sleep(0.1)
    return time.monotonic() - began_s


def _share_out(load: Load, phases: Sequence[tuple[str, float]], found: Found) -> None:
    """Give each call's time to the phase in which it began. The last phase only says when the one before it ended."""
    kinds = {"healthy": found.healthy_ms, "fault": found.fault_ms, "recovering": found.recovering_ms}
    time.sleep(0.3)  # those under way at the end
    calls = load.calls()
    for (kind, began_s), (_next, ended_s) in itertools.pairwise(phases):
        kinds[kind] += [one.took_ms for one in calls if began_s <= one.began_s < ended_s]


def _settle(load: Load, braintrust: FakeBraintrust, found: Found) -> None:
    calls = load.calls()
    found.add(calls)
    good = [one for one in calls if one.fault is None]
    _wait_rows(braintrust, good)
    found.compare(good, braintrust)
