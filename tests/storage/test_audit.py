"""The audit: what is asked of it costs the same however long it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from gateway.storage.audit import Audit, By
from gateway.storage.database import Database
from gateway.storage.directory import Directory
from gateway.storage.tables import audit
from tests.fakes.stores import migrated

#: Many times what a page of lines takes, and a fraction of what it takes to look at each of `LINES`.
MOST_STEPS = 20_000
LINES = 20_000


class Counted(Database):
    """A database that counts the steps of SQLite's machine, by hundreds."""

    steps = 0

    def _watched(self, work: Callable[[Connection], Any], connection: Connection) -> Any:
        def step() -> int:
            self.steps += 100
            return 0

        driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(step, 100)
        try:
            return work(connection)
        finally:
            driver.set_progress_handler(None, 0)

    def read(self, work: Callable[[Connection], Any]) -> Any:
        return super().read(lambda connection: self._watched(work, connection))

    def write(self, work: Callable[[Connection], Any], **named: Any) -> Any:
        return super().write(lambda connection: self._watched(work, connection), **named)


@pytest.fixture
def database(tmp_path: Path) -> Counted:
    migrated(tmp_path / "gateway.db")
    made = Counted(tmp_path / "gateway.db")
    lines = [
        {
            "at": 1.0 * number,
            "actor": "cli",
            "action": "create",
            "kind": "limit" if number % 2 else "key",
            "target": f"lim_{number:012d}",
            "details": json.dumps({"name": f"limit {number}", "idempotency": f"{number:064d}"}),
        }
        for number in range(LINES)
    ]
    made.write(lambda connection: connection.execute(insert(audit), lines))
    made.steps = 0
    return made


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"kind": "limit"},
        {"kind": "project"},
        {"target": "lim_000000000001"},
        {"kind": "limit", "target": "lim_000000000001"},
        {"kind": "limit", "target": "lim_none"},
        {"kind": "budget", "before": LINES // 2},
    ],
    ids=str,
)
def test_no_question_looks_at_every_line(asked: dict[str, Any], database: Counted) -> None:
    Audit(database).page(**asked)
    assert database.steps < MOST_STEPS


def test_a_request_that_is_named_is_found_without_looking_at_every_line(database: Counted) -> None:
    limits = Directory.of(database, lambda: None).limits  # type: ignore[arg-type, return-value]  # no key is made
    wanted = {"name": "a limit", "measure": "requests", "most": 5, "period": "minute"}
    made = limits.create(wanted, By("cli"), "mine")
    assert limits.create(wanted, By("cli"), "mine").rule.id == made.rule.id
    assert database.steps < MOST_STEPS
