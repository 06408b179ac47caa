"""The edge of those who manage the gateway."""

from __future__ import annotations

from flask import Flask

from gateway.admin import api, usage
from gateway.web import gateway_of


def register(app: Flask) -> None:
    """Add its routes to an app; there are none where nobody can be managed, and no usage where none is kept."""
    gateway = gateway_of(app)
    if gateway.directory is not None:
        app.register_blueprint(api.blueprint(gateway.directory, gateway.standings))
    if gateway.ledger.rows is not None:
        app.register_blueprint(usage.blueprint(gateway.ledger.rows))
