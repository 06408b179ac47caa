"""What callers feel of Braintrust's bad days, and whether every row arrives.

    uv run python bench/sink_faults.py --seconds 60

Each fault takes turns with healthy phases under one open-loop load of demo calls, whole ones and streams, on one
gateway, so that a noisy machine hits both alike. Demanded: no call fails; p99 with the fault is at most 5 ms above
that of the healthy phases; every row is there once within 60 s of the fault's end. Everything is on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.fakes.braintrust_server import FakeBraintrust
from tests.served.process import BRAINTRUST_KEY, Served
from tests.served.sinkfaults import (
    LOGIN_DOWN,
    RECOVERY_S,
    SETTINGS,
    Found,
    faults,
    run,
    run_bad_rows,
    run_from_start,
)

_MOST_MS = 5.0


def main() -> int:
    """Run all faults and print the table; 1 where a demand is not met."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=60.0, help="of load for each fault, half of them healthy")
    arguments.add_argument("--rate", type=float, default=40.0, help="calls a second")
    arguments.add_argument("--rounds", type=int, default=3, help="how often healthy and fault take turns")
    arguments.add_argument("--only", default="", help="faults whose name holds this")
    given = arguments.parse_args()
    phase_s = given.seconds / 2 / given.rounds
    print(f"{given.rate:g} calls/s, {given.rounds} rounds of {phase_s:g} s healthy and {phase_s:g} s with the fault")
    print(_line(_HEADS), flush=True)
    unmet: list[str] = []
    with tempfile.TemporaryDirectory(prefix="sink-faults-") as folder, FakeBraintrust(BRAINTRUST_KEY) as braintrust:
        with Served(Path(folder) / "running", SETTINGS | braintrust.environment()) as served:
            for fault in faults():
                if given.only in fault.name:
                    timing = {"rate": given.rate, "healthy_s": phase_s, "fault_s": phase_s}
                    unmet += _show(run(served.port, braintrust, fault, rounds=given.rounds, **timing))
            if given.only in "bad rows":
                seconds = given.seconds / 4
                unmet += _show(run_bad_rows(served.port, braintrust, served.data_dir, rate=given.rate, seconds=seconds))
        if given.only in LOGIN_DOWN.name:
            unmet += _show(_from_start(Path(folder), given.rate, given.seconds / 2, given.rounds))
    for one in unmet:
        print(f"NOT MET: {one}")
    return 1 if unmet else 0


def _from_start(folder: Path, rate: float, seconds: float, rounds: int) -> Found:
    """The same with a start of the gateway for each round."""
    found = Found(LOGIN_DOWN.name)
    for number in range(rounds):
        with FakeBraintrust(BRAINTRUST_KEY) as braintrust:
            LOGIN_DOWN.begin(braintrust)
            with Served(folder / f"start-{number}", SETTINGS | braintrust.environment()) as served:
                phase_s = seconds / rounds
                found.merge(
                    run_from_start(served.port, braintrust, LOGIN_DOWN, rate=rate, healthy_s=phase_s, fault_s=phase_s)
                )
    return found


_HEADS = (
    "fault",
    "requests",
    "failed",
    "healthy p50/p95/p99 ms",
    "fault p50/p95/p99 ms",
    "catching up p99",
    "p99 moved",
    "rows expected",
    "rows there",
    "s to recover",
)
_WIDTHS = (20, 8, 6, 22, 22, 15, 9, 13, 10, 12)


def _line(cells: Sequence[str]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True))


def _show(found: Found) -> list[str]:
    """Print a fault's line; returns what was not met."""
    moved_ms = _at(found.fault_ms, 0.99) - _at(found.healthy_ms, 0.99)
    cells = (
        found.fault,
        str(found.requests),
        str(len(found.failed)),
        _all_of(found.healthy_ms),
        _all_of(found.fault_ms),
        f"{_at(found.recovering_ms, 0.99):.1f}",
        f"{moved_ms:+.1f}" if found.healthy_ms else "-",
        str(found.rows_expected),
        str(found.rows_there),
        f"{max(found.recovered_s):.1f}",
    )
    print(_line(cells), flush=True)
    unmet = [*found.failed[:3], *found.wrong[:3]]
    if found.rows_there != found.rows_expected:
        unmet.append(f"{found.rows_there} of {found.rows_expected} rows")
    if found.healthy_ms and moved_ms > _MOST_MS:
        unmet.append(f"p99 moved by {moved_ms:.1f} ms")
    if max(found.recovered_s) >= RECOVERY_S:
        unmet.append(f"rows are missing after {RECOVERY_S:g} s")
    return [f"{found.fault}: {one}" for one in unmet]


def _all_of(times_ms: Sequence[float]) -> str:
    return " / ".join(f"{_at(times_ms, share):.1f}" for share in (0.5, 0.95, 0.99)) if times_ms else "-"


def _at(times_ms: Sequence[float], share: float) -> float:
    """The value below which that share of them is."""
    if not times_ms:
        return float("nan")
    return sorted(times_ms)[min(len(times_ms) - 1, int(share * len(times_ms)))]


if __name__ == "__main__":
    sys.exit(main())
