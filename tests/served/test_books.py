"""What compares the ledger with the traces sees each thing that may differ."""

from __future__ import annotations

from typing import Any

import pytest

from tests.served.books import differences

JSON = dict[str, Any]


def row(**fields: Any) -> JSON:
    tokens = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "cached_tokens": 0, "reasoning_tokens": 0}
    return {"state": "ended", "status": 200, "attempts": 1, "cost_nano": 2_000, **tokens, **fields}


def root(**metadata: Any) -> JSON:
    return {"span_id": "s", "metadata": {"status": 200, **metadata}}


METRICS = {"prompt_tokens": 3, "completion_tokens": 4, "tokens": 7, "estimated_cost": 0.000002}


def compared(book: JSON, trace: JSON | None, ended: bool = True, **metrics: Any) -> list[str]:
    roots = {} if trace is None else {"r": [trace]}
    return differences(
        {"r": book} if book else {}, roots, {"s": [{"metrics": METRICS | metrics}]}, ["r"] if ended else []
    )


def test_what_is_the_same_does_not_differ() -> None:
    assert compared(row(), root()) == []
    lost = row(state="lost", status=None, cost_nano=None)
    assert compared(lost, root(interrupted=True)) == []
    assert compared(lost, root(), ended=False) == [], "killed between the two writes"


@pytest.mark.parametrize(
    ("book", "trace", "metrics"),
    [
        (row(), None, {}),
        ({}, root(), {}),
        (row(state="lost"), root(), {}),
        (row(), root(interrupted=True), {}),
        (row(status=500), root(), {}),
        (row(attempts=2), root(), {}),
        (row(prompt_tokens=4), root(), {}),
        (row(cached_tokens=1), root(), {}),
        (row(cost_nano=2_001), root(), {}),
        (row(cost_nano=None), root(), {}),
        (row(), root(), {"estimated_cost": 0.000003}),
    ],
)
def test_what_differs_is_said(book: JSON, trace: JSON | None, metrics: JSON) -> None:
    assert len(compared(book, trace, **metrics)) == 1
