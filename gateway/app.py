"""The WSGI application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask
from werkzeug.routing import Rule as WerkzeugRule

from gateway import admin, api, assembly, pages, web
from gateway.pipeline import Gateway
from gateway.settings import Settings


class Rule(WerkzeugRule):
    """A path, whose writer (`url_for`) is made when it is first asked.

    werkzeug makes Python of each path, twice, and compiles it: a twentieth of the start, for pages that link to few.
    """

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        compiled = super()._compile_builder
        made: Callable[..., tuple[str, str]] | None = None

        def write(_rule: WerkzeugRule, /, **values: Any) -> tuple[str, str]:
            nonlocal made
            if made is None:
                made = compiled(append_unknown)
            return made(self, **values)

        return write


class App(Flask):
    """Flask, but for its looks whether each function is a coroutine: none here is, and it looks six times a request."""

    url_rule_class = Rule

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """The function as it is (Flask.ensure_sync)."""
        return func


def create_app(
    settings: Settings | None = None,
    gateway: Gateway | None = None,
    *,
    whole_answer_s: float | None = None,
    workers: int | None = None,
) -> Flask:
    """Build the WSGI app.

    Args:
        settings: the configuration; read from `.env` and the environment where None.
        gateway: for tests and embedding; built from `settings` where None.
        whole_answer_s: the longest that a call may take that is not streamed; None for no bound of its own.
        workers: how many processes serve on this host; None for as many as the settings say, else one.

    Raises:
        SettingsError: the configuration cannot be used; it names every fault.
    """
    app = App("gateway", static_folder=None)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # a redirect of a POST loses its body in most clients
    if gateway is None:
        gateway = assembly.build(settings or Settings.from_env(), whole_answer_s=whole_answer_s, workers=workers)
    web.bind(app, gateway)
    api.register(app)
    admin.register(app)
    pages.register(app)
    return app
