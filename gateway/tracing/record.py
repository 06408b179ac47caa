"""What the tracer hands to its sinks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gateway.core.calls import Parent
from gateway.tracing.frames import dumps

JSON = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """One trace.

    Attributes:
        rows: children first and the root last.
        parent: where the caller wants it.
        written: each row as JSON, where whoever made it has written it already.
    """

    rows: Sequence[JSON]
    parent: Parent | None = None
    written: Sequence[bytes] | None = None

    @cached_property
    def encoded(self) -> Sequence[bytes]:
        """Each row as JSON; made once, whoever asks."""
        return self.written if self.written is not None else [dumps(row) for row in self.rows]
