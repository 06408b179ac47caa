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
    """One trace: its rows, children first and the root last, and where the caller wants it."""

    rows: Sequence[JSON]
    parent: Parent | None = None

    @cached_property
    def encoded(self) -> list[bytes]:
        """Each row as JSON; made once, whoever asks."""
        return [dumps(row) for row in self.rows]
