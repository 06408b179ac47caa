"""What callers have seen is traced and in the ledger, once, whatever is killed.

`bench/kill_cycles.py` does the same for longer.
"""

from pathlib import Path

from tests.served.killing import Killing

CYCLES = 16


def test_no_kill_loses_or_doubles_the_trace_of_a_call_whose_end_its_caller_saw(tmp_path: Path) -> None:
    verdict = Killing(tmp_path).run(CYCLES)
    print(f"\n{verdict}")
    assert verdict.good, str(verdict)
    assert set(verdict.kills) == {"worker", "sender", "master", "all"}
    assert verdict.acknowledged > 10 * CYCLES
    assert verdict.interrupted, "no call was under way at any of the kills"
    assert verdict.rows > verdict.lost_rows > 0
    assert verdict.priced_usd > 0
