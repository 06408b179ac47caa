"""The list of requests as a file: CSV or JSON lines, written while it is sent, however many there are."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from flask import Response, request

from gateway.core import wire
from gateway.core.paging import Page
from gateway.ledger.reports import calls_csv, calls_document
from gateway.offload import offload
from gateway.pages.listing import Asked, read
from gateway.pages.sign_in import Route
from gateway.pipeline import Gateway
from gateway.storage.usage import UsageRows
from gateway.tracing.search import Search

JSON = dict[str, Any]

#: Rows that are read and written at once: what an export takes of the memory, and of a native thread at a time.
AT_ONCE = 500
_TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl"}


def routes(gateway: Gateway) -> dict[str, Route]:
    """Return the routes."""

    def export() -> Response:
        asked, rows = read(request.args), gateway.ledger.rows
        if rows is None or asked.faults:
            return Response("\n".join(asked.faults) or "No ledger is kept.", 400, mimetype="text/plain")
        kind = "jsonl" if request.args.get("format") == "jsonl" else "csv"
        name = f"requests-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.{kind}"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(
            _sheets(_pages(rows, gateway.local_traces, asked), kind), content_type=_TYPES[kind], headers=headers
        )

    return {"requests_export": ("/requests/export", ("GET",), export)}


def _sheets(pages: Iterator[Sequence[JSON]], kind: str) -> Iterator[str]:
    """The file in pieces. Where a page cannot be read it breaks off, so that nobody takes it for the whole."""
    first = True
    for page in pages:
        yield offload(_sheet, page, kind, first)
        first = False
    if first:
        yield _sheet((), kind, first)


def _sheet(rows: Sequence[JSON], kind: str, first: bool) -> str:
    page = Page(rows, False)
    if kind == "csv":
        text = calls_csv(page)
        return text if first else text.partition("\r\n")[2]
    return "".join(wire.dumps(line).decode() + "\n" for line in calls_document(page)["data"])


def _pages(rows: UsageRows, search: Search | None, asked: Asked) -> Iterator[Sequence[JSON]]:
    """The rows of the ledger that the list shows for the same filters, newest first."""
    if asked.filters.text is not None:
        if search is not None and asked.traced:
            yield from _searched(rows, search, asked)
        return
    if not asked.kept:
        return
    after: tuple[float, str] | None = None
    while (page := rows.page(asked.wanted, after=after, limit=AT_ONCE)).items:
        yield page.items
        if not page.more:
            return
        after = page.items[-1]["started"], page.items[-1]["request_id"]


def _searched(rows: UsageRows, search: Search, asked: Asked) -> Iterator[Sequence[JSON]]:
    before: tuple[float, str] | None = None
    while traces := search.list(asked.filters, limit=AT_ONCE, before=before):
        found = rows.of_requests([trace.request_id for trace in traces])
        if found:
            yield [found[trace.request_id] for trace in traces if trace.request_id in found]
        before = traces[-1].cursor
