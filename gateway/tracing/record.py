"""What the tracer hands to its sinks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.core.calls import Parent
from gateway.tracing.frames import dumps

JSON = dict[str, Any]


class Record:
    """One trace.

    Args:
        rows: children first and the root last.
        parent: where the caller wants it.
        written: each row as JSON, where whoever made it has written it already.
    """

    __slots__ = ("_written", "parent", "rows")

    def __init__(
        self, rows: Sequence[JSON], parent: Parent | None = None, written: Sequence[bytes] | None = None
    ) -> None:
        self.rows = rows
        self.parent = parent
        self._written = written

    @property
    def encoded(self) -> Sequence[bytes]:
        """Each row as JSON; made once, whoever asks."""
        # no cached_property: until Python 3.12 it takes a lock, which gevent makes a slow one
        if self._written is None:
            self._written = [dumps(row) for row in self.rows]
        return self._written
