"""Who looks at a page.

A cookie holds their credential, or who they are at the issuer, sealed: so a key that is revoked ends its sessions
within seconds, on every host, as a user who is disabled ends theirs at once; and no session is kept here.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import Response, request

from gateway.auth import Authenticator
from gateway.core.calls import Caller
from gateway.core.people import Person, Reader, kept_person
from gateway.core.rights import ADMIN
from gateway.errors import NotAuthenticated, NotPermitted
from gateway.pages.seal import Seal

if TYPE_CHECKING:  # it loads cryptography, which a gateway without such people need not
    from gateway.auth.sign_in import SignIn

#: How long a session lasts, whatever is done in it.
SESSION_S = 12 * 3600.0
_NAME = "gateway_session"
#: A browser takes a cookie whose name begins so only with `Secure`, for this host alone (RFC 6265bis, section 4.1.3.2).
_SECURE = "__Host-"
CSRF_HEADER = "x-csrf-token"
CSRF_FIELD = "csrf"
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Session:
    """One sign-in.

    Attributes:
        reader: whose it is, and what they see.
        who: how they are known, a credential or a person of the issuer.
        csrf: what every request that changes something has to repeat.
        began_s: seconds since the epoch.
        call_key: a credential for calls of models, where they may make none otherwise.
    """

    reader: Reader
    who: str | Person
    csrf: str
    began_s: float
    call_key: str | None = None

    @property
    def caller(self) -> Caller:
        """As whom they act."""
        return self.reader.caller

    @property
    def name(self) -> str:
        """What they are called."""
        caller = self.caller
        person = caller.user if isinstance(self.who, Person) else None
        return caller.key_name or person or ("admin" if caller.kind == "admin" else caller.id)

    @property
    def is_admin(self) -> bool:
        """Whether everybody's requests may be seen."""
        return self.reader.callers is None

    def sees(self, caller: str | None) -> bool:
        """Whether the requests of a caller, by its id, may be seen."""
        return self.reader.callers is None or caller in self.reader.callers


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
        sign_in: says what people of an issuer see; None where none sign in.
    """

    def __init__(self, authenticator: Authenticator, key: Callable[[], bytes], sign_in: SignIn | None = None) -> None:
        self._authenticator = authenticator
        self._key = key
        self._sign_in = sign_in

    @cached_property
    def _seal(self) -> Seal:
        return Seal(self._key())

    def identify(self, credential: str) -> Caller:
        """Say whose a credential is.

        Raises:
            NotAuthenticated, StoreUnavailable: see `Authenticator.identify`.
        """
        return self._authenticator.identify(_Bearer(credential.strip()))

    def begin(self, response: Response, who: str | Person, call_key: str | None = None) -> None:
        """Have the browser keep a session.

        Args:
            response: goes to the browser.
            who: a credential that is known, or a person who comes from the issuer.
            call_key: a credential for calls.

        Raises:
            ValueError: it is too long for a cookie.
        """
        self._keep(response, who, secrets.token_hex(16), time.time(), call_key)

    def change(self, response: Response, session: Session, call_key: str | None) -> None:
        """Keep the session with another key for calls."""
        self._keep(response, session.who, session.csrf, session.began_s, call_key)

    def _keep(self, response: Response, who: str | Person, csrf: str, began_s: float, call_key: str | None) -> None:
        known = {"person": who.document()} if isinstance(who, Person) else {"credential": who.strip()}
        value = {**known, "csrf": csrf, "began_s": began_s, "call_key": call_key}
        keep(response, _NAME, self._seal.close(value), SESSION_S)

    def end(self, response: Response) -> None:
        """Have the browser forget the session."""
        forget(response, _NAME)

    def current(self) -> Session | None:
        """The session of this request; None where there is none that is still good.

        Raises:
            StoreUnavailable: it may be good, and what knows it cannot be asked.
        """
        kept = kept_as(_NAME)
        value = self._seal.open(kept) if kept else None
        if value is None or not 0 <= time.time() - value["began_s"] < SESSION_S:
            return None
        who = kept_person(value["person"]) if "person" in value else str(value["credential"])
        try:
            reader = self._reader(who)
        except (NotAuthenticated, NotPermitted):
            return None
        return Session(reader, who, value["csrf"], value["began_s"], value["call_key"])

    def _reader(self, who: str | Person) -> Reader:
        if isinstance(who, Person):
            if self._sign_in is None:
                raise NotPermitted("Nobody signs in at an issuer any more.")
            return self._sign_in.reader(who)
        caller = self.identify(who)
        return Reader(caller, None if caller.rights.allows(ADMIN) else (caller.id,))


def keep(response: Response, name: str, value: str, for_s: float) -> None:
    """Have the browser keep a value that no script reads and no other site's request but a link carries."""
    response.set_cookie(
        name if is_local() else _SECURE + name,
        value,
        max_age=int(for_s),
        secure=not is_local(),
        httponly=True,
        samesite="Lax",
        path="/",
    )


def kept_as(name: str) -> str | None:
    """What the browser keeps under a name, if anything."""
    return request.cookies.get(name if is_local() else _SECURE + name)


def forget(response: Response, name: str) -> None:
    """Have the browser forget a value."""
    for secure in (False, True):
        full = _SECURE + name if secure else name
        response.delete_cookie(full, path="/", secure=secure, httponly=True, samesite="Lax")


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
