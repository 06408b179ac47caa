"""`gateway spool`: real folders, and a Braintrust on loopback."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gateway import cli
from gateway.tracing import requeue
from gateway.tracing.backlog import LEDGER, look
from gateway.tracing.keeping import put_aside as in_quarantine
from gateway.tracing.record import Record
from gateway.tracing.sender import Sender
from gateway.tracing.spool import Spool
from tests.cli.spools import leave, mine, opened, put_aside, request, root, spool
from tests.fakes.braintrust_server import FakeBraintrust

JSON = dict[str, Any]


def status(capsys: pytest.CaptureFixture[str]) -> tuple[int, list[JSON]]:
    """The exit status, and the folders of traces."""
    code = cli.main(["spool", "status", "--json"])
    found = json.loads(capsys.readouterr().out)["folders"]
    return code, [one for one in found if Path(one["folder"]).name != LEDGER]


# status


def test_nothing_is_spooled_where_traces_go_to_the_log_alone(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_LOCAL_TRACES", "off")
    assert cli.main(["spool", "status"]) == 0
    assert "they go to the log alone" in capsys.readouterr().out
    assert status(capsys) == (0, [])


def test_a_folder_that_is_not_made_yet_is_well(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, [one] = status(capsys)
    assert (code, one["folder"], one["current"], one["needs"]) == (0, str(folder), True, [])


def test_settings_that_cannot_be_used_are_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATEWAY_SPOOL_MB", "much")
    for command in (["status"], ["drain"], ["quarantine"]):
        assert cli.main(["spool", *command]) == 2
        assert "GATEWAY_SPOOL_MB" in capsys.readouterr().err


def test_status_says_what_waits_and_that_nobody_delivers_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(folder, 1, 2, open=[3])
    code, [one] = status(capsys)
    assert code == 1
    assert (one["waiting_rows"], one["sender_runs"], one["sender_pid"]) == (2, False, None)
    assert 0 < one["waiting_bytes"] <= one["used_bytes"] < one["cap_bytes"] == 1024 << 20
    assert "nothing delivers them" in one["needs"][0]
    assert cli.main(["spool", "status"]) == 1
    told = capsys.readouterr().out
    assert "2 rows, " in told
    assert "NEEDS    rows wait" in told
    assert "Braintrust, with this configuration's key" in told


def test_status_tells_other_keys_folders_apart(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = folder.with_name("braintrust-0123456789abcdef")
    leave(other, 1)
    code, [own, others] = status(capsys)
    assert (code, own["current"], others["current"]) == (1, True, False)
    assert others["purpose"] == "another key's or organisation's: start with that key to have it delivered"


def test_status_names_a_living_sender_and_its_trouble(
    folder: Path, place: Path, braintrust: FakeBraintrust, capsys: pytest.CaptureFixture[str]
) -> None:
    braintrust.mode = "unauthorized"
    leave(folder, 1)
    sender = mine(place, braintrust.environment()).sender()
    sender.start()
    try:
        braintrust.wait_for(1)
        until = threading.Event()
        for _ in range(100):
            code, [one] = status(capsys)
            if one["trouble"]:
                break
            until.wait(0.05)
    finally:
        sender.finish(None, 0)
    assert code == 1
    assert one["sender_runs"]
    assert isinstance(one["sender_pid"], int)
    assert "401" in one["trouble"]
    assert "mend the key" in one["needs"][0]


def test_a_file_in_place_of_the_folder_is_no_traceback(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.parent.mkdir(parents=True)
    folder.touch()
    code, [one] = status(capsys)
    assert code == 1
    assert "cannot be read" in one["needs"][0]
    assert cli.main(["spool", "drain"]) == 0


def test_status_says_that_calls_were_cut_off_though_nothing_waits(
    folder: Path, place: Path, braintrust: FakeBraintrust, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = spool(folder)
    killed.begin(opened(root(1)), None, 0)
    sender = mine(place, braintrust.environment()).sender()
    sender.start()
    until_s = time.monotonic() + 10
    while look("braintrust", folder, 1 << 30).waiting_bytes and time.monotonic() < until_s:
        time.sleep(0.02)
    sender.finish(None, 0)
    code, [one] = status(capsys)
    assert (code, one["waiting_bytes"], one["open_calls"], one["untold_calls"]) == (0, 0, 1, 0)
    killed.close(0)
    code, [one] = status(capsys)
    assert (code, one["waiting_bytes"], one["open_calls"], one["untold_calls"]) == (1, 0, 0, 1)
    assert "cut off with their process, and no trace says so yet: 1 call" in one["needs"][0]
    assert cli.main(["spool", "drain"]) == 0
    capsys.readouterr()
    assert status(capsys)[0] == 0
    assert braintrust.roots()[0]["metadata"]["interrupted"] is True


# drain


def test_drain_delivers_what_was_left_behind(
    folder: Path, braintrust: FakeBraintrust, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(folder, 1, 2, open=[3])
    assert cli.main(["spool", "drain", "--timeout", "10"]) == 0
    assert "3 rows delivered (1 of them of interrupted calls)" in capsys.readouterr().out
    found = {row["metadata"]["request_id"]: row for row in braintrust.roots()}
    assert set(found) == {request(1), request(2), request(3)}
    assert found[request(3)]["metadata"]["interrupted"] is True
    code, [one] = status(capsys)
    assert (code, one["waiting_bytes"], one["sent"], one["interrupted"]) == (0, 0, 3, 1)


@pytest.mark.parametrize(("mode", "why"), [("unauthorized", "401"), ("refuse_500", "500"), ("hang", "no answer")])
def test_drain_keeps_what_is_not_taken(
    mode: Any, why: str, folder: Path, braintrust: FakeBraintrust, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(folder, 1)
    braintrust.mode = mode
    assert cli.main(["spool", "drain", "--timeout", "0.6"]) == 1
    told = capsys.readouterr()
    assert why in told.err
    assert "1 row (" in told.out
    assert "still there" in told.out
    braintrust.mode = "ok"


def test_drain_says_what_is_another_keys(
    folder: Path, braintrust: FakeBraintrust, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(folder.with_name("braintrust-0123456789abcdef"), 1)
    assert cli.main(["spool", "drain"]) == 1
    assert "another key's" in capsys.readouterr().out
    assert braintrust.rows() == []


def test_drain_waits_for_a_gateway_that_runs(
    folder: Path, place: Path, braintrust: FakeBraintrust, capsys: pytest.CaptureFixture[str]
) -> None:
    braintrust.mode = "refuse_500"
    sender = mine(place, braintrust.environment()).sender()
    one = Spool(folder, sender, cap_bytes=64 << 20, fsync="off")
    one.start()
    row = root(1)
    one.begin(opened(row), None, 0)
    one.write(Record([row]))
    try:
        braintrust.wait_for(1)
        assert cli.main(["spool", "drain", "--timeout", "0.3"]) == 1
        told = capsys.readouterr().out
        assert "500" in told.splitlines()[-1], "why it is still there"
        assert "braintrust: a gateway runs and delivers by itself; waiting for it" in told
        braintrust.mode = "ok"
        assert cli.main(["spool", "drain", "--timeout", "20"]) == 0
    finally:
        one.close(2)


# quarantine


def test_quarantine_lists_what_was_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_aside(folder, 1, 2)
    assert cli.main(["spool", "quarantine"]) == 0
    told = capsys.readouterr().out
    assert request(1) in told
    assert "400 no such column" in told
    assert "2 rows in quarantine" in told
    assert cli.main(["spool", "quarantine", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["request_id"] for row in rows] == [request(1), request(2)]
    assert all(row["bytes"] > 100 for row in rows)
    code, [one] = status(capsys)
    assert (code, one["quarantine_rows"]) == (1, 2)


def test_again_delivers_them_once_more(
    folder: Path, braintrust: FakeBraintrust, capsys: pytest.CaptureFixture[str]
) -> None:
    put_aside(folder, 1, 2)
    assert cli.main(["spool", "quarantine", "--again"]) == 0
    assert "back in the spool: 2 rows" in capsys.readouterr().out
    assert list((folder / "quarantine").iterdir()) == []
    assert status(capsys)[1][0]["waiting_rows"] == 2
    assert cli.main(["spool", "drain"]) == 0
    assert {row["metadata"]["request_id"] for row in braintrust.roots()} == {request(1), request(2)}
    assert {braintrust.project_name(row["project_id"]) for row in braintrust.roots()} == {"llm-gateway"}


def test_a_line_that_cannot_be_read_is_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_aside(folder, 1)
    [path] = (folder / "quarantine").iterdir()
    with path.open("ab") as lines:
        lines.write(b'{"at":"2026","why":"tor')
    assert cli.main(["spool", "quarantine", "--again", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"put_back": 1, "unreadable": 1, "faults": []}
    [kept] = (folder / "quarantine").iterdir()
    assert kept.suffix == ".unreadable"
    assert kept.read_bytes() == b'{"at":"2026","why":"tor'


@pytest.mark.parametrize("at", ["_claim", "_write", "_sync_folder"])
def test_nothing_is_lost_where_it_is_killed_in_between(
    at: str, folder: Path, braintrust: FakeBraintrust, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_aside(folder, 1, 2)
    real = getattr(requeue, at)

    def killed(*arguments: Any) -> None:
        real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(requeue, at, killed)
        with pytest.raises(KeyboardInterrupt):
            cli.main(["spool", "quarantine", "--again"])
    assert sum(1 for _ in in_quarantine(folder)) == 2, "they are there until they are in the spool"
    assert cli.main(["spool", "quarantine", "--again"]) == 0
    assert cli.main(["spool", "drain"]) == 0
    assert {row["metadata"]["request_id"] for row in braintrust.roots()} == {request(1), request(2)}
    assert len(braintrust.roots()) == 2, "twice is once"


def test_a_sender_that_runs_takes_them_by_itself(folder: Path, place: Path, braintrust: FakeBraintrust) -> None:
    put_aside(folder, 1)
    sender: Sender = mine(place, braintrust.environment()).sender()
    sender.start()
    try:
        assert cli.main(["spool", "quarantine", "--again"]) == 0
        braintrust.wait_rows(1)
    finally:
        sender.finish(None, 1)


EVIL = "\x1b]0;owned\x07\x9b2J\u202e"


def test_no_control_character_of_the_files_gets_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(folder, 1)
    (folder / "sender.json").write_text(json.dumps({"trouble": EVIL, "since_s": 1.0}))
    (folder / "quarantine").mkdir()
    line = {"at": EVIL, "why": EVIL, "request": EVIL, "row": {"id": EVIL}}
    other = {"at": 5, "why": [], "request": [1], "row": {}}
    lines = [json.dumps(line), json.dumps(other), "5", "[" * 100_000]
    (folder / "quarantine" / "2026-01-01.jsonl").write_text("\n".join(lines))
    for command in (["spool", "status"], ["spool", "quarantine"], ["traces", "verify"], ["doctor"]):
        cli.main(command)
        out = capsys.readouterr().out
        assert out
        assert [sign for sign in out if sign != "\n" and not sign.isprintable()] == []


def test_drain_says_why_it_cannot_have_the_lock(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(folder, 1)
    (folder / "sender.lock").mkdir()
    assert cli.main(["spool", "drain", "--timeout", "2"]) == 1
    said = capsys.readouterr()
    assert "sender.lock: Is a directory" in said.err
    assert "A gateway runs" not in said.out


@pytest.mark.parametrize("command", [["spool", "status"], ["spool", "drain"], ["spool", "quarantine"]])
def test_a_folder_that_may_not_be_read_is_no_traceback(
    folder: Path, command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(folder, 1)

    def forbidden(path: Path) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", forbidden)  # root may read anything
    assert cli.main(command) == 1
    assert "Permission denied" in capsys.readouterr().err
