"""Requests that are named by who sends them, so that one that comes again does nothing again."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sqlalchemy import Connection, select

from gateway.errors import Conflict, InvalidRequest
from gateway.storage.audit import By
from gateway.storage.tables import audit

JSON = dict[str, Any]

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


def made_as(connection: Connection, kind: str, details: JSON) -> str | None:
    """Return the id of what a request made that was named alike: the audit has it, and what was asked for.

    Args:
        connection: of the transaction that would make it.
        kind: of what, as in the audit.
        details: what the line of the audit would say, with the `mark` of the request as `idempotency`.

    Raises:
        Conflict: the same name was given to a request for something else.
    """
    if details.get("idempotency") is None:
        return None
    wanted = select(audit.c.target, audit.c.details).where(
        audit.c.idempotency == details["idempotency"], audit.c.kind == kind, audit.c.action == "create"
    )
    found = connection.execute(wanted).first()
    if found is None:
        return None
    if json.loads(found.details) != details:
        raise Conflict("Another request had this idempotency key.", param="idempotency-key")
    return str(found.target)


def digest(plain: object) -> str:
    """Return 64 hex digits of JSON, in which the order of names does not matter."""
    return hashlib.sha256(json.dumps(plain, ensure_ascii=True, sort_keys=True).encode()).hexdigest()
