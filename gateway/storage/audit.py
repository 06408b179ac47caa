"""Who changed what: lines are added in the transaction of the change itself, and never changed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, false, insert, select

from gateway.core.keys import could_name
from gateway.core.paging import Page
from gateway.core.rights import ALL, Rights
from gateway.storage.database import Database
from gateway.storage.tables import audit as table

JSON = dict[str, Any]


@dataclass(frozen=True)
class By:
    """Who changes something.

    Attributes:
        actor: the id of the caller, or what else it is known by (`cli`).
        grants: the most that it may give to a key, and take from one.
        request_id: of the request that changes it.
    """

    actor: str
    grants: Rights = ALL
    request_id: str | None = None


@dataclass(frozen=True)
class AuditLine:
    """One change. `at_s` is seconds since the epoch; `details` says what became different, and holds no secret."""

    seq: int
    at_s: float
    actor: str
    action: str
    kind: str
    target: str
    details: Mapping[str, Any]
    request_id: str | None


def note(
    connection: Connection, by: By, at_s: float, action: str, kind: str, target: str, details: Mapping[str, Any]
) -> None:
    """Add a line, in the transaction of the change.

    Args:
        connection: of `Database.write`.
        by: who.
        at_s: seconds since the epoch.
        action: what was done, a verb such as `rotate`.
        kind: of what (`key`, `project`, `user`).
        target: the id of it.
        details: JSON without secrets; of what a named request makes, with its `idempotency.mark`.
    """
    line = {"at": at_s, "actor": by.actor, "action": action, "kind": kind, "target": target}
    text = json.dumps(details, ensure_ascii=True, sort_keys=True)
    marked = details.get("idempotency") if action == "create" else None
    connection.execute(insert(table).values(**line, details=text, request_id=by.request_id, idempotency=marked))


class Audit:
    """Reads the lines, newest first.

    Args:
        database: where they are kept.
        clock: seconds since the epoch.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def note_sign_in(self, by: By, details: Mapping[str, Any]) -> None:
        """Add a line for somebody who signs in, which changes nothing else.

        Args:
            by: who.
            details: JSON without secrets.

        Raises:
            StorageError: the database is busy or cannot be written.
        """
        self._database.write(
            lambda connection: note(connection, by, self._clock(), "sign_in", "session", by.actor, details)
        )

    def page(
        self, *, kind: str | None = None, target: str | None = None, before: int | None = None, limit: int = 50
    ) -> Page[AuditLine]:
        """Return some lines.

        Args:
            kind: only of this kind.
            target: only of what has this id.
            before: the `seq` of the last line of the page before this one.
            limit: how many at most.

        Raises:
            StorageError: the database is busy or cannot be read.
        """
        wanted = select(table).order_by(table.c.seq.desc()).limit(limit + 1)
        for column, text in ((table.c.kind, kind), (table.c.target, target)):
            if text is not None:
                wanted = wanted.where(column == text if could_name(text) else false())
        if before is not None:
            wanted = wanted.where(table.c.seq < before)
        rows = self._database.read(lambda connection: connection.execute(wanted).all())
        lines = [
            AuditLine(
                row.seq, row.at, row.actor, row.action, row.kind, row.target, json.loads(row.details), row.request_id
            )
            for row in rows
        ]
        return Page(lines[:limit], len(lines) > limit)
