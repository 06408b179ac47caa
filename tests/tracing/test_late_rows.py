"""A process that hands over its traces still answers for a moment: what it traces then waits for the next start."""

from pathlib import Path

from gateway.core.calls import Outcome
from gateway.errors import ShuttingDown
from gateway.tracing.sender import Sender
from gateway.tracing.spool import Spool
from tests.builders import call, tracer
from tests.tracing.takers import Taker


def _spool(folder: Path, taker: Taker) -> Spool:
    cap_bytes = 16 << 20
    return Spool(folder, Sender(folder, taker, name="taker", cap_bytes=cap_bytes), cap_bytes=cap_bytes, fsync="off")


def test_a_call_that_is_turned_away_after_the_spool_has_closed_is_traced_by_the_next_start(tmp_path: Path) -> None:
    taker = Taker()
    first = _spool(tmp_path, taker)
    first.start()
    first.close(5.0)
    turned_away = tracer(first).start(call(id="req_" + "a" * 32))
    turned_away.begin()
    error = ShuttingDown("The gateway is shutting down.")
    turned_away.finish(Outcome(status=503, attempts=(), ended_s=turned_away._call.started_s + 1, error=error))
    assert not taker.rows
    first._forget(first._open)  # the process ends
    second = _spool(tmp_path, taker)
    second.start()
    assert taker.wait_for(turned_away.ids.row_id)["error"] == error.message
    second.close(5.0)
    assert not list(tmp_path.glob("*.seg"))
