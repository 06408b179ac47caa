"""A place to deliver to that keeps rows by id, fails as it is told, and checks what the sender promises."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gateway.tracing.delivery import Piece
from gateway.tracing.record import Record

JSON = dict[str, Any]


class Recording:
    """A destination (delivery.Destination). `fail` is called first, and may raise."""

    def __init__(self, limit_bytes: int = 1 << 20, fail: Callable[[Sequence[Piece]], None] | None = None) -> None:
        self.limit_bytes = limit_bytes
        self.fail = fail
        self.rows: dict[str, JSON] = {}
        self.times: dict[str, int] = {}
        self.order: list[str] = []
        self.broken_promises: list[str] = []

    def deliver(self, pieces: Sequence[Piece]) -> None:
        if len({piece.id for piece in pieces}) < len(pieces):
            self.broken_promises.append("an id came twice at once")
        if any(piece.to != pieces[0].to for piece in pieces):
            self.broken_promises.append("two places at once")
        if self.fail is not None:
            self.fail(pieces)
        for piece in pieces:
            row = json.loads(piece.row)
            parents = row.get("span_parents") or []
            closed = {one for one in parents if one in self.rows and "end" in self.rows[one]["metrics"]}
            if closed and piece.id not in self.rows:
                self.broken_promises.append(f"{piece.id} came behind its root")
            self.rows[piece.id] = row
            self.times[piece.id] = self.times.get(piece.id, 0) + 1
            self.order.append(piece.id)

    def close(self) -> None:
        """Nothing is held."""


class Nobody:
    """Mail (spool.Mail) that is never fetched."""

    def start(self) -> None:
        """Nothing to start."""

    def finish(self, token: str | None, timeout_s: float, *, insist: bool) -> int:
        return 0


def root(id: str, **fields: Any) -> JSON:
    """A root that is still open."""
    return {
        "id": id,
        "span_parents": [],
        "span_attributes": {"name": "chat", "type": "task"},
        "metrics": {"start": 1000.0},
        "metadata": {"request_id": "req_" + "1" * 32, "open": True},
        **fields,
    }


def trace(id: str, text: str = "said", children: int = 1) -> Record:
    """A trace that has ended: children, and the root `id`."""
    ended = {"start": 1000.0, "end": 1001.0}
    under = [
        {"id": f"{id}-{number}", "span_parents": [id], "metrics": ended, "output": text, "span_attributes": {}}
        for number in range(children)
    ]
    return Record([*under, root(id, metrics=ended, metadata={"request_id": "req_" + "1" * 32}, output=text)])


def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for something that must come."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "it did not come in time"
        time.sleep(0.01)


def segments(folder: Path) -> list[Path]:
    """The segments in a folder, in order."""
    return sorted(folder.glob("*.seg"))
