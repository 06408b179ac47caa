"""What is asked of the ledger and answered: times, groups, JSON, and CSV that runs nothing."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import pytest

from gateway.core.ledger import TOKENS
from gateway.core.paging import Page
from gateway.errors import InvalidRequest
from gateway.ledger.reports import (
    by_of,
    calls_csv,
    calls_document,
    csv_text,
    moment_s,
    place_of,
    read_place,
    report_csv,
    report_document,
    usd_text,
    wanted_of,
)
from gateway.storage.tables import usage
from gateway.storage.usage import Report, Sums, Wanted

NOW_S = 1_793_500_000.0  # 2026-11-01 02:26:40 UTC
NOVEMBER_S = 1_793_491_200.0


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def sums(cost_nano: int = 1_500_000_001, **by: str | None) -> Sums:
    return Sums(by, requests=2, failed=1, tokens=dict.fromkeys(TOKENS, 7), cost_nano=cost_nano)


def row(**fields: Any) -> dict[str, Any]:
    return {**dict.fromkeys(column.name for column in usage.c), "request_id": "req_1", "started": 1.5, **fields}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1793500000", NOW_S),
        ("1793500000.5", NOW_S + 0.5),
        ("0", 0),
        ("2026-11-01", NOVEMBER_S),
        ("2026-11-01T00:00Z", NOVEMBER_S),
        ("2026-11-01T01:00+01:00", NOVEMBER_S),
    ],
)
def test_times_are_seconds_or_iso_in_utc(text: str, expected: float) -> None:
    assert moment_s(text, "since") == expected


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "1e99", "yesterday", "2026-13-01", "99999-01-01", "0001-01-01"])
def test_what_is_no_time_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        wanted_of({"until": text}, NOW_S)
    assert caught.value.param == "until"


def test_without_a_beginning_the_month_that_has_begun_is_meant() -> None:
    assert wanted_of({"key": "abc"}, NOW_S) == Wanted(since_s=NOVEMBER_S, key="abc")
    assert wanted_of({"since": "0"}, NOW_S).since_s == 0


def test_groups_are_names_with_commas_between() -> None:
    assert by_of("key, day") == ("key", "day")
    assert by_of(None) == ()
    for text, words in (("key,secret", "'secret' is nothing"), ("key,key", "twice"), ("key,", "'' is nothing")):
        with pytest.raises(InvalidRequest, match=words):
            by_of(text)
    with pytest.raises(InvalidRequest, match="there are model"):
        by_of("key", ("model",))


def test_a_place_in_a_list_is_read_as_it_was_written() -> None:
    place = (1_793_500_000.123456, "req_" + "0" * 32)
    assert read_place(place_of({"started": place[0], "request_id": place[1]})) == place
    for text in ("", "1", "_req", "x_req", "nan_req", "1_\0"):
        with pytest.raises(InvalidRequest):
            read_place(text)


@pytest.mark.parametrize("nano", [0, 1, 999_999_999, 1_000_000_000, 12_345_678_901])
def test_dollars_are_written_exactly(nano: int) -> None:
    text = usd_text(nano)
    assert text is not None
    assert re.fullmatch(r"\d+\.\d{9}", text)
    assert int(text.replace(".", "")) == nano


def test_unknown_money_is_not_written() -> None:
    assert usd_text(None) is None


@pytest.mark.parametrize("begins", ["=", "+", "-", "@", "\t", "\r"])
def test_a_cell_that_a_spreadsheet_would_run_gets_an_apostrophe(begins: str) -> None:
    evil = f"{begins}cmd|' /C calc'!A0"
    text = csv_text(["model"], [[evil]])
    assert read(text)[1] == [f"'{evil}"]
    report = Report([sums(model=evil)], sums(), False)
    assert read(report_csv(report, ["model"]))[1][0] == f"'{evil}"
    page = Page([row(model=evil, tags=[evil, "b"], planned=[evil])], False)
    head, cells = read(calls_csv(page))
    shown = dict(zip(head, cells, strict=True))
    assert (shown["model"], shown["tags"], shown["planned"]) == (f"'{evil}", f"'{evil},b", f"'{evil}")


def test_numbers_and_nothing_stay_as_they_are() -> None:
    assert read(csv_text(["a", "b", "c"], [[-5, None, "=not"]]))[1] == ["-5", "", "'=not"]
    assert csv_text(["a"], [['x,"y"\nz']]) == 'a\r\n"x,""y""\nz"\r\n'


def test_a_report_says_the_same_in_both() -> None:
    report = Report([sums(model="a", day="2026-11-01"), sums(0, model=None, day="2026-11-02")], sums(), True)
    document = report_document(report, Wanted(since_s=1.0), ["model", "day"])
    assert document["data"][0] == {
        "model": "a",
        "day": "2026-11-01",
        "requests": 2,
        "failed": 1,
        "lost": 0,
        "unpriced": 0,
        **dict.fromkeys(TOKENS, 7),
        "cost_nano": 1_500_000_001,
        "cost_usd": 1.500000001,
    }
    assert (document["by"], document["has_more"], document["since"], document["until"]) == (
        ["model", "day"],
        True,
        1.0,
        None,
    )
    head, *lines = read(report_csv(report, ["model", "day"]))
    assert [dict(zip(head, line, strict=True))["cost_usd"] for line in lines] == ["1.500000001", "0.000000000"]
    assert lines[1][:2] == ["", "2026-11-02"]


def test_without_groups_the_sheet_has_the_total() -> None:
    head, line = read(report_csv(Report([], sums(), False), []))
    assert dict(zip(head, line, strict=True))["requests"] == "2"


def test_a_call_has_every_column_and_no_hole() -> None:
    one = row(cost_nano=None, tags=None, planned=["openai/a"], price=None)
    document = calls_document(Page([one], True))
    [shown] = document["data"]
    assert set(shown) == {*(column.name for column in usage.c), "object", "cost_usd"}
    assert (shown["tags"], shown["price"], shown["cost_usd"]) == ([], [], None)
    assert document["next"] == "1.5_req_1"
    assert json.dumps(document)
    head, cells = read(calls_csv(Page([one], False)))
    assert dict(zip(head, cells, strict=True))["cost_usd"] == ""
