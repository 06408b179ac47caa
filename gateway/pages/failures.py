"""Errors: which, at which provider, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Response, render_template

from gateway.core import wire
from gateway.pages.sign_in import Route
from gateway.pages.spans import SPANS, View, viewed
from gateway.pipeline import Gateway
from gateway.storage.usage import Span

#: Lines that a chart can tell apart.
_MOST_DRAWN = 6
_DAY_S = 86_400


@dataclass(frozen=True)
class Failure:
    """Failed calls of one code and provider (empty where none answered), in all and in each step."""

    code: str
    provider: str
    total: int
    counts: list[int]

    @property
    def label(self) -> str:
        """What a chart calls it."""
        return f"{self.code}, {self.provider}" if self.provider else self.code


def routes(gateway: Gateway) -> dict[str, Route]:
    """Return the routes."""

    def show() -> Any:
        rows = gateway.ledger.rows
        if rows is None:
            return render_template("errors.html", kept=False)
        view = viewed(rows)
        span, found = _failures(view)
        return render_template(
            "errors.html",
            kept=True,
            view=view,
            spans=SPANS,
            since_s=span.since_s,
            failures=found,
            total=sum(one.total for one in found),
        )

    def series() -> Response:
        rows = gateway.ledger.rows
        if rows is None:
            return Response(wire.dumps({"times": [], "lines": []}), mimetype="application/json")
        span, found = _failures(viewed(rows))
        document = {
            "times": [span.since_s + span.step_s * step for step in range(span.steps)],
            "lines": [{"label": one.label, "counts": one.counts} for one in found[:_MOST_DRAWN]],
        }
        return Response(wire.dumps(document), mimetype="application/json")

    return {"errors": ("/errors", ("GET",), show), "errors_series": ("/errors.json", ("GET",), series)}


def _failures(view: View) -> tuple[Span, list[Failure]]:
    """The failures of the time that is looked at, the most frequent first; of whole days by the day."""
    choice = view.choice
    span = choice.until(view.now_s, _DAY_S if choice.whole_s == _DAY_S else None)
    found = view.rows.errors(view.whose, span)
    each = [Failure(code, provider, sum(counts), counts) for (code, provider), counts in found.items()]
    return span, sorted(each, key=lambda one: (-one.total, one.code, one.provider))
