"""A database on a Postgres server, by psycopg 3.

Under gevent psycopg waits in Python, by a `select` that is patched, so that the hub goes on: operations run in the
greenlet that asked, unlike SQLite's. What libpq would do without a word to the hub, looking up a name, is done here.
Every wait has a bound of ours, since `statement_timeout` helps only where the server still breathes.
"""

from __future__ import annotations

import hashlib
import random
import re
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_address
from typing import Any, TypeVar

import psycopg
import sqlalchemy
from psycopg.abc import RV, PQGen
from sqlalchemy import Connection
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from gateway.secret import Secret
from gateway.storage.driven import Asked, Driven, Row
from gateway.storage.faults import StorageBusy, StorageError, StorageFailed

_Result = TypeVar("_Result")

_CONNECTIONS = 10
_CONNECTION_WAIT_S = 1.0
_CONNECT_TIMEOUT_S = 2  # libpq knows nothing shorter
#: After the lock's own time the server ends the statement, and after that we end the connection.
_STATEMENT_GRACE_S = 1.0
_WAIT_GRACE_S = 2.0
_MOST_ADDRESSES = 2

_SERIALIZATION_FAILURE, _DEADLOCK = "40001", "40P01"
_AGAIN = frozenset({_SERIALIZATION_FAILURE, _DEADLOCK})
#: SQLSTATE, whole or how it begins (PostgreSQL's manual, appendix A).
_BUSY = {
    "55P03": "others have held a lock on it for too long",
    "57014": "it took too long",
    "25P03": "it took too long",
    "53300": "the server has no connection free",
}
#: A server's own words come after its FATAL, in whichever language it has been told.
_REFUSED = re.compile(r"\bF[A-Z]+:  (.{1,300})")
_ALL_IN_USE = ("too many clients", "too many connections", "connection slots are reserved")
_REASONS = {
    "08": "the server cannot be reached",
    "25006": "is read-only",
    "42501": "the user may not do this there",
    "42P01": "its tables are not those of this release: the gateway brings them up to date when it starts",
    "42703": "its tables are not those of this release: the gateway brings them up to date when it starts",
    "53100": "the disk is full",
    "57P": "the server stops or starts",
    "58": "the disk does not read or write",
    "XX": "the database is damaged",
}


class _Bounded(psycopg.Connection[Any]):
    """A connection that is given up where the server says nothing for `wait_s`."""

    wait_s = 10.0

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        began_s = time.monotonic()
        bound_s = self.wait_s if timeout is None else min(timeout, self.wait_s)
        try:
            return super().wait(gen, interval, bound_s)
        except psycopg.OperationalError:
            if time.monotonic() - began_s >= bound_s:
                self.pgconn.finish()  # in the middle of an exchange: nobody can go on with it
            raise


class PostgresServer:
    """What `Database` does on a server, with a pool of 10 connections.

    A connection that turns out to be dead takes the others of its age out of the pool, and the work is tried once more,
    unless it broke in the commit.

    Args:
        address: `postgresql+psycopg://user:password@host:port/name`; what follows a `?` goes to libpq.
        patience_s: how long others may hold a lock. A statement may take 1 s more, and a server that says nothing
            is given up after 2 s more. A connection is waited for 1 s, and made within 2 s an address of its host.

    Raises:
        StorageFailed: the address cannot be read.
    """

    def __init__(self, address: Secret, patience_s: float) -> None:
        try:
            url = sqlalchemy.make_url(address.reveal())
        except (ArgumentError, ValueError):
            raise StorageFailed("DATABASE_URL: is not an address") from None
        self.name = f"postgresql://{url.host or ''}{f':{url.port}' if url.port else ''}/{url.database or ''}"
        self._patience_s = patience_s
        self._params: dict[str, Any] = {
            **url.translate_connect_args(username="user", database="dbname"),
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "application_name": "llm-gateway",
            "tcp_user_timeout": int(1000 * (patience_s + _WAIT_GRACE_S)),
            **url.query,
        }
        # LIFO: those that are too many fall idle, and a server's own bound for idle ones ends them
        self._engine = sqlalchemy.create_engine(
            "postgresql+psycopg://",
            creator=self._connect,
            poolclass=QueuePool,
            pool_size=_CONNECTIONS,
            max_overflow=0,
            pool_timeout=_CONNECTION_WAIT_S,
            pool_use_lifo=True,
            hide_parameters=True,
        )

    def hold(self) -> None:
        """The pool keeps what was opened once."""

    def release(self) -> None:
        """Close every connection that is not in use."""
        self._engine.dispose()

    def read(self, work: Callable[[Connection], _Result]) -> _Result:
        """See `Database.read`."""
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        return self._patiently(partial(self._attempt, work, options, ()))

    def write(self, work: Callable[[Connection], _Result], alone_on: Sequence[str] | None) -> _Result:
        """See `Database.write`."""
        if alone_on is None:
            return self._patiently(partial(self._attempt, work, {"isolation_level": "SERIALIZABLE"}, ()))
        return self._patiently(partial(self._attempt, work, {"isolation_level": "READ COMMITTED"}, _keys(alone_on)))

    def drive(self, work: Callable[[Driven], _Result], alone_on: Sequence[str] | None) -> _Result:
        """See `Database.drive`."""
        if alone_on is None:
            return self._patiently(partial(self._driven_attempt, work, _BEGIN_READING, ()))
        return self._patiently(partial(self._driven_attempt, work, _BEGIN_ALONE, _keys(alone_on)))

    def _patiently(self, run: Callable[[_Attempt], _Result]) -> _Result:
        until_s = time.monotonic() + self._patience_s
        broke = False
        while True:
            attempt = _Attempt()
            try:
                return run(attempt)
            except (SQLAlchemyError, psycopg.Error) as error:
                # Not `from error`: SQLAlchemy's words have the statement, and a traceback would show them.
                lost = attempt.lost or _is_lost(error)
                if attempt.committing and lost:
                    raise StorageFailed(
                        f"{self.name}: the connection broke in the commit: it may have been kept"
                    ) from None
                if time.monotonic() >= until_s:
                    raise self._said_of(error) from None
                if lost and not broke:
                    broke = True
                    continue
                if _sqlstate(error) not in _AGAIN:
                    raise self._said_of(error) from None
            time.sleep(random.uniform(0.001, 0.02))  # noqa: S311  # so that those who met do not meet again

    def _attempt(
        self, work: Callable[[Connection], _Result], options: dict[str, Any], keys: Sequence[int], attempt: _Attempt
    ) -> _Result:
        with self._engine.connect().execution_options(**options) as connection, connection.begin():
            if keys:
                connection.exec_driver_sql(_LOCK, (list(keys),))
            result = work(connection)
            attempt.committing = True
        return result

    def _driven_attempt(
        self, work: Callable[[Driven], _Result], begin: str, keys: Sequence[int], attempt: _Attempt
    ) -> _Result:
        pooled = self._engine.raw_connection()
        connection = pooled.driver_connection
        assert isinstance(connection, psycopg.Connection)
        kept = False
        try:
            connection.autocommit = True  # else psycopg begins the transaction, and waits for that alone
            statements = _Statements(connection)
            statements.tell(begin, [()])
            if keys:
                statements.tell(_LOCK, [(list(keys),)])
            result = work(statements)
            statements.begin()
            attempt.committing = True
            statements.keep()
            connection.autocommit = False
            kept = True
            return result
        finally:
            if not kept:
                attempt.lost = connection.broken
                pooled.invalidate()  # in the middle of an exchange
            pooled.close()
            if attempt.lost:
                self._engine.dispose()  # those of its age are dead, too

    def _connect(self) -> _Bounded:
        connection = _Bounded.connect(autocommit=True, prepare_threshold=None, **_resolved(self._params))
        connection.wait_s, ready = self._patience_s + _WAIT_GRACE_S, False
        bounds_s = (self._patience_s, self._patience_s + _STATEMENT_GRACE_S, self._patience_s + _WAIT_GRACE_S)
        try:
            # This and `prepare_threshold`, not libpq's `options`: a pooler in between (PgBouncer) takes no other way.
            connection.execute(
                "SELECT set_config('lock_timeout', %s, false), set_config('statement_timeout', %s, false),"
                " set_config('idle_in_transaction_session_timeout', %s, false)",
                [f"{int(1000 * bound_s)}ms" for bound_s in bounds_s],
            )
            connection.autocommit = False
            ready = True
        finally:
            if not ready:
                connection.close()
        return connection

    def _said_of(self, error: SQLAlchemyError | psycopg.Error) -> StorageError:
        if isinstance(error, PoolTimeout):
            return StorageBusy(f"{self.name}: all {_CONNECTIONS} connections were in use for {_CONNECTION_WAIT_S:g} s")
        code = _sqlstate(error)
        if code is None:
            return self._said_without_code(error.orig if isinstance(error, DBAPIError) else error)
        if code in _AGAIN:
            return StorageBusy(f"{self.name}: others have changed the same for {self._patience_s:g} s")
        if code in _BUSY:
            return StorageBusy(f"{self.name}: {_BUSY[code]}")
        for known in (code, code[:3], code[:2]):
            if known in _REASONS:
                return StorageFailed(f"{self.name}: {_REASONS[known]}")
        return StorageFailed(f"{self.name}: SQLSTATE {code}")

    def _said_without_code(self, cause: BaseException | None) -> StorageError:
        """What refuses a connection has no SQLSTATE in libpq, only words."""
        if not isinstance(cause, psycopg.OperationalError):
            return StorageFailed(f"{self.name}: {type(cause).__name__}")
        refused = _REFUSED.search(str(cause))
        if refused is None:
            return StorageFailed(f"{self.name}: the server cannot be reached")
        if any(words in refused[1] for words in _ALL_IN_USE):
            return StorageBusy(f"{self.name}: {_BUSY['53300']}")
        return StorageFailed(f"{self.name}: the server refuses: {refused[1]}")


class _Attempt:
    """One try of a transaction.

    Attributes:
        committing: the work is done, and the server may have been asked to keep it.
        lost: the connection has broken, where SQLAlchemy cannot tell.
    """

    def __init__(self) -> None:
        self.committing = False
        self.lost = False


class _Statements:
    """`Driven` on a server: what is told goes with what is asked next, all of it in one message.

    psycopg's `ClientCursor`, since only the simple protocol takes several statements at once. libpq's pipeline mode was
    measured, too: psycopg waits for the socket at each statement, and nothing was won.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._cursor = psycopg.ClientCursor(connection)
        self._told: list[tuple[str, Row]] = []
        self._begun = False

    def ask(self, *asked: Asked) -> Sequence[Sequence[Row]]:
        told = len(self._told)
        self._told += [one.written("%s") for one in asked]
        return self._send()[told:]

    def tell(self, statement: str, rows: Sequence[Row]) -> None:
        written, _ = Asked(statement, ()).written("%s")
        self._told += [(written, row) for row in rows]

    def begin(self) -> None:
        """Send what was told, if nothing has been sent: a connection that was dead must not break in the commit."""
        if not self._begun:
            self._send()

    def keep(self) -> None:
        """End the transaction."""
        self.tell("COMMIT", [()])
        self._send()

    def _send(self) -> Sequence[Sequence[Row]]:
        told, self._told, self._begun = self._told, [], True
        words = ";".join(statement for statement, _ in told)
        self._cursor.execute(words.encode(), [value for _, values in told for value in values])
        found = [self._rows()]
        while self._cursor.nextset():
            found.append(self._rows())
        return found

    def _rows(self) -> Sequence[Row]:
        return self._cursor.fetchall() if self._cursor.description else ()


_BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_BEGIN_ALONE = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_LOCK = "SELECT pg_advisory_xact_lock(key) FROM unnest(%s::bigint[]) AS key"


def _keys(names: Sequence[str]) -> list[int]:
    """Locks in the one order in which everybody takes them, so that no two wait for each other."""
    return sorted({_lock_key(name) for name in names})


def _lock_key(name: str) -> int:
    """The 64 bits that stand for a name among Postgres' advisory locks."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), signed=True)


def _is_lost(error: SQLAlchemyError | psycopg.Error) -> bool:
    return isinstance(error, DBAPIError) and error.connection_invalidated


def _sqlstate(error: SQLAlchemyError | psycopg.Error) -> str | None:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "sqlstate", None)


def _resolved(params: dict[str, Any]) -> dict[str, Any]:
    """Look up the host's name, as libpq would do and hold up the hub; its certificate is checked against the name."""
    host = params.get("host")
    if not host or "," in host or host.startswith(("/", "@")) or "hostaddr" in params:
        return params
    try:
        ip_address(host)
        return params
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, params.get("port"), type=socket.SOCK_STREAM)
    except OSError as error:
        raise psycopg.OperationalError(f"the host's name is not known: {error.strerror}") from None
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))[:_MOST_ADDRESSES]
    return {**params, "host": ",".join([host] * len(addresses)), "hostaddr": ",".join(addresses)}
