"""The size of a page."""

from __future__ import annotations

import pytest

from gateway.core.paging import limit_of
from gateway.errors import InvalidRequest


def test_a_limit_is_read_and_has_a_usual_value() -> None:
    assert [limit_of(text, 20, 100) for text in (None, "1", "007", "100")] == [20, 1, 7, 100]


@pytest.mark.parametrize("text", ["", "0", "101", "-1", "1.0", "x", "\u0661", "000000001000000000", "9" * 5000, " 1"])
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        limit_of(text, 20, 100)
    assert refused.value.param == "limit"
