"""Whatever the stores do, a key that is known is served, and no good one is told that it is none.

`bench/store_faults.py` is the long form, and measures what is felt of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.stores import folder_for_servers
from tests.served.storefaults import Stores, run

pytestmark = pytest.mark.long

FAULTS = (
    "Postgres stopped",
    "Valkey stopped",
    "Postgres silent",
    "Valkey silent",
    "Postgres out of connections",
    "Postgres' tables locked",
    "SQLite locked",
)


@pytest.fixture(scope="module")
def both() -> Iterator[list[Stores]]:
    with folder_for_servers() as folder:
        for name in ("file", "servers"):
            (folder / name).mkdir(mode=0o755)
        with (
            Stores(folder / "file", {}, servers=False) as file,
            Stores(folder / "servers", {}, servers=True) as servers,
        ):
            yield [file, servers]


def test_every_fault_is_tried(both: list[Stores]) -> None:
    assert {fault.name for stores in both for fault in stores.faults()} == set(FAULTS)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_store_fails_no_call_of_a_known_key(both: list[Stores], name: str) -> None:
    stores, fault = next((one, fault) for one in both for fault in one.faults() if fault.name == name)
    found = run(stores, fault, rate=20.0, healthy_s=0.5, fault_s=2.0)
    assert found.faults() == []
    assert len(found.fault_ms) > 10
    assert "Traceback" not in stores.served.log
