"""What everybody's calls used and cost, over HTTP: sums, and single rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, request

from gateway.core.operations import PAGE, SPENDING, Operation, read_query
from gateway.ledger.reports import (
    MOST_GROUPS,
    by_of,
    calls_csv,
    calls_document,
    read_place,
    report_csv,
    report_document,
    wanted_of,
)
from gateway.storage.usage import UsageRows
from gateway.web import require, sheet_or_json

JSON = dict[str, Any]


def blueprint(rows: UsageRows) -> Blueprint:
    """Make the routes.

    Args:
        rows: what is asked about.
    """
    answers: dict[str, Callable[[UsageRows, JSON], Response]] = {"usage.sum": _sum, "usage.calls": _calls}
    routes = Blueprint("usage", __name__)
    for row in SPENDING:
        view = require(row.needs)(_view(row, rows, answers[row.name]))
        view.dialect = "openai"  # type: ignore[attr-defined]  # `web` reads it
        routes.add_url_rule(row.path, row.name.replace(".", "_"), view, methods=[row.method])
    return routes


def _view(row: Operation, rows: UsageRows, answer: Callable[[UsageRows, JSON], Response]) -> Callable[[], Response]:
    def view() -> Response:
        return answer(rows, read_query(row, request.args))

    return view


def _sum(rows: UsageRows, asked: JSON) -> Response:
    wanted, by = wanted_of(asked, time.time()), by_of(asked.get("by"))
    return sheet_or_json(
        asked,
        lambda: rows.report(wanted, by, limit=asked.get("limit", MOST_GROUPS)),
        lambda report: report_document(report, wanted, by),
        lambda report: report_csv(report, by),
    )


def _calls(rows: UsageRows, asked: JSON) -> Response:
    wanted = wanted_of(asked, time.time())
    after = read_place(asked["after"]) if "after" in asked else None
    return sheet_or_json(
        asked, lambda: rows.page(wanted, after=after, limit=asked.get("limit", PAGE)), calls_document, calls_csv
    )
