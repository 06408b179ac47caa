"""Is it alive, can it serve: for load balancers. No model is ever called."""

from __future__ import annotations

from flask import Blueprint, Response

from gateway.core import wire
from gateway.web import public


def blueprint() -> Blueprint:
    """Make the routes: `/health` and its kin, and `/` for whoever looks in with a browser."""
    pages = Blueprint("health", __name__)
    for path in ("/health", "/health/liveness", "/health/liveliness", "/health/readiness"):
        pages.add_url_rule(path, path.strip("/").replace("/", "_"), _healthy, methods=["GET"])
    pages.add_url_rule("/", "root", _root, methods=["GET"])
    return pages


@public
def _healthy() -> Response:
    return _json({"status": "ok"})


@public
def _root() -> Response:
    return _json(
        {
            "what": "An LLM gateway that traces every call. Point an OpenAI client's base URL at /v1.",
            "call": "POST /v1/chat/completions",
            "models": "GET /v1/models",
            "health": "GET /health/readiness",
        }
    )


def _json(value: object) -> Response:
    return Response(wire.dumps(value) + b"\n", mimetype="application/json")
