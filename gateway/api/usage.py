"""What the caller's own calls used and cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from flask import Response, request

from gateway.core.operations import MY_USAGE, read_query
from gateway.ledger.reports import MOST_GROUPS, by_of, report_csv, report_document, wanted_of
from gateway.storage.usage import GROUPS, UsageRows
from gateway.web import caller, require, sheet_or_json

#: The others are about who calls, which is one and the same here.
_GROUPS = tuple(name for name in GROUPS if name not in ("key", "user", "project", "caller"))


def view(rows: UsageRows) -> Callable[[], Response]:
    """Make the view: sums of what was called with a credential, which are a key's, a token's or a JWT's subject's own.

    Args:
        rows: what is asked about.
    """

    @require(MY_USAGE.needs)
    def answer() -> Response:
        asked = read_query(MY_USAGE, request.args)
        wanted, by = replace(wanted_of(asked, time.time()), caller=caller().id), by_of(asked.get("by"), _GROUPS)
        return sheet_or_json(
            asked,
            lambda: rows.report(wanted, by, limit=asked.get("limit", MOST_GROUPS)),
            lambda report: report_document(report, wanted, by),
            lambda report: report_csv(report, by),
        )

    return answer
