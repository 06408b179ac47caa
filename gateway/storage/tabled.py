"""Counters in the tables of a database: SQLite for the workers of a host, Postgres for several hosts without Redis."""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, TypeVar

from sqlalchemy import Column, Connection, Row, Table, delete, func, or_, select, tuple_, update

from gateway.core import windows
from gateway.core.windows import LONGEST_LEASE_S, Claim, Standing, Window
from gateway.errors import StoreUnavailable
from gateway.storage.counters import (
    AWAY,
    SETTLED_KEEP_S,
    Admission,
    Reservation,
    by_counter,
    checked_amounts,
    checked_key,
    with_room,
)
from gateway.storage.database import Database, StorageError, upserting
from gateway.storage.tables import counter_slots, counter_values, reservations
from gateway.storage.turns import Turns

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_TIDY_EVERY_S = 60.0
_TIDY_ROWS = 500
_BATCH = 200
#: Calls that reserve and settle in one transaction.
_AT_ONCE = 32
_LOG_EVERY_S = 10.0
#: One table holds three kinds of keys.
_NUMBER, _TEXT, _SETTLED = "n|", "t|", "s|"


class TableCounters:
    """`Counters` in the tables `counter_slots`, `reservations` and `counter_values`.

    Where several hosts share the database, their clocks should agree within a few seconds: a window is theirs.

    Args:
        database: with the tables of this release; its patience is what a verb waits.
        clock: seconds since the epoch.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._tidied_s = time.monotonic()
        self._logged_s = -math.inf
        self._turns = Turns(self._turn, _AT_ONCE)

    def start(self) -> None:
        """Keep the database at hand."""
        self._database.hold()

    def close(self) -> None:
        """Let go of the database."""
        self._database.release()

    def check(self) -> None:
        """See `Counters.check`."""
        self.add("check", 1, 60.0)

    def reserve(self, claims: Sequence[Claim], lease_s: float) -> Admission:
        """See `Counters.reserve`."""
        windows.distinct(claims)
        answer = self._turns.do(_Wanted(tuple(claims), windows.lease_ms(lease_s)))
        assert isinstance(answer, Admission)
        self._tidy_now_and_then()
        return answer

    def open(self, claim: Claim, amount: int) -> bool:
        """See `Counters.open`."""
        windows.openable(claim, amount)

        def work(connection: Connection) -> bool:
            ledger = _Ledger(connection, {claim.counter: claim.window}, self._now_ms())
            opened = not ledger.slots[claim.counter]
            if opened:
                ledger.count(claim, amount + ledger.reserved(claim.counter))
            ledger.write()
            return opened

        return self._write(work, [claim.counter])

    def settle(self, reservation: Reservation, amounts: Sequence[int]) -> bool:
        """See `Counters.settle`."""
        real = by_counter(reservation, checked_amounts(reservation, amounts))
        return self._turns.do(_Used(reservation, real)) is True

    def _turn(self, asked: Sequence[_Wanted | _Used]) -> Sequence[Admission | bool]:
        """Reserve and settle for several calls, one after the other, in one transaction."""
        counters = {claim.counter: claim.window for one in asked for claim in one.claims}
        settled = [_SETTLED + one.reservation.id for one in asked if isinstance(one, _Used)]

        def work(connection: Connection) -> Sequence[Admission | bool]:
            ledger = _Ledger(connection, counters, self._now_ms(), settled)
            answers = [one.done(ledger) for one in asked]
            ledger.write()
            return answers

        return self._write(work, [*counters, *settled])

    def renew(self, ids: Collection[str], lease_s: float) -> set[str]:
        """See `Counters.renew`."""
        lease_ms = windows.lease_ms(lease_s)
        asked = sorted(ids)

        def work(connection: Connection) -> set[str]:
            now_ms, renewed = self._now_ms(), set[str]()
            for start in range(0, len(asked), _BATCH):
                these = reservations.c.id.in_(asked[start : start + _BATCH])
                live = update(reservations).where(these, reservations.c.ends_ms > now_ms)
                connection.execute(live.values(ends_ms=now_ms + lease_ms))
                held = select(reservations.c.id).where(these, reservations.c.ends_ms == now_ms + lease_ms)
                renewed.update(connection.execute(held).scalars())
            return renewed

        return self._write(work, []) if asked else set()

    def look(self, claims: Sequence[Claim]) -> tuple[Standing, ...]:
        """See `Counters.look`."""
        windows.distinct(claims)

        def work(connection: Connection) -> tuple[Standing, ...]:
            ledger = _Ledger(connection, {claim.counter: claim.window for claim in claims}, self._now_ms())
            return tuple(ledger.standing(claim, admitted=False) for claim in claims)

        return self._answered(lambda: self._database.read(work))

    def add(self, key: str, amount: int, ttl_s: float) -> int:
        """See `Counters.add`."""
        name = _NUMBER + checked_key(key, ttl_s, amount)

        def work(connection: Connection) -> int:
            now_ms = self._now_ms()
            longest_ms = now_ms + math.ceil(ttl_s * 1000)
            found = _value(connection, name, now_ms)
            number, ends_ms = (0, longest_ms) if found is None else (found.number, min(found.ends_ms, longest_ms))
            _keep(connection, name, ends_ms, number=number + amount)
            return int(number + amount)

        answer = self._write(work, [name])
        self._tidy_now_and_then()
        return answer

    def get(self, key: str) -> int:
        """See `Counters.get`."""
        name = _NUMBER + checked_key(key)
        found = self._answered(lambda: self._database.read(lambda it: _value(it, name, self._now_ms())))
        return 0 if found is None else int(found.number)

    def fetch(self, keys: Collection[str]) -> dict[str, str]:
        """See `Counters.fetch`."""
        names = [_TEXT + checked_key(key) for key in keys]

        def work(connection: Connection) -> dict[str, str]:
            table, now_ms, found = counter_values.c, self._now_ms(), dict[str, str]()
            for start in range(0, len(names), _BATCH):
                these = select(table.key, table.text).where(table.key.in_(names[start : start + _BATCH]))
                live = connection.execute(these.where(table.ends_ms > now_ms))
                found.update((key.removeprefix(_TEXT), text) for key, text in live)
            return found

        return self._answered(lambda: self._database.read(work)) if names else {}

    def swap(self, key: str, old: str | None, new: str | None, ttl_s: float) -> bool:
        """See `Counters.swap`."""
        name = _TEXT + checked_key(key, ttl_s, values=(old, new))

        def work(connection: Connection) -> bool:
            now_ms = self._now_ms()
            found = _value(connection, name, now_ms)
            if (None if found is None else found.text) != old:
                return False
            if new is None:
                connection.execute(delete(counter_values).where(counter_values.c.key == name))
            else:
                _keep(connection, name, now_ms + math.ceil(ttl_s * 1000), text=new)
            return True

        return self._write(work, [name])

    def tidy(self) -> int:
        """Take back what was reserved and never settled, delete what has ended, and return how many rows went.

        Raises:
            StorageError: the database is busy or away; what went so far is gone.
        """
        gone = 0
        while some := self._database.read(self._overdue):
            gone += self._database.write(partial(self._take_back_all, some), alone_on=some)
        for table, key in _ENDING:
            while (rows := self._database.write(partial(self._delete_ended, table, key), alone_on=[])) > 0:
                gone += rows
        return gone

    def _delete_ended(self, table: Table, key: Sequence[Column[Any]], connection: Connection) -> int:
        now_ms = self._now_ms()
        ended = select(*key).where(table.c.ends_ms <= now_ms).limit(_TIDY_ROWS)
        return connection.execute(delete(table).where(tuple_(*key).in_(ended), table.c.ends_ms <= now_ms)).rowcount

    def _overdue(self, connection: Connection) -> list[str]:
        ended = select(reservations.c.counter).where(_ended(self._now_ms())).distinct().limit(_BATCH)
        return list(connection.execute(ended).scalars())

    def _take_back_all(self, counters: Iterable[str], connection: Connection) -> int:
        ledger = _Ledger(connection, {counter: _window_of(counter) for counter in counters}, self._now_ms())
        ledger.write()
        return ledger.ended

    def _tidy_now_and_then(self) -> None:
        with self._lock:
            if time.monotonic() - self._tidied_s < _TIDY_EVERY_S:
                return
            self._tidied_s = time.monotonic()
        threading.Thread(target=self._tidy_alone, name="counters-tidy", daemon=True).start()

    def _tidy_alone(self) -> None:
        try:
            self.tidy()
        except StorageError as error:
            log.warning("old counters were not deleted", extra={"fields": {"why": str(error)}})

    def _write(self, work: Callable[[Connection], _Result], alone_on: Sequence[str]) -> _Result:
        return self._answered(lambda: self._database.write(work, alone_on=alone_on))

    def _answered(self, ask: Callable[[], _Result]) -> _Result:
        try:
            return ask()
        except StorageError as error:
            with self._lock:
                often, self._logged_s = time.monotonic() - self._logged_s < _LOG_EVERY_S, time.monotonic()
            if not often:
                log.warning("the store of limits did not answer", extra={"fields": {"why": str(error)}})
            raise StoreUnavailable(AWAY) from error

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


_SLOT = (counter_slots.c.counter, counter_slots.c.slot)
_ENDING = (
    (counter_slots, _SLOT),
    (counter_values, (counter_values.c.key,)),
)


#: Statements of a `_Ledger`: `?` is a value, and `()` a list of values.
_SLOTS_OF = "SELECT counter, slot, amount, ends_ms FROM counter_slots WHERE counter IN ()"
_OVERDUE_OF = (
    "SELECT counter, id, slot, amount, ends_ms FROM reservations WHERE counter IN () AND (ends_ms <= ? OR ends_ms > ?)"
)
_NOTES_OF = "SELECT key FROM counter_values WHERE key IN () AND ends_ms > ?"
_HELD_OF = "SELECT counter, id, slot, amount FROM reservations WHERE id IN ()"
_SHORTEN = "UPDATE reservations SET ends_ms = ? WHERE counter IN () AND ends_ms > ?"
_FORGET = "DELETE FROM reservations WHERE id IN ()"
_FORGET_ONE = "DELETE FROM reservations WHERE counter = ? AND id = ?"
_HOLD = "INSERT INTO reservations (counter, id, slot, amount, ends_ms) VALUES (?, ?, ?, ?, ?)"
_FORGET_SLOT = "DELETE FROM counter_slots WHERE counter = ? AND slot = ?"
_COUNT_LESS = (
    "INSERT INTO counter_slots (counter, slot, amount, ends_ms) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (counter, slot) DO UPDATE SET amount = excluded.amount"
)
_COUNT = f"{_COUNT_LESS}, ends_ms = excluded.ends_ms"
_NOTE = (
    "INSERT INTO counter_values (key, number, ends_ms) VALUES (?, ?, ?)"
    " ON CONFLICT (key) DO UPDATE SET number = excluded.number, ends_ms = excluded.ends_ms"
)


@lru_cache(maxsize=1024)
def _in_words_of(paramstyle: str, statement: str, counts: tuple[int, ...]) -> str:
    """A statement with its lists, and with the marks that a driver has for values (PEP 249, "paramstyle")."""
    for count in counts:
        statement = statement.replace("()", f"({', '.join('?' * count)})", 1)
    return statement if paramstyle == "qmark" else statement.replace("?", "%s")


@dataclass(frozen=True)
class _Wanted:
    """What a call wants to reserve."""

    claims: tuple[Claim, ...]
    lease_ms: int
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def done(self, ledger: _Ledger) -> Admission:
        admitted = all(windows.fits(claim, ledger.slots[claim.counter]) for claim in self.claims)
        standings = [ledger.standing(claim, admitted=admitted) for claim in self.claims]
        if admitted:
            for claim in self.claims:
                ledger.reserve(self.id, claim, self.lease_ms)
        return with_room(admitted, self.id, self.claims, standings)


@dataclass(frozen=True)
class _Used:
    """What a call has used of what it reserved."""

    reservation: Reservation
    real: Mapping[str, tuple[Claim, int]]

    @property
    def claims(self) -> Sequence[Claim]:
        return self.reservation.claims

    def done(self, ledger: _Ledger) -> bool:
        held = ledger.end(self.reservation.id)
        if held is None:
            return False
        for counter, (claim, amount) in self.real.items():
            slot, before = held.get(counter, (0, 0))
            if amount < before:
                ledger.take_back(counter, slot, before - amount)
            elif amount > before and not (claim.opened and not ledger.slots[counter]):
                ledger.count(claim, amount - before)
        return True


class _Ledger:
    """Some counters within a transaction that is alone on them: read, changed here, written back.

    What is reserved beyond its lease is taken back when it is made. Its statements are the driver's: SQLAlchemy takes
    ten times as long to make one as SQLite takes to run it.

    Args:
        connection: within the transaction.
        counters: what is read and changed.
        now_ms: the store's clock.
        settled: names of the notes that reservations are settled, of those which are to be.
    """

    def __init__(
        self, connection: Connection, counters: dict[str, Window], now_ms: int, settled: Sequence[str] = ()
    ) -> None:
        self._connection = connection
        self._windows = counters
        self._now_ms = now_ms
        self._read: dict[str, dict[int, int]] = {counter: {} for counter in counters}
        self._fresh: set[str] = set()
        self._reserved: list[tuple[str, str, int, int, int]] = []
        self._ended_ids: list[str] = []
        self.ended = 0
        names = tuple(counters)
        forgotten = dict[str, set[int]]()
        for counter, slot, amount, ends_ms in self._run(_SLOTS_OF, names):
            self._read[counter][slot] = amount
            if not counters[counter].slot_ms and ends_ms <= now_ms:
                forgotten.setdefault(counter, set()).add(slot)
        self.slots = {
            counter: windows.live(
                window,
                {slot: at for slot, at in self._read[counter].items() if slot not in forgotten.get(counter, ())},
                now_ms,
            )
            for counter, window in counters.items()
        }
        longest_ms = now_ms + int(LONGEST_LEASE_S * 1000)
        self._overdue = self._run(_OVERDUE_OF, names, now_ms, longest_ms)
        for counter, _id, slot, amount, ends_ms in self._overdue:
            if ends_ms <= now_ms:
                self.take_back(counter, slot, amount)
        self._settled = set[str]()
        self._held = dict[str, dict[str, tuple[int, int]]]()
        if settled:
            self._read_held(settled)

    def _read_held(self, settled: Sequence[str]) -> None:
        over = {row[:2] for row in self._overdue if row[4] <= self._now_ms}
        self._settled = {key for (key,) in self._run(_NOTES_OF, tuple(settled), self._now_ms)}
        ids = tuple(name.removeprefix(_SETTLED) for name in settled)
        for counter, id, slot, amount in self._run(_HELD_OF, ids):
            if (counter, id) not in over:
                self._held.setdefault(id, {})[counter] = (slot, amount)

    def _run(self, statement: str, *values: Any) -> Sequence[Any]:
        """Run a statement; a value that is a tuple takes the place of a list."""
        counts = tuple(len(value) for value in values if isinstance(value, tuple))
        flat = tuple(one for value in values for one in (value if isinstance(value, tuple) else (value,)))
        result = self._connection.exec_driver_sql(self._said(statement, counts), flat)
        return result.all() if result.returns_rows else ()

    def _run_each(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        self._connection.exec_driver_sql(self._said(statement, ()), rows)

    def _said(self, statement: str, counts: tuple[int, ...]) -> str:
        return _in_words_of(self._connection.dialect.paramstyle, statement, counts)

    def standing(self, claim: Claim, *, admitted: bool) -> Standing:
        """How a claim's window stands, where the claim itself is not counted here yet."""
        return windows.standing(claim, self.slots[claim.counter], self._now_ms, admitted=admitted)

    def count(self, claim: Claim, amount: int) -> None:
        """Count it in the slot that is now."""
        self.slots[claim.counter] = windows.counted(claim.window, self.slots[claim.counter], amount, self._now_ms)
        self._fresh.add(claim.counter)

    def take_back(self, counter: str, slot: int, amount: int) -> None:
        """Count it no more in the slot where it was."""
        window = self._windows[counter]
        self.slots[counter] = windows.taken_back(window, self.slots[counter], slot, amount, self._now_ms)

    def reserved(self, counter: str) -> int:
        """What is reserved of a counter and still held."""
        held = select(func.coalesce(func.sum(reservations.c.amount), 0))
        live = held.where(reservations.c.counter == counter, reservations.c.ends_ms > self._now_ms)
        return int(self._connection.execute(live).scalar_one())

    def reserve(self, id: str, claim: Claim, lease_ms: int) -> None:
        """Count a claim until its lease ends."""
        self.count(claim, claim.amount)
        slot = claim.window.slot_at(self._now_ms)
        self._reserved.append((claim.counter, id, slot, claim.amount, self._now_ms + lease_ms))

    def end(self, id: str) -> dict[str, tuple[int, int]] | None:
        """Forget a reservation; return, for each counter where it was held, the slot and the amount.

        None: that was done before.
        """
        if (note := _SETTLED + id) in self._settled:
            return None
        self._settled.add(note)
        self._ended_ids.append(id)
        return self._held.get(id, {})

    def write(self) -> None:
        """Write back what has changed, in few statements: a server is asked each time."""
        self._write_leases()
        gone: list[tuple[Any, ...]] = []
        used: list[tuple[Any, ...]] = []
        less: list[tuple[Any, ...]] = []
        for counter, slots in self.slots.items():
            read, window, fresh = self._read[counter], self._windows[counter], counter in self._fresh
            # one without end stays at 0 until it is forgotten: whether it was opened is told by its being there
            kept = {slot: amount for slot, amount in slots.items() if amount > 0 or fresh or not window.slot_ms}
            gone += [(counter, slot) for slot in read if slot not in kept]
            # a window without end is forgotten some time after its last use
            changed = {slot for slot, at in kept.items() if read.get(slot) != at or (fresh and not window.slot_ms)}
            (used if fresh else less).extend(
                (counter, slot, kept[slot], window.ends_ms(slot, self._now_ms)) for slot in changed
            )
        notes = [(_SETTLED + id, 1, self._now_ms + int(SETTLED_KEEP_S * 1000)) for id in self._ended_ids]
        for statement, rows in (
            (_FORGET_SLOT, gone),
            (_COUNT, used),
            (_COUNT_LESS, less),
            (_HOLD, self._reserved),
            (_NOTE, notes),
        ):
            if rows:
                self._run_each(statement, rows)

    def _write_leases(self) -> None:
        longest_ms = self._now_ms + int(LONGEST_LEASE_S * 1000)
        over = [tuple(row[:2]) for row in self._overdue if row[4] <= self._now_ms]
        if over:
            self._run_each(_FORGET_ONE, over)
        if self._ended_ids:
            self._run(_FORGET, tuple(self._ended_ids))
        self.ended = len(over)
        if len(over) < len(self._overdue):
            self._run(_SHORTEN, longest_ms, tuple(self._windows), longest_ms)


def _ended(now_ms: int) -> Any:
    """Whether a lease has ended, or ends later than any can, since the clock was set back."""
    return or_(reservations.c.ends_ms <= now_ms, reservations.c.ends_ms > now_ms + int(LONGEST_LEASE_S * 1000))


def _window_of(counter: str) -> Window:
    """The window that a counter's name tells."""
    name = counter.rpartition("|")[2]
    slot_ms, _, slots = name.partition("x")
    return Window(None) if not slots else Window(int(slot_ms) * int(slots) / 1000)


def _value(connection: Connection, key: str, now_ms: int) -> Row[Any] | None:
    mine = select(counter_values).where(counter_values.c.key == key, counter_values.c.ends_ms > now_ms)
    return connection.execute(mine).one_or_none()


def _keep(
    connection: Connection, key: str, ends_ms: int, *, number: int | None = None, text: str | None = None
) -> None:
    statement = upserting(connection, counter_values)
    row = {"number": number, "text": text, "ends_ms": ends_ms}
    keep = statement.on_conflict_do_update(index_elements=[counter_values.c.key], set_=row)
    connection.execute(keep, {"key": key, **row})
