"""Who owns an object that outlives its call: the tenant that made it finds it again, and nobody else does."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, func, select, tuple_, update

from gateway.storage.database import Database, StorageError, upserting, vacuum
from gateway.storage.tables import owned as table

log = logging.getLogger(__name__)

#: The kind of what `POST /v1/responses` makes.
RESPONSE = "response"

#: The kind of what a response's output holds, and a later request may refer to.
ITEM = "item"

#: The kinds of what `POST /v1/files` and `POST /v1/batches` make; a batch makes files too.
FILE = "file"
BATCH = "batch"
#: That a batch has been billed, or a response that was made in the background; by the id of that.
BILLED = "billed batch"
BILLED_RESPONSE = "billed response"

#: Providers keep a file until it is deleted, or as long as whoever made it has said.
_FILES_KEPT_S = 10 * 365 * 86_400.0

#: OpenAI keeps a stored response for 30 days (its guide "Conversation state").
PROVIDER_KEEPS_S = 30 * 86_400.0

#: Bytes. Longer ids than a provider gives (those that wrap another one have some 400 characters); Postgres' indexes
#: hold some 2700, with the kind.
_LONGEST_ID = 1024
_TIDY_EVERY_S = 600.0
_BATCH = 200
_PAUSE_S = 0.02  # others' turn to write
#: Measured: a row without a document, with its entries in two indexes; and what a document leaves of its last page.
_ROW_BYTES = 250
_LAST_PAGE_BYTES = 2048
_SHARED_PAGE_BYTES = 1700  # two smaller ones share a page


class OwnedByAnother(StorageError):
    """Another tenant has an object of this kind and id."""


class Unkeepable(StorageError):
    """An id is empty or too long, or a text is no Unicode or holds NUL, which Postgres has in no text."""


@dataclass(frozen=True)
class Owned:
    """An object that outlives the call that made it, and whose it is.

    Attributes:
        kind: what it is, such as `RESPONSE`.
        id: as the caller knows it, 1 to 1024 bytes in UTF-8; one of a kind.
        tenant: who alone finds it; `caller` is the id of the caller that made it.
        model: the name that the caller asked for.
        deployment: the one that made it, `provider/model`; `provider` is the first half.
        made_s: when, by the gateway's clock, seconds since the epoch.
        document: the object, JSON text; None where the provider keeps it.
        items: what was asked, JSON text, likewise.
        emptied: it was kept here, and has made room for newer ones. `find` says so.
    """

    kind: str
    id: str
    tenant: str
    caller: str
    model: str
    provider: str
    deployment: str
    made_s: float
    document: str | None = field(default=None, repr=False)
    items: str | None = field(default=None, repr=False)
    emptied: bool = False

    @property
    def kept_here(self) -> bool:
        """Whether the gateway keeps it, or did, and no provider knows of it."""
        return self.emptied or self.document is not None or self.items is not None


class OwnedObjects:
    """Keeps them in the table `owned`. What is past its time goes when something is kept, in a thread of its own.

    Args:
        database: with the tables of this release.
        keep_days: how long objects that are kept here stay; 0 keeps none. Where a provider keeps the object, its owner
            is known for that long too, and for the provider's 30 days at least; that of a file or a batch for years.
        keep_bytes: above that size of all documents and items the oldest are emptied; their rows stay. A process looks
            once it has written a sixteenth of it, and every 10 minutes, so they may take a little more for a moment.
    """

    def __init__(self, database: Database, keep_days: float, keep_bytes: int) -> None:
        self._database = database
        self._keep_s = keep_days * 86_400
        self._keep_bytes = keep_bytes
        self._lock = threading.Lock()
        self._tidying = False
        self._tidied_s = -math.inf
        self._written_bytes = 0

    def start(self, now_s: float) -> None:
        """Make ready in this process, after the fork: let go of what is past its time, and keep the file at hand."""
        self._database.hold()
        self.tidy_soon(now_s)

    def close(self) -> None:
        """Let go of the file."""
        self._database.release()

    @property
    def keeps_documents(self) -> bool:
        """Whether documents and items are kept here at all."""
        return self._keep_s > 0

    def keep(self, *objects: Owned) -> None:
        """Remember whose they are, and their documents where they have one: all, or where it raises none.

        Again replaces what the same tenant kept.

        Nothing of an object with a document is kept where `keeps_documents` is False. One that is larger than all
        documents together may be is kept without it, as if it had been emptied.

        Raises:
            OwnedByAnother: a kind and id are another tenant's; nothing is changed.
            Unkeepable: an id is empty or longer than 1024 bytes, or a text holds half a surrogate pair or NUL.
            StorageBusy: others held the database for longer than its patience.
            StorageFailed: it cannot be written.
        """
        kept = [owned for owned in objects if self.keeps_documents or not owned.kept_here]
        for owned in kept:
            if not _may_be_there(owned.id):
                raise Unkeepable(f"an id of {len(owned.id)} characters cannot be kept")
        if not kept:
            return
        written_bytes = self._database.write(
            lambda connection: sum(_keep(owned, self._keep_bytes, connection) for owned in kept)
        )
        with self._lock:
            self._written_bytes += written_bytes
        self.tidy_soon(kept[-1].made_s)

    def claim(self, owned: Owned) -> bool:
        """Remember whose it is, unless that is known; of all who do so at the same time one is told True.

        Raises:
            Unkeepable: see `keep`.
            StorageBusy: others held the database for longer than its patience.
            StorageFailed: it cannot be written.
        """
        if not _may_be_there(owned.id):
            raise Unkeepable(f"an id of {len(owned.id)} characters cannot be kept")
        return self._database.write(partial(_claim, owned))

    def find(self, kind: str, id: str, tenant: str) -> Owned | None:
        """Return a tenant's object; None where there is none, or where it is another's, which nothing tells apart.

        Args:
            kind: such as `RESPONSE`.
            id: any text that a caller sent.
            tenant: who asks.

        Raises:
            StorageBusy: others held the database for longer than its patience; readers hardly ever wait.
            StorageFailed: it cannot be read.
        """
        if not _may_be_there(id):
            return None
        return self._database.read(partial(_find, _mine(kind, id, tenant)))

    def known(self, kind: str, ids: Collection[str], tenant: str) -> set[str]:
        """Return those of some ids that are a tenant's objects of a kind; see `find`.

        Raises:
            StorageBusy: others held the database for longer than its patience; readers hardly ever wait.
            StorageFailed: it cannot be read.
        """
        asked = sorted(id for id in ids if _may_be_there(id))

        def look(connection: Connection) -> set[str]:
            found: set[str] = set()
            for start in range(0, len(asked), _BATCH):
                of_these = table.c.id.in_(asked[start : start + _BATCH])
                mine = and_(table.c.kind == kind, table.c.tenant == tenant, of_these)
                found.update(connection.execute(select(table.c.id).where(mine)).scalars())
            return found

        return self._database.read(look) if asked else set()

    def remove(self, kind: str, id: str, tenant: str) -> bool:
        """Forget a tenant's object. False: there was none, or it is another's.

        Raises:
            StorageBusy: others held the database for longer than its patience.
            StorageFailed: it cannot be written.
        """
        if not _may_be_there(id):
            return False
        statement = delete(table).where(_mine(kind, id, tenant))
        return self._database.write(lambda connection: connection.execute(statement).rowcount) > 0

    def tidy_soon(self, now_s: float) -> None:
        """Tidy in a thread of its own, where it is time to, and return at once.

        `keep` does so; besides, it belongs to a start, after the fork.

        Args:
            now_s: seconds since the epoch.
        """
        with self._lock:
            late = time.monotonic() - self._tidied_s >= _TIDY_EVERY_S
            if self._tidying or not (late or self._written_bytes > self._keep_bytes // 16):
                return
            self._tidying, self._written_bytes = True, 0
        threading.Thread(target=self._tidy_alone, args=(now_s,), name="storage-tidy", daemon=True).start()

    def tidy(self, now_s: float) -> int:
        """Delete what is past its time, then empty the oldest documents until the size is right.

        Args:
            now_s: seconds since the epoch.

        Returns:
            How many rows went and documents were emptied.

        Raises:
            StorageError: the database is busy or damaged; what went so far is gone.
        """
        here_s, there_s = now_s - self._keep_s, now_s - max(self._keep_s, PROVIDER_KEEPS_S)
        done = self._in_turns(partial(_forget, table.c.kept_here, here_s))
        files = table.c.kind.in_((FILE, BATCH, BILLED))
        done += self._in_turns(partial(_forget, ~table.c.kept_here & ~files, there_s))
        done += self._in_turns(partial(_forget, files, now_s - _FILES_KEPT_S))
        done += self._in_turns(partial(_empty_oldest, self._keep_bytes))
        self._in_turns(vacuum)
        return done

    def _tidy_alone(self, now_s: float) -> None:
        try:
            self.tidy(now_s)
        except StorageError as error:
            log.warning("old stored objects were not deleted", extra={"fields": {"why": str(error)}})
        finally:
            with self._lock:
                self._tidying, self._tidied_s = False, time.monotonic()

    def _in_turns(self, work: Callable[[Connection], int]) -> int:
        done = 0
        while some := self._database.write(work):
            done += some
            time.sleep(_PAUSE_S)
        return done


def room_bytes(connection: Connection) -> int:
    """Return about how many bytes of the database file all owned objects take."""
    documents = func.count().filter(table.c.bytes > _SHARED_PAGE_BYTES)
    sizes = select(func.count(), documents, func.coalesce(func.sum(table.c.bytes), 0)).select_from(table)
    rows, kept, text_bytes = connection.execute(sizes).one()
    return int(rows * _ROW_BYTES + kept * _LAST_PAGE_BYTES + text_bytes)


def _may_be_there(id: str) -> bool:
    return 0 < len(id) <= _LONGEST_ID and _is_text(id) and len(id.encode()) <= _LONGEST_ID


def _is_text(text: str) -> bool:
    return not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text)


def _mine(kind: str, id: str, tenant: str) -> ColumnElement[bool]:
    return and_(table.c.kind == kind, table.c.id == id, table.c.tenant == tenant)


def _find(mine: ColumnElement[bool], connection: Connection) -> Owned | None:
    found = connection.execute(select(table).where(mine)).one_or_none()
    if found is None:
        return None
    return Owned(
        **{name: getattr(found, name) for name in _PLAIN},
        made_s=found.made,
        emptied=found.kept_here and found.document is None and found.items is None,
    )


def _row_of(owned: Owned) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(owned, name) for name in _PLAIN}
    if not all(_is_text(row[name]) for name in _PLAIN if name not in _TEXTS):
        raise Unkeepable("a name with half a surrogate pair or NUL cannot be kept")
    return row | {"made": owned.made_s, "kept_here": owned.kept_here, "bytes": 0}


def _claim(owned: Owned, connection: Connection) -> bool:
    statement = upserting(connection, table).on_conflict_do_nothing(index_elements=_KEY)
    return bool(connection.execute(statement, _row_of(owned)).rowcount)


def _keep(owned: Owned, keep_bytes: int, connection: Connection) -> int:
    """Write the row, and return the size of its document and items."""
    row = _row_of(owned)
    for name in _TEXTS:
        if row[name] is not None:
            if "\0" in row[name]:
                raise Unkeepable("a text with NUL, which JSON has not, cannot be kept")
            # In JSON half a pair can only stand in a string, where its escape says the same.
            text = row[name].encode(errors="backslashreplace")
            row[name] = text.decode()
            row["bytes"] += len(text)
    if row["bytes"] > keep_bytes:
        row |= dict.fromkeys(_TEXTS) | {"bytes": 0}
    if connection.execute(_upsert(connection), row).rowcount == 0:
        raise OwnedByAnother(f"another tenant has this {owned.kind}")
    return int(row["bytes"])


def _forget(which: ColumnElement[bool], before_s: float, connection: Connection) -> int:
    old = select(*_KEY).where(which, table.c.made < before_s).order_by(table.c.made).limit(_BATCH)
    return connection.execute(delete(table).where(tuple_(*_KEY).in_(old))).rowcount


def _empty_oldest(keep_bytes: int, connection: Connection) -> int:
    sizes = select(func.coalesce(func.sum(table.c.bytes), 0)).where(table.c.kept_here)
    excess_bytes = connection.execute(sizes).scalar_one() - keep_bytes
    full = select(*_KEY, table.c.bytes).where(table.c.kept_here, table.c.bytes > 0)
    found = []
    for row in connection.execute(full.order_by(table.c.made).limit(_BATCH)):
        if excess_bytes <= 0:
            break
        found.append({"of_kind": row.kind, "of_id": row.id})
        excess_bytes -= row.bytes
    if found:
        connection.execute(_EMPTY, found)
    return len(found)


_KEY = (table.c.kind, table.c.id)
_TEXTS = ("document", "items")
_PLAIN = ("kind", "id", "tenant", "caller", "model", "provider", "deployment", *_TEXTS)
_EMPTY = (
    update(table)
    .where(table.c.kind == bindparam("of_kind"), table.c.id == bindparam("of_id"))
    .values(**dict.fromkeys(_TEXTS), bytes=0)
)


def _upsert(connection: Connection) -> Any:
    statement = upserting(connection, table)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=_KEY,
        set_={column.name: new[column.name] for column in table.c if not column.primary_key},
        where=new.tenant == table.c.tenant,
    )
