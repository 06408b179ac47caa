"""The two ways into a database: by SQLAlchemy's connection, and in the driver's own words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection

from gateway.storage.database import Database
from gateway.storage.driven import Asked, Driven

Rows = Sequence[Sequence[Any]]


class ByConnection:
    """`Database.read` and `Database.write`."""

    def read(self, database: Database, *statements: str) -> list[Rows]:
        return database.read(lambda it: [it.exec_driver_sql(one).all() for one in statements])

    def write(
        self, database: Database, *statements: str, alone_on: Sequence[str] = (), before: Callable[[], object] = int
    ) -> None:
        def work(connection: Connection) -> None:
            before()
            for one in statements:
                connection.exec_driver_sql(one)

        database.write(work, alone_on=alone_on)


class Driving:
    """`Database.drive`."""

    def read(self, database: Database, *statements: str) -> list[Rows]:
        return database.drive(lambda it: list(it.ask(*(Asked(one, ()) for one in statements))), alone_on=None)

    def write(
        self, database: Database, *statements: str, alone_on: Sequence[str] = (), before: Callable[[], object] = int
    ) -> None:
        def work(driven: Driven) -> None:
            before()
            for one in statements:
                if one.startswith("SELECT"):
                    driven.ask(Asked(one, ()))
                else:
                    driven.tell(one, [()])

        database.drive(work, alone_on=alone_on)


Way = ByConnection | Driving
WAYS: dict[str, Way] = {"by SQLAlchemy": ByConnection(), "by the driver": Driving()}
