"""The table of stages, from numbers that are made up."""

from __future__ import annotations

from bench.stages import FLASK, middle, ordered, report


def test_stages_stand_in_the_order_of_a_call() -> None:
    assert ordered([FLASK, "7 settle", "deliver the rows", "2 read"]) == [
        "2 read",
        "7 settle",
        "deliver the rows",
        FLASK,
    ]


def test_each_stage_has_its_own_median() -> None:
    rounds = [{"whole": (10.0 * n, {"2 read": n, "4 plan": 4.0 - n})} for n in (1.0, 2.0, 3.0)]
    assert middle(rounds) == {"whole": (20.0, {"2 read": 2.0, "4 plan": 2.0})}


def test_all_stages_are_added_up() -> None:
    lines = report({"relay": {"whole": (900.0, {"2 read": 300.0, "4 plan": 700.0})}}).splitlines()
    assert lines[2:] == ["| 2 read | 300 |", "| 4 plan | 700 |", "| **all** | 1,000 |", "| without the timers | 900 |"]
