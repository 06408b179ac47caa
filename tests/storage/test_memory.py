"""Counters in memory take no more room than what still counts."""

from __future__ import annotations

from gateway.storage.memory import MemoryCounters
from tests.storage.stores import Clock, claim


def test_what_has_ended_goes_with_the_next_thousand_verbs() -> None:
    clock = Clock()
    counters = MemoryCounters(clock)
    for number in range(300):
        made = counters.reserve([claim(1, None, f"key/{number}")], 45).reservation
        assert made is not None
        if number % 2:
            counters.settle(made, [1])
        counters.add(f"n{number}", 1, 60)
        counters.swap(f"t{number}", None, "x", 60)
    kept = (counters._counters, counters._held, counters._settled, counters._numbers, counters._texts)
    assert [len(one) for one in kept] == [300, 150, 150, 300, 300]
    clock.now_s += 3600
    for _ in range(1000):
        counters.get("other")
    kept = (counters._counters, counters._held, counters._settled, counters._numbers, counters._texts)
    assert [len(one) for one in kept] == [0, 0, 0, 0, 0]
