"""Without a Braintrust key: one log line a call, with what a trace's root knows but for its content."""

from __future__ import annotations

import logging
from typing import Any

from gateway.core.calls import Parent
from gateway.tracing.record import Record

JSON = dict[str, Any]

log = logging.getLogger("gateway.trace")

#: The caller's own metadata, and what the line has in milliseconds, like its other times.
_NOT_TOLD = frozenset({"metadata", "time_to_first_token_s"})


class Console:
    """A sink (tracing.Sink) that logs a summary of each trace; prompts and answers never reach the log."""

    def start(self) -> None:
        """Nothing to make ready."""

    def begin(self, row: JSON, parent: Parent | None, body_bytes: int) -> None:
        """Nothing is logged before the end."""

    def write(self, record: Record) -> None:
        """Log the root of a trace, and the times of its last LLM span."""
        rows = record.rows
        root = rows[-1]
        fields: JSON = {
            "trace": root["root_span_id"],
            **{name: value for name, value in root["metadata"].items() if name not in _NOT_TOLD},
            "duration_ms": round(1000 * (root["metrics"]["end"] - root["metrics"]["start"]), 1),
        }
        if root.get("tags"):
            fields["tags"] = root["tags"]
        if len(rows) > 1 and (first_s := rows[-2]["metrics"].get("time_to_first_token")) is not None:
            fields["time_to_first_token_ms"] = round(1000 * first_s, 1)
        if root.get("error"):
            fields["error"] = root["error"]
        log.info(root["span_attributes"]["name"], extra={"fields": fields})

    def close(self, timeout_s: float, *, insist: bool = False) -> None:
        """Nothing is held here."""

    def backlog(self) -> None:
        """Nothing waits here."""
