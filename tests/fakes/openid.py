"""An OpenID provider on this machine: its configuration, authorization, tokens and keys, and what goes wrong with them.

It checks what a real one checks (client, redirect URI, PKCE, a code once) and signs with real keys.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

import jwt

from tests.fakes.issuer import RSA, jwk
from tests.fakes.loopback import Exchange, Loopback

JSON = dict[str, Any]

CLIENT_ID = "the gateway: a client"
CLIENT_SECRET = "client secret/of+the:tests %41"
#: Where it asks who somebody is.
_FORM = b"""<!doctype html><title>Provider</title><form method="post"><label>E-mail <input name="email"></label>
<button>Continue</button></form>"""


class OpenIdProvider(Loopback):
    """The provider.

    Attributes:
        claims: of the person who signs in, on top of what every ID token has; a claim that is None is left out.
        key, algorithm, header: what ID tokens are signed with, and named by.
        keys: the public ones.
        described: on top of what its configuration has.
        methods: how it takes a client's name and secret, of `client_secret_basic` and `client_secret_post`.
        error: what it answers in place of a code.
        asks: whether people have to say who they are, in a form.
        says: by path, what is done in place of an answer.
        made: makes the ID token of its claims, in place of a signature.
    """

    def __init__(self) -> None:
        self.claims: JSON = {"sub": "ann-1", "email": "ann@example.com", "email_verified": True}
        self.key: Any = RSA
        self.algorithm = "RS256"
        self.header: JSON = {"kid": "one"}
        self.keys = [jwk(RSA)]
        self.described: JSON = {}
        self.methods = ("client_secret_basic", "client_secret_post")
        self.error: str | None = None
        self.asks = False
        self.says: dict[str, Callable[[Exchange], None]] = {}
        self.made: Callable[[JSON], str] | None = None
        self._codes: dict[str, JSON] = {}
        super().__init__()

    @property
    def issuer(self) -> str:
        """Its name, with the path that some providers have."""
        return f"{self.origin}/realms/one"

    def settings(self, **more: str) -> dict[str, str]:
        """What a gateway is told of it."""
        return {
            "GATEWAY_OIDC_ISSUER": self.issuer,
            "GATEWAY_OIDC_CLIENT_ID": CLIENT_ID,
            "GATEWAY_OIDC_CLIENT_SECRET": CLIENT_SECRET,
            **more,
        }

    def paths(self) -> list[str]:
        """What was asked for, without queries."""
        return [urlsplit(one.path).path for one in self.requests()]

    def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        path = urlsplit(exchange.request.path).path
        if path in self.says:
            self.says[path](exchange)
        elif path == "/realms/one/.well-known/openid-configuration":
            exchange.respond_json(200, self._configuration())
        elif path == "/authorize":
            self._authorize(exchange)
        elif path == "/token":
            self._token(exchange)
        elif path == "/keys":
            exchange.respond_json(200, {"keys": self.keys})
        else:
            exchange.respond_json(404, {})

    def _configuration(self) -> JSON:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.origin}/authorize?tenant=a",
            "token_endpoint": f"{self.origin}/token",
            "jwks_uri": f"{self.origin}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": list(self.methods),
            "code_challenge_methods_supported": ["S256"],
            **self.described,
        }

    def _authorize(self, exchange: Exchange) -> None:
        asked = _once(urlsplit(exchange.request.path).query)
        assert asked["tenant"] == "a"
        assert (asked["response_type"], asked["client_id"]) == ("code", CLIENT_ID)
        assert (asked["code_challenge_method"], len(asked["code_challenge"])) == ("S256", 43)
        assert "openid" in asked["scope"].split()
        if self.asks and exchange.request.method == "GET":
            exchange.respond(200, {"Content-Type": "text/html"}, _FORM)
            return
        if self.asks:
            self.claims["email"] = _once(exchange.request.raw.decode())["email"]
        answer = {"state": asked["state"]}
        if self.error is not None:
            answer |= {"error": self.error, "error_description": "<b>no</b>"}
        else:
            answer["code"] = secrets.token_hex(16)
            self._codes[answer["code"]] = asked
        if self.described.get("authorization_response_iss_parameter_supported"):
            answer["iss"] = self.issuer
        exchange.respond(303, {"Location": f"{asked['redirect_uri']}?{urlencode(answer)}"}, b"")

    def _token(self, exchange: Exchange) -> None:
        sent = _once(exchange.request.raw.decode())
        if not self._knows(exchange, sent):
            exchange.respond_json(401, {"error": "invalid_client"})
            return
        asked = self._codes.pop(sent["code"], None)
        digest = hashlib.sha256(sent["code_verifier"].encode()).digest()
        if (
            asked is None
            or sent["grant_type"] != "authorization_code"
            or sent["redirect_uri"] != asked["redirect_uri"]
            or base64.urlsafe_b64encode(digest).decode().rstrip("=") != asked["code_challenge"]
        ):
            exchange.respond_json(400, {"error": "invalid_grant"})
            return
        tokens = {"access_token": "of-no-use", "token_type": "Bearer", "id_token": self._signed(asked["nonce"])}
        exchange.respond_json(200, tokens)

    def _knows(self, exchange: Exchange, sent: JSON) -> bool:
        scheme, _, text = exchange.request.headers.get("authorization", "").partition(" ")
        if scheme == "Basic" and "client_secret_basic" in self.methods and "client_secret" not in sent:
            id, _, secret = base64.b64decode(text).decode().partition(":")
            return (unquote_plus(id), unquote_plus(secret)) == (CLIENT_ID, CLIENT_SECRET)
        if scheme or "client_secret_post" not in self.methods:
            return False
        return (sent.get("client_id"), sent.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)

    def _signed(self, nonce: str) -> str:
        now_s = int(time.time())
        said = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now_s, "exp": now_s + 300, "nonce": nonce, **self.claims}
        said = {name: value for name, value in said.items() if value is not None}
        if self.made is not None:
            return self.made(said)
        return jwt.encode(said, self.key, self.algorithm, self.header)


def unsigned(header: JSON, said: JSON, signature: bytes = b"") -> str:
    """A token whose signature is whatever it is told."""
    parts = (json.dumps(header).encode(), json.dumps(said).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def _once(query: str) -> dict[str, str]:
    found = parse_qs(query, strict_parsing=True, keep_blank_values=True)
    assert all(len(values) == 1 for values in found.values()), found
    return {name: values[0] for name, values in found.items()}
