"""How long the ledger takes to answer with a million rows, on SQLite and on Postgres.

    uv run python bench/ledger_queries.py [--rows 1000000]

Rows of 90 days: 200 keys, 40 users, 10 projects, 12 models, up to two of 20 tags. Each question is asked five times,
and the median told; `month` is the last 30 days, a third of the rows.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import sqlalchemy
from sqlalchemy import insert
from sqlalchemy.engine import Engine

from gateway.core.rules import USD, Match
from gateway.secret import Secret
from gateway.storage.database import Database
from gateway.storage.migrate import upgrade
from gateway.storage.tables import usage as table
from gateway.storage.usage import UsageRows, Wanted
from tests.fakes.stores import Postgres

NOW_S, DAY_S = 1_793_500_000.0, 86_400.0
DAYS, BATCH = 90, 5_000
COLUMNS = [column.name for column in table.c]


def rows(count: int, now_s: float = NOW_S) -> Iterator[dict[str, Any]]:
    """Make rows, oldest first, as a gateway of three months has them; the last one began a moment before `now_s`."""
    chance = random.Random(7)
    for number in range(count):
        started = now_s - DAYS * DAY_S * (1 - number / count)
        key, model = int(200 * chance.random() ** 2), chance.randrange(12)
        tags = [f"tag-{chance.randrange(20)}" for _ in range(chance.randrange(3))]
        prompt, completion = chance.randrange(50, 4_000), chance.randrange(5, 900)
        price = [{"attempt": 1, "deployment": f"openai/gpt-{model}", "cost_usd": f"0.00{prompt}", "estimated": False}]
        yield {
            **dict.fromkeys(COLUMNS),
            "request_id": f"req_{chance.getrandbits(128):032x}",
            "started": started,
            "ended": started + 2.5,
            "state": "ended",
            "operation": "chat",
            "caller": f"key_{key:012d}",
            "caller_kind": "key",
            "tenant": f"proj_{key % 10:012d}",
            "key_id": f"{key:012d}",
            "project_id": f"proj_{key % 10:012d}",
            "project": f"project {key % 10}",
            "user_id": f"user_{key % 40:012d}",
            "user": f"u{key % 40}@example.com",
            "model": f"gpt-{model}",
            "planned": f'["openai/gpt-{model}"]',
            "provider": "openai",
            "deployment": f"openai/gpt-{model}",
            "served_model": f"gpt-{model}-2026-01-01",
            "status": 200,
            "stream": True,
            "caller_gone": False,
            "attempts": 1,
            "time_to_first_token_s": chance.random(),
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "cached_tokens": prompt // 3,
            "cache_write_tokens": 0,
            "reasoning_tokens": 0,
            "total_tokens": prompt + completion,
            "cost_nano": 150 * prompt + 600 * completion,
            "estimated": False,
            "tags": json.dumps(tags) if tags else None,
            "price": json.dumps(price),
        }


def fill(place: Path | Secret, made: Iterable[dict[str, Any]]) -> None:
    """Put rows there, past what the gateway itself goes through."""
    engine = sqlalchemy.create_engine(f"sqlite:///{place}" if isinstance(place, Path) else place.reveal())
    left = iter(made)
    while batch := list(islice(left, BATCH)):
        _put(engine, batch)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE" if engine.dialect.name == "sqlite" else "VACUUM ANALYZE usage")
    engine.dispose()


def _put(engine: Engine, batch: list[dict[str, Any]]) -> None:
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.execute(insert(table), batch)
            return
        names = ", ".join(f'"{name}"' for name in COLUMNS)
        cursor = connection.connection.cursor()
        with cursor.copy(f"COPY usage ({names}) FROM STDIN") as copy:  # type: ignore[attr-defined]
            for row in batch:
                copy.write_row(list(row.values()))


def questions(asked: UsageRows) -> Mapping[str, Callable[[], Any]]:
    """What is asked, by what it is called."""
    month, key = NOW_S - 30 * DAY_S, f"{3:012d}"
    place = asked.page(Wanted(key=key), limit=50).items[-1]
    return {
        "one month by model": lambda: asked.report(Wanted(since_s=month), ["model"]),
        "one month by key": lambda: asked.report(Wanted(since_s=month), ["key"]),
        "one month by tag": lambda: asked.report(Wanted(since_s=month), ["tag"]),
        "one month by day": lambda: asked.report(Wanted(since_s=month), ["day"]),
        "one month by user": lambda: asked.report(Wanted(since_s=month), ["user"]),
        "one month of one tag": lambda: asked.report(Wanted(since_s=month, tag="tag-3")),
        "one key's month by model": lambda: asked.report(Wanted(since_s=month, key=key), ["model"]),
        "one key's spend this month": lambda: asked.spent(Match(key=key), {}, month, USD),
        "one user's spend this month": lambda: asked.spent(Match(), {"user": f"user_{3:012d}"}, month, USD),
        "all spend this month": lambda: asked.spent(Match(), {}, month, USD),
        "one model's spend this month": lambda: asked.spent(Match(model="openai/gpt-3"), {}, month, USD),
        "newest 50 rows of a key": lambda: asked.page(Wanted(key=key), limit=50),
        "the next 50 rows of a key": lambda: asked.page(
            Wanted(key=key), after=(place["started"], place["request_id"]), limit=50
        ),
        "newest 50 rows of all": lambda: asked.page(Wanted(), limit=50),
        "all 90 days by model": lambda: asked.report(Wanted(), ["model"]),
    }


def measure(name: str, place: Path | Secret, count: int) -> None:
    """Fill one database, ask it, and tell."""
    upgrade(place)
    began_s = time.monotonic()
    fill(place, rows(count))
    filled_s = time.monotonic() - began_s
    database = Database(place, patience_s=60)
    bytes_ = database.read(lambda connection: _size_bytes(connection))
    print(f"\n{name}: {count} rows in {filled_s:.0f} s, {bytes_ / count:.0f} bytes a row with its indexes")
    asked = UsageRows(database)
    began_s = time.monotonic()
    hours = asked.add_up(NOW_S, 24 * (DAYS + 1))
    print(f"  {hours} hours added up in {time.monotonic() - began_s:.1f} s")
    for question, ask in questions(asked).items():
        took_ms = []
        for _ in range(5):
            began_s = time.perf_counter()
            ask()
            took_ms.append(1000 * (time.perf_counter() - began_s))
        print(f"  {question:<32}{statistics.median(took_ms):>9.1f} ms")
    database.release()


def _size_bytes(connection: sqlalchemy.Connection) -> int:
    if connection.dialect.name == "postgresql":
        return int(connection.exec_driver_sql("SELECT pg_total_relation_size('usage')").scalar_one())
    pages, size = (connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("page_count", "page_size"))
    return int(pages * size)


def main() -> int:
    """Fill and ask both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", choices=("sqlite", "postgres"))
    chosen = parser.parse_args()
    if chosen.only != "postgres":
        with tempfile.TemporaryDirectory(prefix="gateway-ledger-") as folder:
            measure("SQLite", Path(folder) / "gateway.db", chosen.rows)
    if chosen.only != "sqlite":
        with tempfile.TemporaryDirectory(prefix="gateway-ledger-") as folder:
            Path(folder).chmod(0o755)
            server = Postgres(Path(folder))
            server.start()
            try:
                measure("Postgres", Secret(server.make("ledger")), chosen.rows)
            finally:
                server.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
