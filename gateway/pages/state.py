"""How the gateway is: its traces on their way, its settings."""

from __future__ import annotations

from typing import Any

from flask import g, render_template

from gateway.errors import NotPermitted
from gateway.pages.sign_in import Route
from gateway.pipeline import Gateway


def routes(gateway: Gateway) -> dict[str, Route]:
    """Return the routes."""

    def pipeline() -> Any:
        admins_only()
        return render_template("pipeline.html", backlogs=list(gateway.tracer.backlogs().values()))

    def settings() -> Any:
        admins_only()
        return render_template("settings.html", groups=gateway.shown_settings, stores=gateway.stores.states())

    return {
        "pipeline": ("/traces", ("GET",), pipeline),
        "settings": ("/settings", ("GET",), settings),
    }


def admins_only() -> None:
    """Refuse who does not manage this gateway.

    Raises:
        NotPermitted: they do not.
    """
    if not g.session.is_admin:
        raise NotPermitted("Only who manages this gateway may see that.")
