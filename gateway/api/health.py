"""Is it alive, can it serve: for load balancers. No model is ever called."""

from __future__ import annotations

from flask import Blueprint, Response

from gateway.core import wire
from gateway.web import current_gateway, public


def blueprint() -> Blueprint:
    """Make the routes: `/health` and its kin, and `/` for whoever looks in with a browser."""
    pages = Blueprint("health", __name__)
    pages.add_url_rule("/health/readiness", "health_readiness", _ready, methods=["GET"])
    for path in ("/health", "/health/liveness", "/health/liveliness"):
        pages.add_url_rule(path, path.strip("/").replace("/", "_"), _healthy, methods=["GET"])
    pages.add_url_rule("/", "root", _root, methods=["GET"])
    return pages


@public
def _healthy() -> Response:
    return _json({"status": "ok"})


@public
def _ready() -> Response:
    """Can it serve? It can also while traces or stores are in trouble, or a changed routes file has faults.

    `degraded` is for people; the status stays 200, since most calls need no store.
    """
    gateway = current_gateway()
    backlogs, states = gateway.backlogs(), gateway.stores.states()
    refused = gateway.routes is not None and bool(gateway.routes.faults)
    degraded = (
        refused or any(one.trouble for one in backlogs.values()) or any(state != "ok" for state in states.values())
    )
    told: dict[str, object] = {"status": "degraded" if degraded else "ok"}
    if backlogs:
        told["traces"] = {
            name: {
                "status": one.trouble or "ok",
                "waiting_bytes": one.waiting_bytes,
                "oldest_seconds": round(one.oldest_s, 1),
            }
            for name, one in backlogs.items()
        }
    if gateway.routes is not None:
        told["routes"] = {"status": "refused" if refused else "ok"}  # what is wrong with the file is in the log
    if states:
        told["stores"] = {name: {"status": state} for name, state in states.items()}
    return _json(told)


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
