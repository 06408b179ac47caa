"""The callers' HTTP edge."""

from __future__ import annotations

from flask import Blueprint, Flask

from gateway.api import health, me, metrics, openapi, operations, preflight, usage
from gateway.core.operations import ME, MY_USAGE, OPENAPI, PREFLIGHT
from gateway.pipeline import Gateway
from gateway.web import gateway_of


def register(app: Flask) -> None:
    """Add every blueprint of the edge to an app."""
    gateway = gateway_of(app)
    app.register_blueprint(operations.blueprint())
    app.register_blueprint(_about(gateway))
    app.register_blueprint(health.blueprint())
    app.register_blueprint(metrics.blueprint(gateway.metrics.access))


def _about(gateway: Gateway) -> Blueprint:
    """What the gateway says of itself and of who asks."""
    routes = Blueprint("about", __name__)
    for number, path in enumerate((ME.path, *ME.others)):
        routes.add_url_rule(path, f"me_{number}", me.view, methods=[ME.method])
    for number, path in enumerate((PREFLIGHT.path, *PREFLIGHT.others)):
        routes.add_url_rule(path, f"preflight_{number}", preflight.view, methods=[PREFLIGHT.method])
    if (rows := gateway.ledger.rows) is not None:
        own = usage.view(rows)
        for number, path in enumerate((MY_USAGE.path, *MY_USAGE.others)):
            routes.add_url_rule(path, f"me_usage_{number}", own, methods=[MY_USAGE.method])
    described = openapi.view(
        managed=gateway.directory is not None, kept=rows is not None, metered=gateway.metrics.access != "off"
    )
    routes.add_url_rule(OPENAPI.path, OPENAPI.name, described, methods=[OPENAPI.method])
    return routes
