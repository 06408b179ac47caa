"""A destination in memory, and a spool in front of it."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.tracing.delivery import Piece
from gateway.tracing.sender import Sender
from gateway.tracing.spool import Spool


class Taker:
    """Takes every row (delivery.Destination)."""

    limit_bytes = 1 << 20

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}
        self.posts = 0
        self._changed = threading.Condition()

    def deliver(self, pieces: Sequence[Piece]) -> None:
        with self._changed:
            self.posts += 1
            self.rows.update({piece.id: json.loads(piece.row) for piece in pieces})
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing is held."""

    def wait_for(self, id: str, timeout_s: float = 5.0) -> Any:
        """Return a row once it has come."""
        with self._changed:
            assert self._changed.wait_for(lambda: id in self.rows, timeout_s), sorted(self.rows)
            return self.rows[id]


def spool(folder: Path, taker: Taker) -> Spool:
    """Make a spool that a taker empties; not started."""
    cap_bytes = 16 << 20
    return Spool(folder, Sender(folder, taker, name="taker", cap_bytes=cap_bytes), cap_bytes=cap_bytes, fsync="off")
