"""Benchmarks themselves are not run here; what they make of their numbers is."""

from __future__ import annotations

import pytest

from bench.figures import NOTHING, Bound, added, at_share, drifts, median, pair, per, replaced, shown, table


def test_a_median_leaves_out_what_was_not_measured() -> None:
    assert median([3.0, None, 1.0, 2.0]) == 2.0
    assert median([None]) is None


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 51.0), (0.99, 100.0), (1.0, 100.0)])
def test_a_share_is_read_at_its_nearest_rank(share: float, value: float) -> None:
    assert at_share([float(number) for number in range(100, 0, -1)], share) == value


def test_nothing_has_no_share_and_divides_nothing() -> None:
    assert at_share([], 0.5) is None
    assert per(10.0, 0.0) is None
    assert per(10.0, 4.0) == 2.5


def test_what_is_added_may_be_less_than_nothing_but_not_unknown() -> None:
    assert added(1.0, 1.5) == -0.5
    assert added(None, 1.5) is None
    assert added(1.0, None) is None


def test_numbers_are_written_for_readers() -> None:
    assert shown(12345.6) == "12,346"
    assert shown(0.126, 2) == "0.13"
    assert pair(1.04, None, 1) == f"1.0 / {NOTHING}"
    assert pair(None, None) == NOTHING


def test_a_table_has_its_numbers_on_the_right() -> None:
    assert table(["gateway", "start, s"], [["one", "1.2"]]) == "| gateway | start, s |\n| --- | --: |\n| one | 1.2 |"


PAPER = "above\n<!-- compare: begin -->\nold\n<!-- compare: end -->\nbelow\n"


def test_a_table_replaces_the_one_before_it_and_nothing_else() -> None:
    once = replaced(PAPER, "compare", "new")
    assert once == "above\n<!-- compare: begin -->\n\nnew\n\n<!-- compare: end -->\nbelow\n"
    assert replaced(once, "compare", "new") == once


@pytest.mark.parametrize("paper", ["", PAPER + PAPER, PAPER.replace("compare: end", "other: end")])
def test_a_paper_without_exactly_one_place_is_not_written_to(paper: str) -> None:
    with pytest.raises(ValueError, match="not exactly one"):
        replaced(paper, "compare", "new")


def samples(*values: float) -> list[dict[str, float]]:
    return [{"memory": value} for value in values]


def test_growth_beyond_the_bound_is_drift() -> None:
    [drift] = drifts(samples(1, 100, 100, 100, 102, 102, 102, 104, 104, 104), {"memory": Bound(0.03, 0)})
    assert (drift.first, drift.last, drift.good) == (100, 104, False)
    assert "GROWN" in str(drift)


@pytest.mark.parametrize("last", [90, 103])
def test_what_shrinks_or_grows_within_the_bound_is_good(last: float) -> None:
    [drift] = drifts(samples(100, 100, 100, last, last, last), {"memory": Bound(0.03, 0)})
    assert drift.good
    assert "GROWN" not in str(drift)


def test_what_is_small_may_move_by_a_few() -> None:
    few = samples(2, 2, 2, 6, 6, 6)
    assert drifts(few, {"memory": Bound(0.1, 4)})[0].good
    assert not drifts(few, {"memory": Bound(0.1, 3)})[0].good


def test_the_warm_up_is_not_judged() -> None:
    [drift] = drifts(samples(1, 1, 10, 10, 10), {"memory": Bound(0, 0)}, warm_share=0.4)
    assert (drift.first, drift.last) == (10, 10)


def test_too_few_samples_are_no_verdict() -> None:
    with pytest.raises(ValueError, match="too few"):
        drifts(samples(1, 2), {"memory": Bound(0, 0)})
