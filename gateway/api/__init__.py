"""The callers' HTTP edge."""

from __future__ import annotations

from flask import Flask

from gateway.api import health, openai


def register(app: Flask) -> None:
    """Add every blueprint of the edge to an app."""
    app.register_blueprint(openai.blueprint())
    app.register_blueprint(health.blueprint())
