"""Trying models out, from the browser: the call goes the way of every other, with the session's key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Response, abort, g, make_response, render_template, request

from gateway.api.exchange import serve
from gateway.core import routing
from gateway.core.conversation import messages_of
from gateway.core.endpoints import CHAT
from gateway.core.rights import CALL
from gateway.errors import GatewayError, NotAuthenticated, NotPermitted
from gateway.pages.overview import first_model
from gateway.pages.requests import find
from gateway.pages.session import Sessions
from gateway.pages.sign_in import Route
from gateway.pipeline import Gateway
from gateway.web import error_response

JSON = dict[str, Any]


def routes(gateway: Gateway, sessions: Sessions) -> dict[str, Route]:
    """Return the routes."""

    def show() -> Any:
        caller = _caller(sessions)
        names = [name for name, _ in routing.listed(gateway.catalogue, frozenset({"chat"}))] if caller else []
        allowed = [name for name in names if caller and routing.may_call(caller.rights, name, gateway.catalogue)]
        again = _again(gateway, request.args.get("request", ""))
        first = first_model(gateway)  # the first by its name may be one that is there to fail
        chosen = first if first in allowed else next(iter(allowed), "")
        return render_template(
            "playground.html", models=allowed, chosen=chosen, may_call=caller is not None, again=again
        )

    def use_key() -> Any:
        key = request.form.get("call_key", "").strip()
        if not sessions.identify(key).rights.allows(CALL):
            raise NotPermitted("This key may not call models.")
        response = make_response("", 204)
        response.headers["HX-Refresh"] = "true"
        sessions.change(response, g.session, key)
        return response

    def call() -> Response:
        caller = _caller(sessions)
        if caller is None:
            abort(403)
        g.caller = caller
        try:
            return serve(CHAT)
        except GatewayError as error:  # as the caller's SDK would read it
            return error_response(error)

    return {
        "playground": ("/playground", ("GET",), show),
        "playground_key": ("/playground/key", ("POST",), use_key),
        "playground_call": ("/playground/call", ("POST",), call),
    }


def _again(gateway: Gateway, id: str) -> JSON:
    """What a request that was made before fills the form with; nothing where it is not the reader's own."""
    trace, rows = find(gateway, id) if id else (None, ())
    if trace is None:
        return {}
    messages = messages_of(rows[-1].get("input"))
    said = {role: _text(messages, role) for role in ("system", "user")}
    return {"model": trace.model, "system": said["system"], "message": said["user"]}


def _text(messages: Sequence[JSON], role: str) -> str:
    """The text of the last message of a role."""
    last = next((message for message in reversed(messages) if message["role"] == role), {"parts": ()})
    return "\n".join(str(part["content"]) for part in last["parts"] if part.get("type") == "text")


def _caller(sessions: Sessions) -> Any:
    """Who calls models in this session; None where its credential may not."""
    session = g.session
    if session.call_key is not None:
        try:
            caller = sessions.identify(session.call_key)
        except NotAuthenticated:
            caller = None
        if caller is not None and caller.rights.allows(CALL):
            return caller
    may = session.caller.rights.allows(CALL) and session.caller.kind != "admin"
    return session.caller if may else None
