"""Two gateways of one database: a response that was made at one is found through the other, also by another worker."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import psycopg

from gateway.secret import Secret
from tests.fakes.stores import PASSWORD, Postgres, Redis
from tests.served.caller import CHAT, body
from tests.served.pairs import at_both
from tests.served.process import TOKEN, Served


def test_hosts_that_share_a_database_share_stored_responses(
    tmp_path: Path,
    empty_postgres_address: Secret,
    postgres: Postgres,
    redis_servers: Mapping[str, Redis],
) -> None:
    settings = {
        "GATEWAY_AUTH_TOKEN": TOKEN,
        "GATEWAY_DEMO": "on",
        "DATABASE_URL": empty_postgres_address.reveal(),
        "REDIS_URL": redis_servers["valkey"].url,
        "WEB_CONCURRENCY": "2",
    }
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with Served(tmp_path / "one", settings) as one, Served(tmp_path / "two", settings) as two:
        asked = {"model": "demo/echo", "input": "Hello, both!"}
        made = httpx.post(f"{one.url}/v1/responses", json=asked, headers=headers, timeout=30).json()
        for server in (one, two, one, two):
            with httpx.Client(timeout=30) as client:  # a connection of its own, so that any worker may get it
                found = client.get(f"{server.url}/v1/responses/{made['id']}", headers=headers)
                assert found.status_code == 200, found.text
                assert found.json()["output"] == made["output"]
                ready = client.get(f"{server.url}/health/readiness").json()
                assert ready["stores"] == {"database": {"status": "ok"}, "counters": {"status": "ok"}}
        gone = httpx.delete(f"{two.url}/v1/responses/{made['id']}", headers=headers, timeout=30)
        assert gone.status_code == 200
        lost = httpx.get(f"{one.url}/v1/responses/{made['id']}", headers=headers, timeout=30)
        assert lost.status_code == 404
        name = empty_postgres_address.reveal().rpartition("/")[2]
        with _away(postgres, name):
            away = httpx.get(f"{one.url}/v1/responses/resp_1", headers=headers, timeout=30)
            assert (away.status_code, away.json()["error"]["code"]) == (503, "store_unavailable")
            still = httpx.post(f"{one.url}{CHAT}", json=body("demo/echo"), headers=headers, timeout=30)
            assert still.status_code == 200, "calls that need no store are answered"
        back = httpx.get(f"{one.url}/v1/responses/resp_1", headers=headers, timeout=30)
        assert back.status_code == 404
        assert PASSWORD not in one.log + two.log


def test_a_worker_that_has_had_no_call_before_the_database_went_answers_its_first_one(
    tmp_path: Path, empty_postgres_address: Secret, postgres: Postgres
) -> None:
    settings = {
        "GATEWAY_AUTH_TOKEN": TOKEN,
        "GATEWAY_DEMO": "on",
        "DATABASE_URL": empty_postgres_address.reveal(),
        "WEB_CONCURRENCY": "2",
    }
    with Served(tmp_path, settings) as served, at_both(served) as clients:
        time.sleep(1.0)  # what calls are held to is learnt at the start
        with _away(postgres, empty_postgres_address.reveal().rpartition("/")[2]):
            headers = {"Authorization": f"Bearer {TOKEN}"}
            answers = {client.post(CHAT, json=body("demo/echo"), headers=headers).status_code for client in clients}
            assert answers == {200}


@contextlib.contextmanager
def _away(postgres: Postgres, name: str) -> Iterator[None]:
    """The database has another name for a while."""
    with postgres.connect("postgres") as admin:
        admin.execute(psycopg.sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*_names(admin, name)))
        try:
            yield
        finally:
            admin.execute(psycopg.sql.SQL("ALTER DATABASE {1} RENAME TO {0}").format(*_names(None, name)))


def _names(admin: psycopg.Connection[tuple[object, ...]] | None, name: str) -> list[psycopg.sql.Identifier]:
    """The database's name and another one; a database is renamed only when nobody is in it."""
    if admin is not None:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
    return [psycopg.sql.Identifier(name), psycopg.sql.Identifier(f"{name}_away")]
