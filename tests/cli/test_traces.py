"""`gateway traces`, run as a shell runs it, over a store with rows in it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gateway import cli
from gateway.tracing.search import Search
from tests.tracing.kept import Kept, trace

GATEWAY = str(Path(sys.executable).parent / "gateway")
HOSTILE = "\x1b]0;owned\x07\x1b[31m [bold]x[/bold] [/] %_ \r\x00\x7f \x9b2J \u202e é"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    for name in [name for name in os.environ if name.startswith(("GATEWAY_", "BRAINTRUST_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Kept(tmp_path / ".gateway")


def run(*arguments: str) -> tuple[int, str, str]:
    """Run in this process, which is quick: status, output, errors."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main(["traces", *arguments])
        except SystemExit as error:
            status = int(str(error.code))
    out.flush()
    err.flush()
    return status, _text(out), _text(err)


def _text(stream: io.TextIOWrapper) -> str:
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_list_has_one_line_a_trace_and_the_newest_first(kept: Kept) -> None:
    kept.put(trace(1, ago_s=90), trace(2, status=404, error="no such model", cost_usd=None))
    status, out, err = run("list")
    header, newest, oldest = out.splitlines()
    assert (status, err) == (0, "")
    assert header.split() == ["time", "id", "status", "model", "tokens", "cost", "duration", "first", "caller", "error"]
    assert newest.split()[2:4] == [f"req_{2:032x}", "404"]
    assert newest.endswith("tok_12345678  no such model")
    assert "  200     openai/gpt-4o-mini → gpt-4o-mini-2024-07-18   12/34  $0.000112    2.00 s  0.40 s  tok_" in oldest


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--since", "1h"), [3, 2]),
        (("--since", "2d", "--until", "1h"), [1]),
        (("--since", "2001-01-01T00:00"), [3, 2, 1]),
        (("--until", "2001-01-01"), []),
        (("--model", "openai/*"), [3, 1]),
        (("--caller", "tok_b"), [2]),
        (("--status", "4xx"), [2]),
        (("--status", "error"), [2]),
        (("--min-cost", "0.5"), [3]),
        (("--text", "shark"), [3]),
        (("--tag", "blue"), [1]),
        (("--limit", "1"), [3]),
    ],
)
def test_options_of_list_narrow_it(options: tuple[str, ...], found: list[int], kept: Kept) -> None:
    kept.put(
        trace(1, ago_s=90_000, tags=["blue"]),
        trace(2, ago_s=200, model="claude", caller="tok_b", status=429, error="slow down"),
        trace(3, ago_s=100, cost_usd=0.5, said="a shark"),
    )
    status, out, _ = run("list", "--json", *options)
    assert status == 0
    assert [int(one["id"][-6:]) for one in objects(out)] == found


@pytest.mark.parametrize(
    "options",
    [
        ("--since", "soon"),
        ("--status", "40"),
        ("--limit", "0x1"),
        ("--limit", "-1"),
        ("--min-cost", "a"),
        ("--limit", ""),
        ("--limit", "0"),
        ("--min-cost", "nan"),
    ],
)
def test_an_option_that_cannot_be_read_is_named(options: tuple[str, str], kept: Kept) -> None:
    status, _, err = run("list", *options)
    assert status == 2
    assert options[0] in err


def test_an_empty_list_says_so_and_is_no_failure(kept: Kept) -> None:
    assert run("list") == (0, "No traces yet: send a request first.\n", "")
    assert run("show") == (0, "No traces yet: send a request first.\n", "")
    assert run("list", "--json") == (0, "", "")
    kept.put(trace(1))
    assert run("list", "--status", "500") == (0, "No trace is like that.\n", "")


@pytest.mark.parametrize("command", ["list", "show", "tail", "export"])
def test_where_nothing_is_kept_one_line_says_what_to_do(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run(command)
    assert (status, out) == (1, "")
    assert err.startswith("gateway: no traces are kept here yet: there is no ")
    assert "A start of the gateway makes it" in err
    monkeypatch.setenv("BRAINTRUST_API_KEY", "sk-secret-of-ours")
    status, out, err = run(command)
    assert (status, out) == (1, "")
    assert "Braintrust, project llm-gateway" in err
    assert "GATEWAY_LOCAL_TRACES=on" in err
    assert err.count("\n") == 1
    assert "secret" not in err
    monkeypatch.delenv("BRAINTRUST_API_KEY")
    monkeypatch.setenv("GATEWAY_LOCAL_TRACES", "off")
    assert (
        run(command)[2] == "gateway: no traces are kept here: GATEWAY_LOCAL_TRACES=off leaves them to the log alone.\n"
    )


def test_settings_that_cannot_be_used_are_no_lack_of_traces(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_SPOOL_MB", "much")
    status, out, err = run("list")
    assert (status, out) == (2, "")
    assert err.startswith("GATEWAY_SPOOL_MB must be")


def test_a_database_that_cannot_be_read_is_said_in_one_line(kept: Kept) -> None:
    kept.path.write_bytes(b"no database " * 1000)
    status, out, err = run("list")
    assert (status, out) == (1, "")
    assert err.endswith("is not a database\n")
    assert err.count("\n") == 1


def test_show_has_all_of_a_trace(kept: Kept) -> None:
    kept.put(trace(1, said="What is\na shark?", answer="A fish.", error="cut off", tags=["blue"]))
    status, out, err = run("show", "row-000001")
    assert (status, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    for line in (
        "chat openai/gpt-4o-mini",
        f"request req_{1:032x}",
        "status 200, ended, stream",
        "served gpt-4o-mini-2024-07-18 by openai",
        "tokens 12 in (2 cached), 34 out",
        "cost $0.000112",
        "first token 0.40 s",
        "tags blue",
        "user: What is",
        "a shark?",
        "assistant: A fish.",
        "cut off",
        "temperature 0.5",
    ):
        assert line in lines
    bar = next(line for line in out.splitlines() if "Completion 1" in line)
    assert bar.split("|")[1].strip(" =") == "*"
    assert bar.split("|")[1].startswith(" "), "it began later than the root"


def test_show_takes_the_newest_the_beginning_of_an_id_and_a_trace_id(kept: Kept) -> None:
    kept.put(trace(1, ago_s=90), trace(2, root="c0ffee" + "0" * 26))
    for asked in ([], ["row-000002"], ["c0ffee"], ["c0ffee" + "0" * 26]):
        status, out, _ = run("show", "--json", *asked)
        assert status == 0
        assert [row["id"] for row in objects(out)] == ["llm-000002", "row-000002"]


def test_show_names_what_an_id_could_be_and_what_is_not_there(kept: Kept) -> None:
    kept.put(trace(1), trace(2))
    status, _, err = run("show", "row-00000")
    assert status == 1
    assert all(f"req_{number:032x}" in err for number in (1, 2))
    assert run("show", "row-9")[2].endswith("(6 characters at least)\n")
    assert run("show", "\x1b[31mnowhere")[2] == "gateway: no trace has or begins with the id \\x1b[31mnowhere\n"


def test_show_of_an_open_call_has_no_end(kept: Kept) -> None:
    kept.put(trace(1, open_=True))
    status, out, _ = run("show")
    assert status == 0
    assert "no end" in out


def test_show_of_a_trace_whose_rows_have_just_gone_says_so(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.put(trace(1))
    with monkeypatch.context() as swept:
        for left in ([], trace(1)[:1]):
            swept.setattr(Search, "rows", lambda self, one, left=left: left)
            status, out, err = run("show")
            assert (status, out) == (1, "")
            assert "deleted" in err


def hostile() -> list[dict[str, Any]]:
    rows = trace(
        1, said=HOSTILE, answer=HOSTILE, error=HOSTILE, tags=[HOSTILE], model=HOSTILE, served_model=HOSTILE,
        caller=HOSTILE, provider=HOSTILE, error_code=HOSTILE, request_id="req_" + HOSTILE,
    )  # fmt: skip
    for row in rows:
        row["span_attributes"]["name"] = HOSTILE
    rows[0]["metadata"] |= {HOSTILE: HOSTILE, "attempt": HOSTILE}
    return rows


@pytest.mark.parametrize("command", [["list"], ["list", "--json"], ["show"], ["show", "--json"], ["export"]])
def test_no_control_character_gets_out(command: list[str], kept: Kept) -> None:
    kept.put(hostile())
    status, out, err = run(*command)
    assert (status, err) == (0, "")
    assert [sign for sign in out if sign != "\n" and not sign.isprintable()] == []
    assert "[bold]" in out, "no markup is read"


@pytest.mark.parametrize("command", [["list"], ["show"]])
def test_a_terminal_gets_colours_of_ours_and_nothing_of_strangers(command: list[str], kept: Kept) -> None:
    kept.put(hostile())
    out = on_terminal([GATEWAY, "traces", *command], kept.path.parents[1])
    assert "\x1b[1m" in out
    for sign in ("\x1b]", "\x07", "\x1b[31m [bold]", "\x00", "\x9b", "\u202e"):
        assert sign not in out


def on_terminal(command: list[str], folder: Path) -> str:
    ours, theirs = pty.openpty()
    environ = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "COLUMNS": "200"}
    with subprocess.Popen(command, cwd=folder, env=environ, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        out = b""
        with contextlib.suppress(OSError):
            while chunk := os.read(ours, 65_536):
                out += chunk
        os.close(ours)
    assert process.returncode == 0, out
    return out.decode()


def test_a_long_text_is_not_cut_in_a_pipe(kept: Kept) -> None:
    kept.put(trace(1, said="x" * 1_000_000))
    assert f"user: {'x' * 1_000_000}\n" in run("show")[1]


def test_half_a_surrogate_pair_is_shown_as_such(kept: Kept) -> None:
    from gateway.tracing.delivery import Piece

    row = json.dumps(trace(1, said="half \ud83d")[1]).encode()
    kept.store.deliver([Piece("row-000001", row)])
    assert "half \\ud83d" in run("show")[1]


def test_export_is_what_was_delivered_and_can_be_delivered_again(kept: Kept, tmp_path: Path) -> None:
    put = [trace(number, ago_s=1000 - number, said=HOSTILE) for number in range(250)]
    for rows in put:
        rows[1] |= {"project_id": "p", "_is_merge": True}
    kept.put(*put)
    status, _, err = run("export", "-o", str(tmp_path / "out.jsonl"))
    assert (status, err) == (0, f"500 rows in {tmp_path / 'out.jsonl'}\n")
    rows = objects((tmp_path / "out.jsonl").read_text())
    for rows_put in put:
        del rows_put[1]["project_id"], rows_put[1]["_is_merge"]
    assert rows == [row for rows_put in reversed(put) for row in rows_put], "children first"
    assert (tmp_path / "out.jsonl").stat().st_mode & 0o777 == 0o600
    again = Kept(tmp_path / "again")
    again.put(rows)
    assert list(again.search.export()) == rows


def test_export_takes_the_filters_of_list(kept: Kept) -> None:
    kept.put(trace(1), trace(2, tags=["blue"]))
    assert [row["id"] for row in objects(run("export", "--tag", "blue")[1])] == ["llm-000002", "row-000002"]


def test_export_says_where_it_cannot_write(kept: Kept) -> None:
    status, _, err = run("export", "-o", "nowhere/out.jsonl")
    assert (status, err) == (1, "gateway: nowhere/out.jsonl: No such file or directory\n")


def test_tail_prints_what_comes_once_and_ends_quietly_with_ctrl_c(kept: Kept) -> None:
    kept.put(*(trace(number, ago_s=100 - number) for number in range(1, 5)))
    six = trace(6)
    command = [GATEWAY, "traces", "tail", "-n", "2"]
    environ = {"PATH": os.environ["PATH"]}
    folder = kept.path.parents[1]
    with subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            seen = _lines(process, 3)
            kept.put(trace(5, open_=True))
            kept.put(six)
            seen += _lines(process, 1)
            kept.put(trace(5), six)
            seen += _lines(process, 1)
            process.send_signal(signal.SIGINT)
            rest, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, err) == (130, b"")
    assert seen[0].split()[0] == "time"
    ids = [int(line.split()[2].removeprefix("req_"), 16) for line in seen[1:] + rest.decode().splitlines()]
    assert ids[:4] == [3, 4, 6, 5]
    assert ids.count(5) == 1


def _lines(process: subprocess.Popen[bytes], number: int) -> list[str]:
    """Read so many lines, within 20 s."""
    assert process.stdout is not None
    until_s, found = time.monotonic() + 20, b""
    while found.count(b"\n") < number and time.monotonic() < until_s:
        if select.select([process.stdout], [], [], 0.2)[0]:
            found += os.read(process.stdout.fileno(), 65_536)
    assert found.count(b"\n") == number, found
    return found.decode().splitlines()


def test_a_reader_that_leaves_early_causes_no_traceback(kept: Kept) -> None:
    kept.put(*(trace(number, said="x" * 50_000) for number in range(20)))
    done = subprocess.run(
        f"{GATEWAY} traces export | head -c 10",
        shell=True,
        cwd=kept.path.parents[1],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (len(done.stdout), done.stderr) == (10, "")
