"""Requests that are named by who sends them, so that one that comes again does nothing again."""

from __future__ import annotations

import hashlib
import json

from gateway.errors import InvalidRequest
from gateway.storage.audit import By

LONGEST = 255


def mark(by: By, idempotency: str | None) -> str | None:
    """Return what is kept of the name of a request: a hash of it and of who gave it.

    Args:
        by: who.
        idempotency: the name, 1 to `LONGEST` characters; None where there is none.

    Raises:
        InvalidRequest: the name is too long or empty.
    """
    if idempotency is None:
        return None
    if not 0 < len(idempotency) <= LONGEST:
        raise InvalidRequest(f"An idempotency key has 1 to {LONGEST} characters.", param="idempotency-key")
    return digest([by.actor, idempotency])


def digest(plain: object) -> str:
    """Return 64 hex digits of JSON, in which the order of names does not matter."""
    return hashlib.sha256(json.dumps(plain, ensure_ascii=True, sort_keys=True).encode()).hexdigest()
