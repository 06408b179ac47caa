"""What callers feel of the bad days of the gateway's stores.

    uv run python bench/store_faults.py --seconds 30

Two gateways of two workers, one on its SQLite file, one on Postgres and Valkey. A virtual key calls the demo models at
a steady rate, another caller reads streams that say a word every 10 ms, and keys that no worker has met are used.
Demanded: no call of a key that is known fails; no good key is answered 401 or 500; the median moves by 100 ms at most,
and no stream pauses for 100 ms longer than it does without the fault; 5 s after the fault's end all is as before.
Everything is on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.fakes.stores import folder_for_servers
from tests.served.storefaults import Found, Stores, run

_MOST_MS = 100.0
_HEADS = (
    "fault",
    "calls",
    "failed",
    "p50 / max ms, healthy",
    "p50 / max ms, fault",
    "gap ms, healthy / fault",
    "unseen keys",
    "back after, s",
)


def main() -> int:
    """Run all faults and print the table; 1 where a demand is not met."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=30.0, help="of each fault")
    arguments.add_argument("--rate", type=float, default=30.0, help="calls a second")
    arguments.add_argument("--only", default="", help="faults whose name holds this")
    given = arguments.parse_args()
    print(f"| {' | '.join(_HEADS)} |\n| {' | '.join(['---'] * len(_HEADS))} |", flush=True)
    unmet: list[str] = []
    with folder_for_servers() as folder:
        for name, servers in (("file", False), ("servers", True)):
            (folder / name).mkdir(mode=0o755)
            with Stores(folder / name, {}, servers=servers) as stores:
                for fault in stores.faults():
                    if given.only in fault.name:
                        unmet += _show(run(stores, fault, rate=given.rate, healthy_s=10.0, fault_s=given.seconds))
    for one in unmet:
        print(f"NOT MET: {one}")
    return 1 if unmet else 0


def _show(found: Found) -> list[str]:
    """Print a fault's line; returns what was not met."""
    healthy_ms, fault_ms = statistics.median(found.healthy_ms), statistics.median(found.fault_ms)
    calls = len(found.healthy_ms) + len(found.fault_ms) + len(found.recovering_ms)
    strangers = ", ".join(f"{count} x {status}" for status, count in sorted(Counter(found.strangers).items()))
    cells = (
        *(found.fault, str(calls), str(len(found.failed))),
        f"{healthy_ms:.1f} / {max(found.healthy_ms):.1f}",
        f"{fault_ms:.1f} / {max(found.fault_ms):.1f}",
        f"{found.healthy_gap_ms:.0f} / {found.fault_gap_ms:.0f}",
        *(strangers, f"{found.recovered_s:.1f}"),
    )
    print(f"| {' | '.join(cells)} |", flush=True)
    wrong = found.faults()
    if fault_ms - healthy_ms > _MOST_MS:
        wrong.append(f"{fault_ms - healthy_ms:.0f} ms more in the median")
    if found.fault_gap_ms - found.healthy_gap_ms > _MOST_MS:
        wrong.append(f"a stream paused for {found.fault_gap_ms:.0f} ms")
    return [f"{found.fault}: {one}" for one in wrong]


if __name__ == "__main__":
    sys.exit(main())
