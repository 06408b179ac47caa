"""The ledger beside the traces: what one says of a call, the other says too."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.fakes.braintrust_server import Row

#: Of the demo's words, which else are free: so that money is compared as well.
PRICES = {"demo/echo": {"input_cost_per_token": 1.5e-7, "output_cost_per_token": 6e-7}}

_TOKENS = {
    "prompt_tokens": "prompt_tokens",
    "completion_tokens": "completion_tokens",
    "total_tokens": "tokens",
    "cached_tokens": "prompt_cached_tokens",
    "reasoning_tokens": "completion_reasoning_tokens",
}


def rows_of(data_dir: Path) -> dict[str, Row]:
    """Every row of the ledger in a data folder, by its request's id."""
    with closing(sqlite3.connect(f"{(data_dir / 'gateway.db').as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        found = [dict(row) for row in connection.execute("SELECT * FROM usage")]
    return {row["request_id"]: row for row in found}


def differences(
    book: Mapping[str, Row],
    roots: Mapping[str, Sequence[Row]],
    under: Mapping[str, Sequence[Row]],
    ended: Iterable[str],
) -> list[str]:
    """Compare the ledger with the traces, call by call.

    Args:
        book: rows of the ledger, by the request's id.
        roots: roots of traces, likewise.
        under: spans, by the id of the one above.
        ended: the requests whose end their caller saw; of no other may only one of the two know the end.

    Returns:
        What differs, a sentence each.
    """
    seen, found = set(ended), []
    for request, row in book.items():
        if request not in roots:
            found.append(f"{request}: in the ledger, and not traced")
            continue
        root = roots[request][0]
        if why := _difference(row, root, under.get(root["span_id"], ()), request in seen):
            found.append(f"{request}: {why}")
    for request, some in roots.items():
        if request not in book and under.get(some[0]["span_id"]):
            found.append(f"{request}: traced with an attempt, and not in the ledger")
    return found


def _difference(row: Row, root: Row, spans: Sequence[Row], seen: bool) -> str | None:
    interrupted = "interrupted" in root["metadata"]
    if (row["state"] == "lost") is not interrupted:
        # killed between the two writes, of which neither was the answer's end
        return f"{row['state']}, and the trace says otherwise" if seen else None
    if interrupted:
        return None
    if row["status"] != root["metadata"]["status"] or row["attempts"] != len(spans):
        return f"status {row['status']}, {row['attempts']} attempts, and the trace says otherwise"
    metrics = [span["metrics"] for span in spans]
    for column, metric in _TOKENS.items():
        if (row[column] or 0) != (traced := sum(one.get(metric, 0) for one in metrics)):
            return f"{row[column]} {column}, and the trace has {traced}"
    costs: list[Any] = [one["estimated_cost"] for one in metrics if "estimated_cost" in one]
    if row["cost_nano"] is None or abs(row["cost_nano"] - 1e9 * sum(costs)) > 0.5 + 1e-6:
        return f"cost of {row['cost_nano']} nano-dollars, and the trace has {sum(costs)} dollars"
    return None
