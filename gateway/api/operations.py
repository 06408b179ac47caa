"""The operations of OpenAI's and Anthropic's APIs: one blueprint, made from the table of endpoints."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response

from gateway.api import exchange, models
from gateway.core.endpoints import ENDPOINTS, MODEL, MODELS, Endpoint

#: A part of a path; the name of a model may hold slashes.
_PARTS = {MODEL.name: "<path:name>"}


def blueprint() -> Blueprint:
    """Make a route for each endpoint, with and without `/v1`, and at Azure's path where it has one."""
    routes = Blueprint("operations", __name__)
    for endpoint in ENDPOINTS:
        view = _VIEWS.get(endpoint.name) or _serving(endpoint)
        whole = endpoint.path.replace("{id}", _PARTS.get(endpoint.name, "<id>"))
        for number, path in enumerate((whole, whole.removeprefix("/v1"))):
            routes.add_url_rule(path, f"{endpoint.name.replace('.', '_')}_{number}", view, methods=[endpoint.method])
        if endpoint.azure:  # the name of a model may hold slashes
            path = endpoint.azure_path.replace("{id}", "<path:id>")
            routes.add_url_rule(path, f"{endpoint.name.replace('.', '_')}_azure", view, methods=[endpoint.method])
    return routes


def _serving(endpoint: Endpoint) -> Callable[..., Response]:
    def view(id: str | None = None) -> Response:
        return exchange.serve(endpoint, id)

    view.dialect = endpoint.dialect  # type: ignore[attr-defined]  # `web` reads both
    view.operation = endpoint.name  # type: ignore[attr-defined]
    return view


_VIEWS: dict[str, Callable[..., Response]] = {MODELS.name: models.listing, MODEL.name: models.one}
