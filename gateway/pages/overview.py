"""The first page: how much was asked, what it cost, how long it took, and by whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Response, g, render_template

from gateway.core import wire
from gateway.core.ledger import NANO
from gateway.core.rules import BUDGET
from gateway.pages.limits import standing_of
from gateway.pages.sign_in import Route
from gateway.pages.spans import SPANS, View, viewed
from gateway.pipeline import Gateway
from gateway.storage.usage import Histogram, Report, Step, Sums

JSON = dict[str, Any]

#: Lines of each table, the dearest first.
_MOST_LINES = 10
_MOST_BUDGETS = 12
_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class Line:
    """A line of a table: what it is about, its sums, its share of the cost or, where all is free, of the requests.

    Attributes:
        value: what requests are filtered by; None where they have none.
        label: what people read.
        share: 0 to 1.
    """

    value: str | None
    label: str
    sums: Sums
    share: float


@dataclass(frozen=True)
class Figure:
    """A number of the page, and by how much it has changed against the time before; None where that is not told."""

    label: str
    text: Any
    shown: str
    change: float | None = None


def routes(gateway: Gateway) -> dict[str, Route]:
    """Return the routes."""

    def home() -> Any:
        rows = gateway.ledger.rows
        if rows is None:
            return render_template("overview.html", kept=False)
        view = viewed(rows)
        steps = rows.timeline(view.whose, view.span)
        if not any(step.requests for step in steps) and not rows.page(view.whose, limit=1).items:
            return render_template("overview.html", kept=True, first=True, model=first_model(gateway))
        shown = {"Models": "model", "Callers": "caller", "Providers": "provider"}
        if not g.session.is_admin:
            del shown["Callers"]
        sums = rows.reports(view.wanted(), tuple(shown.values()), limit=_MOST_LINES)
        tables = [(title, by, _lines(gateway, by, sums[by])) for title, by in shown.items()]
        figures = _figures(steps, rows.report(view.wanted(view.choice.length_s)).total)
        return render_template(
            "overview.html",
            kept=True,
            view=view,
            spans=SPANS,
            figures=figures,
            changed=any(figure.change is not None for figure in figures),
            steps=_told(view, steps),
            tables=tables,
            budgets=_budgets(gateway),
        )

    def series() -> Response:
        rows = gateway.ledger.rows
        if rows is None:
            return Response(wire.dumps({"times": [], "series": {}}), mimetype="application/json")
        view = viewed(rows)
        told = _told(view, rows.timeline(view.whose, view.span))
        document = {
            "times": [one["at_s"] for one in told],
            "series": {name: [one[name] for one in told] for name in _SERIES},
        }
        return Response(wire.dumps(document), mimetype="application/json")

    return {"home": ("/", ("GET",), home), "series": ("/overview.json", ("GET",), series)}


_SERIES = ("answered", "failed", "cost_usd", "prompt_tokens", "completion_tokens", "p50", "p95", "p99", "first_p50")


def _told(view: View, steps: Sequence[Step]) -> list[JSON]:
    return [
        {
            "at_s": view.span.since_s + number * view.span.step_s,
            "answered": step.requests - step.failed,
            "failed": step.failed,
            "cost_usd": step.cost_nano / NANO,
            "prompt_tokens": step.prompt_tokens,
            "completion_tokens": step.completion_tokens,
            **{name: step.took.quantile(share) for name, share in _SHARES.items()},
            "first_p50": step.first.quantile(0.5),
        }
        for number, step in enumerate(steps)
    ]


def _figures(steps: Sequence[Step], before: Sums) -> list[Figure]:
    def total(name: str) -> int:
        return sum(getattr(step, name) for step in steps)

    took, first = Histogram(), Histogram()
    for step in steps:
        for whole, part in ((took, step.took), (first, step.first)):
            whole.counts = [a + b for a, b in zip(whole.counts, part.counts, strict=True)]
    requests, failed, cost_nano = total("requests"), total("failed"), total("cost_nano")
    asked, said = total("prompt_tokens"), total("completion_tokens")
    earlier = before.tokens["prompt_tokens"] + before.tokens["completion_tokens"]
    rate = 100 * failed / requests if requests else 0.0
    return [
        Figure("Requests", requests, "count", _change(requests, before.requests)),
        Figure("Errors", failed, "count", _change(failed, before.failed)),
        Figure("Error rate, %", rate, "compact"),
        Figure("Cost", cost_nano / NANO, "usd", _change(cost_nano, before.cost_nano)),
        Figure("Tokens", asked + said, "compact", _change(asked + said, earlier)),
        Figure("Cached tokens", total("cached_tokens"), "compact"),
        *(Figure(f"Took, {name}", took.quantile(share), "duration") for name, share in _SHARES.items()),
        Figure("First token, p50", first.quantile(0.5), "duration"),
        Figure("First token, p95", first.quantile(0.95), "duration"),
    ]


def _change(now: float, before: float) -> float | None:
    return (now - before) / before if before else None


def _lines(gateway: Gateway, by: str, report: Report) -> list[Line]:
    measure: Callable[[Sums], int] = lambda one: one.cost_nano if report.total.cost_nano else one.requests  # noqa: E731
    whole = measure(report.total) or 1
    values = [one.by[by] for one in report.groups]
    names = _names(gateway, values) if by == "caller" else {}
    return [
        Line(value, names.get(value or "", value or "none"), one, measure(one) / whole)
        for value, one in zip(values, report.groups, strict=True)
    ]


def _names(gateway: Gateway, callers: Sequence[str | None]) -> Mapping[str, str]:
    """What those of the callers that have virtual keys are called."""
    if gateway.directory is None:
        return {}
    ids = [caller.removeprefix("key_") for caller in callers if caller is not None and caller.startswith("key_")]
    return {f"key_{id}": name for id, name in gateway.directory.keys.names(ids).items()}


def _budgets(gateway: Gateway) -> Sequence[Any]:
    if g.session.is_admin:
        if gateway.directory is None:
            return ()
        rules = [kept.rule for kept in gateway.directory.budgets.page(limit=_MOST_BUDGETS).items]
    else:
        about = gateway.rules.about(g.session.caller) if gateway.rules is not None else ()
        rules = [rule for rule in about if rule.kind == BUDGET]
    return [standing_of(gateway, rule) for rule in rules[:_MOST_BUDGETS]]


def first_model(gateway: Gateway) -> str:
    """A model that a first call can name."""
    catalogue = gateway.catalogue
    aliases = (name for name in catalogue.aliases if not name.endswith("*"))
    return "demo/echo" if "demo/echo" in catalogue.demo else next(aliases, "openai/gpt-4o-mini")
