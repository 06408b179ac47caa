"""Counters in the tables of a database: SQLite for the workers of a host, Postgres for several hosts without Redis."""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
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

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_TIDY_EVERY_S = 60.0
_TIDY_ROWS = 500
_BATCH = 200
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
        lease_ms = windows.lease_ms(lease_s)
        id = uuid.uuid4().hex

        def work(connection: Connection) -> Admission:
            ledger = _Ledger(connection, {claim.counter: claim.window for claim in claims}, self._now_ms())
            admitted = all(windows.fits(claim, ledger.slots[claim.counter]) for claim in claims)
            standings = [ledger.standing(claim, admitted=admitted) for claim in claims]
            if admitted:
                for claim in claims:
                    ledger.reserve(id, claim, lease_ms)
            ledger.write()
            return with_room(admitted, id, claims, standings)

        answer = self._write(work, [claim.counter for claim in claims])
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

        def work(connection: Connection) -> bool:
            now_ms = self._now_ms()
            if _value(connection, _SETTLED + reservation.id, now_ms) is not None:
                return False
            ledger = _Ledger(connection, {counter: claim.window for counter, (claim, _) in real.items()}, now_ms)
            held = ledger.end(reservation.id)
            for counter, (claim, amount) in real.items():
                slot, before = held.get(counter, (0, 0))
                if amount < before:
                    ledger.take_back(counter, slot, before - amount)
                elif amount > before and not (claim.opened and not ledger.slots[counter]):
                    ledger.count(claim, amount - before)
            ledger.write()
            _keep(connection, _SETTLED + reservation.id, now_ms + int(SETTLED_KEEP_S * 1000), number=1)
            return True

        return self._write(work, [*real, _SETTLED + reservation.id])

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


class _Ledger:
    """Some counters within a transaction that is alone on them: read, changed here, written back.

    What is reserved beyond its lease is taken back when it is made.
    """

    def __init__(self, connection: Connection, counters: dict[str, Window], now_ms: int) -> None:
        self._connection = connection
        self._windows = counters
        self._now_ms = now_ms
        self._read: dict[str, dict[int, int]] = {counter: {} for counter in counters}
        self._fresh: set[str] = set()
        self._reserved: list[dict[str, Any]] = []
        self.ended = 0
        mine = counter_slots.c.counter.in_(list(counters))
        forgotten = dict[str, set[int]]()
        for row in connection.execute(select(counter_slots).where(mine)):
            self._read[row.counter][row.slot] = row.amount
            if not counters[row.counter].slot_ms and row.ends_ms <= now_ms:
                forgotten.setdefault(row.counter, set()).add(row.slot)
        self.slots = {
            counter: windows.live(
                window,
                {slot: at for slot, at in self._read[counter].items() if slot not in forgotten.get(counter, ())},
                now_ms,
            )
            for counter, window in counters.items()
        }
        self._overdue = self._find_overdue()
        for row in self._overdue:
            if row.ends_ms <= now_ms:
                self.take_back(row.counter, row.slot, row.amount)

    def _find_overdue(self) -> Sequence[Row[Any]]:
        mine = reservations.c.counter.in_(list(self._windows))
        return self._connection.execute(select(reservations).where(mine, _ended(self._now_ms))).all()

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
        row = {"counter": claim.counter, "id": id, "slot": claim.window.slot_at(self._now_ms), "amount": claim.amount}
        self._reserved.append(row | {"ends_ms": self._now_ms + lease_ms})

    def end(self, id: str) -> dict[str, tuple[int, int]]:
        """Forget a reservation; return, for each counter where it was held, the slot and the amount."""
        over = {(row.counter, row.id) for row in self._overdue if row.ends_ms <= self._now_ms}
        mine = reservations.c.id == id
        rows = self._connection.execute(select(reservations).where(mine)).all()
        self._connection.execute(delete(reservations).where(mine))
        return {row.counter: (row.slot, row.amount) for row in rows if (row.counter, row.id) not in over}

    def write(self) -> None:
        """Write back what has changed, in few statements: a server is asked each time."""
        self._write_leases()
        gone: list[tuple[str, int]] = []
        used: list[dict[str, Any]] = []
        less: list[dict[str, Any]] = []
        for counter, slots in self.slots.items():
            read, window, fresh = self._read[counter], self._windows[counter], counter in self._fresh
            # one without end stays at 0 until it is forgotten: whether it was opened is told by its being there
            kept = {slot: amount for slot, amount in slots.items() if amount > 0 or fresh or not window.slot_ms}
            gone += [(counter, slot) for slot in read if slot not in kept]
            # a window without end is forgotten some time after its last use
            changed = {slot for slot, at in kept.items() if read.get(slot) != at or (fresh and not window.slot_ms)}
            (used if fresh else less).extend(
                {"counter": counter, "slot": slot, "amount": kept[slot], "ends_ms": window.ends_ms(slot, self._now_ms)}
                for slot in changed
            )
        if gone:
            self._connection.execute(delete(counter_slots).where(tuple_(*_SLOT).in_(gone)))
        for rows, columns in ((used, ("amount", "ends_ms")), (less, ("amount",))):
            if rows:
                statement = upserting(self._connection, counter_slots)
                new = {name: statement.excluded[name] for name in columns}
                self._connection.execute(statement.on_conflict_do_update(index_elements=_SLOT, set_=new), rows)
        if self._reserved:
            self._connection.execute(reservations.insert(), self._reserved)

    def _write_leases(self) -> None:
        longest_ms = self._now_ms + int(LONGEST_LEASE_S * 1000)
        over = [(row.counter, row.id) for row in self._overdue if row.ends_ms <= self._now_ms]
        key = tuple_(reservations.c.counter, reservations.c.id)
        for start in range(0, len(over), _BATCH):
            self._connection.execute(delete(reservations).where(key.in_(over[start : start + _BATCH])))
        self.ended = len(over)
        if len(over) < len(self._overdue):
            mine = reservations.c.counter.in_(list(self._windows))
            late = update(reservations).where(mine, reservations.c.ends_ms > longest_ms)
            self._connection.execute(late.values(ends_ms=longest_ms))


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
