"""The rows of a trace, in Braintrust's shape: what is recorded of a call, and what is not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gateway.core.calls import Attempt, Call, Caller, Outcome, Parent, Remembered
from gateway.core.endpoints import CHAT, Endpoint
from gateway.core.pricing import Meter
from gateway.core.redaction import Redactor
from gateway.core.usage import Usage
from gateway.errors import GatewayError
from gateway.offload import LARGE_BYTES
from gateway.tracing.catcher import Held
from gateway.tracing.frames import dumps
from gateway.tracing.record import Record

JSON = dict[str, Any]

_CONTENT = ("input", "output")
_NOT_PARAMETERS = frozenset({"model", "stream"})
#: Parameters that are words and still no content.
_PLAIN_WORDS = frozenset({"reasoning_effort", "service_tier", "verbosity"})


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
        chance = os.urandom(40)
        if parent is None or parent.span_id is None or parent.root_span_id is None:
            return cls(_uuid(chance), chance[16:24].hex(), chance[24:].hex(), None)
        return cls(_uuid(chance), chance[16:24].hex(), parent.root_span_id, parent.span_id)

    def child(self) -> Ids:
        """Ids of a span under this one."""
        chance = os.urandom(24)
        return Ids(_uuid(chance), chance[16:24].hex(), self.root_span_id, self.span_id)


def _uuid(chance: bytes) -> str:
    """A random UUID (RFC 9562, section 5.4) of 16 bytes of chance."""
    text = chance[:16].hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[chance[8] & 3]}{text[17:20]}-{text[20:32]}"


def bare(
    ids: Ids,
    name: str,
    kind: str,
    started_s: float,
    ended_s: float | None,
    metadata: Mapping[str, Any],
) -> JSON:
    """A row without content, not yet cleaned.

    Args:
        ids: its place in the trace.
        name: what it is called.
        kind: `task` or `llm`.
        started_s: seconds since the epoch.
        ended_s: seconds since the epoch; None while it is open.
        metadata: entries that are None are left out.
    """
    row: JSON = {
        "id": ids.row_id,
        "span_id": ids.span_id,
        "root_span_id": ids.root_span_id,
        "created": datetime.fromtimestamp(started_s, UTC).isoformat(),
        "span_attributes": {"name": name, "type": kind},
        "metadata": {key: value for key, value in metadata.items() if value is not None},
        "metrics": {"start": started_s} if ended_s is None else {"start": started_s, "end": ended_s},
    }
    if ids.parent_span_id is not None:
        row["span_parents"] = [ids.parent_span_id]
    return row


def cleaned(row: JSON, redactor: Redactor) -> tuple[JSON, bytes]:
    """Clean a row without content: callers and providers choose some of what it says.

    Returns:
        The row, and its JSON.
    """
    text = dumps(row)
    if not redactor.is_clean(text):
        row = redactor.value(row)
        text = dumps(row)
    return row, text


def who(caller: Caller) -> JSON:
    """What the root of a trace says of the caller."""
    return {
        "caller": caller.id,
        "key_id": caller.key_id,
        "key_name": caller.key_name,
        "caller_project": caller.project,
        "caller_user": caller.user,
    }


def opening(call: Call, ids: Ids, redactor: Redactor) -> JSON:
    """The root of a call that has begun: what is known of it should its process die now. No content."""
    metadata = {
        "request_id": call.id,
        "client_request_id": call.client_request_id,
        **who(call.caller),
        "operation": call.endpoint.name,
        "model": call.model,
        "stream": call.stream,
        "traceparent": call.traceparent,
        "open": True,
    }
    row = bare(ids, f"{call.endpoint.name} {call.model}", "task", call.started_s, None, metadata)
    if call.tags:
        row["tags"] = list(call.tags)
    if call.parent is not None and call.parent.propagated:
        _propagate(row, call.parent.propagated)
    return cleaned(row, redactor)[0]


class RowBuilder:
    """Builds the rows of one call that has ended.

    Args:
        call: what was asked.
        outcome: what became of it.
        ids: of the root.
        redactor: cleans whatever is recorded.
        meter: for the cost of each attempt.
        content: whether prompts and answers are recorded.
    """

    def __init__(
        self, call: Call, outcome: Outcome, ids: Ids, redactor: Redactor, meter: Meter, *, content: bool
    ) -> None:
        self._call = call
        self._outcome = outcome
        self._ids = ids
        self._redactor = redactor
        self._meter = meter
        self._content = content
        self._written: list[tuple[Any, bytes]] = []
        # media, most likely: they are not to be written before they are gone
        self._large = call.body_bytes > LARGE_BYTES
        self._asked = self._cleaned(call.asked)

    def record(self, held: Mapping[int, Held]) -> Record:
        """Return the LLM span of each attempt, in order, and the root last.

        Args:
            held: what was caught of Braintrust's patch, by the attempt's number.
        """
        spans = [self._llm(attempt, held.get(attempt.number)) for attempt in self._outcome.attempts]
        rows = [*spans, self._root(spans[-1] if spans else None)]
        parent = self._call.parent
        if parent is not None and parent.propagated:
            for row in rows:
                _propagate(row, parent.propagated)
        pairs = [self._finished(row) for row in rows]
        return Record([row for row, _ in pairs], parent, [text for _, text in pairs])

    def _cleaned(self, value: Any) -> Any:
        """Clean what was said, and keep how it is written: the same stands in two rows."""
        text = None if self._large else dumps(value)
        if text is None or not self._redactor.is_clean(text):
            value = self._redactor.value(value)
            text = dumps(value)
        self._written.append((value, text))
        return value

    def _finished(self, row: JSON) -> tuple[JSON, bytes]:
        """Clean all but the content, which is clean, and write the row."""
        content = {name: row.pop(name) for name in _CONTENT if name in row}
        row, text = cleaned(row, self._redactor)
        parts = [text[:-1]]
        for name, value in content.items():
            row[name] = value
            known = next((text for known, text in self._written if known is value), None)
            parts.append(b',"%s":%s' % (name.encode(), known if known is not None else dumps(value)))
        return row, b"".join([*parts, b"}"])

    def _root(self, last: JSON | None) -> JSON:
        call, outcome, error = self._call, self._outcome, self._outcome.error
        metadata: JSON = {
            "request_id": call.id,
            "client_request_id": call.client_request_id,
            **who(call.caller),
            "operation": call.endpoint.name,
            "model": call.model,
            "stream": call.stream,
            "traceparent": call.traceparent,
            "status": outcome.status,
            "error_code": error.public_code if error else None,
            "error_source": error.source if error else None,
            "limits": list(outcome.limits) or None,
            "refused_by": error.refused_by if error else None,
            "caller_gone": outcome.caller_gone,
            "attempts": len(outcome.attempts),
            "routed_by": outcome.routed_by,
            "overhead_ms": round(1000 * outcome.overhead_s(call.started_s), 1),
            "ignored_parent": call.parent_note,
        }
        if self._content and isinstance(call.body.get("metadata"), dict):
            metadata["metadata"] = call.body["metadata"]
        if last is not None:
            # metrics are summed over a trace, so they stand on the LLM span; the root repeats them as metadata
            metadata.update(
                {name: last["metadata"].get(name) for name in ("provider", "served_model", "finish_reasons")},
                usage={name: last["metrics"][name] for name in (*_TOKENS, *_UNITS) if name in last["metrics"]} or None,
                usage_estimated=last["metadata"].get("usage_estimated"),
                cost_usd=last["metrics"].get("estimated_cost"),
                time_to_first_token_s=last["metrics"].get("time_to_first_token"),
            )
        if outcome.cache_asked:
            metadata["cached"] = outcome.remembered is not None
        if outcome.remembered is not None and last is None:
            metadata.update(_of_remembered(outcome.remembered))
        root = bare(
            self._ids,
            f"{call.endpoint.name} {call.model}",
            "task",
            call.started_s,
            outcome.ended_s,
            metadata,
        )
        if self._content:
            root["input"] = self._asked
            if last is not None and (told := self._told(last)) is not None:
                root["output"] = told
            elif last is None and outcome.remembered is not None and outcome.remembered.attempt.transcript.started:
                root["output"] = self._cleaned(outcome.remembered.attempt.transcript.said())
        if error is not None:
            root["error"] = self._said_of(error)
        if call.tags:
            root["tags"] = list(call.tags)
        return root

    def _told(self, last: JSON) -> Any:
        """What the caller was told: what the last attempt said, or its translation."""
        told = self._outcome.attempts[-1].told
        if told is None or not told.started:
            return last["output"]
        return self._cleaned(told.said())

    def _llm(self, attempt: Attempt, held: Held | None) -> JSON:
        transcript, deployment = attempt.transcript, attempt.deployment
        endpoint, body, asked = self._call.endpoint, self._call.body, self._asked
        if attempt.sent is not None:  # a chat stood in for what the caller asked
            endpoint, body = CHAT, attempt.sent
            asked = self._cleaned(CHAT.asked_of(body))
        said = self._cleaned(transcript.said()) if transcript.started else None
        billed = self._meter.bill(self._call, attempt)
        own = bare(
            self._ids.child(),
            endpoint.span,
            endpoint.span_kind,
            attempt.started_s,
            attempt.ended_s or self._outcome.ended_s,
            {
                **self._parameters(endpoint, body),
                "operation": endpoint.name,
                "traceparent": self._call.traceparent,
                "model": deployment.model,
                "provider": deployment.provider,
                "served_model": transcript.model,
                "response_id": transcript.id,
                "finish_reasons": transcript.finish_reasons or None,
                "attempt": attempt.number,
                "chosen": attempt.why or None,
                "stream": self._call.stream,
                "dropped_params": list(attempt.dropped) or None,
                "usage_estimated": billed.estimated or None,
            },
        )
        caught = held.row() if held is not None else None
        row = {**caught, "metadata": own["metadata"], "metrics": own["metrics"]} if caught else own
        row["input"], row["output"] = (asked, said) if self._content else (None, None)
        if attempt.error is not None:
            row["error"] = self._said_of(attempt.error)
        elif self._outcome.caller_gone and not transcript.complete:
            row["error"] = "The caller closed the connection."
        metrics = row["metrics"]
        if attempt.first_content_s is not None:
            metrics["time_to_first_token"] = attempt.first_content_s - attempt.started_s
        if billed.usage is not None:
            metrics.update(_tokens(billed.usage))
            # int or float are all that Braintrust takes
            metrics.update({unit: float(count) for unit, count in billed.usage.units.items() if unit in _UNITS})
        if billed.cost_usd is not None:
            metrics["estimated_cost"] = float(billed.cost_usd)
        return row

    def _parameters(self, endpoint: Endpoint, body: Mapping[str, Any]) -> JSON:
        """The parameters that may be recorded: all, or without content those that are numbers and plain words."""
        return {
            name: value
            for name, value in body.items()
            if name not in _NOT_PARAMETERS
            and name not in (endpoint.asked, endpoint.system)
            and (endpoint.asked or isinstance(value, int | float))  # else all of it is what was asked
            and (self._content or isinstance(value, int | float) or name in _PLAIN_WORDS)
        }

    def _said_of(self, error: GatewayError) -> str:
        if not self._content and error.source == "provider":
            return f"{error.http_status} {error.public_code or error.public_type}"  # its words may quote the prompt
        return self._redactor.text(error.message)


def _of_remembered(remembered: Remembered) -> JSON:
    """What the root says of an answer of the cache: no span is under it, and its tokens were paid for before."""
    attempt = remembered.attempt
    return {
        "cached_age_s": round(remembered.age_s, 1),
        "provider": attempt.deployment.provider,
        "served_model": attempt.transcript.model,
        "finish_reasons": attempt.transcript.finish_reasons or None,
        "usage": _tokens(attempt.transcript.usage) if attempt.transcript.usage is not None else None,
        "cost_usd": 0.0,
    }


def _tokens(usage: Usage) -> dict[str, int]:
    """Token counts under Braintrust's names of them."""
    return dict(
        zip(
            _TOKENS,
            (usage.prompt, usage.completion, usage.total, usage.cached, usage.cache_write, usage.reasoning),
            strict=True,
        )
    )


_TOKENS = (
    "prompt_tokens",
    "completion_tokens",
    "tokens",
    "prompt_cached_tokens",
    "prompt_cache_creation_tokens",
    "completion_reasoning_tokens",
)
#: What media are billed by besides tokens, under the names of the bill.
_UNITS = ("second_in", "character_in", "image_made", "query")


#: What is told of a call. A caller is not to tell it where the gateway does not: that a call cost nothing, say.
_OURS = frozenset(
    {
        "request_id", "client_request_id", "caller", "path", "suppressed", "model", "stream", "provider", "attempt",
        "attempts", "served_model", "response_id", "finish_reasons", "dropped_params", "ignored_parent", "status",
        "error_code", "error_source", "caller_gone", "overhead_ms", "usage", "usage_estimated", "cost_usd",
        "time_to_first_token_s", "open", "interrupted", "rows_dropped", "cut_from_bytes", "key_id", "key_name",
        "caller_project", "caller_user", "operation", "traceparent", "limits", "refused_by", "routed_by", "chosen",
        "cached", "cached_age_s",
    }
)  # fmt: skip


def _propagate(row: JSON, event: Mapping[str, Any]) -> None:
    """Add what the caller's SDK hands down to every span under its own; nothing that the gateway says is replaced."""
    for name in ("metadata", "span_attributes"):
        if isinstance(fields := event.get(name), Mapping):
            row[name] = {**{field: value for field, value in fields.items() if field not in _OURS}, **row[name]}
    if isinstance(tags := event.get("tags"), list):
        row["tags"] = list(dict.fromkeys([*row.get("tags", ()), *(tag for tag in tags if isinstance(tag, str))]))
