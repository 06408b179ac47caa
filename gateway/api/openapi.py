"""The OpenAPI document of what this gateway serves."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from flask import Response

from gateway.core import openapi, wire
from gateway.core.operations import MANAGING, METRICS_TEXT, MY_USAGE, OPENAPI, OPERATIONS, SPENDING
from gateway.metrics import release
from gateway.web import require


def view(*, managed: bool, kept: bool, metered: bool) -> Callable[[], Response]:
    """Make the view.

    Args:
        managed: keys can be managed here.
        kept: it is kept here what calls use and cost.
        metered: `/metrics` is served.
    """
    left_out = (() if managed else MANAGING) + (() if metered else (METRICS_TEXT,))
    left_out += () if kept else (MY_USAGE, *SPENDING)

    @cache
    def text() -> bytes:
        served = [row for row in OPERATIONS if row not in left_out]
        return wire.dumps(openapi.document(release(), served))

    @require(OPENAPI.needs)
    def answer() -> Response:
        return Response(text(), mimetype="application/json")

    return answer
