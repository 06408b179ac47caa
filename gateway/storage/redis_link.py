"""The connections to a Redis or Valkey server: a call waits for it within a bound, and not at all while it is away.

A thread of its own makes the connections, since looking up a name, TLS and signing in may take long; a call takes one
that is ready. Where an answer does not come in time, all calls fail at once until that thread has had one again.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, Connection, parse_url
from redis.retry import Retry

from gateway.secret import Secret
from gateway.storage.faults import StorageBusy, StorageError, StorageFailed
from gateway.storage.redis_scripts import CHECK, Script

log = logging.getLogger(__name__)

#: What an answer may take; with the rest of a verb that stays below 100 ms.
ANSWER_S = 0.09
#: How long a call waits where no connection is made yet, and where all are in use: then the server answers the others,
#: and as soon as it does not, those that wait are told.
_UNCONNECTED_S, _FREE_S = 0.08, 1.0
_CONNECTIONS = 10
_CONNECT_S = 1.0
_TEND_EVERY_S = 0.5
#: What the server says of itself rather than of the script; it passes, and asking again at once is no use. redis-py
#: takes the word away where it has a class for it; Redis before 7 has it inside its own sentence about the script.
_ITS_STATE = re.compile(r"\b(LOADING|READONLY|OOM|MASTERDOWN|MISCONF|BUSY|NOAUTH|NOPERM|NOREPLICAS)\b")
_ITS_STATES = (
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.NoPermissionError,
)
#: What ends a connection. `InvalidResponse` and `ValueError`: what came is not the protocol, as where another server
#: has taken the address.
_BROKEN = (redis.RedisError, OSError, ValueError)


class RedisLink:
    """A pool of up to 10 connections that are looked after, and a breaker in front of it.

    Args:
        address: `redis://`, `rediss://` or `unix://`, as redis-py has it, of one server.
        timeout_s: what an answer may take.
        keeps: what the server is for, as the log calls it.

    Attributes:
        name: the address without user and password.

    Raises:
        StorageFailed: the address cannot be read.
    """

    def __init__(self, address: Secret, timeout_s: float = ANSWER_S, keeps: str = "the store of limits") -> None:
        try:
            options = parse_url(address.reveal())
            self._class: type[AbstractConnection] = options.pop("connection_class", Connection)
            self._options = {
                **options,
                "socket_timeout": _CONNECT_S,
                "socket_connect_timeout": _CONNECT_S,
                "retry": Retry(NoBackoff(), 0),
                "driver_info": None,
                "protocol": 2,
            }
            self._class(**self._options)  # connects to nothing; an option that is none is refused here
        except (ValueError, TypeError):
            raise StorageFailed("REDIS_URL: is not an address of a Redis server") from None
        at = f"{options.get('host', 'localhost')}:{options.get('port', 6379)}/{options.get('db', 0)}"
        self.name = f"unix:{options['path']}" if "path" in options else f"redis://{at}"
        self._timeout_s = timeout_s
        self._keeps = keeps
        #: Guards what follows it; told of each connection that is free, and when there is no use in waiting.
        self._changed = threading.Condition()
        self._idle: list[AbstractConnection] = []
        self._alive, self._wanted = 0, 1
        self._trouble: str | None = None
        self._wake, self._closed = threading.Event(), threading.Event()
        self._keeper: threading.Thread | None = None

    def start(self) -> None:
        """Begin to connect, after the fork; safe to call again."""
        if self._keeper is not None or self._closed.is_set():
            return
        with self._changed:
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name="redis-link", daemon=True)
                self._keeper.start()

    def close(self) -> None:
        """Close every connection that is not in use; safe to call again."""
        self._closed.set()
        self._wake.set()
        with self._changed:
            self._changed.notify_all()
        if self._keeper is not None:
            self._keeper.join(_CONNECT_S * 2)
        self._drop_idle()

    def run(self, script: Script, *arguments: str | int | bytes) -> Any:
        """Run a script and return what it returns: whole numbers, bytes, lists of these, or None.

        Raises:
            StorageBusy: all connections are in use, for 1 s.
            StorageFailed: the server is away, does not answer within `timeout_s`, or refuses.
        """
        self.start()
        with self._taken() as connection:
            try:
                return _ask(connection, script, arguments, self._timeout_s)
            except redis.ResponseError as error:
                said = self._said_of(error)
                if isinstance(error, _ITS_STATES) or _ITS_STATE.search(str(error)):
                    self._break(said)
                raise StorageFailed(said) from None

    def check(self) -> None:
        """Connect anew, write to the server and let go, with more patience than a call has; needs no `start`.

        Raises:
            StorageFailed: the server is away or refuses.
        """
        try:
            self._connect().disconnect()
        except _BROKEN as error:
            raise StorageFailed(self._said_of(error)) from None

    @contextmanager
    def _taken(self) -> Iterator[AbstractConnection]:
        """A connection for one exchange. It comes back only where that has had its end."""
        connection, over = self._take(), False
        try:
            yield connection
            over = True
        except StorageError:
            over = True
            raise
        except _BROKEN as error:
            said = self._said_of(error)
            self._break(said)
            raise StorageFailed(said) from None
        finally:
            if over:
                self._free(connection)
            else:
                self._discard(connection)

    def _take(self) -> AbstractConnection:
        began_s = time.monotonic()
        while True:
            connection = self._next(began_s)
            if not _is_stale(connection):
                return connection
            self._discard(connection)

    def _next(self, began_s: float) -> AbstractConnection:
        with self._changed:
            while True:
                if self._closed.is_set():
                    raise StorageFailed(f"{self.name}: is closed")
                if self._trouble is not None:
                    raise StorageFailed(self._trouble)
                if self._idle:
                    return self._idle.pop()
                self._wanted = min(_CONNECTIONS, max(self._wanted, self._alive + 1))
                self._wake.set()
                bound_s = _FREE_S if self._alive else _UNCONNECTED_S
                left_s = began_s + bound_s - time.monotonic()
                if left_s <= 0:
                    said = "all connections were in use" if self._alive else "there was no connection"
                    raise StorageBusy(f"{self.name}: {said} for {1000 * bound_s:g} ms")
                self._changed.wait(left_s)

    def _free(self, connection: AbstractConnection) -> None:
        with self._changed:
            self._idle.append(connection)
            self._changed.notify()

    def _discard(self, connection: AbstractConnection) -> None:
        connection.disconnect()
        with self._changed:
            self._alive -= 1
        self._wake.set()

    def _drop_idle(self) -> None:
        with self._changed:
            dropped, self._idle = self._idle, []
        for connection in dropped:
            self._discard(connection)

    def _break(self, why: str) -> None:
        """Fail all calls until the server has answered again."""
        with self._changed:
            before, self._trouble = self._trouble, why
            self._changed.notify_all()
        if before is None:
            log.warning("%s is away", self._keeps, extra={"fields": {"why": why}})
        self._wake.set()

    def _mend(self) -> None:
        before, self._trouble = self._trouble, None
        if before is not None:
            log.info("%s is back", self._keeps)

    def _keep(self) -> None:
        while not self._closed.is_set():
            # cleared first: what is wanted meanwhile is seen, or wakes again
            self._wake.clear()
            if self._tend():
                self._wake.wait(_TEND_EVERY_S)
            else:
                self._closed.wait(_TEND_EVERY_S)

    def _tend(self) -> bool:
        """Make the connections that are missing, or find out whether the server is back. False: it is not."""
        if self._trouble is not None:
            self._drop_idle()  # those that were open when it fell silent may be dead without knowing
        while not self._closed.is_set() and (self._trouble is not None or self._alive < self._wanted):
            try:
                connection = self._connect()
            except _BROKEN as error:
                self._break(self._said_of(error))
                return False
            with self._changed:
                self._alive += 1
            self._mend()
            self._free(connection)
        return True

    def _connect(self) -> AbstractConnection:
        """Connect, and see that the server takes a write."""
        connection, well = self._class(**self._options), False
        try:
            connection.connect()
            _ask(connection, CHECK, (), _CONNECT_S)
            well = True
        finally:
            if not well:
                connection.disconnect()
        return connection

    def _said_of(self, error: Exception) -> str:
        return f"{self.name}: {' '.join(str(error).split())[:300] or type(error).__name__}"


def _ask(
    connection: AbstractConnection, script: Script, arguments: tuple[str | int | bytes, ...], timeout_s: float
) -> Any:
    end_s = time.monotonic() + timeout_s
    try:
        connection.send_command("EVALSHA", script.sha, 0, *arguments)
        return _answer(connection, end_s)
    except redis.exceptions.NoScriptError:  # a server that has started anew
        connection.send_command("EVAL", script.text, 0, *arguments)
        return _answer(connection, end_s)


def _answer(connection: AbstractConnection, end_s: float) -> Any:
    left_s = max(0.001, end_s - time.monotonic())
    try:
        return connection.read_response(timeout=left_s, disconnect_on_error=False)
    except redis.TimeoutError:
        # Under gevent also the bound itself is noticed late where something has held up the hub.
        if not connection.can_read(0):
            raise
        return connection.read_response(timeout=0.001)


def _is_stale(connection: AbstractConnection) -> bool:
    """Whether the server has closed it, or something is left in it that nobody asked for."""
    try:
        return connection.can_read(0)
    except (redis.ConnectionError, OSError):
        return True
