"""What the comparison writes, from rounds that are made up."""

from __future__ import annotations

from bench.compare import HEADS, Round, cells

DIRECT = [Round(latency_ms=(50.0, 52.0), first_ms=(0.1, 1.0)), Round(latency_ms=(60.0, 70.0), first_ms=(0.1, 1.0))]


def test_what_is_added_is_compared_with_the_same_round() -> None:
    # the second round was slow for everybody
    rounds = [Round(latency_ms=(52.0, 57.0)), Round(latency_ms=(62.0, 75.0))]
    assert cells("one", rounds, DIRECT)[2] == "2.0 / 5.0"


def test_a_column_that_was_not_measured_is_empty() -> None:
    line = cells("one", [Round(first_ms=(-1.0, -1.0)), Round()], DIRECT)
    assert line == ["one", *["-"] * (len(HEADS) - 1)]


def test_the_provider_itself_adds_nothing_to_itself() -> None:
    assert cells("direct", DIRECT, DIRECT)[1:5] == ["-"] * 4


def test_slow_streams_count_from_the_round_that_had_them() -> None:
    rounds = [
        Round(per_cpu_s=100.0, idle_bytes=100 << 20, start_s=1.0),
        Round(
            per_cpu_s=300.0,
            idle_bytes=100 << 20,
            start_s=2.0,
            whole=999,
            traces=1000,
            after_bytes=150 << 20,
            worker_bytes=(60 << 20, 110 << 20),
        ),
    ]
    line = cells("one", rounds, DIRECT)
    assert line[1] == "200"
    assert line[5:] == ["999", "1,000", "100 / 150", "60 / 110", "1.50"]
