"""Static tokens: `GATEWAY_AUTH_TOKEN` and `GATEWAY_ADMIN_TOKEN`, no database."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from gateway.core.calls import Caller
from gateway.core.rights import ADMIN, METRICS, Rights
from gateway.secret import Secret


class StaticTokens:
    """Knows callers by a fixed list of tokens (auth.Verifier). Each token is a caller and a tenant of its own.

    Args:
        tokens: the list.
        admin: they are for managing, and call no model; else they call every model, and manage nothing.
    """

    def __init__(self, tokens: Sequence[Secret], *, admin: bool = False) -> None:
        self._callers = [_entry(token, admin) for token in tokens]

    def verify(self, credential: bytes) -> Caller | None:
        """Compare with every token, digest with digest, so that neither length nor place shows in the time."""
        offered = hashlib.sha256(credential).digest()
        found = None
        for digest, caller in self._callers:
            if hmac.compare_digest(offered, digest):
                found = caller
        return found


def _entry(token: Secret, admin: bool) -> tuple[bytes, Caller]:
    digest = hashlib.sha256(token.reveal().encode("utf-8", "surrogateescape")).digest()
    if admin:
        name = f"adm_{digest.hex()[:8]}"
        return digest, Caller(name, name, kind="admin", rights=Rights(frozenset({ADMIN, METRICS})))
    name = f"tok_{digest.hex()[:8]}"
    return digest, Caller(name, name)
