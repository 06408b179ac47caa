"""Users by their e-mail addresses, with the keys that are theirs: for those who sign in to the pages."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from gateway.storage.database import Database
from gateway.storage.tables import keys, users

#: The newest; a query names each of them.
MOST_KEYS = 1000


@dataclass(frozen=True)
class Owner:
    """A user.

    Attributes:
        id, name: theirs.
        disabled: none of their keys is of use.
        keys: the ids of their newest `MOST_KEYS` keys, also of those that are deleted, the newest first.
    """

    id: str
    name: str
    disabled: bool
    keys: tuple[str, ...]


class Owners:
    """Looks users up.

    Args:
        database: where they are kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_email(self, email: str) -> Owner | None:
        """Return the user whose name is an e-mail address, in any case; None for nobody, and where several have it.

        Args:
            email: ASCII, in small letters.

        Raises:
            StorageError: the database is busy or cannot be read.
        """

        def work(connection: Connection) -> Owner | None:
            found = connection.execute(select(users).where(func.lower(users.c.name) == email).limit(2)).all()
            if len(found) != 1:
                return None
            [row] = found
            mine = select(keys.c.id).where(keys.c.user == row.id).order_by(keys.c.made.desc(), keys.c.id.desc())
            ids = connection.execute(mine.limit(MOST_KEYS)).scalars()
            return Owner(row.id, row.name, row.disabled, tuple(ids))

        return self._database.read(work)
