"""A search for text, stretch by stretch."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.tracing.search import Filters, Trace
from tests.tracing.kept import Kept, trace


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """450 traces, of which every hundredth says `needle`; the newest is the first."""
    folder: Path = tmp_path_factory.mktemp("search")
    made = Kept(folder)
    made.put(
        *(trace(number, ago_s=60 + number, said="a Needle" if number % 100 == 99 else "hay") for number in range(450))
    )
    return made


NEEDLE = Filters(text="needle")


def test_a_search_whose_time_is_over_says_how_far_it_came_and_goes_on_there(kept: Kept) -> None:
    found: list[Trace] = []
    some, place = kept.search.list_within(NEEDLE, limit=50, within_s=0)
    rounds = 1
    assert [one.id for one in some] == ["row-000099", "row-000199"]
    while place is not None:
        found += some
        some, place = kept.search.list_within(NEEDLE, limit=50, before=place, within_s=0)
        rounds += 1
    assert [one.id for one in (*found, *some)] == [one.id for one in kept.search.list(NEEDLE, limit=50)]
    assert rounds == 3, "450 traces are three stretches of 200 at most"


def test_a_search_with_time_enough_is_a_list(kept: Kept) -> None:
    for limit in (1, 2, 3, 50):
        found, place = kept.search.list_within(NEEDLE, limit=limit, within_s=60)
        assert (found, place) == (kept.search.list(NEEDLE, limit=limit), None)
    found, place = kept.search.list_within(Filters(), limit=5, within_s=0)
    assert (found, place) == (kept.search.list(limit=5), None)


def test_other_filters_hold_in_it_too(kept: Kept) -> None:
    oldest = kept.search.list(NEEDLE, limit=4)[-1]
    wanted = Filters(text="needle", until_s=oldest.started + 0.5)
    assert kept.search.list_within(wanted, limit=50, within_s=0) == ([oldest], None)
