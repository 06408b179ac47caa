"""OpenAI's dialect: one blueprint, made from the table of endpoints."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response

from gateway.api import exchange
from gateway.core import wire
from gateway.core.endpoints import CHAT, ENDPOINTS, MODELS, Endpoint
from gateway.core.routing import listed
from gateway.web import current_gateway

#: LiteLLM's modes of the models that chat completions reach.
_CHAT_MODES = frozenset({"chat"})
#: No map tells when a model was made; clients want a number.
_CREATED = 0


def blueprint() -> Blueprint:
    """Make a route for each endpoint, with and without `/v1`."""
    routes = Blueprint("openai", __name__)
    for endpoint in ENDPOINTS:
        view = _VIEWS.get(endpoint.name) or _serving(endpoint)
        for number, path in enumerate((endpoint.path, endpoint.path.removeprefix("/v1"))):
            routes.add_url_rule(path, f"{endpoint.name}_{number}", view, methods=[endpoint.method])
    return routes


def _serving(endpoint: Endpoint) -> Callable[[], Response]:
    def view() -> Response:
        return exchange.serve(endpoint)

    return view


def _models() -> Response:
    """The models that can be called (OpenAI API reference, "List models")."""
    models = [
        {"id": name, "object": "model", "created": _CREATED, "owned_by": provider}
        for name, provider in listed(current_gateway().catalogue, _CHAT_MODES)
    ]
    return Response(wire.dumps({"object": "list", "data": models}), mimetype="application/json")


_VIEWS: dict[str, Callable[[], Response]] = {MODELS.name: _models}
assert CHAT.name not in _VIEWS
