"""Answers in a table: of the file that the workers of a host share, or of a Postgres server."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from sqlalchemy import Connection, Delete, delete, func, select

from gateway.storage.answers import ENTRY_BYTES, Holdings, KeptAnswer, compressed, uncompressed
from gateway.storage.database import Database, StorageError, upserting, vacuum
from gateway.storage.tables import answers as table

log = logging.getLogger(__name__)

_TIDY_EVERY_S = 60.0
_BATCH = 200
_PAUSE_S = 0.02


class TableAnswers:
    """`Answers` in the table `answers`.

    What is past its time, and above the room the oldest, goes in a thread of its own.

    Args:
        database: with the tables of this release; its patience is what a verb waits.
        room_bytes: for all of them; they may take a sixteenth more for a moment.
        largest_bytes: of one content.
        clock: seconds since the epoch.
    """

    def __init__(
        self, database: Database, room_bytes: int, largest_bytes: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._room_bytes = room_bytes
        self._largest_bytes = largest_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._tidying = False
        self._tidied_s = time.monotonic()
        self._written_bytes = 0

    def start(self) -> None:
        """Keep the database at hand."""
        self._database.hold()

    def close(self) -> None:
        """Let go of the database."""
        self._database.release()

    def find(self, tenant: str, digests: Sequence[str]) -> KeptAnswer | None:
        """See `Answers.find`."""
        named = table.c.digest.in_(list(digests))
        live = select(table).where(named, table.c.tenant == tenant, table.c.ends > self._clock())
        rows = self._database.read(lambda connection: connection.execute(live).all())
        if not rows:
            return None
        row = min(rows, key=lambda one: digests.index(one.digest))
        content = uncompressed(bytes(row.content), self._largest_bytes)
        return KeptAnswer(row.tenant, row.digest, row.made, row.ends, content)

    def keep(self, answer: KeptAnswer) -> None:
        """See `Answers.keep`."""
        content = compressed(answer.content)
        size_bytes = len(content) + ENTRY_BYTES
        row = {
            "digest": answer.digest,
            "tenant": answer.tenant,
            "made": answer.made_s,
            "ends": answer.ends_s,
            "bytes": size_bytes,
            "content": content,
        }

        def work(connection: Connection) -> None:
            statement = upserting(connection, table).values(row)
            new = {name: statement.excluded[name] for name in row if name != "digest"}
            connection.execute(statement.on_conflict_do_update(index_elements=[table.c.digest], set_=new))

        self._database.write(work, alone_on=[answer.digest])
        with self._lock:
            self._written_bytes += size_bytes
        self._tidy_soon()

    def clear(self, tenant: str | None = None) -> int:
        """See `Answers.clear`."""
        statement = delete(table) if tenant is None else delete(table).where(table.c.tenant == tenant)
        return self._database.write(partial(_run, statement), alone_on=[])

    def holdings(self, tenant: str | None = None) -> Holdings:
        """See `Answers.holdings`."""
        sizes = select(func.count(), func.coalesce(func.sum(table.c.bytes), 0)).select_from(table)
        if tenant is not None:
            sizes = sizes.where(table.c.tenant == tenant)
        count, size_bytes = self._database.read(lambda connection: connection.execute(sizes).one())
        return Holdings(int(count), int(size_bytes) - int(count) * ENTRY_BYTES)

    def tidy(self) -> int:
        """Delete what is past its time, then the oldest until the size is right, and return how many went.

        Raises:
            StorageError: the database is busy or away; what went so far is gone.
        """
        gone = self._in_turns(lambda connection: _run(_some_where_ended(self._clock()), connection))
        gone += self._in_turns(partial(_delete_oldest, self._room_bytes))
        self._in_turns(vacuum)
        return gone

    def _in_turns(self, work: Callable[[Connection], int]) -> int:
        done = 0
        while some := self._database.write(work, alone_on=[]):
            done += some
            time.sleep(_PAUSE_S)
        return done

    def _tidy_soon(self) -> None:
        with self._lock:
            late = time.monotonic() - self._tidied_s >= _TIDY_EVERY_S
            if self._tidying or not (late or self._written_bytes > self._room_bytes // 16):
                return
            self._tidying, self._written_bytes = True, 0
        threading.Thread(target=self._tidy_alone, name="storage-tidy", daemon=True).start()

    def _tidy_alone(self) -> None:
        try:
            self.tidy()
        except StorageError as error:
            log.warning("old answers of the cache were not deleted", extra={"fields": {"why": str(error)}})
        finally:
            with self._lock:
                self._tidying, self._tidied_s = False, time.monotonic()


def _run(statement: Delete, connection: Connection) -> int:
    return connection.execute(statement).rowcount


def _some_where_ended(now_s: float) -> Delete:
    ended = select(table.c.digest).where(table.c.ends <= now_s).limit(_BATCH)
    return delete(table).where(table.c.digest.in_(ended), table.c.ends <= now_s)


def _delete_oldest(room_bytes: int, connection: Connection) -> int:
    size_bytes = connection.execute(select(func.coalesce(func.sum(table.c.bytes), 0))).scalar_one()
    excess_bytes, oldest = int(size_bytes) - room_bytes, []
    rows = select(table.c.digest, table.c.bytes).order_by(table.c.made).limit(_BATCH)
    for row in connection.execute(rows) if excess_bytes > 0 else ():
        if excess_bytes <= 0:
            break
        oldest.append(row.digest)
        excess_bytes -= row.bytes
    return _run(delete(table).where(table.c.digest.in_(oldest)), connection) if oldest else 0
