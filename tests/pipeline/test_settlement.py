"""What is owed when a call ends is done once, whoever ends it."""

from __future__ import annotations

import logging
import threading

import pytest

from gateway.core.calls import Outcome
from gateway.pipeline import Settlement

OUTCOME = Outcome(200, (), ended_s=0.0)


def test_what_was_promised_last_is_kept_first_and_once() -> None:
    ran: list[str] = []
    settle = Settlement()
    settle.add(lambda _outcome: ran.append("first"))
    settle.add(lambda _outcome: ran.append("last"))
    assert settle(OUTCOME) is True
    assert settle(OUTCOME) is False
    assert ran == ["last", "first"]


def test_a_closer_that_raises_keeps_no_other_from_running(caplog: pytest.LogCaptureFixture) -> None:
    ran: list[str] = []
    settle = Settlement()

    def broken(_outcome: Outcome) -> None:
        raise RuntimeError("broken closer")

    settle.add(lambda _outcome: ran.append("first"))
    settle.add(broken)
    with caplog.at_level(logging.ERROR):
        assert settle(OUTCOME) is True
    assert ran == ["first"]
    assert "broken closer" in caplog.text


def test_many_threads_settle_once() -> None:
    ran: list[Outcome] = []
    settle, start = Settlement(), threading.Barrier(8)
    settle.add(ran.append)

    def end() -> None:
        start.wait()
        settle(OUTCOME)

    threads = [threading.Thread(target=end) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ran) == 1
