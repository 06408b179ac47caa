"""Who looks at a page.

A cookie holds their credential, sealed: so a key that is revoked ends its sessions within seconds, on every host, and
no session is kept here.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

from flask import Response, request

from gateway.auth import Authenticator
from gateway.core.calls import Caller
from gateway.core.rights import ADMIN
from gateway.errors import NotAuthenticated
from gateway.pages.seal import Seal

#: How long a session lasts, whatever is done in it.
SESSION_S = 12 * 3600.0
_COOKIE = "gateway_session"
#: A browser takes one of this name only with `Secure`, for this host alone (RFC 6265bis, section 4.1.3.2).
_SECURE_COOKIE = "__Host-gateway_session"
CSRF_HEADER = "x-csrf-token"
CSRF_FIELD = "csrf"
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Session:
    """One sign-in.

    Attributes:
        caller: whose it is.
        credential: theirs.
        csrf: what every request that changes something has to repeat.
        began_s: seconds since the epoch.
        call_key: a second credential, for calls of models, where the first one may make none.
    """

    caller: Caller
    credential: str
    csrf: str
    began_s: float
    call_key: str | None = None

    @property
    def is_admin(self) -> bool:
        """Whether everybody's requests may be seen."""
        return self.caller.rights.allows(ADMIN)


class _Bearer:
    """A credential in the place of a request's headers."""

    def __init__(self, credential: str) -> None:
        self._credential = credential

    def get(self, name: str, /) -> str | None:
        """The header that holds it."""
        return f"Bearer {self._credential}" if name == "Authorization" else None


class Sessions:
    """Begins, reads and ends sessions.

    Args:
        authenticator: says whose a credential is, each time anew.
        key: returns the 32 bytes that cookies are sealed with; asked when the first page is opened.
    """

    def __init__(self, authenticator: Authenticator, key: Callable[[], bytes]) -> None:
        self._authenticator = authenticator
        self._key = key

    @cached_property
    def _seal(self) -> Seal:
        return Seal(self._key())

    def identify(self, credential: str) -> Caller:
        """Say whose a credential is.

        Raises:
            NotAuthenticated, StoreUnavailable: see `Authenticator.identify`.
        """
        return self._authenticator.identify(_Bearer(credential.strip()))

    def begin(self, response: Response, credential: str, call_key: str | None = None) -> None:
        """Have the browser keep a session.

        Raises:
            ValueError: the credentials are too long for a cookie.
        """
        self._keep(response, credential, secrets.token_hex(16), time.time(), call_key)

    def change(self, response: Response, session: Session, call_key: str | None) -> None:
        """Keep the session with another key for calls."""
        self._keep(response, session.credential, session.csrf, session.began_s, call_key)

    def _keep(self, response: Response, credential: str, csrf: str, began_s: float, call_key: str | None) -> None:
        value = {"credential": credential.strip(), "csrf": csrf, "began_s": began_s, "call_key": call_key}
        secure = not is_local()
        response.set_cookie(
            _SECURE_COOKIE if secure else _COOKIE,
            self._seal.close(value),
            max_age=int(SESSION_S),
            secure=secure,
            httponly=True,
            samesite="Lax",
            path="/",
        )

    def end(self, response: Response) -> None:
        """Have the browser forget the session."""
        for name in (_COOKIE, _SECURE_COOKIE):
            response.delete_cookie(name, path="/", secure=name == _SECURE_COOKIE, httponly=True, samesite="Lax")

    def current(self) -> Session | None:
        """The session of this request; None where there is none that is still good.

        Raises:
            StoreUnavailable: it may be good, and what knows it cannot be asked.
        """
        kept = request.cookies.get(_COOKIE if is_local() else _SECURE_COOKIE)
        value = self._seal.open(kept) if kept else None
        if value is None or not 0 <= time.time() - value["began_s"] < SESSION_S:
            return None
        try:
            caller = self.identify(value["credential"])
        except NotAuthenticated:
            return None
        return Session(caller, value["credential"], value["csrf"], value["began_s"], value["call_key"])


def is_local() -> bool:
    """Whether the browser has named this machine itself, which it trusts without TLS."""
    host = urlsplit(f"//{request.host}").hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_forged(session: Session | None) -> bool:
    """Whether a request that changes something may come from another site's page.

    Browsers say where a request comes from (Fetch standard, `Origin`, `Sec-Fetch-Site`); what is sent without saying so
    has to know the session's token, as all others have.
    """
    if request.method in _SAFE_METHODS:
        return False
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = request.headers.get("Origin")
    if origin is not None and (origin.partition("://")[2] or None) != request.host:
        return True
    if session is None:
        return False
    sent = request.headers.get(CSRF_HEADER) or request.form.get(CSRF_FIELD, "")
    return not hmac.compare_digest(sent.encode(), session.csrf.encode())
