"""The list of requests, and one of them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from flask import abort, g, render_template, request

from gateway.core.conversation import choices_of, messages_of
from gateway.core.endpoints import ENDPOINTS
from gateway.pages.sign_in import Route
from gateway.pipeline import Gateway
from gateway.tracing.search import Ambiguous, Filters, NoSuchTrace, Trace

JSON = dict[str, Any]

_PAGE = 50
#: What a row says of an attempt besides the parameters that the caller sent.
_OURS = frozenset(
    {
        *("model", "provider", "served_model", "response_id", "finish_reasons", "attempt", "stream", "dropped_params"),
        *("usage_estimated", "operation", "traceparent"),
    }
)


def routes(gateway: Gateway) -> dict[str, Route]:
    """Return the routes."""

    def listed() -> Any:
        search = gateway.local_traces
        asked = {name: text for name in _FIELDS if (text := request.args.get(name, "").strip())}
        filters, faults = _filters(asked)
        found: list[Trace] = []
        more = False
        if search is not None and not faults:
            page = search.list(filters, limit=_PAGE + 1, before=_cursor(request.args.get("before", "")))
            found, more = list(page[:_PAGE]), len(page) > _PAGE
        following = urlencode({**asked, "before": f"{found[-1].started!r},{found[-1].id}"}) if more else ""
        template = "part_requests.html" if "HX-Request" in request.headers else "requests.html"
        return render_template(
            template,
            kept=search is not None,
            asked=asked,
            faults=faults,
            traces=found,
            following=following,
            query=urlencode(asked),
            live=not request.args.get("before"),
        )

    def shown(id: str) -> Any:
        trace, rows = find(gateway, id)
        if trace is None:
            abort(404)
        return render_template("request.html", trace=trace, told=_told(rows))

    def home() -> Any:
        return listed()

    return {
        "home": ("/", ("GET",), home),
        "requests": ("/requests", ("GET",), listed),
        "request": ("/requests/<id>", ("GET",), shown),
    }


#: What the list can be asked for, each with its label.
_FIELDS: Mapping[str, str] = {
    "model": "Model",
    "status": "Status",
    "caller": "Caller",
    "tag": "Tag",
    "min_cost": "Cost from, USD",
    "since": "Since",
    "until": "Until",
    "text": "Text",
}


def _filters(asked: Mapping[str, str]) -> tuple[Filters, list[str]]:
    """Read the filters; and say which of them cannot be."""
    faults: list[str] = []

    def read(name: str, how: Callable[[str], float], what: str) -> float | None:
        if name not in asked:
            return None
        try:
            return how(asked[name])
        except ValueError:
            faults.append(f"{_FIELDS[name]}: {asked[name][:40]!r} is no {what}.")
            return None

    status = asked.get("status")
    if status is not None and not (
        status in ("error", "open", "interrupted") or (len(status) == 3 and status[0].isdigit())
    ):
        faults.append("Status: one is 404, 4xx, error, open or interrupted.")
        status = None
    filters = Filters(
        since_s=read("since", _seconds, "time"),
        until_s=read("until", _seconds, "time"),
        model=asked.get("model"),
        caller=asked.get("caller") if g.session.is_admin else g.session.caller.id,
        status=status,
        min_cost_usd=read("min_cost", float, "amount"),
        text=asked.get("text"),
        tag=asked.get("tag"),
    )
    return filters, faults


def _seconds(text: str) -> float:
    """A moment as an `<input type="datetime-local">` gives it, in UTC."""
    return datetime.fromisoformat(text if "+" in text or text.endswith("Z") else f"{text}+00:00").timestamp()


def _cursor(text: str) -> tuple[float, str] | None:
    started, comma, id = text.partition(",")
    try:
        return (float(started), id) if comma else None
    except ValueError:
        return None


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
    if not (g.session.is_admin or trace.caller == g.session.caller.id):
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
