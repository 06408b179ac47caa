"""Answers in a table: of the file that the workers of a host share, or of a Postgres server."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, Delete, Row, delete, func, select, tuple_, update

from gateway.storage.answers import CLEARING_KEPT_S, ENTRY_BYTES, Claim, Holdings, KeptAnswer, compressed, uncompressed
from gateway.storage.database import Database, StorageError, upserting, vacuum
from gateway.storage.tables import answers as table

log = logging.getLogger(__name__)

_TIDY_EVERY_S = 60.0
_BATCH = 200
_PAUSE_S = 0.02


#: In front of the digest of a claim's row, whose content is the claim. They are rows among those of the answers, so
#: that one statement finds either, and what is left of a worker that was killed goes as answers do.
_CLAIMED = "claim/"
#: The digest of the row whose content is another after each clearing.
_CLEARED = "cleared"
_ARE_ANSWERS = table.c.digest.not_like(f"{_CLAIMED}%") & (table.c.digest != _CLEARED)


class TableAnswers:
    """`Answers` in the table `answers`, where claims are kept too.

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
        return self._first(rows, digests) if rows else None

    def _first(self, rows: Sequence[Row[Any]], digests: Sequence[str]) -> KeptAnswer:
        row = min(rows, key=lambda one: digests.index(one.digest))
        content = uncompressed(bytes(row.content), self._largest_bytes)
        return KeptAnswer(row.tenant, row.digest, row.made, row.ends, content)

    def claim(self, wanted: Claim, digests: Sequence[str], lease_s: float) -> KeptAnswer | Claim:
        """See `Answers.claim`; it writes only where it claims."""
        key, value = _CLAIMED + wanted.digest, wanted.packed()

        def look(connection: Connection) -> KeptAnswer | Claim | None:
            now_s = self._clock()
            named = table.c.digest.in_([*digests, key])
            rows = connection.execute(
                select(table).where(named, table.c.tenant == wanted.tenant, table.c.ends > now_s)
            ).all()
            if answers := [row for row in rows if row.digest != key]:
                return self._first(answers, digests)
            # one that ends later than any can was made before the clock was set back
            held = [row for row in rows if row.ends <= now_s + 2 * lease_s]
            return wanted.held_by(bytes(held[0].content)) if held and bytes(held[0].content) != value else None

        def work(connection: Connection) -> KeptAnswer | Claim:
            if (found := look(connection)) is not None:
                return found
            now_s = self._clock()
            _put(connection, key, wanted.tenant, now_s, now_s + lease_s, value)
            return wanted

        if (found := self._database.read(look)) is not None:
            return found
        return self._database.write(work, alone_on=[wanted.digest])

    def renew(self, claims: Collection[Claim], lease_s: float) -> None:
        """See `Answers.renew`."""
        renewed = update(table).where(_held(claims)).values(ends=self._clock() + lease_s)
        self._database.write(lambda connection: connection.execute(renewed), alone_on=[])

    def release(self, claim: Claim) -> None:
        """See `Answers.release`."""
        self._database.write(partial(_run, delete(table).where(_held([claim]))), alone_on=[claim.digest])

    def keep(self, answer: KeptAnswer, claim: Claim | None = None) -> None:
        """See `Answers.keep`."""
        content = compressed(answer.content)

        def work(connection: Connection) -> None:
            _put(connection, answer.digest, answer.tenant, answer.made_s, answer.ends_s, content)
            if claim is not None:
                connection.execute(delete(table).where(_held([claim])))

        self._database.write(work, alone_on=[answer.digest])
        with self._lock:
            self._written_bytes += len(content) + ENTRY_BYTES
        self._tidy_soon()

    def clear(self, tenant: str | None = None) -> int:
        """See `Answers.clear`."""
        statement = delete(table).where(_ARE_ANSWERS)
        if tenant is not None:
            statement = statement.where(table.c.tenant == tenant)

        def work(connection: Connection) -> int:
            now_s = self._clock()
            _put(connection, _CLEARED, "", now_s, now_s + CLEARING_KEPT_S, uuid.uuid4().bytes)
            return _run(statement, connection)

        return self._database.write(work, alone_on=[_CLEARED])

    def clearing(self) -> str:
        """See `Answers.clearing`."""
        live = select(table.c.content).where(table.c.digest == _CLEARED, table.c.ends > self._clock())
        found = self._database.read(lambda connection: connection.execute(live).scalar())
        return bytes(found).hex() if found is not None else ""

    def holdings(self, tenant: str | None = None) -> Holdings:
        """See `Answers.holdings`."""
        sizes = select(func.count(), func.coalesce(func.sum(table.c.bytes), 0)).where(_ARE_ANSWERS)
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


def _put(connection: Connection, digest: str, tenant: str, made_s: float, ends_s: float, content: bytes) -> None:
    """Write a row, in the place of one with the same digest."""
    row = {"digest": digest, "tenant": tenant, "made": made_s, "ends": ends_s, "content": content}
    row["bytes"] = len(content) + ENTRY_BYTES
    statement = upserting(connection, table).values(row)
    new = {name: statement.excluded[name] for name in row if name != "digest"}
    connection.execute(statement.on_conflict_do_update(index_elements=[table.c.digest], set_=new))


def _held(claims: Collection[Claim]) -> ColumnElement[bool]:
    """The rows of claims that are still theirs."""
    return tuple_(table.c.digest, table.c.content).in_([(_CLAIMED + one.digest, one.packed()) for one in claims])


def _run(statement: Delete, connection: Connection) -> int:
    return connection.execute(statement).rowcount


def _some_where_ended(now_s: float) -> Delete:
    ended = select(table.c.digest).where(table.c.ends <= now_s).limit(_BATCH)
    return delete(table).where(table.c.digest.in_(ended), table.c.ends <= now_s)


def _delete_oldest(room_bytes: int, connection: Connection) -> int:
    size_bytes = connection.execute(select(func.coalesce(func.sum(table.c.bytes), 0))).scalar_one()
    excess_bytes, oldest = int(size_bytes) - room_bytes, []
    rows = select(table.c.digest, table.c.bytes).where(_ARE_ANSWERS).order_by(table.c.made).limit(_BATCH)
    for row in connection.execute(rows) if excess_bytes > 0 else ():
        if excess_bytes <= 0:
            break
        oldest.append(row.digest)
        excess_bytes -= row.bytes
    return _run(delete(table).where(table.c.digest.in_(oldest)), connection) if oldest else 0
