"""Limits and budgets, for calls: all of them are in memory, and each worker follows their changes.

Once a second it asks the database whether any has changed. While the database is away what is known stands, since a
limit that is not enforced costs money and one that is a little old does not.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from gateway.core.calls import Caller
from gateway.core.rules import Rule
from gateway.core.ruleset import RuleSet
from gateway.errors import StoreUnavailable
from gateway.offload import give_way
from gateway.storage.database import Database, StorageError
from gateway.storage.revision import KEYS, RULES, revision
from gateway.storage.rules import rule_of
from gateway.storage.tables import projects, rules, users

log = logging.getLogger(__name__)

#: A change is felt within this and the time of one query.
POLL_S = 1.0

_WAIT_S = 5.0  # who waits for another's first look
_OVERDUE_S = 10.0  # more than a poll takes from a database that is away
_BATCH = 200

Names = Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class _Known:
    """All rules, as they were at two revisions."""

    set: RuleSet
    names: Names
    rules_at: int
    keys_at: int


@dataclass(frozen=True)
class _Read:
    """What the database says; `rows` is None where the rules are as they were."""

    rows: Sequence[Row[Any]] | None
    names: Names
    rules_at: int
    keys_at: int


class FollowedRules:
    """All limits and budgets, as new as a second ago.

    Args:
        database: where they are kept.
        fixed: further ones, such as the settings', which come first.
        poll_s: how often to look for changes.
    """

    def __init__(self, database: Database, fixed: Sequence[Rule] = (), *, poll_s: float = POLL_S) -> None:
        self._database = database
        self._fixed = tuple(fixed)
        self._poll_s = poll_s
        self._known: _Known | None = None
        self._lock = threading.Lock()
        #: One look at a time: what an older one found must not come after a newer one's.
        self._looking = threading.Lock()
        self._closed = threading.Event()
        self._poller: threading.Thread | None = None
        self._failed_s: float | None = None
        self._polled_s = 0.0
        self._away = False

    def start(self) -> None:
        """Make ready in this process, after the fork, and begin to look; safe to call again.

        A worker that knows the rules before its first call is one that answers on when the database goes.
        """
        self._database.hold()
        self._keep_polling()

    def close(self) -> None:
        """Stop looking for changes; safe to call again."""
        self._closed.set()
        poller = self._poller
        if poller is not None:
            poller.join(_WAIT_S)
        self._database.release()

    def of(self, caller: Caller, models: Sequence[str]) -> tuple[Rule, ...]:
        """Return the rules that a call is held to.

        Args:
            caller: whose call.
            models: the name that was asked for, and those of the deployments that are planned.

        Raises:
            StoreUnavailable: nobody can say, since the database has not answered once.
        """
        return self._rules().of(caller, models)

    def about(self, caller: Caller) -> tuple[Rule, ...]:
        """Return the rules that a caller is held to for some model.

        Raises:
            StoreUnavailable: as in `of`.
        """
        return self._rules().about(caller)

    def poll(self) -> None:
        """Look for changes once, and learn what has changed."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        self._polled_s = time.monotonic()
        try:
            read = self._database.read(self._read)
        except StorageError as error:
            self._failed_s = time.monotonic()
            if not self._away:
                log.warning("limits and budgets cannot be read", extra={"fields": {"why": str(error)}})
            self._away = True
            return
        if self._away:
            log.info("limits and budgets can be read again")
        self._away = False
        if read is not None:
            self._known = self._learn(read)

    def _rules(self) -> RuleSet:
        known = self._known
        if known is None:
            return self._first_look()
        if time.monotonic() - self._polled_s > _OVERDUE_S:
            self._keep_polling()
        return known.set

    def _first_look(self) -> RuleSet:
        if not self._lock.acquire(timeout=_WAIT_S):
            raise _unavailable()
        try:
            # many calls that come at once to a database that is away do not all wait for it
            lately = self._failed_s is not None and time.monotonic() - self._failed_s < self._poll_s
            if self._known is None and not lately:
                self.poll()
            self._keep_polling()
            if self._known is None:
                raise _unavailable()
            return self._known.set
        finally:
            self._lock.release()

    def _keep_polling(self) -> None:
        """Have a thread look for changes; none is there before the fork."""
        if not self._closed.is_set() and (self._poller is None or not self._poller.is_alive()):
            self._poller = threading.Thread(target=self._poll_on, name="rule-changes", daemon=True)
            self._poller.start()

    def _poll_on(self) -> None:
        with self._lock:  # a call that comes meanwhile waits for this look
            if self._known is None and self._failed_s is None:
                self.poll()
        while not self._closed.wait(self._poll_s):
            self.poll()

    def _read(self, connection: Connection) -> _Read | None:
        """What is new; None where nothing has changed."""
        known, rules_at, keys_at = self._known, revision(connection, RULES), revision(connection, KEYS)
        if known is not None and (known.rules_at, known.keys_at) == (rules_at, keys_at):
            return None
        rows: Sequence[Row[Any]] | None = None
        if known is None or known.rules_at != rules_at:
            rows = connection.execute(select(rules).order_by(rules.c.made, rules.c.id)).all()
        return _Read(rows, _names(connection), rules_at, keys_at)

    def _learn(self, read: _Read) -> _Known:
        known = self._known
        if read.rows is None and known is not None:
            # a project or user may have another name
            found = known.set if read.names == known.names else RuleSet(known.set.rules, read.names)
        else:
            kept = list(self._fixed)
            for number, row in enumerate(read.rows or ()):
                kept.append(rule_of(row))
                if number % _BATCH == 0:
                    give_way()  # thousands of rows must not keep the calls from their turn
            found = RuleSet(kept, read.names)
        return _Known(found, read.names, read.rules_at, read.keys_at)


def _names(connection: Connection) -> Names:
    """The ids of those projects and users that a rule is about, by kind and name."""
    found: dict[tuple[str, str], str] = {}
    for kind, table in (("project", projects), ("user", users)):
        wanted = select(table.c.id, table.c.name).where(table.c.id.in_(select(rules.c[kind]).distinct()))
        found |= {(kind, row.name): row.id for row in connection.execute(wanted)}
    return found


def _unavailable() -> StoreUnavailable:
    return StoreUnavailable("Limits and budgets cannot be read at the moment; send the request again.")
