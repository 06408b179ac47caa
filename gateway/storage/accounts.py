"""Projects and users: whom keys belong to. They can be disabled, which stops their keys, and are never taken out."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Row, Table, insert, or_, select, update

from gateway.core.fields import check_name
from gateway.core.keys import ID_BYTES, could_name, new_id
from gateway.core.paging import Page
from gateway.core.rights import kept_rights
from gateway.errors import Conflict, ObjectNotFound, RightsExceeded
from gateway.storage import tables
from gateway.storage.audit import By, note
from gateway.storage.database import Database
from gateway.storage.idempotency import made_as, mark
from gateway.storage.revision import next_revision, touch


@dataclass(frozen=True)
class Account:
    """A project or a user. `made_s` is seconds since the epoch."""

    id: str
    name: str
    made_s: float
    disabled: bool = False


class Accounts:
    """The accounts of one kind.

    Args:
        database: where they are kept.
        kind: `project` or `user`.
        clock: seconds since the epoch.
    """

    def __init__(self, database: Database, kind: str, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._kind = kind
        self._table: Table = {"project": tables.projects, "user": tables.users}[kind]
        self._clock = clock

    def create(self, name: str, by: By, idempotency: str | None = None) -> Account:
        """Make one.

        Args:
            name: 1 to `core.fields.LONGEST_NAME` printable characters; no other of its kind has it.
            by: who makes it.
            idempotency: the name that `by` gave the request, 1 to 255 characters: asked again under it, what was made
                is returned.

        Raises:
            InvalidRequest: the name, or that of the request, cannot be used.
            Conflict: the name is taken, or that of the request was given to another one.
            StorageError: the database is busy or cannot be written.
        """
        check_name(name)
        marked = mark(by, idempotency)
        details = {"name": name} if marked is None else {"name": name, "idempotency": marked}
        account = Account(f"{self._kind[:4]}_{new_id(secrets.token_bytes(ID_BYTES))}", name, self._clock())

        def work(connection: Connection) -> Account:
            next_revision(connection)
            if (made := made_as(connection, self._kind, details)) is not None:
                return _account(self._row(connection, made))
            self._refuse_taken(connection, name)
            row = {"id": account.id, "name": name, "made": account.made_s, "disabled": False}
            connection.execute(insert(self._table).values(row))
            note(connection, by, account.made_s, "create", self._kind, account.id, details)
            return account

        return self._database.write(work)

    def show(self, id: str) -> Account:
        """Return one.

        Raises:
            ObjectNotFound: there is none with that id.
            StorageError: the database is busy or cannot be read.
        """
        return _account(self._database.read(lambda connection: self._row(connection, id)))

    def page(self, *, after: str | None = None, limit: int = 50) -> Page[Account]:
        """Return some of them, newest first.

        Args:
            after: the id of the last one of the page before this one.
            limit: how many at most.

        Raises:
            ObjectNotFound: `after` names none.
            StorageError: the database is busy or cannot be read.
        """
        table = self._table

        def work(connection: Connection) -> list[Account]:
            wanted = select(table).order_by(table.c.made.desc(), table.c.id.desc()).limit(limit + 1)
            if after is not None:
                last = self._row(connection, after)
                older = (table.c.made == last.made) & (table.c.id < last.id)
                wanted = wanted.where(or_(table.c.made < last.made, older))
            return [_account(row) for row in connection.execute(wanted)]

        found = self._database.read(work)
        return Page(found[:limit], len(found) > limit)

    def change(self, id: str, by: By, *, name: str | None = None, disabled: bool | None = None) -> Account:
        """Rename one, or stop or resume all of its keys; None leaves that as it is.

        Raises:
            InvalidRequest: the name cannot be used.
            ObjectNotFound: there is none with that id.
            Conflict: the name is taken.
            RightsExceeded: a key of it would be stopped or resumed that has more rights than `by` may give.
            StorageError: the database is busy or cannot be written.
        """
        if name is not None:
            check_name(name)

        def work(connection: Connection) -> Account:
            revision = next_revision(connection)
            before = self._row(connection, id)
            wanted = {"name": name, "disabled": disabled}
            changed = {
                field: value for field, value in wanted.items() if value is not None and value != getattr(before, field)
            }
            if changed:
                if name is not None and "name" in changed:
                    self._refuse_taken(connection, name)
                if "disabled" in changed:
                    self._refuse_beyond(connection, id, by)
                connection.execute(update(self._table).where(self._table.c.id == id).values(**changed))
                touch(connection, tables.keys.c[self._kind] == id, revision)
                note(connection, by, self._clock(), "change", self._kind, id, changed)
            return _account(self._row(connection, id))

        return self._database.write(work)

    def _row(self, connection: Connection, id: str) -> Row[tuple[str, ...]]:
        found = None
        if could_name(id):
            found = connection.execute(select(self._table).where(self._table.c.id == id)).one_or_none()
        if found is None:
            raise ObjectNotFound(f"There is no such {self._kind}.", param=self._kind)
        return found

    def _refuse_taken(self, connection: Connection, name: str) -> None:
        taken = select(self._table.c.id).where(self._table.c.name == name)
        if connection.execute(taken).first() is not None:
            raise Conflict(f"Another {self._kind} has this name.", param="name")

    def _refuse_beyond(self, connection: Connection, id: str, by: By) -> None:
        """Refuse what `by` may not do to each of its keys one by one; those that hang from them have no more rights."""
        mine = (tables.keys.c[self._kind] == id) & tables.keys.c.deleted.is_(None)
        # thousands of keys have few different rights
        for rights in connection.execute(select(tables.keys.c.rights).where(mine).distinct()).scalars():
            if not kept_rights(json.loads(rights)).within(by.grants):
                raise RightsExceeded(f"A key of this {self._kind} has more rights than you may give.", param="disabled")


def _account(row: Row[tuple[str, ...]]) -> Account:
    return Account(row.id, row.name, row.made, row.disabled)
