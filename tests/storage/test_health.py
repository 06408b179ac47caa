"""Readiness asks the stores, and neither waits for them long nor asks them often."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from gateway.errors import StoreUnavailable
from gateway.storage.database import StorageBusy, StorageFailed
from gateway.storage.health import StoreHealth


def test_it_says_of_each_store_how_it_is(caplog: pytest.LogCaptureFixture) -> None:
    def busy() -> None:
        raise StorageBusy("others hold it")

    def failed() -> None:
        raise StorageFailed("it is away")

    def away() -> None:
        raise StoreUnavailable("for callers") from StorageFailed("nobody listens")

    checks = {"a": lambda: None, "b": busy, "c": failed, "d": away}
    with caplog.at_level(logging.INFO, "gateway.storage"):
        assert StoreHealth(checks).states() == {"a": "ok", "b": "busy", "c": "unavailable", "d": "unavailable"}
    told = [(record.message, record.__dict__["fields"]["why"]) for record in caplog.records]
    assert told == [("a store does not answer", why) for why in ("others hold it", "it is away", "nobody listens")]
    assert StoreHealth({}).states() == {}


def test_many_that_ask_cost_the_store_one_look_in_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looks = [1000.0], list[int]()
    monkeypatch.setattr("gateway.storage.health.time.monotonic", lambda: clock[0])
    health = StoreHealth({"a": lambda: looks.append(1)})
    for _ in range(20):
        assert health.states() == {"a": "ok"}
    assert len(looks) == 1
    clock[0] += 2.1
    health.states()
    assert len(looks) == 2


def test_a_store_that_says_nothing_is_unavailable_after_a_second_and_then_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    may_end, looks = threading.Event(), list[int]()

    def hang() -> None:
        looks.append(1)
        may_end.wait(20)

    health = StoreHealth({"a": hang})
    for _ in range(2):
        began_s = time.monotonic()
        assert health.states() == {"a": "unavailable"}
        assert time.monotonic() - began_s < 1.5
    assert len(looks) == 1, "no second one beside it"
    may_end.set()
    assert health.states() == {"a": "ok"}
    assert caplog.records == []
