"""Signing in at an issuer: OpenID Connect's authorization code flow (Core 1.0, section 3.1) with PKCE (RFC 7636)."""

from __future__ import annotations

import base64
import hmac
import logging
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode, urlsplit

import jwt
from jwt.exceptions import PyJWTError

from gateway.auth.fetching import configuration, is_safe, posted
from gateway.auth.issuer import IssuerKeys
from gateway.auth.oidc import SKEW_S
from gateway.core.people import Begun, challenge
from gateway.errors import InvalidRequest, NotPermitted, StoreUnavailable
from gateway.secret import Secret

JSON = dict[str, Any]

log = logging.getLogger(__name__)

_CONFIGURATION_S = 600.0
_LONGEST_TOKEN = 16_384
#: Codes that are changed at once: whoever makes codes up must not have the gateway ask without end.
_MOST_CHANGED = 16
_PATIENCE_S = 1.0
_BASIC, _POST = "client_secret_basic", "client_secret_post"

_AGAIN = "This sign-in is used up, too old, or not of this browser. Sign in again."


@dataclass(frozen=True)
class _Places:
    """What the issuer says of itself.

    Attributes:
        authorization: where a browser is sent.
        token: where a code is changed for an ID token; `basic` where the client is named by HTTP Basic there.
        names_itself: whether each answer has `iss` (RFC 9207).
    """

    authorization: str
    token: str
    basic: bool
    names_itself: bool


class CodeFlow:
    """One client of one issuer. It asks nothing before somebody signs in.

    Args:
        issuer: what `iss` must be, to the letter; its address.
        client_id: as the issuer knows the gateway.
        client_secret: likewise.
        scope: what is asked for, with blanks between, `openid` among it.
        algorithms: that ID tokens may be signed by, of `settings.ALGORITHMS`.
        keys: of the issuer.
    """

    def __init__(
        self,
        issuer: str,
        client_id: str,
        client_secret: Secret,
        scope: str,
        algorithms: Sequence[str],
        keys: IssuerKeys,
    ) -> None:
        self.issuer = issuer
        self._client_id = client_id
        self._client_secret = client_secret
        self._scope = scope
        self._algorithms = tuple(algorithms)
        self._keys = keys
        self._known: tuple[float, _Places] | None = None
        self._asking = threading.Lock()
        self._changing = threading.BoundedSemaphore(_MOST_CHANGED)
        required = ["exp", "iat", "iss", "aud", "sub", "nonce"]
        self._jwt = jwt.PyJWT({"enforce_minimum_key_length": True, "require": required})

    def close(self) -> None:
        """Stop fetching the issuer's keys; safe to call again."""
        self._keys.close()

    def begin(self, redirect_uri: str) -> tuple[str, Begun]:
        """Begin to sign somebody in.

        Args:
            redirect_uri: where the issuer sends the browser back, as it was told of.

        Returns:
            The address that the browser has to go to, and what `finish` has to be told.

        Raises:
            StoreUnavailable: the issuer does not say where that is.
        """
        places = self._places()
        self._keys.start()  # they are there when the browser is back
        begun = Begun(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(64))
        parts = urlsplit(places.authorization)
        asked = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": redirect_uri,
            "scope": self._scope,
            "state": begun.state,
            "nonce": begun.nonce,
            "code_challenge": challenge(begun.verifier),
            "code_challenge_method": "S256",
        }
        query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), *asked.items()])
        return parts._replace(query=query, fragment="").geturl(), begun

    def finish(self, begun: Begun, answer: Mapping[str, str], redirect_uri: str) -> Mapping[str, Any]:
        """Change the code of an answer for an ID token, and verify that.

        Args:
            begun: what the browser kept.
            answer: the query that it came back with, each name once.
            redirect_uri: that of `begin`.

        Returns:
            The claims of the ID token.

        Raises:
            InvalidRequest: the answer is not the one to `begun`, the issuer knows no such code, or its token is not for
                this sign-in.
            NotPermitted: the person, or the issuer, did not want it.
            StoreUnavailable: the issuer does not do its part.
        """
        if not hmac.compare_digest(answer.get("state", "").encode(), begun.state.encode()):
            raise InvalidRequest(_AGAIN, param="state")
        places = self._places()
        # who names another issuer tries to have its code sent to this one (RFC 9207, section 2.4)
        if answer.get("iss", None if places.names_itself else self.issuer) != self.issuer:
            raise InvalidRequest(_AGAIN, param="iss")
        if "error" in answer:
            if answer["error"] == "access_denied":
                raise NotPermitted("The sign-in was refused at the issuer.")
            raise self._away(f"it answers {_named(answer['error'])}")
        code = answer.get("code", "")
        if not 0 < len(code) <= _LONGEST_TOKEN:
            raise InvalidRequest(_AGAIN, param="code")
        return self._verified(self._changed(places, code, begun.verifier, redirect_uri), begun.nonce)

    def _places(self) -> _Places:
        if (found := self._fresh()) is not None:
            return found
        # one asks at a time: an issuer that hangs must not hold as many requests as come
        if not self._asking.acquire(timeout=_PATIENCE_S):
            raise self._away("it is being asked already")
        try:
            if (found := self._fresh()) is None:
                found = _read_places(configuration(self.issuer), plain=self.issuer.startswith("http:"))
                self._known = time.monotonic(), found
        except (OSError, HTTPException, ValueError) as error:
            raise self._away(_said_of(error)) from None
        finally:
            self._asking.release()
        return found

    def _fresh(self) -> _Places | None:
        known = self._known
        return known[1] if known is not None and time.monotonic() - known[0] < _CONFIGURATION_S else None

    def _changed(self, places: _Places, code: str, verifier: str, redirect_uri: str) -> str:
        """Change a code for an ID token (RFC 6749, section 4.1.3; the client's names: section 2.3.1)."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        headers = {}
        id, secret = self._client_id, self._client_secret.reveal()
        if places.basic:
            both = f"{quote_plus(id)}:{quote_plus(secret)}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(both).decode()}"
        else:
            form |= {"client_id": id, "client_secret": secret}
        if not self._changing.acquire(timeout=_PATIENCE_S):
            raise self._away("it has too many codes to answer already")
        try:
            status, document = posted(places.token, form, headers)
        except (OSError, HTTPException, ValueError) as error:
            raise self._away(_said_of(error)) from None
        finally:
            self._changing.release()
        said = document or {}
        if status == 400 and said.get("error") == "invalid_grant":
            raise InvalidRequest(_AGAIN, param="code")
        if status != 200:
            raise self._away(f"it answers {status} to a code: {_named(said.get('error'))}")
        token = said.get("id_token")
        if not isinstance(token, str) or len(token) > _LONGEST_TOKEN:
            raise self._away("it gives no ID token for a code")
        return token

    def _verified(self, token: str, nonce: str) -> Mapping[str, Any]:
        """Verify an ID token (OpenID Connect Core 1.0, section 3.1.3.7)."""
        try:
            header = jwt.get_unverified_header(token)
            algorithm = header.get("alg")
            if not isinstance(algorithm, str) or algorithm not in self._algorithms:
                raise _wrong("its algorithm is not taken")
            key = self._keys.find(header.get("kid"), algorithm)
            if key is None:
                raise _wrong("its key is not the issuer's")
            said: Mapping[str, Any] = self._jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._client_id,
                issuer=self.issuer,
                leeway=SKEW_S,
            )
        except (PyJWTError, OverflowError) as error:  # the last: an `exp` that is no time
            raise _wrong(type(error).__name__) from None
        others = isinstance(said["aud"], list) and len(said["aud"]) > 1
        if said.get("azp", None if others else self._client_id) != self._client_id:
            raise _wrong("it was made for another client")
        sent = said["nonce"]
        if not isinstance(sent, str) or not hmac.compare_digest(sent.encode(), nonce.encode()):
            raise _wrong("its nonce is another one")
        return said

    def _away(self, why: str) -> StoreUnavailable:
        log.warning("nobody can sign in at the issuer", extra={"fields": {"issuer": self.issuer, "why": why}})
        return StoreUnavailable("The issuer does not answer as it should: sign in with a key, or try again later.")


def _read_places(document: JSON, *, plain: bool) -> _Places:
    """Read an issuer's configuration (OpenID Connect Discovery 1.0, section 3).

    Args:
        document: it.
        plain: whether it came without TLS, from this machine; else what it names must have TLS too.

    Raises:
        ValueError: there is no safe place in it, or the client cannot name itself there.
    """
    authorization, token = (_place(document, f"{name}_endpoint", plain) for name in ("authorization", "token"))
    ways = document.get("token_endpoint_auth_methods_supported", [_BASIC])
    if not isinstance(ways, list) or (_BASIC not in ways and _POST not in ways):
        raise ValueError(f"it knows a client neither by {_BASIC} nor by {_POST}")
    names_itself = document.get("authorization_response_iss_parameter_supported") is True
    return _Places(authorization, token, _BASIC in ways, names_itself)


def _place(document: JSON, name: str, plain: bool) -> str:
    url = document.get(name)
    if not isinstance(url, str) or not is_safe(url) or not (plain or url.startswith("https:")):
        raise ValueError(f"its configuration names no https address as {name}")
    return url


def _wrong(why: str) -> InvalidRequest:
    log.warning("an ID token is refused", extra={"fields": {"why": why}})
    return InvalidRequest("What the issuer says of you is not for this sign-in. Sign in again.", param="id_token")


def _named(error: object) -> str:
    """An error's code as people may see it (RFC 6749, sections 4.1.2.1 and 5.2)."""
    known = isinstance(error, str) and 0 < len(error) <= 64 and error.replace("_", "").isalnum() and error.isascii()
    return str(error) if known else "it does not say why"


def _said_of(error: Exception) -> str:
    return str(error) if type(error) is ValueError else type(error).__name__
