"""Real stores, started when the first test needs one and shared by all that follow."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from gateway.secret import Secret
from gateway.storage.migrate import upgrade
from tests.fakes.stores import Postgres, Redis, folder_for_servers, redis_programs

_NUMBERS = itertools.count(1)
_TEMPLATE = "migrated"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files whose few tests take long: at the end a worker would be alone with one of them."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/served/"))


@pytest.fixture(scope="session")
def store_folder() -> Iterator[Path]:
    with folder_for_servers() as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres(store_folder: Path) -> Iterator[Postgres]:
    """A Postgres server that nobody stops; it has a database of this release's tables, to be copied."""
    folder = store_folder / "postgres"
    folder.mkdir()
    server = Postgres(folder)
    server.start()
    try:
        upgrade(Secret(server.make(_TEMPLATE)))
        yield server
    finally:
        server.stop()


@pytest.fixture
def postgres_address(postgres: Postgres) -> Iterator[Secret]:
    """A Postgres database with the tables of this release and no rows."""
    name = f"gateway_{next(_NUMBERS)}"
    yield Secret(postgres.make(name, _TEMPLATE))
    postgres.remove(name)


@pytest.fixture
def empty_postgres_address(postgres: Postgres) -> Iterator[Secret]:
    """A Postgres database without tables."""
    name = f"gateway_{next(_NUMBERS)}"
    yield Secret(postgres.make(name))
    postgres.remove(name)


@pytest.fixture(scope="session")
def redis_servers(store_folder: Path) -> Iterator[Mapping[str, Redis]]:
    """A Redis of the oldest release that is supported, and a new Valkey; nobody stops them."""
    servers = {}
    for name, program in redis_programs().items():
        (store_folder / name).mkdir()
        servers[name] = Redis(store_folder / name, program)
        servers[name].start()
    yield servers
    for server in servers.values():
        server.stop()
