"""A process that hands over its traces still answers for a moment: what it traces then waits for the next start."""

from pathlib import Path

from gateway.core.calls import Outcome
from gateway.errors import ShuttingDown
from tests.builders import call, tracer
from tests.tracing.takers import Taker, spool


def test_a_call_that_is_turned_away_after_the_spool_has_closed_is_traced_by_the_next_start(tmp_path: Path) -> None:
    taker = Taker()
    first = spool(tmp_path, taker)
    first.start()
    first.close(5.0)
    made = call(id="req_" + "a" * 32)
    turned_away = tracer(first).start(made)
    turned_away.begin()
    error = ShuttingDown("The gateway is shutting down.")
    turned_away.finish(Outcome(status=503, attempts=(), ended_s=made.started_s + 1, error=error))
    assert not taker.rows
    first._forget(first._open)  # the process ends
    second = spool(tmp_path, taker)
    second.start()
    assert taker.wait_for(turned_away.ids.row_id)["error"] == error.message
    second.close(5.0)
    assert not list(tmp_path.glob("*.seg"))
