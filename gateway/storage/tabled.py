"""Counters in the tables of a database: SQLite for the workers of a host, Postgres for several hosts without Redis."""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Column, Connection, Row, Table, delete, or_, select, tuple_, update

from gateway.core import windows
from gateway.core.windows import LONGEST_LEASE_S, Claim, Standing, Window
from gateway.errors import StoreUnavailable
from gateway.storage.counters import (
    AWAY,
    Admission,
    Reservation,
    by_counter,
    checked_amounts,
    checked_key,
    with_room,
)
from gateway.storage.database import Database, StorageError, upserting
from gateway.storage.tables import counter_slots, counter_values, reservations
from gateway.storage.tally import SETTLED, Tally
from gateway.storage.turns import Turns

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_TIDY_EVERY_S = 60.0
_TIDY_ROWS = 500
_BATCH = 200
#: Calls that reserve and settle in one transaction.
_AT_ONCE = 32
_LOG_EVERY_S = 10.0
#: One table holds three kinds of keys; the third is `tally.SETTLED`.
_NUMBER, _TEXT = "n|", "t|"


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
            tally = Tally(connection, {claim.counter: claim.window}, self._now_ms())
            opened = not tally.slots[claim.counter]
            if opened:
                tally.count(claim, amount + tally.reserved(claim.counter))
            tally.write()
            return opened

        return self._write(work, [claim.counter])

    def settle(self, reservation: Reservation, amounts: Sequence[int]) -> bool:
        """See `Counters.settle`."""
        real = by_counter(reservation, checked_amounts(reservation, amounts))
        return self._turns.do(_Used(reservation, real)) is True

    def _turn(self, asked: Sequence[_Wanted | _Used]) -> Sequence[Admission | bool]:
        """Reserve and settle for several calls, one after the other, in one transaction."""
        counters = {claim.counter: claim.window for one in asked for claim in one.claims}
        settled = [SETTLED + one.reservation.id for one in asked if isinstance(one, _Used)]

        def work(connection: Connection) -> Sequence[Admission | bool]:
            tally = Tally(connection, counters, self._now_ms(), settled)
            answers = [one.done(tally) for one in asked]
            tally.write()
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
            tally = Tally(connection, {claim.counter: claim.window for claim in claims}, self._now_ms())
            return tuple(tally.standing(claim, admitted=False) for claim in claims)

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
        tally = Tally(connection, {counter: _window_of(counter) for counter in counters}, self._now_ms())
        tally.write()
        return tally.ended

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


@dataclass(frozen=True)
class _Wanted:
    """What a call wants to reserve."""

    claims: tuple[Claim, ...]
    lease_ms: int
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def done(self, tally: Tally) -> Admission:
        admitted = all(windows.fits(claim, tally.slots[claim.counter]) for claim in self.claims)
        standings = [tally.standing(claim, admitted=admitted) for claim in self.claims]
        if admitted:
            for claim in self.claims:
                tally.reserve(self.id, claim, self.lease_ms)
        return with_room(admitted, self.id, self.claims, standings)


@dataclass(frozen=True)
class _Used:
    """What a call has used of what it reserved."""

    reservation: Reservation
    real: Mapping[str, tuple[Claim, int]]

    @property
    def claims(self) -> Sequence[Claim]:
        return self.reservation.claims

    def done(self, tally: Tally) -> bool:
        held = tally.end(self.reservation.id)
        if held is None:
            return False
        for counter, (claim, amount) in self.real.items():
            slot, before = held.get(counter, (0, 0))
            if amount < before:
                tally.take_back(counter, slot, before - amount)
            elif amount > before and not (claim.opened and not tally.slots[counter]):
                tally.count(claim, amount - before)
        return True


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
