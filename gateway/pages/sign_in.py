"""Signing in and out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Response, g, make_response, redirect, render_template, request, url_for

from gateway.errors import NotAuthenticated
from gateway.pages.session import Sessions, is_local

Route = tuple[str, tuple[str, ...], Callable[..., Any]]


def routes(sessions: Sessions, place: str | None = None) -> dict[str, Route]:
    """Return the routes.

    Args:
        sessions: that are begun and ended.
        place: the host of the issuer where people can sign in instead; None where there is none.
    """

    def show() -> Any:
        return form(place)  # also for who has signed in: a link's keys are behind the #, where only the page sees them

    def signed_in() -> Any:
        credential = request.form.get("credential", "").strip()
        call_key = request.form.get("call_key", "").strip() or None
        session = g.session
        try:
            if not credential:
                raise NotAuthenticated("Nothing was sent.")
            caller = sessions.identify(credential)
            if session is not None and session.caller.id == caller.id:
                call_key = call_key or session.call_key
            elif session is not None and request.form.get("linked"):
                # else any site's link could have somebody look at, and call with, what is not theirs
                return form(
                    place, 409, "That link brings another key than yours. To use it, sign out and open it again."
                )
            response = make_response(redirect(next_page()))
            sessions.begin(response, credential, call_key)
        except (NotAuthenticated, ValueError):
            return form(place, 401, "That key is not known here.")
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


def form(place: str | None, status: int = 200, problem: str | None = None, then: str | None = None) -> Response:
    """The page to sign in with.

    Args:
        place: see `routes`.
        status: of HTTP.
        problem: why the last try led nowhere.
        then: where to go after; what the request asks for where None.
    """
    page = render_template(
        "sign_in.html",
        next=then or next_page(),
        place=place,
        problem=problem,
        unsafe=not (request.is_secure or is_local()),
    )
    return make_response(page, status)


def next_page() -> str:
    """Where to go then: a page of ours, whatever was asked for."""
    wanted = request.values.get("next", "")
    is_ours = (
        wanted.startswith("/ui/") and wanted.isprintable() and "\\" not in wanted and not wanted.startswith("/ui//")
    )
    return wanted if is_ours else url_for("pages.home")
