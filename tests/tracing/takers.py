"""A destination in memory."""

import json
import threading
from collections.abc import Sequence
from typing import Any

from gateway.tracing.delivery import Piece


class Taker:
    """Takes every row (delivery.Destination)."""

    limit_bytes = 1 << 20

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}
        self._changed = threading.Condition()

    def deliver(self, pieces: Sequence[Piece]) -> None:
        with self._changed:
            self.rows.update({piece.id: json.loads(piece.row) for piece in pieces})
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing is held."""

    def wait_for(self, id: str, timeout_s: float = 5.0) -> Any:
        """Return a row once it has come."""
        with self._changed:
            assert self._changed.wait_for(lambda: id in self.rows, timeout_s), sorted(self.rows)
            return self.rows[id]
