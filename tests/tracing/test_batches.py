"""A post costs more than the rows in it, so rows that come one by one travel together."""

import time
from pathlib import Path

from gateway.core.calls import Outcome
from tests.builders import call, tracer
from tests.tracing.takers import Taker, spool

CALLS = 40
GAP_S = 0.005


def test_what_ends_within_a_tenth_of_a_second_goes_in_one_post(tmp_path: Path) -> None:
    taker = Taker()
    one = spool(tmp_path, taker)
    one.start()
    ids = []
    for number in range(CALLS):
        made = call(id=f"req_{number:032x}")
        trace = tracer(one).start(made)
        trace.begin()
        trace.finish(Outcome(status=200, attempts=(), ended_s=made.started_s + 1))
        ids.append(trace.ids.row_id)
        time.sleep(GAP_S)
    for id in ids:
        taker.wait_for(id)
    print(f"\n{CALLS} calls in {taker.posts} posts")
    assert taker.posts <= CALLS // 4
    one.close(5.0)
