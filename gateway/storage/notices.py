"""Notices that receivers of webhooks are still to be told; whichever worker has a turn delivers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select, update

from gateway.storage.database import Database
from gateway.storage.tables import notices


@dataclass(frozen=True)
class Notice:
    """One notice.

    Attributes:
        id: the same however often it is sent.
        address: where it goes.
        document: what is sent, JSON.
        made_s: since when, seconds since the epoch.
        tries: how often it was sent in vain.
    """

    id: str
    address: str
    document: str
    made_s: float
    tries: int = 0


class Notices:
    """All notices that are to be delivered.

    Args:
        database: where they are kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, new: Sequence[Notice]) -> None:
        """Keep notices, due at once.

        Raises:
            StorageError: the database is busy or cannot be written.
        """
        rows = [
            {
                "id": one.id,
                "address": one.address,
                "document": one.document,
                "made": one.made_s,
                "tries": one.tries,
                "due": one.made_s,
            }
            for one in new
        ]

        def work(connection: Connection) -> None:
            connection.execute(insert(notices), rows)

        if rows:
            self._database.write(work)

    def due_s(self) -> float | None:
        """Return when the next one is due, seconds since the epoch; None where there is none.

        Raises:
            StorageError: the database is busy or cannot be read.
        """
        return self._database.read(lambda connection: connection.execute(select(func.min(notices.c.due))).scalar())

    def claim(self, now_s: float, lease_s: float) -> Notice | None:
        """Take the notice that has been due for longest, so that nobody else does for a while.

        Args:
            now_s: seconds since the epoch.
            lease_s: after how long it is due again, unless it is `delivered` or put off.

        Returns:
            None: none is due.

        Raises:
            StorageError: the database is busy or cannot be written.
        """

        def work(connection: Connection) -> Notice | None:
            oldest = select(notices).where(notices.c.due <= now_s).order_by(notices.c.due, notices.c.id).limit(1)
            row = connection.execute(oldest).one_or_none()
            if row is None:
                return None
            connection.execute(update(notices).where(notices.c.id == row.id).values(due=now_s + lease_s))
            return Notice(row.id, row.address, row.document, row.made, row.tries)

        return self._database.write(work)

    def put_off(self, id: str, due_s: float) -> None:
        """Say that one was sent in vain, and when it is due again, seconds since the epoch.

        Raises:
            StorageError: the database is busy or cannot be written.
        """
        later = update(notices).where(notices.c.id == id).values(tries=notices.c.tries + 1, due=due_s)
        self._database.write(lambda connection: connection.execute(later) and None)

    def forget(self, id: str) -> None:
        """Take one out: it was delivered, or given up.

        Raises:
            StorageError: the database is busy or cannot be written.
        """
        self._database.write(lambda connection: connection.execute(delete(notices).where(notices.c.id == id)) and None)
