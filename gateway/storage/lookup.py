"""Virtual keys, for those who are asked by one: what a key is good for, and what has changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, or_, select, update

from gateway.core.keys import Key
from gateway.storage.database import Database
from gateway.storage.keyrows import WITH_OWNERS, key_of
from gateway.storage.revision import MOST_GENERATIONS, revision
from gateway.storage.tables import key_secrets, keys

#: A key's last use is known to the minute, so that a busy one costs a write a minute and not one a call.
USED_EVERY_S = 60.0

#: As many as a worker remembers. Where changes are too many to name it forgets also the keys that did not change, and
#: looks them up again at a bounded rate: whoever stops a large project would cost the others answers.
_MOST_NAMED = 20_000


@dataclass(frozen=True)
class Found:
    """What a secret is good for.

    Attributes:
        key: the key that it is one of; None where it is of no use, for whatever reason.
        until_s: from when on it is of no use if nothing changes, seconds since the epoch; None for never.
        revision: the one at which this was so.
    """

    key: Key | None
    until_s: float | None
    revision: int


@dataclass(frozen=True)
class Changed:
    """The keys that have changed since another revision; `ids` is None where they are too many to name."""

    revision: int
    ids: frozenset[str] | None


class KeyLookup:
    """Looks keys up by the hashes of their secrets.

    Args:
        database: where they are kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def start(self) -> None:
        """Make ready in this process, after the fork."""
        self._database.hold()

    def close(self) -> None:
        """Let go of the database; safe to call again."""
        self._database.release()

    def find(self, hashed: str, now_s: float) -> Found:
        """Say what a secret is good for, with whatever it hangs from.

        Args:
            hashed: of the key as it is written (`Pepper.hashed`).
            now_s: seconds since the epoch.

        Raises:
            StorageError: the database is busy or cannot be read.
        """

        def work(connection: Connection) -> Found:
            at = revision(connection)
            secret = connection.execute(select(key_secrets).where(key_secrets.c.hash == hashed)).one_or_none()
            if secret is None:
                return Found(None, None, at)
            row = _row(connection, secret.key)
            line, above = [row], row
            while above.parent is not None and len(line) < MOST_GENERATIONS:
                above = _row(connection, above.parent)
                line.append(above)
            ends = [moment for moment in (secret.ends, *(one.expires for one in line)) if moment is not None]
            good = all(_is_on(one) for one in line) and all(moment > now_s for moment in ends)
            key = key_of(row, [secret], secret.pepper, now_s) if good else None
            return Found(key, min(ends, default=None), at)

        return self._database.read(work)

    def changed(self, since: int) -> Changed:
        """Say which keys have changed after a revision, and what the revision is now.

        Raises:
            StorageError: the database is busy or cannot be read.
        """

        def work(connection: Connection) -> Changed:
            at = revision(connection)
            if at == since:
                return Changed(at, frozenset())
            newer = select(keys.c.id).where(keys.c.revision > since).limit(_MOST_NAMED + 1)
            ids = connection.execute(newer).scalars().all()
            # a smaller revision than before: another database, or an older copy of it
            return Changed(at, frozenset(ids) if len(ids) <= _MOST_NAMED and at > since else None)

        return self._database.read(work)

    def used(self, times: Mapping[str, float]) -> None:
        """Note when keys were used, those apart whose last use is known to the minute.

        Args:
            times: seconds since the epoch, by the id of the key.

        Raises:
            StorageError: the database is busy or cannot be written.
        """
        rows = [{"its_id": id, "at": at_s, "before": at_s - USED_EVERY_S} for id, at_s in sorted(times.items())]

        def work(connection: Connection) -> None:
            connection.execute(_USED, rows)

        if rows:
            self._database.write(work)


_USED = (
    update(keys)
    .where(keys.c.id == bindparam("its_id"), or_(keys.c.used.is_(None), keys.c.used <= bindparam("before")))
    .values(used=bindparam("at"))
)


def _row(connection: Connection, id: str) -> Row[Any]:
    return connection.execute(WITH_OWNERS.where(keys.c.id == id)).one()


def _is_on(row: Row[Any]) -> bool:
    return row.deleted is None and not (row.disabled or row.project_disabled or row.user_disabled)
