"""One trace per request: a root span and, under it, one LLM span per attempt.

Observers may fail; calls may not. Rows are built once, when the call is settled, from the gateway's own record; what
Braintrust's patch of LiteLLM logged for an attempt is the base of that attempt's LLM span.
"""

from __future__ import annotations

import logging
import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from gateway.core.calls import Attempt, Call, Headers, Outcome, Parent
from gateway.core.pricing import Prices, cost_usd
from gateway.core.redaction import Redactor
from gateway.core.transcript import Usage
from gateway.errors import GatewayError
from gateway.tracing.catcher import Catcher, Held
from gateway.tracing.parents import export_slug, read_parent

JSON = dict[str, Any]

log = logging.getLogger(__name__)

_NOT_PARAMETERS = frozenset({"model", "messages", "stream"})


class Sink(Protocol):
    """Where finished traces go."""

    def start(self) -> None:
        """Make ready in this process, after the fork."""

    def write(self, rows: Sequence[JSON], parent: Parent | None) -> None:
        """Take the rows of one trace, children first. Must not block."""

    def close(self, timeout_s: float) -> None:
        """Hand over what is still here, within `timeout_s`."""


@dataclass(frozen=True)
class Refusal:
    """A request that was refused before it was a call: what is known of it."""

    request_id: str
    path: str
    status: int
    error: GatewayError
    started_s: float
    caller: str | None = None
    client_request_id: str | None = None


class Tracer:
    """Makes traces and offers them to every sink.

    Args:
        sinks: each gets every trace; one that raises is logged and never felt by a call.
        catcher: receives what Braintrust's patch logs.
        redactor: cleans whatever is recorded.
        prices: for the cost of each attempt.
        project: the Braintrust project that traces without a parent of their own go to.
    """

    def __init__(
        self, sinks: Sequence[Sink], catcher: Catcher, redactor: Redactor, prices: Prices, project: str
    ) -> None:
        self._sinks = sinks
        self._catcher = catcher
        self._redactor = redactor
        self._prices = prices
        self._project = project
        self._refusals = _Rate()

    def start_process(self) -> None:
        """Make ready in this process, after the fork."""
        self._catcher.install()
        for sink in self._sinks:
            sink.start()

    def close(self, timeout_s: float) -> None:
        """Hand over what the sinks still hold, within `timeout_s` in all."""
        end_s = time.monotonic() + timeout_s
        for sink in self._sinks:
            sink.close(max(0.0, end_s - time.monotonic()))

    def parent_of(self, headers: Headers) -> tuple[Parent | None, str | None]:
        """Read where the caller wants the trace: `x-bt-parent`, or `traceparent` with `baggage`.

        Returns:
            The parent, or None; and what was wrong with one that was ignored, or None.
        """
        return read_parent(headers)

    def start(self, call: Call) -> Trace:
        """Begin the trace of a call."""
        return Trace(self, call)

    def refused(self, refusal: Refusal) -> None:
        """Record a request that was refused before it was a call.

        A stranger must not fill the trace store: 401s are recorded once a second, with a count of those between.
        """
        suppressed = 0
        if refusal.status == 401:
            seen = self._refusals.admit(time.monotonic())
            if seen is None:
                return
            suppressed = seen
        metadata = {
            "request_id": refusal.request_id,
            "client_request_id": refusal.client_request_id,
            "caller": refusal.caller,
            "path": refusal.path,
            "status": refusal.status,
            "error_code": refusal.error.public_code,
            "suppressed": suppressed or None,
        }
        row = self._row(
            Ids.new(None),
            name=f"refused {refusal.path}",
            kind="task",
            started_s=refusal.started_s,
            ended_s=time.time(),
            metadata=metadata,
        )
        row["error"] = self._redactor.text(refusal.error.message)
        self._offer([row], None)

    def _offer(self, rows: Sequence[JSON], parent: Parent | None) -> None:
        for sink in self._sinks:
            try:
                sink.write(rows, parent)
            except Exception:
                log.exception("a trace could not be handed to %s", type(sink).__name__)

    def _row(
        self, ids: Ids, *, name: str, kind: str, started_s: float, ended_s: float, metadata: Mapping[str, Any]
    ) -> JSON:
        row: JSON = {
            "id": ids.row_id,
            "span_id": ids.span_id,
            "root_span_id": ids.root_span_id,
            "created": datetime.fromtimestamp(started_s, UTC).isoformat(),
            "span_attributes": {"name": name, "type": kind},
            "metadata": {key: value for key, value in metadata.items() if value is not None},
            "metrics": {"start": started_s, "end": ended_s},
        }
        if ids.parent_span_id is not None:
            row["span_parents"] = [ids.parent_span_id]
        return row


@dataclass(frozen=True)
class Ids:
    """A span's place in its trace. `span_id` has 16 hex digits and `root_span_id` 32, as W3C trace context has them."""

    row_id: str
    span_id: str
    root_span_id: str
    parent_span_id: str | None

    @classmethod
    def new(cls, parent: Parent | None) -> Ids:
        """Ids of a root, or of a child of the caller's own span."""
        if parent is None or parent.span_id is None or parent.root_span_id is None:
            return cls(str(uuid.uuid4()), secrets.token_hex(8), secrets.token_hex(16), None)
        return cls(str(uuid.uuid4()), secrets.token_hex(8), parent.root_span_id, parent.span_id)

    def child(self) -> Ids:
        """Ids of a span under this one."""
        return Ids(str(uuid.uuid4()), secrets.token_hex(8), self.root_span_id, self.span_id)


class Trace:
    """The trace of one call, until `finish`."""

    def __init__(self, tracer: Tracer, call: Call) -> None:
        self._tracer = tracer
        self._call = call
        self.ids = Ids.new(call.parent)
        self._held: dict[int, Held] = {}

    def headers(self) -> dict[str, str]:
        """Where the trace is, for the caller: `x-bt-span-id`, and `x-bt-span-export` to hang spans under it."""
        return {
            "x-bt-span-id": self.ids.span_id,
            "x-bt-span-export": export_slug(
                self._call.parent,
                self._tracer._project,
                self.ids.row_id,
                self.ids.span_id,
                self.ids.root_span_id,
            ),
        }

    def around(self, attempt: Attempt) -> AbstractContextManager[None]:
        """While open, spans that Braintrust's patch starts are this attempt's."""
        held = self._held[attempt.number] = Held(self.ids.row_id, self.ids.span_id, self.ids.root_span_id)
        return self._tracer._catcher.holding(held)

    def finish(self, outcome: Outcome) -> None:
        """Build the rows and offer them to the sinks. Never raises."""
        try:
            rows = self._rows(outcome)
        except Exception:
            log.exception("the trace of %s could not be built", self._call.id)
            return
        finally:
            for held in self._held.values():
                self._tracer._catcher.forget(held)
        self._tracer._offer(rows, self._call.parent)

    def _rows(self, outcome: Outcome) -> list[JSON]:
        tracer, call = self._tracer, self._call
        asked = tracer._redactor.value(call.body.get("messages"))
        parameters = tracer._redactor.value(
            {name: value for name, value in call.body.items() if name not in _NOT_PARAMETERS}
        )
        spans = [self._llm_row(attempt, asked, parameters, outcome) for attempt in outcome.attempts]
        answered = outcome.answered
        root = tracer._row(
            self.ids,
            name=f"{call.endpoint.name} {call.model}",
            kind="task",
            started_s=call.started_s,
            ended_s=outcome.ended_s,
            metadata={
                "request_id": call.id,
                "client_request_id": call.client_request_id,
                "caller": call.caller.id,
                "model": call.model,
                "stream": call.stream,
                "status": outcome.status,
                "error_code": outcome.error.public_code if outcome.error else None,
                "error_source": outcome.error.source if outcome.error else None,
                "caller_gone": outcome.caller_gone,
                "attempts": len(outcome.attempts),
                "overhead_ms": round(1000 * max(0.0, outcome.ended_s - call.started_s - outcome.waited_s), 1),
                "ignored_parent": call.parent_note,
                **(self._summary(answered) if answered else {}),
            },
        )
        root["input"] = asked
        if answered is not None and answered.transcript.started:
            root["output"] = spans[-1]["output"]
        if outcome.error is not None:
            root["error"] = tracer._redactor.text(outcome.error.message)
        if call.tags:
            root["tags"] = [tracer._redactor.text(tag) for tag in call.tags]
        if call.parent is not None and call.parent.propagated:
            for row in (*spans, root):
                _propagate(row, tracer._redactor.value(call.parent.propagated))
        return [*spans, root]

    def _summary(self, attempt: Attempt) -> JSON:
        """What the root repeats of its answer, as metadata: metrics are summed over a trace, so they stand once."""
        usage = attempt.transcript.usage
        summary: JSON = {
            "provider": attempt.deployment.provider,
            "served_model": attempt.transcript.model,
            "finish_reasons": attempt.transcript.finish_reasons or None,
            "cost_usd": self._cost(attempt),
        }
        if usage is not None:
            summary["usage"] = _usage_fields(usage)
        return summary

    def _cost(self, attempt: Attempt) -> float | None:
        usage = attempt.transcript.usage
        price = self._tracer._prices.of(attempt.deployment.provider, attempt.deployment.model)
        if usage is None or price is None:
            return None
        return float(cost_usd(usage, price))

    def _llm_row(self, attempt: Attempt, asked: Any, parameters: JSON, outcome: Outcome) -> JSON:
        redactor, transcript = self._tracer._redactor, attempt.transcript
        own = self._tracer._row(
            self.ids.child(),
            name="Completion",
            kind="llm",
            started_s=attempt.started_s,
            ended_s=attempt.ended_s or outcome.ended_s,
            metadata={
                **parameters,
                "model": attempt.deployment.model,
                "provider": attempt.deployment.provider,
                "served_model": transcript.model,
                "response_id": transcript.id,
                "finish_reasons": transcript.finish_reasons or None,
                "attempt": attempt.number,
                "stream": self._call.stream,
                "dropped_params": list(attempt.dropped) or None,
            },
        )
        held = self._held.get(attempt.number)
        row = held.row() if held else None
        row = {**row, **{key: own[key] for key in ("metadata", "metrics")}} if row else own
        row["input"] = asked
        row["output"] = redactor.value(transcript.choices()) if transcript.started else None
        if attempt.error is not None:
            row["error"] = redactor.text(attempt.error.message)
        elif outcome.caller_gone and not transcript.complete:
            row["error"] = "The caller closed the connection."
        metrics = row["metrics"]
        if attempt.first_content_s is not None:
            metrics["time_to_first_token"] = attempt.first_content_s - attempt.started_s
        if (usage := transcript.usage) is not None:
            fields = _usage_fields(usage)
            metrics["tokens"] = usage.total
            metrics.update({name: count for name, count in fields.items() if count or "_" not in name[7:]})
        if (cost := self._cost(attempt)) is not None:
            metrics["estimated_cost"] = cost
        return row


def _usage_fields(usage: Usage) -> JSON:
    """Token counts under Braintrust's names of them."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "prompt_cached_tokens": usage.cached,
        "prompt_cache_creation_tokens": usage.cache_write,
        "completion_reasoning_tokens": usage.reasoning,
    }


def _propagate(row: JSON, event: Mapping[str, Any]) -> None:
    """Add what the caller's SDK hands down to every span under its own; nothing that the gateway says is replaced."""
    for name in ("metadata", "span_attributes"):
        if isinstance(fields := event.get(name), Mapping):
            row[name] = {**fields, **row[name]}
    if isinstance(tags := event.get("tags"), list):
        row["tags"] = list(dict.fromkeys([*row.get("tags", ()), *(tag for tag in tags if isinstance(tag, str))]))


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
