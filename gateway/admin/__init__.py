"""The edge of those who manage the gateway."""

from __future__ import annotations

from flask import Flask

from gateway.admin import api, usage
from gateway.web import gateway_of


def register(app: Flask) -> None:
    """Add its routes to an app; there are none where nobody can be managed, and no usage where none is kept."""
    directory, rows = gateway_of(app).directory, gateway_of(app).ledger.rows
    if directory is not None:
        app.register_blueprint(api.blueprint(directory))
    if rows is not None:
        app.register_blueprint(usage.blueprint(rows))
