"""Whatever Braintrust does, no call fails and every row arrives, once. `bench/sink_faults.py` is the long form."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.braintrust_server import FakeBraintrust
from tests.served.process import BRAINTRUST_KEY, Served
from tests.served.sinkfaults import (
    LOGIN_DOWN,
    RECOVERY_S,
    SETTINGS,
    Fault,
    Found,
    faults,
    run,
    run_bad_rows,
    run_from_start,
)

pytestmark = pytest.mark.long

RATE = 25.0
FAULT_S = 2.0


@pytest.fixture(scope="module")
def sink() -> Iterator[FakeBraintrust]:
    with FakeBraintrust(BRAINTRUST_KEY) as fake:
        fake.mode = "login_down"
        yield fake
        fake.mode = "ok"


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, sink: FakeBraintrust) -> Iterator[tuple[Served, Found]]:
    """A gateway that was started while nobody could sign in, and what came of that."""
    with Served(tmp_path_factory.mktemp("faults"), SETTINGS | sink.environment()) as served:
        yield served, run_from_start(served.port, sink, LOGIN_DOWN, rate=RATE, healthy_s=0, fault_s=FAULT_S)
        assert "Traceback" not in served.log


def _all_is_well(found: Found) -> None:
    assert found.failed == []
    assert found.wrong == []
    assert found.rows_there == found.rows_expected > RATE * FAULT_S
    assert max(found.recovered_s) < RECOVERY_S


def test_a_start_while_nobody_can_sign_in_loses_no_trace(begun: tuple[Served, Found]) -> None:
    _all_is_well(begun[1])


@pytest.mark.parametrize("fault", faults(slow_s=1.5), ids=lambda fault: fault.name)
def test_a_fault_of_braintrust_fails_no_call_and_loses_no_row(
    begun: tuple[Served, Found], sink: FakeBraintrust, fault: Fault
) -> None:
    _all_is_well(run(begun[0].port, sink, fault, rate=RATE, healthy_s=0, fault_s=FAULT_S, rounds=1))
    assert fault.mode in (None, "slow", "reset", "lost_reply") or sink.refused, "the fault did not happen"


def test_rows_that_are_refused_for_good_are_put_aside_and_hold_nothing_up(
    begun: tuple[Served, Found], sink: FakeBraintrust
) -> None:
    _all_is_well(run_bad_rows(begun[0].port, sink, begun[0].data_dir, rate=RATE, seconds=FAULT_S))
