"""Traces as a reader of Braintrust finds them."""

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.fakes.braintrust_server import FakeBraintrust, Row

#: Long enough for the SDK's own queue, on a busy machine too.
WAIT_S = 15.0


@dataclass
class Found:
    """One trace: its root, and all rows under it."""

    root: Row
    under: list[Row]

    @property
    def llm(self) -> Row:
        """The one LLM span, which is the one row under the root."""
        (row,) = self.under
        assert row["span_attributes"]["type"] == "llm", row
        assert row["span_parents"] == [self.root["span_id"]], "it hangs under another span"
        return row


def is_root(row: Row) -> bool:
    """Tell whether a row is the root of one of the gateway's requests, wherever that hangs."""
    return row["span_attributes"].get("type") == "task" and "request_id" in (row.get("metadata") or {})


def text_of(row: Any) -> str:
    """Write a row down, to look for words in it."""
    return json.dumps(row, ensure_ascii=False)


def trace_of(braintrust: FakeBraintrust, words: str) -> Found:
    """Wait for the trace that says `words` and return it; there must be one."""
    return _found(braintrust, lambda row: words in text_of(row))


def trace_of_request(braintrust: FakeBraintrust, request_id: str) -> Found:
    """Wait for the trace of a request and return it; there must be one. Cheaper than to look through all words."""
    return _found(braintrust, lambda row: row["metadata"]["request_id"] == request_id)


def _found(braintrust: FakeBraintrust, is_it: Callable[[Row], bool]) -> Found:
    # the newest first: it is among them
    rows = braintrust.wait_rows(lambda rows: any(is_root(row) and is_it(row) for row in reversed(rows)), WAIT_S)
    (root,) = (row for row in rows if is_root(row) and is_it(row))
    under = [row for row in rows if row.get("span_parents") == [root["span_id"]]]
    same = [row for row in rows if row["root_span_id"] == root["root_span_id"] and not row.get("span_parents")]
    assert len(same) <= 1, "two roots in one trace"
    return Found(root, under)


def spans_of(rows: list[Row]) -> tuple[dict[str, list[Row]], dict[str, list[Row]]]:
    """Roots by the request's id, and spans by the id of the one above."""
    roots: dict[str, list[Row]] = defaultdict(list)
    under: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if is_root(row):
            roots[row["metadata"]["request_id"]].append(row)
        for parent in row.get("span_parents") or ():
            under[parent].append(row)
    return roots, under
