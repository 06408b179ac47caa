"""Signing in and out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Response, g, make_response, redirect, render_template, request, url_for

from gateway.errors import NotAuthenticated
from gateway.pages.session import Sessions, is_local

Route = tuple[str, tuple[str, ...], Callable[..., Any]]


def routes(sessions: Sessions) -> dict[str, Route]:
    """Return the routes."""

    def show() -> Any:
        if g.session is not None:
            return redirect(_next())
        return render_template("sign_in.html", next=_next(), unsafe=not (request.is_secure or is_local()))

    def signed_in() -> Any:
        credential = request.form.get("credential", "").strip()
        call_key = request.form.get("call_key", "").strip() or None
        try:
            if not credential:
                raise NotAuthenticated("Nothing was sent.")
            sessions.identify(credential)
            response = make_response(redirect(_next()))
            sessions.begin(response, credential, call_key)
        except (NotAuthenticated, ValueError):
            page = render_template(
                "sign_in.html", next=_next(), wrong=True, unsafe=not (request.is_secure or is_local())
            )
            return make_response(page, 401)
        return response

    def sign_out() -> Response:
        response = make_response(redirect(url_for("pages.sign_in")))
        sessions.end(response)
        return response

    return {
        "sign_in": ("/sign-in", ("GET",), show),
        "signed_in": ("/sign-in", ("POST",), signed_in),
        "sign_out": ("/sign-out", ("POST",), sign_out),
    }


def _next() -> str:
    """Where to go then: a page of ours, whatever was asked for."""
    wanted = request.values.get("next", "")
    is_ours = (
        wanted.startswith("/ui/") and wanted.isprintable() and "\\" not in wanted and not wanted.startswith("/ui//")
    )
    return wanted if is_ours else url_for("pages.home")
