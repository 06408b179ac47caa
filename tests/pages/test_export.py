"""The list of requests as a file: all of it, what the filters leave of it, and nothing that a spreadsheet runs."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.app import create_app
from gateway.pages import export
from gateway.storage.database import StorageError
from gateway.tracing.delivery import Piece
from gateway.tracing.local import LocalTraces
from gateway.tracing.search import Search
from tests.fakes.destination import root
from tests.managed import ADMIN_TOKEN, Managed, text
from tests.served.payloads import KINDS
from tests.served.screenshots import made_up

FORMULAS = (*KINDS["sheets"], "\t=1", "\r=1", "\n=1", "\uff1d1", "\uff0b1", "\uff0d1", "\uff201", "-1+1")


@pytest.fixture
def managed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Managed]:
    monkeypatch.setattr(export, "AT_ONCE", 3)
    one = Managed(tmp_path)
    one.gateway.session_key = lambda: bytes(range(32))
    one.gateway.local_traces = Search(one.database)
    one.app = create_app(gateway=one.gateway)
    one.client = one.app.test_client()
    one.client.post("/ui/sign-in", data={"credential": ADMIN_TOKEN})
    yield one
    one.close()


def fill(managed: Managed, count: int, **fields: Any) -> list[str]:
    """Keep rows in the ledger, all that began at one of three moments; returns their ids."""
    rows = made_up(count, 1.0, time.time())
    for number, row in enumerate(rows):
        row |= {"started": time.time() - 60 - number % 3, **fields}
    assert managed.gateway.ledger.rows is not None
    managed.gateway.ledger.rows.keep(rows)
    return [row["request_id"] for row in rows]


def sheet(managed: Managed, query: str = "") -> list[dict[str, str]]:
    answer = managed.client.get(f"/ui/requests/export?format=csv&{query}")
    assert (answer.status_code, answer.mimetype) == (200, "text/csv")
    assert answer.headers["Content-Disposition"].endswith('.csv"')
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def lines(managed: Managed, query: str = "") -> list[dict[str, Any]]:
    answer = managed.client.get(f"/ui/requests/export?format=jsonl&{query}")
    assert (answer.status_code, answer.mimetype) == (200, "application/jsonl")
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 10])
def test_each_row_is_in_it_once_whatever_the_pages(managed: Managed, count: int) -> None:
    ids = fill(managed, count)
    for found in (sheet(managed), lines(managed)):
        assert sorted(row["request_id"] for row in found) == sorted(ids)
    assert [row["started"] for row in lines(managed)] == sorted(
        (row["started"] for row in lines(managed)), reverse=True
    )


def test_filters_hold_in_it_as_they_do_on_the_list(managed: Managed) -> None:
    ids = fill(managed, 7, model="other", status=429, error_code="rate_limit_exceeded", tags=json.dumps(["x"]))
    assert len(sheet(managed, "model=oth*&status=4xx&error=rate_limit_exceeded&tag=x&span=1h")) == len(ids)
    for query in ("model=gpt", "status=200", "tag=y", "since=2099-01-01", "min_cost=1000", "status=open"):
        assert sheet(managed, query) == lines(managed, query) == [], query
    assert managed.client.get("/ui/requests/export?status=bad").status_code == 400


def test_a_filter_that_looks_for_text_holds_in_it_too(managed: Managed) -> None:
    ids = fill(managed, 8)
    rows = [root(f"row-{id}", root_span_id=id[4:], span_id=id[-16:]) for id in ids]
    for id, row in zip(ids, rows, strict=True):
        row["metadata"]["request_id"] = id
        row["input"] = "a needle" if id in ids[:5] else "hay"
    pieces = [Piece(row["id"], json.dumps(row).encode()) for row in rows]
    LocalTraces(managed.database, 100_000, 1 << 30).deliver(pieces)
    assert sorted(row["request_id"] for row in lines(managed, "text=needle")) == ids[:5]
    assert lines(managed, "text=needle&provider=openai") == []  # no trace is found by a provider, as on the list


def test_each_reader_exports_their_own(managed: Managed) -> None:
    mine = managed.make("mine")
    fill(managed, 4)
    managed.client.post("/ui/sign-in", data={"credential": text(mine)})
    assert sheet(managed, "caller=tok_1f2e3d4c") == []


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_cell_is_a_formula(managed: Managed, formula: str) -> None:
    fill(managed, 1, model=formula, tags=json.dumps([formula]), user=formula, error_code=formula)
    (row,) = sheet(managed)
    assert [row[name] for name in ("model", "tags", "user", "error_code")] == [f"'{formula}"] * 4
    (line,) = lines(managed)
    assert (line["model"], line["tags"]) == (formula, [formula])


def test_it_breaks_off_where_a_page_cannot_be_read(managed: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(managed, 7)
    rows = managed.gateway.ledger.rows
    assert rows is not None
    page, read = rows.page, []

    def third_time_unlucky(*args: Any, **named: Any) -> Any:
        read.append(args)
        if len(read) == 3:
            raise StorageError("busy")
        return page(*args, **named)

    monkeypatch.setattr(rows, "page", third_time_unlucky)
    with pytest.raises(StorageError):
        managed.client.get("/ui/requests/export", buffered=True)
    assert len(read) == 3
