"""Each nanosecond is charged once, to the stage of the greenlet that spent it."""

from __future__ import annotations

from collections.abc import Iterator

import greenlet
import pytest

from bench.ledger import OTHERS, Ledger


class Clock:
    """A clock that goes on only when it is told to."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns

    def spend(self, ns: int) -> None:
        self.ns += ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Iterator[Ledger]:
    ledger = Ledger(clock)
    ledger.start()
    yield ledger
    ledger.stop()


def test_a_stage_does_not_have_what_the_stage_inside_it_spends(ledger: Ledger, clock: Clock) -> None:
    inner = ledger.timed("inner", lambda: clock.spend(5))

    def outer() -> None:
        clock.spend(1)
        inner()
        clock.spend(2)

    clock.spend(7)
    ledger.timed("outer", outer)()
    assert ledger.spent_ns() == {OTHERS: 7, "outer": 3, "inner": 5}


def test_what_others_do_meanwhile_is_not_the_waiting_stage_s(ledger: Ledger, clock: Clock) -> None:
    main = greenlet.getcurrent()

    def waits() -> None:
        clock.spend(1)
        main.switch()
        clock.spend(2)

    waiting = greenlet.greenlet(ledger.timed("waits", waits))
    waiting.switch()
    clock.spend(10)
    waiting.switch()
    assert ledger.spent_ns() == {OTHERS: 10, "waits": 3}


def test_a_stage_ends_with_its_failure(ledger: Ledger, clock: Clock) -> None:
    def fails() -> None:
        clock.spend(4)
        raise LookupError

    with pytest.raises(LookupError):
        ledger.timed("fails", fails)()
    clock.spend(6)
    assert ledger.spent_ns() == {OTHERS: 6, "fails": 4}


def test_nothing_is_charged_before_the_start(clock: Clock) -> None:
    ledger = Ledger(clock)
    ledger.timed("early", lambda: clock.spend(3))()
    ledger.start()
    clock.spend(1)
    assert ledger.spent_ns() == {OTHERS: 1}
    ledger.stop()
