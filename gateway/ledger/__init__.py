"""The ledger: one row for each call that was planned, what it used and what that cost.

Rows travel as traces do, by a spool of their own: a call is noted when its attempts are planned and when it has ended,
and what a killed process leaves open becomes a row that says so.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from gateway.core import ledger
from gateway.core.calls import Attempt, Call, Outcome
from gateway.core.pricing import Meter, Prices
from gateway.core.redaction import Redactor
from gateway.errors import GatewayError
from gateway.storage.usage import UsageRows
from gateway.tracing import Sink
from gateway.tracing.backlog import Backlog
from gateway.tracing.frames import dumps
from gateway.tracing.record import Record

JSON = dict[str, Any]

log = logging.getLogger(__name__)

_CHOSEN = ("model", "planned", "tags", "served_model", "error_code", "project", "user")


class Ledger:
    """Notes what calls use, and answers what was used.

    Args:
        book: where rows are written; None keeps none.
        rows: what was written; None where nobody can ask.
        meter: says what each attempt used and costs.
        redactor: cleans what callers and providers choose of a row.
    """

    def __init__(
        self,
        book: Sink | None = None,
        rows: UsageRows | None = None,
        meter: Meter | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        self._book = book
        self.rows = rows
        self._meter = meter or Meter(Prices({}))
        self._redactor = redactor or Redactor()

    def start_process(self) -> None:
        """Make ready in this process, after the fork."""
        if self._book is not None:
            self._book.start()

    def close(self, timeout_s: float, *, insist: bool = False) -> None:
        """Hand over what is still here, within `timeout_s`; `insist` where what stays here is lost."""
        if self._book is not None:
            self._book.close(timeout_s, insist=insist)
        if self.rows is not None:
            self.rows.release()

    def backlogs(self) -> dict[str, Backlog]:
        """What waits to be delivered, by the name of the place it goes to."""
        backlog = self._book.backlog() if self._book is not None else None
        return {} if backlog is None else {backlog.sink: backlog}

    def entry(self, call: Call) -> Entry:
        """Make the entry of a call; nothing is written before it is opened."""
        return Entry(call, self._book, self._meter, self._redactor)


class Entry:
    """The entry of one call, until `close`."""

    def __init__(self, call: Call, book: Sink | None, meter: Meter, redactor: Redactor) -> None:
        self._call = call
        self._book = book
        self._meter = meter
        self._redactor = redactor
        self._planned: Sequence[str] | None = None

    def open(self, planned: Sequence[Attempt]) -> None:
        """Note what may be tried, so that the call leaves a row even where this process does not see its end.

        Raises:
            TraceBackpressure: the row could not be kept, and the operator wants no call without it.
        """
        if self._book is None:
            return
        # dozens of deployments may have one name: they differ by their address or key
        self._planned = tuple(dict.fromkeys(attempt.deployment.name for attempt in planned))
        try:
            self._book.begin(self._row({**ledger.opening(self._call, self._planned), "open": True}, None), None, 0)
        except GatewayError:
            raise
        except Exception:
            log.exception("a call could not be announced to the ledger")

    def close(self, outcome: Outcome) -> None:
        """Write what became of the call; nothing where it was never opened."""
        if self._book is None or self._planned is None:
            return
        bills = [self._meter.bill(self._call, attempt) for attempt in outcome.attempts]
        facts = ledger.entry(self._call, self._planned, outcome, bills)
        self._book.write(Record([self._row(facts, outcome.ended_s)]))

    def _row(self, facts: JSON, ended_s: float | None) -> JSON:
        """A row in the shape of a trace's root, which is what a spool knows how to end where nobody else does."""
        # what others choose of it, alone: to look through all of a row costs more than to write it
        if not self._redactor.is_clean(dumps([facts.get(name) for name in _CHOSEN])):
            facts = self._redactor.value(facts)
        started_s = self._call.started_s
        return {
            "id": self._call.id,
            "span_attributes": {"type": "task"},
            "metadata": {"request_id": self._call.id, **facts},
            "metrics": {"start": started_s} if ended_s is None else {"start": started_s, "end": ended_s},
        }
