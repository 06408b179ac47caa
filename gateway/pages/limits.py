"""Limits and budgets: how they stand, and for those who manage them: made, changed, deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import abort, g, make_response, redirect, render_template, request, url_for

from gateway.core.calls import Caller
from gateway.core.limits import counted
from gateway.core.rules import BUDGET, LIMIT, MEASURES, PERIODS, SUBJECTS, USD, Rule, RuleStanding, amount_of
from gateway.errors import GatewayError, InvalidRequest, NotPermitted
from gateway.limits.standing import standing, standing_for
from gateway.pages.sign_in import Route
from gateway.pipeline import Gateway
from gateway.storage.audit import By
from gateway.storage.directory import Directory

JSON = dict[str, Any]

_PAGE = 100
_LONGEST_ID = 64


@dataclass(frozen=True)
class Standing:
    """A rule and how it stands; `now` is None where that is not known, or differs for each of its subjects.

    Attributes:
        share: how much of it is used, 0 to 1; None as `now`.
    """

    rule: Rule
    now: RuleStanding | None
    share: float | None

    @property
    def most(self) -> str:
        """How much is allowed, with its unit."""
        return _amount(self.rule, self.rule.most)

    @property
    def used(self) -> str:
        """How much is used; what is counted is said with `most`."""
        if self.now is None:
            return ""
        return _amount(self.rule, self.now.used) if self.rule.measure == USD else f"{self.now.used:,}"

    @property
    def about(self) -> str:
        """Which calls it is about, and what it is counted apart for, in words."""
        names = [f"{name} {value}" for name in SUBJECTS if (value := getattr(self.rule.match, name)) is not None]
        each = f", for each {', '.join(self.rule.each)}" if self.rule.each else ""
        return (", ".join(names) or "all calls") + each

    @property
    def level(self) -> str:
        """`good`, `near` or `bad`: how full it is."""
        share = self.share or 0.0
        return "bad" if share >= 1 else "near" if share >= (self.rule.soft or 0.8) else "good"


def standing_of(gateway: Gateway, rule: Rule, caller: Caller | None = None) -> Standing:
    """Say how a rule stands: as a whole, or for a caller."""
    known = gateway.standings
    now = standing(known, rule) if caller is None else standing_for(known, rule, caller)
    if now is None:
        return Standing(rule, None, None)
    return Standing(rule, now, min(1.0, now.used / rule.most) if rule.most else 1.0)


def by_session() -> By:
    """Who changes something on a page.

    Raises:
        NotPermitted: they do not manage this gateway.
    """
    session = g.session
    if not session.is_admin:
        raise NotPermitted("Only who manages this gateway may change that.")
    return By(session.caller.id, session.caller.grants, g.request_id)


def routes(gateway: Gateway) -> dict[str, Route]:
    """Return the routes."""

    def show() -> Any:
        if g.session.is_admin and gateway.directory is not None:
            return _managed(gateway, gateway.directory)
        caller = g.session.caller
        about = gateway.rules.about(caller) if gateway.rules is not None else ()
        return render_template("limits.html", standings=[standing_of(gateway, rule, caller) for rule in about])

    def create() -> Any:
        by, directory = by_session(), _directory(gateway)
        kind = request.form.get("object", "")
        try:
            if kind not in MEASURES:
                raise InvalidRequest("Say whether it is a limit or a budget.", param="object")
            rules = directory.limits if kind == LIMIT else directory.budgets
            rules.create(_asked(kind, request.form), by, request.form.get("once") or None)
        except GatewayError as error:
            return make_response(_managed(gateway, directory, error, request.form), error.http_status)
        return redirect(url_for("pages.limits"))

    def change(id: str) -> Any:
        by, directory = by_session(), _directory(gateway)
        rules = directory.limits if id.startswith("lim_") else directory.budgets
        try:
            if request.form.get("action") == "delete":
                rules.delete(id, by)
            else:
                measure = rules.show(id).rule.measure
                rules.change(id, by, {"most": _most(measure, request.form.get("most", ""))})
        except GatewayError as error:
            return make_response(_managed(gateway, directory, error), error.http_status)
        return redirect(url_for("pages.limits"))

    return {
        "limits": ("/limits", ("GET",), show),
        "limits_create": ("/limits", ("POST",), create),
        "limits_change": ("/limits/<id>", ("POST",), change),
    }


def _directory(gateway: Gateway) -> Directory:
    if gateway.directory is None:
        abort(404)
    return gateway.directory


def _managed(
    gateway: Gateway, directory: Directory, error: GatewayError | None = None, asked: Mapping[str, str] | None = None
) -> str:
    after = request.args.get("after") or None
    kind = BUDGET if request.args.get("kind") == BUDGET else LIMIT
    pages = {
        LIMIT: directory.limits.page(after=after if kind == LIMIT else None, limit=_PAGE),
        BUDGET: directory.budgets.page(after=after if kind == BUDGET else None, limit=_PAGE),
    }
    return render_template(
        "limits.html",
        managed=True,
        standings=[standing_of(gateway, kept.rule) for page in (pages[BUDGET], pages[LIMIT]) for kept in page.items],
        following={name: page.items[-1].rule.id for name, page in pages.items() if page.more},
        error=error,
        asked=asked or {"match.key": request.args.get("key", "")[:_LONGEST_ID]},  # of the page of a key
        once=g.request_id,
        measures=list(dict.fromkeys(measure for known in MEASURES.values() for measure in known)),
        periods=list(dict.fromkeys(period for known in PERIODS.values() for period in known)),
        subjects=SUBJECTS,
    )


def _asked(kind: str, form: Mapping[str, str]) -> JSON:
    """A rule as `core.rules.read_rule` reads it, of the fields of a form."""
    measure = form.get("measure", "")
    asked: JSON = {
        "name": form.get("name", "").strip(),
        "measure": measure,
        "most": _most(measure, form.get("most", "")),
        "match": {name: value for name in SUBJECTS if (value := form.get(f"match.{name}", "").strip())},
        "each": [name for name in SUBJECTS if form.get(f"each.{name}")],
    }
    if period := form.get("period"):
        asked["period"] = period
    if kind == BUDGET:
        if soft := form.get("soft", "").strip():
            asked["soft"] = _share(soft)
        if webhook := form.get("webhook", "").strip():
            asked["webhook"] = webhook
    return asked


def _share(percent: str) -> float:
    try:
        return float(percent) / 100
    except ValueError:
        raise InvalidRequest("Warn from: a percentage.", param="soft") from None


def _most(measure: str, text: str) -> int | str:
    """Money stays a text, which no floating point changes; what is no number is told so by who reads it."""
    text = text.strip().replace(",", "")
    return int(text) if measure != USD and text.isascii() and text.isdigit() and len(text) <= 18 else text


def _amount(rule: Rule, amount: int) -> str:
    return f"${amount_of(USD, amount)}" if rule.measure == USD else counted(rule, amount)
