"""The callers' HTTP edge."""

from __future__ import annotations

from flask import Flask

from gateway.api import health, metrics, operations
from gateway.web import gateway_of


def register(app: Flask) -> None:
    """Add every blueprint of the edge to an app."""
    app.register_blueprint(operations.blueprint())
    app.register_blueprint(health.blueprint())
    app.register_blueprint(metrics.blueprint(gateway_of(app).metrics.access))
