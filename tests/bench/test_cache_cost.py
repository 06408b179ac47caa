"""The table of what a hit costs, from numbers that are made up."""

from __future__ import annotations

import pytest

from bench.cache_cost import KINDS, report


def costs(hit_us: float) -> dict[tuple[str, str, str], float]:
    of = {"litellm": 4000.0, "relay": 2000.0, "cache": hit_us}
    return {(way, kind, name): us for way in ("app", "pipeline") for kind in KINDS for name, us in of.items()}


@pytest.mark.parametrize(("hit_us", "well"), [(1000.0, True), (1001.0, False)])
def test_a_hit_may_cost_a_quarter_of_a_call(hit_us: float, well: bool) -> None:
    assert report(costs(hit_us))[1] is well


def test_shares_stand_beside_what_they_are_of() -> None:
    assert "| app | stream | 4,000 | 2,000 | 500 | 12% | 25% |" in report(costs(500.0))[0]
