"""`gateway usage`: offline, on the data folder's database."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

from gateway import assembly, cli
from gateway.settings import Settings
from tests.storage.test_usage import lost, row


def keep(place: Path, *rows: dict[str, Any]) -> None:
    settings = Settings.from_env({}, place)
    assembly.migrate(settings)
    kept = assembly.usage_rows(settings)
    kept.keep(list(rows))
    kept.release()


@pytest.fixture
def kept(place: Path) -> Path:
    now_s = time.time()
    keep(
        place,
        row(1, started=now_s, model="fast", cost_nano=1_500_000_000, tags='["a"]'),
        row(2, started=now_s, model="=evil", cost_nano=None, caller="key_k1", key_id="k1"),
        lost(3, started=now_s, model="fast"),
        row(4, started=now_s - 90 * 86_400, model="old", cost_nano=5),
    )
    return place


def test_it_shows_this_month_by_model(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["usage"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["model", "requests", "failed", "lost"]
    assert [line.split()[:2] for line in lines] == [["fast", "2"], ["=evil", "1"], ["total", "3"]]
    assert lines[0].split()[-2:] == ["1.500000", "0"]
    assert lines[1].split()[-2:] == ["0.000000", "1"]


def test_it_can_be_asked_for_any_time_group_and_filter(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["usage", "--by", "model,key", "--since", "99d", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {(one["model"], one["key"]) for one in document["data"]} == {("fast", None), ("=evil", "k1"), ("old", None)}
    assert cli.main(["usage", "--key", "k1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"]["requests"] == 1
    assert cli.main(["usage", "--since", "99d", "--until", "80d", "--by", "", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["data"], document["total"]["cost_nano"]) == ([], 5)
    assert cli.main(["usage", "--by", ""]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[0] == "3"


def test_a_sheet_runs_nothing(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["usage", "--csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(line["model"], line["cost_usd"]) for line in lines] == [("fast", "1.500000000"), ("'=evil", "0.000000000")]


def test_what_is_left_out_is_said(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["usage", "--limit", "1"]) == 0
    assert "There are more groups than 1" in capsys.readouterr().err


def test_a_group_that_there_is_not_is_refused(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["usage", "--by", "secret"]) == 2
    assert "'secret' is nothing to group by" in capsys.readouterr().err


def test_before_the_first_start_there_is_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["usage", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"]["requests"] == 0


def test_a_database_that_cannot_be_used_is_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / ".gateway").mkdir()
    (place / ".gateway" / "gateway.db").write_text("no database at all " * 100)
    assert cli.main(["usage"]) == 1
    assert "gateway.db" in capsys.readouterr().err
