"""Every backend of a database, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.storage.database import Database
from tests.fakes.stores import migrated
from tests.storage.places import Place


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A database with the tables of this release."""
    if request.param == "postgres":
        address: Place = request.getfixturevalue("postgres_address")
        return address
    migrated(tmp_path / "gateway.db")
    return tmp_path / "gateway.db"


@pytest.fixture
def opened(place: Place) -> Iterator[Callable[..., Database]]:
    """Opens that database as often as a test likes, and closes all in the end."""
    made: list[Database] = []

    def open_it(at: Place = place, *, patience_s: float = 2) -> Database:
        made.append(Database(at, patience_s=patience_s))
        return made[-1]

    yield open_it
    for database in made:
        database.release()
