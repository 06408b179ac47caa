"""Rows as the gateway writes them, and a store in a folder, for tests of the traces that are kept here."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from gateway.storage.database import Database
from gateway.storage.migrate import upgrade
from gateway.tracing.delivery import Piece
from gateway.tracing.local import LocalTraces
from gateway.tracing.search import Search

JSON = dict[str, Any]


class Kept:
    """A store with its queries."""

    def __init__(self, folder: Path, *, keep_days: float = 14, keep_bytes: int = 1 << 30) -> None:
        self.path = folder / "gateway.db"
        upgrade(self.path)
        self.database = Database(self.path, patience_s=1)
        self.store = LocalTraces(self.database, keep_days, keep_bytes)
        self.search = Search(self.database)

    def put(self, *traces: list[JSON]) -> None:
        self.store.deliver([piece(row) for trace in traces for row in trace])


def piece(row: JSON) -> Piece:
    return Piece(row["id"], json.dumps(row, ensure_ascii=False).encode(errors="surrogatepass"))


def trace(
    number: int,
    *,
    ago_s: float = 60,
    said: Any = "hi",
    answer: str = "hello",
    error: str | None = None,
    tags: list[str] | None = None,
    parent: str | None = None,
    root: str | None = None,
    open_: bool = False,
    **metadata: Any,
) -> list[JSON]:
    """Make the LLM row and the root row of a call; the root alone while it is open."""
    start = time.time() - ago_s
    place = {"root_span_id": root or f"{number:032x}", "created": "2026-01-01T00:00:00+00:00"}
    asked = {"input": [{"role": "user", "content": said}]}
    told = {"output": [{"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}]}
    tokens = {"prompt_tokens": 12, "completion_tokens": 34, "prompt_cached_tokens": 2}
    root_row: JSON = {
        "id": f"row-{number:06}",
        "span_id": f"{number:016x}",
        **place,
        "span_attributes": {"name": "chat openai/gpt-4o-mini", "type": "task"},
        "metadata": {
            "request_id": f"req_{number:032x}",
            "caller": "tok_12345678",
            "model": "openai/gpt-4o-mini",
            "stream": True,
            **({"open": True} if open_ else {"status": 200, "served_model": "gpt-4o-mini-2024-07-18"}),
            **({} if open_ else {"provider": "openai", "cost_usd": 0.000112, "time_to_first_token_s": 0.4}),
            **({} if open_ else {"usage": tokens}),
            **metadata,
        },
        "metrics": {"start": start} if open_ else {"start": start, "end": start + 2},
    }
    if tags is not None:
        root_row["tags"] = tags
    if parent is not None:
        root_row["span_parents"] = [parent]
    if open_:
        return [root_row]
    llm_row: JSON = {
        "id": f"llm-{number:06}",
        "span_id": f"f{number:015x}",
        "span_parents": [root_row["span_id"]],
        **place,
        "span_attributes": {"name": "Completion", "type": "llm"},
        "metadata": {"model": "gpt-4o-mini", "provider": "openai", "temperature": 0.5, "attempt": 1},
        "metrics": {"start": start + 0.1, "end": start + 2, "time_to_first_token": 0.4, **tokens},
        **asked,
        **told,
    }
    root_row |= {**asked, **told}
    if error is not None:
        root_row["error"] = error
    return [llm_row, root_row]
