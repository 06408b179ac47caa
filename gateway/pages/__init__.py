"""The gateway's own pages, for people: what was asked, what it cost, what is slow."""

from __future__ import annotations

from flask import Flask

from gateway.pages.site import blueprint
from gateway.web import gateway_of


def register(app: Flask) -> None:
    """Add the pages to an app; there are none where nothing can seal a session."""
    gateway = gateway_of(app)
    if gateway.session_key is not None:
        app.register_blueprint(blueprint(gateway, gateway.session_key))
