"""One request: what was said, what became of it, what it cost."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from flask import g, make_response, render_template, request

from gateway.core.conversation import choices_of, messages_of
from gateway.core.endpoints import ENDPOINTS
from gateway.pages.sign_in import Route
from gateway.pipeline import Gateway
from gateway.tracing.search import Ambiguous, NoSuchTrace, Trace

JSON = dict[str, Any]

_LONGEST_ID = 128
#: What a row says of an attempt besides the parameters that the caller sent.
_OURS = frozenset(
    {
        *("model", "provider", "served_model", "response_id", "finish_reasons", "attempt", "stream", "dropped_params"),
        *("usage_estimated", "operation", "traceparent"),
    }
)


def routes(gateway: Gateway) -> dict[str, Route]:
    """Return the routes."""

    def shown(id: str) -> Any:
        trace, rows = find(gateway, id)
        call = _entry(gateway, trace.request_id if trace is not None else id)
        if trace is None and call is None:
            page = render_template("no_request.html", id=id[:_LONGEST_ID])
            return make_response(page, 404)
        return render_template(
            "request.html",
            trace=trace,
            told=_told(rows) if trace is not None else None,
            call=call,
            call_key=rows[-1].get("metadata", {}).get("key_id") if rows else None,
            id=trace.request_id if trace is not None else id,
            elsewhere=_elsewhere(gateway, rows),
        )

    return {"request": ("/requests/<id>", ("GET",), shown)}


def _entry(gateway: Gateway, id: str) -> JSON | None:
    """What the ledger has of a request; None where that is nothing, or not this reader's to see."""
    rows = gateway.ledger.rows
    row = rows.of_requests([id]).get(id) if rows is not None else None
    if row is None or not g.session.sees(row["caller"]):
        return None
    return row


def _elsewhere(gateway: Gateway, rows: Sequence[JSON]) -> str | None:
    """Where Braintrust shows the traces of this gateway, of this one where it is known; None without an organisation.

    The address is the one that Braintrust's SDK makes (`Logger.link`), with the root span that its pages take as `r`.
    """
    settings = {row.env: row.value for _, group in gateway.shown_settings for row in group}
    organisation, project = settings.get("BRAINTRUST_ORG_NAME"), settings.get("BRAINTRUST_PROJECT")
    if settings.get("BRAINTRUST_API_KEY") is None or not organisation or not project:
        return None
    app = (settings.get("BRAINTRUST_APP_URL") or "https://www.braintrust.dev").rstrip("/")
    if not app.startswith(("https://", "http://")):
        return None
    logs = f"{app}/app/{quote(organisation, safe='')}/p/{quote(project, safe='')}/logs"
    return f"{logs}?{urlencode({'r': rows[-1]['root_span_id']})}" if rows else logs


@dataclass(frozen=True)
class Bar:
    """A span in the waterfall, in thousandths of the whole call."""

    name: str
    left: int
    width: int
    first_left: int | None
    error: bool


def find(gateway: Gateway, id: str) -> tuple[Trace | None, Sequence[JSON]]:
    """Return a trace that is kept here and its rows, the root last; None for one that is not this reader's to see."""
    search = gateway.local_traces
    if search is None:
        return None, ()
    try:
        trace = search.get(id)
    except Ambiguous as error:
        trace = error.traces[0]
    except NoSuchTrace:
        return None, ()
    if not g.session.sees(trace.caller):
        return None, ()
    return trace, search.rows(trace)


def _told(rows: Sequence[JSON]) -> JSON:
    """All that the page of one request shows."""
    root, attempts = rows[-1], rows[:-1]
    last = attempts[-1] if attempts else {}
    asked = _asked(root, last)
    return {
        "root": root,
        "attempts": attempts,
        "messages": messages_of(root.get("input")),
        "choices": choices_of(root.get("output")),
        "bars": _bars(root, attempts),
        "metadata": root.get("metadata") or {},
        "metrics": last.get("metrics") or {},
        "asked": asked,
        "curl": _curl(root, asked),
        "python": _python(asked),
    }


def _bars(root: JSON, attempts: Sequence[JSON]) -> list[Bar]:
    began_s, ended_s = root["metrics"]["start"], root["metrics"].get("end")
    whole_s = max((ended_s or began_s) - began_s, 1e-6)
    bars = []
    for row in [root, *attempts]:
        start_s, end_s = row["metrics"]["start"], row["metrics"].get("end") or ended_s or began_s
        first_s = row["metrics"].get("time_to_first_token")
        left = _thousandth(start_s - began_s, whole_s)
        bars.append(
            Bar(
                str(
                    row["span_attributes"]["name"]
                    if row is root
                    else (row.get("metadata") or {}).get("model", "attempt")
                ),
                left,
                max(4, _thousandth(end_s - start_s, whole_s)),
                None if first_s is None else min(1000, left + _thousandth(first_s, whole_s)),
                row.get("error") is not None,
            )
        )
    return bars


def _thousandth(part_s: float, whole_s: float) -> int:
    return round(1000 * min(1.0, max(0.0, part_s / whole_s)))


def _asked(root: JSON, last: JSON) -> JSON:
    """The body of the request, as far as the trace has it."""
    metadata = root.get("metadata") or {}
    row = _endpoint(metadata.get("operation"))
    parameters = {name: value for name, value in (last.get("metadata") or {}).items() if name not in _OURS}
    body = {"model": metadata.get("model"), (row.asked if row else "messages"): root.get("input"), **parameters}
    if metadata.get("stream"):
        body["stream"] = True
    return body


def _endpoint(operation: Any) -> Any:
    return next((row for row in ENDPOINTS if row.name == operation), None)


def _curl(root: JSON, asked: JSON) -> str:
    row = _endpoint((root.get("metadata") or {}).get("operation"))
    url = request.host_url.rstrip("/") + (row.path if row else "/v1/chat/completions")
    body = shlex.quote(json.dumps(asked, ensure_ascii=False))
    return (
        f'curl {shlex.quote(url)} \\\n  -H "Authorization: Bearer $GATEWAY_KEY" \\\n'
        f"  -H 'Content-Type: application/json' \\\n  -d {body}"
    )


def _python(asked: JSON) -> str:
    arguments = ",\n".join(f"    {name}={value!r}" for name, value in asked.items() if name.isidentifier())
    return (
        "import os\n\nfrom openai import OpenAI\n\n"
        f'client = OpenAI(base_url={request.host_url.rstrip("/") + "/v1"!r}, api_key=os.environ["GATEWAY_KEY"])\n'
        f"answer = client.chat.completions.create(\n{arguments},\n)\nprint(answer)"
    )
