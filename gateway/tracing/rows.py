"""The rows of a trace, in Braintrust's shape: what is recorded of a call, and what is not."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from gateway.core.calls import Attempt, Call, Caller, Outcome, Remembered
from gateway.core.endpoints import CHAT, Endpoint
from gateway.core.pricing import Meter
from gateway.core.redaction import Redactor
from gateway.core.usage import Usage
from gateway.errors import GatewayError
from gateway.offload import LARGE_BYTES
from gateway.tracing.catcher import Held
from gateway.tracing.frames import dumps
from gateway.tracing.ids import Ids
from gateway.tracing.record import Record

JSON = dict[str, Any]

_CONTENT = frozenset({"input", "output"})
#: Parameters of a longer body (tools, most likely) take longer to write twice than to look through with all of a row.
_SHORT_BYTES = 8 << 10
_NOT_PARAMETERS = frozenset({"model", "stream"})
#: Parameters that are words and still no content.
_PLAIN_WORDS = frozenset({"reasoning_effort", "service_tier", "verbosity"})


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
        "created": _written_time(started_s),
        "span_attributes": {"name": name, "type": kind},
        "metadata": {key: value for key, value in metadata.items() if value is not None},
        "metrics": {"start": started_s} if ended_s is None else {"start": started_s, "end": ended_s},
    }
    if ids.parent_span_id is not None:
        row["span_parents"] = [ids.parent_span_id]
    return row


def _written_time(at_s: float) -> str:
    """A time as RFC 3339 has it, to the microsecond."""
    whole_s = int(at_s)
    return f"{_written_second(whole_s)}.{int(1e6 * (at_s - whole_s)):06d}+00:00"


@lru_cache(maxsize=64)
def _written_second(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def cleaned(row: JSON, chosen: Any, redactor: Redactor) -> tuple[JSON, bytes]:
    """Clean a row without content.

    Args:
        row: of `bare`.
        chosen: what others than the gateway chose of it, names too, which takes a fifth of the time to look through;
            or the row itself.
        redactor: cleans the whole row where that is not clean.

    Returns:
        The row, and its JSON.
    """
    text = dumps(row)
    if not redactor.is_clean(text if chosen is row else dumps(chosen)):
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
    chosen = _chosen_by_caller(call)
    metadata = {**chosen, "request_id": call.id, "operation": call.endpoint.name, "stream": call.stream, "open": True}
    row = bare(ids, f"{call.endpoint.name} {call.model}", "task", call.started_s, None, metadata)
    if call.tags:
        row["tags"] = list(call.tags)
    if call.parent is not None and call.parent.propagated:
        _propagate(row, call.parent.propagated)
        return cleaned(row, row, redactor)[0]
    return cleaned(row, (*chosen.values(), call.tags), redactor)[0]


def _chosen_by_caller(call: Call) -> JSON:
    """What a root says of a call in words that are not the gateway's."""
    return {
        "client_request_id": call.client_request_id,
        **who(call.caller),
        "model": call.model,
        "traceparent": call.traceparent,
    }


class _Content(NamedTuple):
    """What was asked or said, clean, and its JSON: the same stands in two rows."""

    value: Any
    text: bytes


_NO_CONTENT = _Content(None, b"null")


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
        # media, most likely: they are not to be written before they are gone
        self._large = call.body_bytes > LARGE_BYTES
        self._asked = self._cleaned(call.asked)
        #: What the last attempt said.
        self._said: _Content | None = None
        self._rows: list[JSON] = []
        self._lines: list[bytes] = []

    def record(self, held: Mapping[int, Held]) -> Record:
        """Return the LLM span of each attempt, in order, and the root last.

        Args:
            held: what was caught of Braintrust's patch, by the attempt's number.
        """
        for attempt in self._outcome.attempts:
            self._add_llm(attempt, held.get(attempt.number))
        self._add_root()
        return Record(self._rows, self._call.parent, self._lines)

    def _cleaned(self, value: Any) -> _Content:
        """Clean what was said."""
        text = None if self._large else dumps(value)
        if text is None or not self._redactor.is_clean(text):
            value = self._redactor.value(value)
            text = dumps(value)
        return _Content(value, text)

    def _add(self, row: JSON, chosen: Any, asked: _Content | None, said: _Content | None) -> None:
        """Clean a row, and write it with its content, which is clean."""
        parent = self._call.parent
        propagated = parent.propagated if parent is not None else None
        if propagated:
            _propagate(row, propagated)
        if propagated or self._call.body_bytes > _SHORT_BYTES:
            chosen = row
        row, text = cleaned(row, chosen, self._redactor)
        parts = [text[:-1]]
        if asked is not None:
            row["input"] = asked.value
            parts += (b',"input":', asked.text)
        if said is not None:
            row["output"] = said.value
            parts += (b',"output":', said.text)
        parts.append(b"}")
        self._rows.append(row)
        self._lines.append(b"".join(parts))

    def _add_root(self) -> None:
        call, outcome, error = self._call, self._outcome, self._outcome.error
        last = self._rows[-1] if self._rows else None
        chosen = _chosen_by_caller(call)
        chosen["ignored_parent"] = call.parent_note
        if error is not None:
            chosen["error_code"], chosen["refused_by"] = error.public_code, error.refused_by
        if outcome.limits:
            chosen["limits"] = list(outcome.limits)
        if self._content and isinstance(call.body.get("metadata"), dict):
            chosen["metadata"] = call.body["metadata"]
        if last is not None:
            for name in ("provider", "served_model", "finish_reasons"):
                chosen[name] = last["metadata"].get(name)
        elif outcome.remembered is not None:
            chosen.update(_of_remembered(outcome.remembered))
        metadata: JSON = {
            **chosen,
            "request_id": call.id,
            "operation": call.endpoint.name,
            "stream": call.stream,
            "status": outcome.status,
            "error_source": error.source if error else None,
            "caller_gone": outcome.caller_gone,
            "attempts": len(outcome.attempts),
            "routed_by": outcome.routed_by,
            "overhead_ms": round(1000 * outcome.overhead_s(call.started_s), 1),
        }
        if last is not None:
            # metrics are summed over a trace, so they stand on the LLM span; the root repeats them as metadata
            metrics = last["metrics"]
            metadata["usage"] = {name: metrics[name] for name in _COUNTED if name in metrics} or None
            metadata["usage_estimated"] = last["metadata"].get("usage_estimated")
            metadata["cost_usd"] = metrics.get("estimated_cost")
            metadata["time_to_first_token_s"] = metrics.get("time_to_first_token")
        if outcome.cache_asked:
            metadata["cached"] = outcome.remembered is not None
        root = bare(
            self._ids,
            f"{call.endpoint.name} {call.model}",
            "task",
            call.started_s,
            outcome.ended_s,
            metadata,
        )
        if error is not None:
            root["error"] = self._said_of(error)
        if call.tags:
            root["tags"] = list(call.tags)
        asked = self._asked if self._content else None
        words = (*chosen.values(), call.tags, root.get("error"))
        self._add(root, words, asked, self._told() if self._content else None)

    def _told(self) -> _Content | None:
        """What the caller was told: what the last attempt said, or its translation; else what the cache gave."""
        outcome = self._outcome
        if outcome.attempts:
            told = outcome.attempts[-1].told
            return self._said if told is None or not told.started else self._cleaned(told.said())
        if outcome.remembered is not None and outcome.remembered.attempt.transcript.started:
            return self._cleaned(outcome.remembered.attempt.transcript.said())
        return None

    def _add_llm(self, attempt: Attempt, held: Held | None) -> None:
        transcript, deployment = attempt.transcript, attempt.deployment
        endpoint, body, asked = self._call.endpoint, self._call.body, self._asked
        if attempt.sent is not None:  # a chat stood in for what the caller asked
            endpoint, body = CHAT, attempt.sent
            asked = self._cleaned(CHAT.asked_of(body))
        self._said = said = self._cleaned(transcript.said()) if transcript.started else None
        billed = self._meter.bill(self._call, attempt)
        parameters = self._parameters(endpoint, body)
        told = {
            "traceparent": self._call.traceparent,
            "model": deployment.model,
            "provider": deployment.provider,
            "served_model": transcript.model,
            "response_id": transcript.id,
            "finish_reasons": transcript.finish_reasons or None,
            "chosen": attempt.why or None,
            "dropped_params": list(attempt.dropped) or None,
        }
        row = bare(
            self._ids.child(),
            endpoint.span,
            endpoint.span_kind,
            attempt.started_s,
            attempt.ended_s or self._outcome.ended_s,
            {
                **parameters,
                **told,
                "operation": endpoint.name,
                "attempt": attempt.number,
                "stream": self._call.stream,
                "usage_estimated": billed.estimated or None,
            },
        )
        chosen: Any = (parameters, *told.values())
        if held is not None and (caught := held.row()):
            named = {name: value for name, value in caught.items() if name not in _CONTENT}
            row = chosen = {**named, "metadata": row["metadata"], "metrics": row["metrics"]}
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
            if units := billed.usage.units:
                metrics.update({unit: float(count) for unit, count in units.items() if unit in _UNITS})
        if billed.cost_usd is not None:
            metrics["estimated_cost"] = float(billed.cost_usd)
        if not self._content:
            asked = said = _NO_CONTENT
        self._add(row, chosen if "error" not in row else row, asked, said or _NO_CONTENT)

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
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "tokens": usage.total,
        "prompt_cached_tokens": usage.cached,
        "prompt_cache_creation_tokens": usage.cache_write,
        "completion_reasoning_tokens": usage.reasoning,
    }


#: What media are billed by besides tokens, under the names of the bill.
_UNITS = ("second_in", "character_in", "image_made", "query")
#: What the root repeats of its last span's metrics.
_COUNTED = (*_tokens(Usage()), *_UNITS)


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
