"""The gateway under a steady load of a virtual key while its stores have their bad days: what `bench/store_faults.py`
measures and `test_store_faults.py` proves in short.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psycopg

from gateway.auth.pepper import kept_pepper
from gateway.core.keys import Pepper
from gateway.secret import Secret
from gateway.storage.audit import By
from gateway.storage.database import Database
from gateway.storage.directory import Directory
from gateway.storage.keys import NewKey
from tests.fakes.stores import Postgres, Redis, redis_programs
from tests.served.caller import CHAT, body
from tests.served.process import TOKEN, Served
from tests.served.steady import Load

#: Within so long after a fault is over, a key that no worker has seen is known.
RECOVERY_S = 5.0
#: What nobody may get from a store's bad day: an error of the gateway's own, or word that a good key is none.
_NEVER = (401, 500)
_MOST_KEYS = 64


@dataclass(frozen=True)
class Fault:
    """A bad day of a store's: `make` begins it when entered, and ends it when left."""

    name: str
    make: Callable[[], Any]


@dataclass
class Found:
    """What a fault did.

    Attributes:
        healthy_ms, fault_ms, recovering_ms: how long calls took that began in those phases, of a key that is known.
        healthy_gap_ms, fault_gap_ms: the longest times between two pieces of another caller's stream.
        failed: the calls of that key, and streams, that failed.
        strangers: the statuses that keys got which no worker had seen before the fault.
        recovered_s: from the fault's end until such a key was answered.
    """

    fault: str
    healthy_ms: list[float] = field(default_factory=list)
    fault_ms: list[float] = field(default_factory=list)
    recovering_ms: list[float] = field(default_factory=list)
    healthy_gap_ms: float = 0.0
    fault_gap_ms: float = 0.0
    failed: list[str] = field(default_factory=list)
    strangers: list[int] = field(default_factory=list)
    recovered_s: float = 0.0

    def faults(self) -> list[str]:
        """What must not be, whatever the machine."""
        wrong = [*self.failed, *(f"a good key got {status}" for status in self.strangers if status in _NEVER)]
        if self.recovered_s > RECOVERY_S:
            wrong.append(f"recovered after {self.recovered_s:.1f} s")
        return wrong


class Stores:
    """A gateway of two workers, the stores behind it, and keys that nobody has used yet.

    Args:
        folder: an empty one, which another user may enter where Postgres is started by root.
        settings: of the gateway, besides those of the stores.
        servers: Postgres and Valkey; else all is in one SQLite file.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], *, servers: bool) -> None:
        self._postgres: Postgres | None = None
        self._redis: Redis | None = None
        own = {"GATEWAY_AUTH_TOKEN": TOKEN, "GATEWAY_DEMO": "on", "WEB_CONCURRENCY": "2", **settings}
        if servers:
            for name in ("postgres", "valkey"):
                (folder / name).mkdir()
            self._postgres = Postgres(folder / "postgres")
            self._redis = Redis(folder / "valkey", redis_programs()["valkey"])
            self._postgres.start()
            self._redis.start()
            own |= {"DATABASE_URL": self._postgres.make("gateway"), "REDIS_URL": self._redis.url}
        self.served = Served(folder / "gateway", own)
        self.served.wait_ready()
        self._file = self.served.data_dir / "gateway.db"
        place = Secret(own["DATABASE_URL"]) if servers else self._file
        pepper = Pepper(kept_pepper(self.served.data_dir))
        self._database = Database(place)
        self._directory = Directory.of(self._database, lambda: pepper)
        self._keys = [self._key(f"unseen {number}") for number in range(_MOST_KEYS)]
        self.known = self._key("known")
        rule = {"name": "a store is asked for each call", "measure": "requests", "most": 10**6, "period": "minute"}
        self._directory.limits.create(rule | {"each": ["key"]}, By("tests"))
        self._database.release()

    def _key(self, name: str) -> str:
        secret = self._directory.keys.create(NewKey(name), By("tests")).secret
        assert secret is not None
        return secret.reveal()

    def unseen(self) -> str:
        """A key that no worker has met."""
        return self._keys.pop()

    def faults(self) -> list[Fault]:
        """All that can come."""
        if self._postgres is None or self._redis is None:
            return [Fault("SQLite locked", self._sqlite_locked)]
        both = (("Postgres", self._postgres), ("Valkey", self._redis))
        return [
            *(Fault(f"{name} stopped", lambda server=server: _stopped(server)) for name, server in both),
            *(Fault(f"{name} silent", lambda server=server: _silent(server)) for name, server in both),
            Fault("Postgres out of connections", self._no_connections),
            Fault("Postgres' tables locked", self._tables_locked),
        ]

    @contextmanager
    def _sqlite_locked(self) -> Iterator[None]:
        with closing(sqlite3.connect(self._file, isolation_level=None, timeout=10)) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield
            other.execute("ROLLBACK")

    @contextmanager
    def _no_connections(self) -> Iterator[None]:
        assert self._postgres is not None
        held: list[psycopg.Connection[Any]] = []
        with self._postgres.connect("postgres") as admin:
            try:
                for _ in range(3):  # what the gateway has is taken from it, before it can be asked for again
                    with suppress(psycopg.OperationalError):
                        while True:
                            held.append(self._postgres.connect("postgres"))
                    _end_all(admin)
                yield
            finally:
                for connection in held:
                    connection.close()

    @contextmanager
    def _tables_locked(self) -> Iterator[None]:
        assert self._postgres is not None
        with self._postgres.connect("gateway") as other, other.transaction():
            tables = other.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            names = psycopg.sql.SQL(", ").join(psycopg.sql.Identifier(str(name)) for (name,) in tables)
            other.execute(psycopg.sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(names))
            yield

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.served.stop()
        finally:
            for server in (self._postgres, self._redis):
                if server is not None:
                    server.stop()


@contextmanager
def _stopped(server: Postgres | Redis) -> Iterator[None]:
    server.stop()
    yield
    server.start()


@contextmanager
def _silent(server: Postgres | Redis) -> Iterator[None]:
    server.pause()
    yield
    server.resume()


def _end_all(admin: psycopg.Connection[Any]) -> None:
    admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'gateway'")


def run(stores: Stores, fault: Fault, *, rate: float, healthy_s: float, fault_s: float) -> Found:
    """Have a healthy phase, the fault and the time after it under one load."""
    found, served = Found(fault.name), stores.served
    with Load(served.port, stores.known, rate) as load, _Reading(served.url) as reading:
        time.sleep(1.0)  # the load's own start is in no phase
        phases = [("healthy", time.monotonic())]
        time.sleep(healthy_s)
        with fault.make():
            phases.append(("fault", time.monotonic()))
            while time.monotonic() < phases[-1][1] + fault_s:
                found.strangers.append(_status(served.url, stores.unseen()))
                time.sleep(fault_s / 4)
            phases.append(("recovering", time.monotonic()))
        over_s = time.monotonic()
        while (status := _status(served.url, stores.unseen())) != 200 and time.monotonic() < over_s + 3 * RECOVERY_S:
            found.strangers.append(status)
            time.sleep(0.3)
        found.recovered_s = time.monotonic() - over_s
        phases.append(("", time.monotonic()))
        time.sleep(0.5)
        pieces_s = reading.pieces_s
    calls = load.calls()
    kinds = {"healthy": found.healthy_ms, "fault": found.fault_ms, "recovering": found.recovering_ms}
    for (kind, began_s), (_next, ended_s) in itertools.pairwise(phases):
        kinds[kind] += [one.took_ms for one in calls if began_s <= one.began_s < ended_s]
    found.failed += [one.fault for one in calls if one.fault is not None] + reading.failed
    fault_began_s = phases[1][1]
    found.healthy_gap_ms = _longest_gap_ms([at for at in pieces_s if at < fault_began_s])
    found.fault_gap_ms = _longest_gap_ms([at for at in pieces_s if at >= fault_began_s])
    return found


def _status(url: str, key: str) -> int:
    asked = body("demo/echo")
    return httpx.post(url + CHAT, json=asked, headers={"Authorization": f"Bearer {key}"}, timeout=30).status_code


def _longest_gap_ms(times_s: list[float]) -> float:
    return 1000 * max((later - earlier for earlier, later in itertools.pairwise(times_s)), default=0.0)


class _Reading:
    """Another caller, with a static token, who reads one stream after the other; a word comes every 10 ms."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self.pieces_s: list[float] = []
        self.failed: list[str] = []

    def _read(self) -> None:
        asked = {
            "model": "demo/echo",
            "messages": [{"role": "user", "content": "word " * 200}],
            "stream": True,
        }
        with httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30) as client:
            while not self._over.is_set():
                with client.stream("POST", self._url + CHAT, json=asked) as answer:
                    said = ""
                    for line in answer.iter_lines():
                        self.pieces_s.append(time.monotonic())
                        said = line or said
                if (answer.status_code, said) != (200, "data: [DONE]"):
                    self.failed.append(f"a stream ended with {answer.status_code} {said[:200]}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(30)
