"""Models and routes: what answers, how well, and at which price."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from flask import render_template

from gateway.core.breaker import CLOSED, OPEN, DeploymentHealth
from gateway.core.calls import Deployment
from gateway.core.pricing import shown
from gateway.core.routing import Target
from gateway.errors import ModelNotFound
from gateway.pages.sign_in import Route
from gateway.pages.spans import SPANS, View, viewed
from gateway.pages.state import admins_only
from gateway.pipeline import Gateway
from gateway.storage.usage import Sums

_MOST_LINES = 200
_MILLION = Decimal(1_000_000)


@dataclass(frozen=True)
class Line:
    """A deployment that answered, or that an alias names.

    Attributes:
        name: `provider/model`.
        aliases: the names that lead to it.
        sums: its calls in the time that is looked at.
        p95_s: of its answered calls in that time, to a quarter; None where there are none.
        price: what a million tokens cost, in words; empty where that is not known.
        missing: what it lacks to be called; None where it can be.
        health: of each deployment of that name that the gateway looks after; empty where it looks after none.
    """

    name: str
    aliases: tuple[str, ...]
    sums: Sums
    p95_s: float | None
    price: str
    missing: str | None = None
    health: Sequence[DeploymentHealth] = ()

    @property
    def breaker(self) -> str | None:
        """`closed`, `open` or `half-open`, of several deployments the worst; None where there is none to tell of."""
        states = [one.state for one in self.health]
        return OPEN if OPEN in states else next((one for one in states if one != CLOSED), CLOSED if states else None)

    @property
    def left_alone_s(self) -> float:
        """How much longer the breaker stays open, of several the longest."""
        return max((one.left_alone_s for one in self.health), default=0.0)

    @property
    def left(self) -> str:
        """How much of the provider's rate limits is left, in words; empty where it told none."""
        told = next((one.limits for one in self.health if one.limits), {})
        return ", ".join(
            f"{value} {measure}"
            for measure in ("requests", "tokens", "input-tokens", "output-tokens")
            for name in (f"remaining-{measure}", f"{measure}-remaining")
            if (value := told.get(f"x-provider-ratelimit-{name}")) is not None
        )

    @property
    def success(self) -> float | None:
        """The share of its calls that did not fail."""
        return 1 - self.sums.failed / self.sums.requests if self.sums.requests else None


def routes(gateway: Gateway) -> dict[str, Route]:
    """Return the routes."""

    def show() -> Any:
        admins_only()
        rows = gateway.ledger.rows
        if rows is None:
            return render_template("models.html", kept=False)
        view = viewed(rows)
        sums = rows.reports(view.wanted(), ("model", "deployment"), limit=_MOST_LINES)
        lines = _lines(gateway, view, sums["deployment"].groups)
        return render_template(
            "models.html", kept=True, view=view, spans=SPANS, asked=sums["model"].groups, lines=lines
        )

    return {"models": ("/models", ("GET",), show)}


def _lines(gateway: Gateway, view: View, sums: Sequence[Sums]) -> list[Line]:
    used = {one.by["deployment"]: one for one in sums}
    pace = view.rows.pace(view.wanted())
    nothing: tuple[list[str], Target | None] = ([], None)
    named: dict[str, tuple[list[str], Target | None]] = {}
    for alias, one in _targets(gateway):
        named.setdefault(f"{one.provider}/{one.model}", ([], one))[0].append(alias)
    health = gateway.health.told(_reached(gateway))
    found = []
    for name in dict.fromkeys([*(name for name in used if name), *named]):
        aliases, target = named.get(name, nothing)
        provider, _, model = name.partition("/")
        priced = target.priced if target is not None else (provider, model, ())
        found.append(
            Line(
                name,
                tuple(dict.fromkeys(aliases)),
                used.get(name, Sums({})),
                pace[name].quantile(0.95) if name in pace else None,
                _price(gateway, *priced),
                target.reach.missing if target is not None else None,
                health.get(name, ()),
            )
        )
    return found


def _targets(gateway: Gateway) -> Iterator[tuple[str, Target]]:
    for name, alias in gateway.catalogue.aliases.items():
        for target in alias.targets:
            yield name, target


def _reached(gateway: Gateway) -> Iterator[Deployment]:
    """The deployments that the routes file names in full and that can be called."""
    for _, target in _targets(gateway):
        if target.reach.missing is None and not target.model.endswith("*"):
            try:
                yield target.deployment
            except ModelNotFound:
                continue  # it has no breaker, since each call of it is told so at once


def _price(gateway: Gateway, provider: str, model: str, own: tuple[tuple[str, str], ...]) -> str:
    found = gateway.meter.prices.found(provider, model, own)
    if found is None:
        return ""
    rates: Mapping[str, Decimal] = {kind: rate for kind, tier, above, rate in shown(found[0]) if not tier and not above}
    told = [f"${rates[kind] * _MILLION:f}" for kind in ("prompt", "completion") if kind in rates]
    return " / ".join(text.rstrip("0").rstrip(".") if "." in text else text for text in told)
