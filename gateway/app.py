"""The WSGI application."""

from __future__ import annotations

from flask import Flask

from gateway import api, assembly, web
from gateway.pipeline import Gateway
from gateway.settings import Settings


def create_app(settings: Settings | None = None, gateway: Gateway | None = None) -> Flask:
    """Build the WSGI app.

    Args:
        settings: the configuration; read from `.env` and the environment where None.
        gateway: for tests and embedding; built from `settings` where None.

    Raises:
        SettingsError: the configuration cannot be used; it names every fault.
    """
    app = Flask("gateway", static_folder=None)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # a redirect of a POST loses its body in most clients
    web.bind(app, gateway or assembly.build(settings or Settings.from_env()))
    api.register(app)
    return app
