"""`/metrics`, for Prometheus."""

from __future__ import annotations

from flask import Blueprint, Response, request

from gateway.core.rights import METRICS
from gateway.offload import offload
from gateway.web import current_gateway, public, require


def blueprint(access: str) -> Blueprint:
    """Make the route.

    Args:
        access: `token` or `open`; there is no route where it is `off`.
    """
    pages = Blueprint("metrics", __name__)

    def view() -> Response:
        # Prometheus names OpenMetrics where it wants it; `*/*` is not asking for it
        as_openmetrics = "application/openmetrics-text" in request.headers.get("Accept", "")
        text, content_type = current_gateway().metrics.text(as_openmetrics=as_openmetrics, aside=offload)
        return Response(text, content_type=content_type)

    if access != "off":
        pages.add_url_rule(
            "/metrics", "metrics", public(view) if access == "open" else require(METRICS)(view), methods=["GET"]
        )
    return pages
