"""What the ledger costs: CPU of a call without it, and with it.

    uv run python bench/ledger_cost.py

CPU is that of the whole process, the thread that delivers included, until all is in an SQLite file. The provider is a
stub, and nothing is traced. Each round measures both, one after the other, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import math

from gateway.core.calls import Caller
from gateway.core.pricing import Meter, Prices
from gateway.ledger import Ledger
from gateway.ledger.destination import UsageTable
from gateway.storage.database import Database
from gateway.storage.migrate import upgrade
from gateway.storage.usage import UsageRows, Wanted
from gateway.tracing.sender import Sender
from gateway.tracing.spool import Spool
from tests import builders

MODES = ("without", "with")
MODEL = "openai/gpt-test"
PRICES = {MODEL: {"litellm_provider": "openai", "input_cost_per_token": 1.5e-7, "output_cost_per_token": 6e-7}}
CALLER = Caller(
    "key_4f9k2m7x0a1b", "proj_2x7m0c9q4k1d", "key", key_id="4f9k2m7x0a1b", project="shop", tags=("checkout",)
)
WARM_CALLS = 50
_CAP_BYTES = 1 << 30


def measured(mode: str, calls: int, folder: Path) -> float:
    """Return the microseconds of CPU that one call takes."""
    gateway = builders.gateway(builders.Script([builders.says("a", "b", "c")]))
    gateway.tracer = builders.tracer(prices=PRICES)
    rows = None
    if mode == "with":
        upgrade(folder / "gateway.db")
        database = Database(folder / "gateway.db")
        database.hold()  # as a gateway does
        rows = UsageRows(Database(folder / "gateway.db"))
        sender = Sender(
            folder / "spool", UsageTable(rows), name="ledger", cap_bytes=_CAP_BYTES, late_s=math.inf, poll_s=1.0
        )
        spool = Spool(folder / "spool", sender, name="ledger", cap_bytes=_CAP_BYTES)
        gateway.ledger = Ledger(spool, rows, Meter(Prices(PRICES)))
    gateway.open()
    for _ in range(WARM_CALLS):
        _call(gateway)
    time.sleep(1.0)
    began_ns = time.process_time_ns()
    for number in range(calls):
        _call(gateway)
        if number % 20 == 0:
            time.sleep(0.02)  # some hundred calls a second, as one worker has them; rows are delivered meanwhile
    gateway.close(30)
    spent_us = (time.process_time_ns() - began_ns) / 1000 / calls
    if rows is not None and (kept := rows.report(Wanted()).total.requests) != calls + WARM_CALLS:
        raise SystemExit(f"{kept} rows of {calls + WARM_CALLS} calls")
    return spent_us


def _call(gateway: builders.Gateway) -> None:
    gateway.run(builders.call(MODEL, id=f"req_{secrets.token_hex(16)}", caller=CALLER, tags=CALLER.tags))


def main() -> int:
    """Measure in turns, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=3000, help="of each process (3000)")
    parser.add_argument("--rounds", type=int, default=5, help="of both (5)")
    parser.add_argument("--mode", choices=MODES, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.mode:
        with tempfile.TemporaryDirectory(prefix="gateway-ledger-") as folder:
            print(json.dumps(measured(chosen.mode, chosen.calls, Path(folder))))
        return 0
    spent: dict[str, list[float]] = {mode: [] for mode in MODES}
    for _ in range(chosen.rounds):
        for mode in MODES:
            command = [sys.executable, __file__, "--mode", mode, "--calls", str(chosen.calls)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            spent[mode].append(json.loads(done.stdout.splitlines()[-1]))
    medians = {mode: statistics.median(each) for mode, each in spent.items()}
    for mode, each in spent.items():
        print(f"{mode:<8}{medians[mode]:>8.1f} µs of CPU a call   ({', '.join(f'{one:.0f}' for one in each)})")
    print(f"the ledger takes {medians['with'] - medians['without']:.1f} µs of CPU a call")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
