"""`gateway traces verify`: whatever is missing is named."""

from __future__ import annotations

import io
import json
import sqlite3
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway import cli
from gateway.tracing.frames import void_frame
from tests.cli.spools import access_line, leave, opened, put_aside, request, root, spool
from tests.fakes.braintrust_server import FakeBraintrust
from tests.served.caller import Caller
from tests.served.process import TOKEN, Served

JSON = dict[str, Any]


def now(days: float = 0) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


def verify(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, JSON]:
    code = cli.main(["traces", "verify", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


def log_of(place: Path, *lines: str) -> str:
    path = place / "gateway.log"
    path.write_text("".join(lines))
    return str(path)


# the spool alone


def test_an_empty_spool_misses_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["traces", "verify"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("nothing is missing in the spool; --log FILE")
    assert cli.main(["traces", "verify", "--log", log_of(place)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing is missing"


def test_calls_are_there_or_open_or_interrupted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(folder, 1, open=[2])
    living = spool(folder)
    living.begin(opened(root(3)), None, 0)
    try:
        code, report = verify(capsys)
    finally:
        living.close(0)
    found = report["spool"]
    assert code == 0
    assert (found["roots"], found["interrupted"], found["open"]) == ([request(1)], [request(2)], [request(3)])


def test_a_damaged_frame_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(folder, 1, 2)
    [segment] = folder.glob("*.seg")
    raw = bytearray(segment.read_bytes())
    raw[len(raw) - 20] ^= 0xFF
    segment.write_bytes(raw)
    code, report = verify(capsys)
    assert code == 1
    assert report["spool"]["damaged"] == [f"{folder.name}/{segment.name} before byte {len(raw)}"]
    assert cli.main(["traces", "verify"]) == 1
    assert "DAMAGED frame: " in capsys.readouterr().out


def test_rows_without_room_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = root(1)
    one = spool(folder)
    one.begin(opened(row), None, 0)
    one.close(0)
    [segment] = folder.glob("*.seg")
    with segment.open("ab") as frames:
        frames.write(void_frame(row["id"], 2, time.time()))
    code, report = verify(capsys)
    assert (code, report["spool"]["dropped"]) == (1, [request(1)])


def test_what_the_sender_counted_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.mkdir(parents=True)
    (folder / "sender.json").write_text('{"dropped":3,"quarantined":1,"sent":9}')
    assert cli.main(["traces", "verify"]) == 1
    assert f"{folder.name}: so far 3 dropped, 1 quarantined" in capsys.readouterr().out


# with a log


def test_every_call_of_the_log_is_looked_for_everywhere(
    folder: Path, place: Path, braintrust: FakeBraintrust, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(folder, 1, open=[2])
    assert cli.main(["spool", "drain"]) == 0
    put_aside(folder, 3)
    leave(folder, 4)
    with closing(sqlite3.connect(place / ".gateway" / "gateway.db")) as database:
        database.execute("CREATE TABLE traces (request_id TEXT)")
        database.execute("INSERT INTO traces VALUES (?)", (request(5),))
        database.commit()
    told = json.dumps({"logger": "gateway.trace", "request_id": request(6), "time": now()}) + "\n"
    lines = [access_line(number, now(), model="m", status=200) for number in range(1, 8)]
    capsys.readouterr()
    code, report = verify(capsys, "--log", log_of(place, told, *lines))
    assert code == 1
    assert report["missing"] == [request(7)]
    assert report["log"]["calls"] == 7
    found = {name: count for name, count in report["log"]["found"].items() if count}
    assert found == {"delivered": 2, "waiting": 1, "quarantine": 1, "database": 1, "log": 1}
    assert cli.main(["traces", "verify", "--log", log_of(place, *lines)]) == 1
    assert f"MISSING {request(7)}" in capsys.readouterr().out


def test_what_is_no_call_is_not_looked_for(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = log_of(
        place,
        "Traceback (most recent call last):\n",
        "[1, 2]\n",
        access_line(1, now(), path="/health"),
        access_line(2, now(), model="m", trace="off"),
        access_line(3, now(), model="m", error="trace_backpressure", status=503),
        json.dumps({"logger": "gunicorn.error", "message": "started"}) + "\n",
    )
    code, report = verify(capsys, "--log", log)
    assert code == 0
    assert (report["log"]["not_json"], report["log"]["other_lines"]) == (2, 2)
    assert (report["log"]["untraced_by_the_caller"], report["log"]["refused_without_room"]) == (1, 1)


def test_since_leaves_out_what_is_older(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = log_of(place, access_line(1, now(days=2), model="m"), access_line(2, now(), model="m"))
    for since in ("24h", now(days=1), now(days=1)[:10]):
        assert verify(capsys, "--log", log, "--since", since)[1]["missing"] == [request(2)]
    with pytest.raises(SystemExit):
        cli.main(["traces", "verify", "--since", "yesterday"])
    assert "one of 30m, 24h, 7d" in capsys.readouterr().err


def test_what_is_too_old_to_tell_is_not_called_missing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = verify(capsys, "--log", log_of(place, access_line(1, now(days=8), model="m")))
    assert (code, report["missing"], report["log"]["too_old_to_tell"]) == (0, [], 1)


def test_the_log_may_come_by_a_pipe(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(access_line(1, now(), model="m")))
    assert verify(capsys, "--log", "-")[1]["missing"] == [request(1)]


def test_a_database_of_another_shape_is_no_traceback(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / ".gateway").mkdir()
    (place / ".gateway" / "gateway.db").write_text("no database, but long enough to be looked at" * 30)
    assert cli.main(["traces", "verify", "--log", log_of(place, access_line(1, now(), model="m"))]) == 1
    assert "gateway.db: is not a database" in capsys.readouterr().err


def test_a_log_for_people_proves_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pretty = "2026-11-26T14:05:40.974Z info    gateway.access: request request_id=req_1 model=m\n"
    log = log_of(place, pretty, pretty)
    assert cli.main(["traces", "verify", "--log", log]) == 2
    assert "LOG_FORMAT=json" in capsys.readouterr().err
    assert cli.main(["traces", "verify", "--since", "1h", "--log", log_of(place, pretty, access_line(1, now(2)))]) == 0


def test_a_log_that_is_not_there_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["traces", "verify", "--log", "nowhere.log"]) == 2
    assert "nowhere.log cannot be read" in capsys.readouterr().err


def test_a_served_gateway_misses_nothing_also_while_braintrust_is_down(
    place: Path, braintrust: FakeBraintrust, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    braintrust.mode = "refuse_500"
    settings = {"GATEWAY_AUTH_TOKEN": TOKEN, "WEB_CONCURRENCY": "1", **braintrust.environment()}
    with Served(place / "served", settings) as served:
        monkeypatch.setenv("GATEWAY_DATA_DIR", str(served.data_dir))
        with Caller(served.url, TOKEN) as caller:
            assert caller.chat("demo/echo").status_code == 200
            assert caller.stream("demo/echo").ends_well
            assert caller.chat("demo/error-500").status_code == 500
        end_s = time.monotonic() + 5
        while served.log.count('"path": "/v1/chat/completions"') < 3 and time.monotonic() < end_s:
            time.sleep(0.02)  # a line is written a moment after its answer
        code, report = verify(capsys, "--log", str(place / "served" / "log"))
        assert (code, report["log"]["calls"], report["log"]["found"]["waiting"]) == (0, 3, 3)
        braintrust.mode = "ok"
        assert cli.main(["spool", "drain", "--timeout", "20"]) == 0
        capsys.readouterr()
        code, report = verify(capsys, "--log", str(place / "served" / "log"))
        assert (code, report["log"]["calls"]) == (0, 3)
        assert report["log"]["found"]["delivered"] == 3
