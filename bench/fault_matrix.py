"""What callers see of each fault of a deployment, where another one stands behind the same name.

    uv run python bench/fault_matrix.py

A gateway of one worker and a provider on 127.0.0.1, relayed and by way of LiteLLM. Each fault is met by a whole call
and by a streamed one: the status, who answered, how often it was tried, and how long that took. Exit status 1 where one
is not met as tests/served/faults.py demands.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.stamp import stamp
from tests.served.faults import FAULTS, Matrix, Seen

#: The settings of each lane.
_LANES: dict[str, dict[str, str]] = {"relayed": {}, "LiteLLM": {"GATEWAY_RELAY": ""}}
_FORMS = {"whole": False, "streamed": True}


def main() -> int:
    """Meet every fault in each lane and print the table; 1 where one is not met as demanded."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    unmet: list[str] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        lanes = {name: stack.enter_context(Matrix(Path(folder) / name, own)) for name, own in _LANES.items()}
        columns = [f"{lane}, {form}" for lane in lanes for form in _FORMS]
        print(f"| fault | {' | '.join(columns)} |\n|{'---|' * (1 + len(columns))}", flush=True)
        for fault in FAULTS:
            seen = [
                (lane, matrix.see(fault, stream=stream)) for lane, matrix in lanes.items() for stream in _FORMS.values()
            ]
            print(f"| {fault.name} | {' | '.join(_cell(one) for _, one in seen)} |", flush=True)
            unmet += [f"{lane}: {one}" for lane, what in seen for one in what.unmet()]
    print(f"\n{stamp('uv run python bench/fault_matrix.py')}")
    for one in unmet:
        print(f"NOT MET: {one}")
    return 1 if unmet else 0


def _cell(seen: Seen) -> str:
    """The status, who answered, the attempts and the seconds."""
    who = {"good": "second", "error": "first, then an error event"}.get(seen.told_by)
    answered = f"{seen.status} {who}" if who is not None else seen.told_by
    return f"{answered}; {seen.attempts}; {seen.took_s:.2f}"


if __name__ == "__main__":
    sys.exit(main())
