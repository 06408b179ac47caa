"""The routes of the pages, and what holds for all of them: who looks, what a browser may do, how they fail."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Response, g, make_response, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException

from gateway.errors import GatewayError, NotPermitted
from gateway.pages import (
    export,
    failures,
    keys,
    limits,
    listing,
    models,
    overview,
    people,
    playground,
    requests,
    showing,
    sign_in,
    state,
)
from gateway.pages.session import CSRF_HEADER, Session, Sessions, is_forged
from gateway.pipeline import Gateway
from gateway.storage.database import StorageError
from gateway.web import current_gateway, keep_form, public

log = logging.getLogger(__name__)

_FOLDER = Path(__file__).parent
_STATIC = _FOLDER / "static"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

#: Nothing but our own files, no script or style within a page: what a model or a caller said can never run.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

#: A list of models is the longest that a form of a page holds.
_MOST_FORM_BYTES = 1 << 18

#: View functions that need no session.
_OPEN = frozenset({"sign_in", "signed_in", "static", "to_issuer", "from_issuer"})


def blueprint(gateway: Gateway, key: Callable[[], bytes]) -> Blueprint:
    """Make the routes.

    Args:
        gateway: whose pages they are.
        key: returns what sessions are sealed with.
    """
    way_in = gateway.sign_in
    sessions = Sessions(gateway.authenticator, key, way_in)
    pages = Blueprint("pages", __name__, url_prefix="/ui", template_folder="templates")
    pages.before_request(lambda: _guard(sessions))
    pages.after_request(_protect)
    pages.register_error_handler(GatewayError, _failed)
    pages.register_error_handler(StorageError, _store_failed)
    pages.register_error_handler(HTTPException, _http_failed)
    for name, show in showing.FILTERS.items():
        pages.add_app_template_filter(show, name)
    routes: Mapping[str, tuple[str, tuple[str, ...], Callable[..., Any]]] = {
        "static": ("/static/<path:name>", ("GET",), _static),
        **sign_in.routes(sessions, way_in.place if way_in is not None else None),
        **(people.routes(gateway, way_in, sessions, key) if way_in is not None else {}),
        **overview.routes(gateway),
        **listing.routes(gateway),
        **export.routes(gateway),
        **requests.routes(gateway),
        **models.routes(gateway),
        **keys.routes(gateway),
        **limits.routes(gateway),
        **failures.routes(gateway),
        **playground.routes(gateway, sessions),
        **state.routes(gateway),
        "nothing": ("/<path:rest>", ("GET", "POST"), _nothing),
    }
    pages.context_processor(lambda: _shared(frozenset(routes)))
    for name, (path, methods, view) in routes.items():
        pages.add_url_rule(path, name, _unkeyed(view), methods=list(methods))
    return pages


def _unkeyed(view: Callable[..., Any]) -> Callable[..., Any]:
    """A view that needs a session in the place of a key in a header."""

    def page(**parts: Any) -> Any:
        return view(**parts)

    return public(page)


def session() -> Session:
    """The session of this request."""
    found: Session = g.session
    return found


def _guard(sessions: Sessions) -> Any:
    """Let in who has signed in, and nothing that another site's page has sent."""
    name = (request.endpoint or "").rpartition(".")[2]
    if name == "static":
        return None
    g.session = sessions.current()
    if request.method == "POST" and (g.session is not None or name in _OPEN):
        called = name == "playground_call"
        keep_form(current_gateway().limits.body_bytes if called else _MOST_FORM_BYTES)
    if is_forged(None if name == "signed_in" else g.session):  # the form has no token: nobody has signed in yet
        raise NotPermitted("This request did not come from the gateway's own page; load the page again.")
    if g.session is None and name not in _OPEN:
        there = url_for("pages.sign_in", next=request.full_path.rstrip("?") if request.method == "GET" else None)
        if "HX-Request" in request.headers:
            return Response(status=401, headers={"HX-Redirect": there})
        if request.method != "GET":
            return Response(status=401)
        return redirect(there)
    if g.session is not None:
        g.facts["caller"] = g.session.caller.id
    return None


def _protect(response: Response) -> Response:
    headers = response.headers
    headers["Content-Security-Policy"] = _POLICY
    headers["Referrer-Policy"] = "same-origin"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["X-Frame-Options"] = "DENY"
    return response


def _shared(names: frozenset[str]) -> dict[str, Any]:
    return {
        "session": g.get("session"),
        "csrf_header": CSRF_HEADER,
        "asset": _asset,
        "here": (request.endpoint or "").rpartition(".")[2],
        "managing": "keys" in names,
    }


@cache
def _digest(name: str) -> str:
    return hashlib.sha256((_STATIC / name).read_bytes()).hexdigest()[:12]


def _asset(name: str) -> str:
    """The address of a file that never changes under it."""
    return url_for("pages.static", name=name, v=_digest(name))


@cache
def _files() -> Mapping[str, Path]:
    return {
        path.relative_to(_STATIC).as_posix(): path
        for path in _STATIC.rglob("*")
        if path.is_file() and path.suffix in _TYPES
    }


def _static(name: str) -> Response:
    path = _files().get(name)
    if path is None:
        return _nothing(name)
    response = Response(path.read_bytes(), mimetype=_TYPES[path.suffix])
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return response


def _nothing(rest: str) -> Response:
    return _problem(404, "There is no such page", f"Nothing is at /ui/{rest[:200]}.")


def _problem(status: int, title: str, words: str) -> Response:
    """A page that says what is wrong; for a part of a page, the part alone."""
    part = "HX-Request" in request.headers
    template = "part_problem.html" if part else "problem.html"
    return make_response(render_template(template, title=title, words=words, request_id=g.request_id), status)


def _failed(error: GatewayError) -> Response:
    g.facts["error"] = error.public_code or error.public_type
    title = "Not allowed" if error.http_status == 403 else "That did not work"
    return _problem(error.http_status, title, error.message)


def _store_failed(error: StorageError) -> Response:
    log.warning("a page could not be shown", extra={"fields": {"path": request.path[:256], "why": str(error)}})
    return _problem(503, "The store does not answer", "What this page shows cannot be read now; load it again.")


def _http_failed(error: HTTPException) -> Response:
    return _problem(
        error.code or 500, error.name, f"{request.method} is no way to ask for {quote(request.path[:200])}."
    )
