"""JWTs of one issuer (RFC 7519; what to beware of: RFC 8725)."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt
from jwt.exceptions import PyJWTError

from gateway.auth.issuer import IssuerKeys
from gateway.core.calls import Caller
from gateway.core.people import claim_of
from gateway.core.rights import ADMIN, CALL, EVERYTHING, METRICS, Rights, entries_of
from gateway.errors import InvalidRequest

JSON = dict[str, Any]

log = logging.getLogger(__name__)

#: How far the clocks of issuer and gateway may be apart.
SKEW_S = 60.0
_LONGEST_BYTES = 16_384
_LONGEST_NAME = 256
_MOST_KNOWN = 10_000


@dataclass(frozen=True)
class Claims:
    """Which claims say what. A name with dots is a claim of that name, or the way to one inside others.

    Attributes:
        caller: who it is, a text that stays the same.
        project: whose stored responses are shared; None, or a token without it, where each caller is alone.
        scopes: what it may do: a list, or a text with blanks between (RFC 8693, section 4.2).
        models: a list of the models that it may call, none in a token without it; None where it may call all.
        call_scope: what must stand in `scopes` for calls; None where every token will do.
        admin_scope: what must stand there for managing; None where no token will do.
    """

    caller: str = "sub"
    project: str | None = None
    scopes: str = "scope"
    models: str | None = None
    call_scope: str | None = None
    admin_scope: str | None = None


@dataclass(frozen=True)
class _Known:
    caller: Caller
    until_s: float
    generation: int


class JsonWebTokens:
    """Knows callers by the JWTs of one issuer (auth.Verifier). One that was checked is remembered until it expires.

    Args:
        issuer: what `iss` must be, to the letter.
        audiences: of which `aud` must have one.
        algorithms: those that are accepted, of `settings.ALGORITHMS`.
        keys: of the issuer.
        claims: which say what.
    """

    def __init__(
        self, issuer: str, audiences: Sequence[str], algorithms: Sequence[str], keys: IssuerKeys, claims: Claims
    ) -> None:
        self._issuer = issuer
        self._audiences = tuple(audiences)
        self._algorithms = tuple(algorithms)
        self._keys = keys
        self._claims = claims
        self._known: dict[bytes, _Known] = {}  # by SHA-256 of the whole token
        self._jwt = jwt.PyJWT({"enforce_minimum_key_length": True, "require": ["exp", "iss", "aud"]})

    def start(self) -> None:
        """Begin to fetch the issuer's keys, after the fork."""
        self._keys.start()

    def close(self) -> None:
        """Stop fetching them."""
        self._keys.close()

    def verify(self, credential: bytes) -> Caller | None:
        """Return whom a token names, where it is the issuer's, for this gateway, and of this time.

        Raises:
            StoreUnavailable: the issuer's keys are not there to tell.
        """
        # every header of a JWT begins with a brace, which is `ey` in Base64
        if not credential.startswith(b"ey") or credential.count(b".") != 2 or len(credential) > _LONGEST_BYTES:
            return None
        digest = hashlib.sha256(credential).digest()
        known = self._known.get(digest)
        if known is not None and known.generation == self._keys.generation and known.until_s > time.time():
            return known.caller
        return self._check(digest, credential)

    def _check(self, digest: bytes, credential: bytes) -> Caller | None:
        generation = self._keys.generation
        try:
            header = jwt.get_unverified_header(credential)
            algorithm = header.get("alg")
            if not isinstance(algorithm, str) or algorithm not in self._algorithms:
                return None
            key = self._keys.find(header.get("kid"), algorithm)
            if key is None:
                return None
            said = self._jwt.decode(
                credential,
                key,
                algorithms=[algorithm],
                audience=self._audiences,
                issuer=self._issuer,
                leeway=SKEW_S,
            )
            caller = self._caller(said)
        except (PyJWTError, InvalidRequest, OverflowError) as error:  # the last: an `exp` that is no time
            log.debug("a JWT is refused: %s", type(error).__name__)
            return None
        while len(self._known) >= _MOST_KNOWN:
            self._known.pop(next(iter(self._known)), None)
        self._known[digest] = _Known(caller, int(said["exp"]) + SKEW_S, generation)
        return caller

    def _caller(self, said: Mapping[str, Any]) -> Caller:
        """Read who it is and what it may.

        Raises:
            InvalidRequest: a claim that is needed is not there or is no such thing; then the token is of no use.
        """
        claims = self._claims
        user = _name(claim_of(said, claims.caller))
        named = claim_of(said, claims.project) if claims.project is not None else None
        project = _name(named) if named is not None else None
        scopes = _words(claim_of(said, claims.scopes))
        held = {CALL} if claims.call_scope is None or claims.call_scope in scopes else set()
        if claims.admin_scope is not None and claims.admin_scope in scopes:
            held |= {ADMIN, METRICS}
        models: tuple[str, ...] = EVERYTHING
        if claims.models is not None:
            models = entries_of("models", claim_of(said, claims.models) or [])
        id = f"jwt_{_digest(self._issuer, user)}"
        return Caller(
            id=id,
            # made of a digest, so that no issuer can name the tenant of a virtual key
            tenant=id if project is None else f"jwtp_{_digest(self._issuer, project)}",
            kind="jwt",
            rights=Rights(frozenset(held), models=models),
            project=project,
            user=user,
            expires_s=float(said["exp"]),
        )


def _name(claim: object) -> str:
    if not isinstance(claim, str) or not 0 < len(claim) <= _LONGEST_NAME or not claim.isprintable():
        raise InvalidRequest("The claim that says who calls is no name.")
    return claim


def _words(claim: object) -> frozenset[str]:
    if isinstance(claim, str):
        return frozenset(claim.split(" "))  # and nothing else: to an issuer other blanks may be parts of a name
    return frozenset(word for word in claim if isinstance(word, str)) if isinstance(claim, list) else frozenset()


def _digest(issuer: str, name: str) -> str:
    return hashlib.sha256(f"{issuer}\0{name}".encode()).hexdigest()[:16]
