"""Without a Braintrust key: one log line a call, with what a trace's root knows but for its content."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from gateway.core.calls import Parent

JSON = dict[str, Any]

log = logging.getLogger("gateway.trace")


class Console:
    """A sink (tracing.Sink) that logs a summary of each trace; prompts and answers never reach the log."""

    def start(self) -> None:
        """Nothing to make ready."""

    def write(self, rows: Sequence[JSON], parent: Parent | None) -> None:
        """Log the root of a trace, and the times of its last LLM span."""
        root = rows[-1]
        fields: JSON = {
            "trace": root["root_span_id"],
            **{name: value for name, value in root["metadata"].items() if name != "metadata"},  # the caller's own
            "duration_ms": round(1000 * (root["metrics"]["end"] - root["metrics"]["start"]), 1),
        }
        if root.get("tags"):
            fields["tags"] = root["tags"]
        if len(rows) > 1 and (first_s := rows[-2]["metrics"].get("time_to_first_token")) is not None:
            fields["time_to_first_token_ms"] = round(1000 * first_s, 1)
        if root.get("error"):
            fields["error"] = root["error"]
        log.info(root["span_attributes"]["name"], extra={"fields": fields})

    def close(self, timeout_s: float) -> None:
        """Nothing is held here."""
