"""How limits and budgets stand for a call that is not made yet."""

from __future__ import annotations

import pytest

from gateway.core.rules import BUDGET, LIMIT, MICRO
from gateway.limits.preview import preview
from tests.builders import attempt
from tests.limits.ruled import MODEL, Removable, asked, budget, limit, limiter, used


def test_a_preview_says_what_is_left_and_takes_nothing() -> None:
    it = limiter(limit(most=5), budget(most=10 * MICRO))
    for _ in range(2):
        told = preview(it, BUDGET, asked(9), [attempt(MODEL)])
        assert told is not None
        assert told["refused"] is None
        (one,) = told["data"]
        assert (one["most"], one["used"], one["remaining"], one["would_take"], one["has_room"]) == (
            *("10", "0", "10", "9", True),
        )
    limits = preview(it, LIMIT, asked(9), [attempt(MODEL)])
    assert limits is not None
    assert [(one["used"], one["would_take"]) for one in limits["data"]] == [(0, 1)]
    assert used(it) == [0, 0]


@pytest.mark.parametrize(("tokens", "fits"), [(10, True), (11, False)])
def test_a_preview_says_whether_a_call_has_room(tokens: int, fits: bool) -> None:
    told = preview(limiter(budget(most=10 * MICRO)), BUDGET, asked(tokens), [attempt(MODEL)])
    assert told is not None
    assert told["data"][0]["has_room"] is fits


def test_a_model_without_a_price_would_be_refused() -> None:
    told = preview(limiter(budget()), BUDGET, asked(1), [attempt("openai/unpriced")])
    assert told is not None
    assert "no known price" in told["refused"]


def test_nothing_is_told_while_the_store_is_away() -> None:
    store = Removable()
    it = limiter(budget(), counters=store)
    store.away = True
    assert preview(it, BUDGET, asked(1), [attempt(MODEL)]) is None
