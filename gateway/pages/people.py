"""Signing in at an issuer: on the way there, and back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from flask import Response, g, make_response, redirect, request, url_for

from gateway.core.people import Begun, Person, Reader
from gateway.errors import GatewayError, InvalidRequest
from gateway.pages.seal import SIGN_IN, Seal
from gateway.pages.session import Sessions, forget, is_local, keep, kept_as
from gateway.pages.sign_in import Route, form, next_page
from gateway.pipeline import Gateway
from gateway.storage.audit import By

if TYPE_CHECKING:  # as in `session`
    from gateway.auth.sign_in import SignIn

log = logging.getLogger(__name__)

#: How long somebody may take at the issuer.
_AWAY_S = 600.0
_NAME = "gateway_sign_in"


def routes(gateway: Gateway, sign_in: SignIn, sessions: Sessions, key: Callable[[], bytes]) -> dict[str, Route]:
    """Return the routes.

    Args:
        gateway: whose pages they are.
        sign_in: the way in for people.
        sessions: that are begun.
        key: returns the 32 bytes that cookies are sealed with.
    """
    seal = cache(lambda: Seal(key(), SIGN_IN))

    def to_issuer() -> Response:
        then = next_page()
        try:
            address, begun = sign_in.begin(_redirect_uri())
        except GatewayError as error:
            return _refused(sign_in, error, then)
        response = make_response(redirect(address))
        value = {**begun.document(), "then": then, "began_s": time.time()}
        try:
            closed = seal().close(value)
        except ValueError:  # the page that was asked for has a long address
            closed = seal().close({**value, "then": url_for("pages.home")})
        keep(response, _NAME, closed, _AWAY_S)
        return response

    def from_issuer() -> Response:
        then = None
        try:
            begun, then = _begun(seal())
            person = sign_in.finish(begun, _answer(), _redirect_uri())
            g.facts["caller"] = person.id
            reader = sign_in.reader(person)
        except GatewayError as error:
            response = _refused(sign_in, error, then)
        else:
            _note(gateway, person, reader)
            response = make_response(redirect(then))
            sessions.begin(response, person)
        forget(response, _NAME)  # it is for one answer
        return response

    return {
        "to_issuer": ("/sign-in/issuer", ("GET",), to_issuer),
        "from_issuer": ("/sign-in/callback", ("GET",), from_issuer),
    }


def _redirect_uri() -> str:
    """Where the issuer sends browsers back to: the address that this one knows, over TLS but on this machine."""
    scheme = request.scheme if is_local() else "https"
    return f"{scheme}://{request.host}{url_for('pages.from_issuer')}"


def _begun(seal: Seal) -> tuple[Begun, str]:
    """What this browser has begun, and where it wants to go then.

    Raises:
        InvalidRequest: nothing, or too long ago.
    """
    kept = kept_as(_NAME)
    value: dict[str, Any] | None = seal.open(kept) if kept else None
    if value is None or not 0 <= time.time() - value["began_s"] < _AWAY_S:
        raise InvalidRequest("This browser has not begun to sign in, or too long ago. Sign in again.")
    return Begun(value["state"], value["nonce"], value["verifier"]), value["then"]


def _answer() -> dict[str, str]:
    """The issuer's answer, as the address has it.

    Raises:
        InvalidRequest: a name comes twice (RFC 6749, section 3.1).
    """
    found = request.args.to_dict(flat=False)
    if any(len(values) > 1 for values in found.values()):
        raise InvalidRequest("The issuer's answer cannot be read. Sign in again.")
    return {name: values[0] for name, values in found.items()}


def _refused(sign_in: SignIn, error: GatewayError, then: str | None) -> Response:
    """The page to sign in with, which says why nobody is signed in; a key will do as before."""
    g.facts["error"] = error.public_code or error.public_type
    return form(sign_in.place, error.http_status, error.message, then)


def _note(gateway: Gateway, person: Person, reader: Reader) -> None:
    """Write down who has signed in, and as what.

    Raises:
        StorageError: it cannot be; then nobody is.
    """
    caller = reader.caller
    told = {"email": person.email, "admin": reader.callers is None, "user": caller.user_id}
    log.info("somebody has signed in", extra={"fields": {"caller": caller.id, "admin": told["admin"]}})
    if gateway.directory is not None:
        by = By(caller.id, caller.grants, g.request_id)
        gateway.directory.audit.note_sign_in(by, {name: value for name, value in told.items() if value is not None})
