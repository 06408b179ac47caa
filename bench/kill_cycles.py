"""Kill the gateway many times under load, and count the traces that are lost or doubled: none may be.

Call by call the ledger is compared with the traces: the same requests, status, tokens and cost.

    uv run python bench/kill_cycles.py --cycles 200

Braintrust is a fake one on loopback; the models are the demo's. The short run is `tests/served/test_killed.py`.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.served.killing import Killing


def main() -> int:
    """Run it; 1 where a trace is lost or doubled, the ledger says otherwise, or a spool is not empty in the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=200, help="how many kills")
    parser.add_argument("--seed", type=int, default=1, help="of the victims and the moments")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gateway-kills-") as folder:
        verdict = Killing(Path(folder), seed=chosen.seed, say=print).run(chosen.cycles)
    print(verdict)
    return 0 if verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())
