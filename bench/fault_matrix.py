"""What callers see of each fault of a deployment, where another one stands behind the same name.

    uv run python bench/fault_matrix.py
    uv run python bench/fault_matrix.py --litellm

A gateway of one worker and a provider on 127.0.0.1. Each fault is met by a whole call and by a streamed one: what the
caller was told and by whom, how often it was tried, and how long that took. Exit status 1 where one is not met as
tests/served/faults.py demands.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.served.faults import FAULTS, Matrix, Seen


def main() -> int:
    """Meet every fault and print the table; 1 where one is not met as demanded."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--litellm", action="store_true", help="by way of LiteLLM, and not relayed")
    given = arguments.parse_args()
    unmet: list[str] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Matrix(Path(folder), {"GATEWAY_RELAY": ""} if given.litellm else {}) as matrix,
    ):
        print("| fault | whole: told by, attempts, s | streamed: told by, attempts, s |\n|---|---|---|", flush=True)
        for fault in FAULTS:
            seen = [matrix.see(fault, stream=stream) for stream in (False, True)]
            print(f"| {fault.name} | {' | '.join(map(_cell, seen))} |", flush=True)
            unmet += [one for what in seen for one in what.unmet()]
    for one in unmet:
        print(f"NOT MET: {one}")
    return 1 if unmet else 0


def _cell(seen: Seen) -> str:
    return f"{seen.told_by}, {seen.attempts}, {seen.took_s:.2f}"


if __name__ == "__main__":
    sys.exit(main())
