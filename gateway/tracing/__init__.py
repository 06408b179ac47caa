"""One trace per request: a root span and, under it, one LLM span per attempt.

Observers may fail; calls may not. Rows are built once, when the call is settled, from the gateway's own record; what
Braintrust's patch of LiteLLM logged for an attempt is the base of that attempt's LLM span.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.core.calls import Attempt, Call, Caller, Headers, Outcome, Parent
from gateway.core.pricing import Meter
from gateway.core.redaction import Redactor
from gateway.errors import GatewayError
from gateway.offload import LARGE_BYTES, offload
from gateway.tracing import rows
from gateway.tracing.backlog import Backlog
from gateway.tracing.catcher import Catcher, Held
from gateway.tracing.ids import Ids
from gateway.tracing.parents import export_slug, read_parent
from gateway.tracing.record import Record
from gateway.tracing.rows import RowBuilder

JSON = dict[str, Any]

log = logging.getLogger(__name__)


class Sink(Protocol):
    """Where traces go."""

    def start(self) -> None:
        """Make ready in this process, after the fork."""

    def begin(self, row: JSON, parent: Parent | None, body_bytes: int) -> None:
        """Note that a call has begun: `row` is its root, still open, and its body has `body_bytes`.

        Raises:
            TraceBackpressure: the call is not to be served, since its trace could not be kept.
        """

    def write(self, record: Record) -> None:
        """Take one trace. Must not block."""

    def close(self, timeout_s: float, *, insist: bool = False) -> None:
        """Hand over what is still here, within `timeout_s`; `insist` where what stays here is lost."""

    def backlog(self) -> Backlog | None:
        """What waits here, of all processes; None where nothing ever does."""


@dataclass(frozen=True)
class Refusal:
    """A request that was refused before it was a call: what is known of it."""

    request_id: str
    path: str
    status: int
    error: GatewayError
    started_s: float
    caller: Caller | None = None
    client_request_id: str | None = None
    parent: Parent | None = None


class Tracer:
    """Makes traces and offers them to every sink.

    Args:
        sinks: each gets every trace; one that raises is logged and never felt by a call.
        catcher: receives what Braintrust's patch logs.
        redactor: cleans whatever is recorded.
        meter: for the cost of each attempt.
        project: the Braintrust project that traces without a parent of their own go to.
        content: whether traces hold what was asked and answered.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        catcher: Catcher,
        redactor: Redactor,
        meter: Meter,
        project: str,
        *,
        content: bool = True,
    ) -> None:
        self._sinks = sinks
        self._catcher = catcher
        self._redactor = redactor
        self._meter = meter
        self._project = project
        self._content = content
        self._refusals = _Rate()

    def start_process(self) -> None:
        """Make ready in this process, after the fork."""
        self._catcher.install()
        for sink in self._sinks:
            sink.start()

    def close(self, timeout_s: float, *, insist: bool = False) -> None:
        """Hand over what the sinks still hold, within `timeout_s` in all."""
        end_s = time.monotonic() + timeout_s
        for sink in self._sinks:
            sink.close(max(0.0, end_s - time.monotonic()), insist=insist)

    def backlogs(self) -> dict[str, Backlog]:
        """What waits to be delivered, by the name of the place it goes to."""
        found = [sink.backlog() for sink in self._sinks]
        return {backlog.sink: backlog for backlog in found if backlog is not None}

    def parent_of(self, headers: Headers) -> tuple[Parent | None, str | None]:
        """Read where the caller wants the trace: `x-bt-parent`, or `traceparent` with `baggage`.

        Returns:
            The parent, or None; and what was wrong with one that was ignored, or None.
        """
        return read_parent(headers)

    def start(self, call: Call) -> Trace:
        """Begin the trace of a call."""
        return Trace(self, call)

    def refused(self, refusal: Refusal) -> dict[str, str]:
        """Record a request that was refused before it was a call.

        A stranger must not fill the trace store: 401s, and 503s of those whom nobody can know, are recorded once a
        second, with a count of those between.

        Returns:
            The headers that say where the trace is; none where there is none.
        """
        suppressed = 0
        if refusal.status == 401 or (refusal.status == 503 and refusal.caller is None):
            seen = self._refusals.admit(time.monotonic())
            if seen is None:
                return {}
            suppressed = seen
        metadata = {
            "request_id": refusal.request_id,
            "client_request_id": refusal.client_request_id,
            **(rows.who(refusal.caller) if refusal.caller is not None else {}),
            "path": refusal.path,
            "status": refusal.status,
            "error_code": refusal.error.public_code,
            "suppressed": suppressed or None,
        }
        ids = Ids.new(refusal.parent)
        row = rows.bare(ids, f"refused {refusal.path}", "task", refusal.started_s, time.time(), metadata)
        row["error"] = refusal.error.message
        if refusal.caller is not None and refusal.caller.tags:
            row["tags"] = list(refusal.caller.tags)
        row, text = rows.cleaned(row, row, self._redactor)
        self._offer(Record([row], refusal.parent, [text]), self._sinks)
        return self._headers(ids, refusal.parent)

    def _headers(self, ids: Ids, parent: Parent | None) -> dict[str, str]:
        return {
            "x-bt-span-id": ids.span_id,
            "x-bt-span-export": export_slug(parent, self._project, ids.row_id, ids.span_id, ids.root_span_id),
        }

    def _offer(self, record: Record, sinks: Sequence[Sink]) -> None:
        for sink in sinks:
            try:
                sink.write(record)
            except Exception:
                log.exception("a trace could not be handed to %s", type(sink).__name__)


class Trace:
    """The trace of one call, until `finish`."""

    def __init__(self, tracer: Tracer, call: Call) -> None:
        self._tracer = tracer
        self._call = call
        self.ids = Ids.new(call.parent)
        self._held: dict[int, Held] = {}
        self._sinks: list[Sink] = []

    def begin(self) -> None:
        """Tell the sinks, so that the call leaves a trace even where this process does not see its end.

        Raises:
            TraceBackpressure: a sink has no room, and the operator wants no call without its trace.
        """
        tracer, call = self._tracer, self._call
        if call.recorded == "off":
            return
        row = rows.opening(call, self.ids, tracer._redactor)
        for sink in tracer._sinks:
            try:
                sink.begin(row, call.parent, call.body_bytes)
            except GatewayError:
                raise
            except Exception:
                log.exception("a call could not be announced to %s", type(sink).__name__)
            self._sinks.append(sink)

    def headers(self) -> dict[str, str]:
        """Where the trace is, for the caller: `x-bt-span-id`, and `x-bt-span-export` to hang spans under it."""
        if self._call.recorded == "off":
            return {}
        return self._tracer._headers(self.ids, self._call.parent)

    def around(self, attempt: Attempt) -> AbstractContextManager[None]:
        """While open, spans that Braintrust's patch starts are this attempt's."""
        held = self._held[attempt.number] = Held(self.ids.row_id, self.ids.span_id, self.ids.root_span_id)
        return self._tracer._catcher.holding(held)

    def finish(self, outcome: Outcome) -> None:
        """Build the rows and offer them to the sinks. Never raises."""
        tracer, call = self._tracer, self._call
        try:
            if call.recorded != "off":
                tracer._offer(self._record(outcome), self._sinks)
        except Exception:
            log.exception("the trace of %s could not be built", call.id)
        finally:
            for held in self._held.values():
                tracer._catcher.forget(held)

    def _record(self, outcome: Outcome) -> Record:
        """Build the rows; of a large call aside, since redacting megabytes would hold up every other call."""
        tracer, call = self._tracer, self._call
        content = tracer._content and call.recorded == "full"

        def build() -> Record:
            builder = RowBuilder(call, outcome, self.ids, tracer._redactor, tracer._meter, content=content)
            return builder.record(self._held)

        return offload(build) if call.body_bytes > LARGE_BYTES else build()


class _Rate:
    """Lets one through a second and counts the others."""

    def __init__(self) -> None:
        self._next_s = 0.0
        self._held_back = 0

    def admit(self, now_s: float) -> int | None:
        """How many were held back since the last one that got through; None to hold this one back."""
        if now_s < self._next_s:
            self._held_back += 1
            return None
        self._next_s = now_s + 1.0
        held_back, self._held_back = self._held_back, 0
        return held_back
