"""How values are shown to people."""

from __future__ import annotations

import pytest

from gateway.pages.showing import change


@pytest.mark.parametrize(
    ("share", "shown"), [(0.0, "+0 %"), (-1.0, "-100 %"), (0.126, "+13 %"), (9.99, "+999 %"), (7818.0, "> +999 %")]
)
def test_a_change_is_shown_in_percent_up_to_ten_times(share: float, shown: str) -> None:
    assert change(share) == shown
