"""Spool folders as a gateway leaves them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.assembly import Delivery, deliveries
from gateway.settings import Settings
from gateway.tracing.delivery import Piece, Rejected
from gateway.tracing.ids import Ids
from gateway.tracing.record import Record
from gateway.tracing.rows import bare
from gateway.tracing.sender import Sender
from gateway.tracing.spool import Spool

JSON = dict[str, Any]


class NoMail:
    """A sender that delivers nothing (spool.Mail)."""

    def start(self) -> None:
        pass

    def finish(self, token: str | None, timeout_s: float, *, insist: bool = False) -> int:
        return 0


class Refusing:
    """A destination that takes no row."""

    limit_bytes = 1 << 20

    def deliver(self, pieces: Sequence[Piece]) -> None:
        raise Rejected("400 no such column")

    def close(self) -> None:
        pass


def request(number: int) -> str:
    return f"req_{number:032x}"


def root(number: int) -> JSON:
    now_s = time.time()
    return bare(Ids.new(None), "chat m", "task", now_s, now_s, {"request_id": request(number)})


def opened(row: JSON) -> JSON:
    return {**row, "metrics": {"start": row["metrics"]["start"]}}


def mine(directory: Path, environment: dict[str, str]) -> Delivery:
    """Where a gateway of these variables, started in this folder, would deliver."""
    [delivery] = deliveries(Settings.from_env({"BRAINTRUST_API_KEY": "bt-test-key", **environment}, directory))
    return delivery


def spool(folder: Path, cap_bytes: int = 64 << 20) -> Spool:
    return Spool(folder, NoMail(), cap_bytes=cap_bytes, fsync="off", place={"project_name": "llm-gateway"})


def leave(folder: Path, *ended: int, open: Sequence[int] = ()) -> None:
    """What a gateway leaves that was killed: calls that ended, and calls that were open."""
    one = spool(folder)
    for number in (*ended, *open):
        row = root(number)
        one.begin(opened(row), None, 0)
        if number in ended:
            one.write(Record([row]))
    one.close(0)


def put_aside(folder: Path, *numbers: int) -> None:
    """Have these rows refused for good."""
    leave(folder, *numbers)
    Sender(folder, Refusing(), name="traces", cap_bytes=64 << 20).drain(10)


def access_line(number: int, time: str = "2026-11-25T08:00:00Z", **fields: Any) -> str:
    line = {"time": time, "logger": "gateway.access", "message": "request", "request_id": request(number), **fields}
    return json.dumps(line) + "\n"
