"""Who calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from gateway.core.calls import Caller, Headers
from gateway.errors import NotAuthenticated

#: RFC 6750, section 2.1; the scheme in any case (RFC 9110, section 11.1), spaces around it forgiven.
_BEARER = re.compile(r"\s*bearer\s+(\S+)\s*", re.IGNORECASE)

#: One and the same answer for absent, unknown, malformed: a guesser learns nothing.
_SENTENCE = (
    "Incorrect or missing API key. Send a key of this gateway, not a provider's, as `Authorization: Bearer <key>` or "
    "`x-api-key: <key>`."
)


class Verifier(Protocol):
    """One way to know a caller by a credential."""

    def verify(self, credential: bytes) -> Caller | None:
        """Return the caller that `credential` belongs to, or None. Takes the same time for every wrong one."""


@runtime_checkable
class Living(Protocol):
    """What some verifiers are besides: they keep a thread or a connection of a process."""

    def start(self) -> None:
        """Make ready in this process, after the fork."""

    def close(self) -> None:
        """Stop; safe to call again."""


@runtime_checkable
class Remembering(Protocol):
    """What some verifiers are besides: they go for a while by what they have learnt of a credential."""

    def verify_anew(self, credential: bytes) -> Caller | None:
        """As `Verifier.verify`, by what is so now.

        Raises:
            StoreUnavailable: nobody can tell what is so now.
        """


class Authenticator:
    """Finds the credential in a request and asks each verifier in order."""

    def __init__(self, verifiers: Sequence[Verifier]) -> None:
        self._verifiers = list(verifiers)

    def add(self, verifier: Verifier) -> None:
        """Ask one more verifier, after the others."""
        self._verifiers.append(verifier)

    def start(self) -> None:
        """Make every verifier ready in this process, after the fork."""
        for verifier in self._verifiers:
            if isinstance(verifier, Living):
                verifier.start()

    def close(self) -> None:
        """Stop what the verifiers have going."""
        for verifier in self._verifiers:
            if isinstance(verifier, Living):
                verifier.close()

    def identify(self, headers: Headers) -> Caller:
        """Return who calls.

        A Bearer in `Authorization` decides, else `x-api-key`, else `api-key`; the first present is the only one looked
        at.

        Args:
            headers: of the request.

        Raises:
            NotAuthenticated: no credential, or not one that is known.
            StoreUnavailable: it may be known, and what knows it cannot be asked.
        """
        return self._ask(headers, lambda verifier: verifier.verify)

    def confirm(self, headers: Headers) -> Caller:
        """Return who calls by what is so now, where `identify` may go by what was so some seconds ago.

        Args:
            headers: of the request.

        Raises:
            NotAuthenticated: no credential, or not one that is known.
            StoreUnavailable: what knows it cannot be asked.
        """
        return self._ask(
            headers,
            lambda verifier: verifier.verify_anew if isinstance(verifier, Remembering) else verifier.verify,
        )

    def _ask(self, headers: Headers, way: Callable[[Verifier], Callable[[bytes], Caller | None]]) -> Caller:
        credential = _credential(headers)
        if credential is not None:
            for verifier in self._verifiers:
                if (caller := way(verifier)(credential)) is not None:
                    return caller
        raise NotAuthenticated(_SENTENCE)


def _credential(headers: Headers) -> bytes | None:
    authorization = headers.get("Authorization")
    if authorization is not None and authorization.lstrip()[:6].lower() == "bearer":
        match = _BEARER.fullmatch(authorization)
        return match[1].encode("latin-1", "replace") if match else None
    for name in ("x-api-key", "api-key"):
        if (value := headers.get(name)) is not None:
            return value.strip().encode("latin-1", "replace") or None
    return None
