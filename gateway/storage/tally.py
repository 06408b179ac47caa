"""What is counted of a call in the tables of counters, within one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, func, select

from gateway.core import windows
from gateway.core.windows import LONGEST_LEASE_S, Claim, Standing, Window
from gateway.storage.counters import SETTLED_KEEP_S
from gateway.storage.tables import reservations

#: What the keys of notes begin with that say that a reservation is settled; other keys of `counter_values` have others.
SETTLED = "s|"

#: Statements of a a `Tally`: `?` is a value, and `()` a list of values.
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


class Tally:
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
        ids = tuple(name.removeprefix(SETTLED) for name in settled)
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
        if (note := SETTLED + id) in self._settled:
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
        notes = [(SETTLED + id, 1, self._now_ms + int(SETTLED_KEEP_S * 1000)) for id in self._ended_ids]
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
