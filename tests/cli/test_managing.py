"""`gateway keys`, `projects`, `users` and `audit`, on the store alone."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gateway import cli
from gateway.auth.pepper import kept_pepper
from gateway.core.keys import Pepper
from gateway.storage.database import Database
from gateway.storage.lookup import KeyLookup

JSON = dict[str, Any]

GATEWAY = str(Path(sys.executable).parent / "gateway")
KEY = r"sk-gw-[0-9a-z]{12}-[0-9A-Za-z]{51}"
HOSTILE = "\N{RIGHT-TO-LEFT OVERRIDE}"


def run(*arguments: str) -> tuple[int, str, str]:
    """Run in this process, which is quick: status, output, errors."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main(arguments)
        except SystemExit as error:
            status = int(str(error.code))
        out.flush()
        err.flush()
    return status, *(one.buffer.getvalue().decode() for one in (out, err))  # type: ignore[attr-defined]


def done(*arguments: str) -> str:
    """Run what has to work, and return its output."""
    status, out, err = run(*arguments)
    assert status == 0, err
    return out


def got(*arguments: str) -> JSON:
    """Run what has to work, and return the one object that it prints."""
    found: JSON = json.loads(done(*arguments, "--json"))
    return found


def lines(*arguments: str) -> list[JSON]:
    return [json.loads(line) for line in done(*arguments, "--json").splitlines()]


def is_good(place: Path, key: str) -> bool:
    """Whether the gateway would take a key."""
    data = place / ".gateway"
    pepper = Pepper(kept_pepper(data))
    return KeyLookup(Database(data / "gateway.db")).find(pepper.hashed(key.encode()), time.time()).key is not None


def test_a_key_is_made_before_any_gateway_has_started_and_printed_alone(place: Path) -> None:
    status, out, err = run("keys", "create", "bot")
    assert (status, bool(re.fullmatch(f"{KEY}\n", out))) == (0, True)
    key = out.strip()
    assert is_good(place, key)
    assert key[6:18] in err
    assert key not in err
    assert (place / ".gateway/key-pepper").stat().st_mode & 0o777 == 0o600


def test_a_key_has_what_was_asked_for(place: Path) -> None:
    project, user = got("projects", "create", "shop"), got("users", "create", "ann")
    parent = got("keys", "create", "parent", "--project", project["id"])
    made = got(
        *("keys", "create", "bot", "--user", user["id"], "--parent", parent["id"], "--scopes", "call"),
        *("--models", "openai/*, gpt-*", "--endpoints", "chat", "--trace-parents", ""),
        *("--tags", "a,b", "--expires", "30d"),
    )
    rights = {"scopes": ["call"], "models": ["gpt-*", "openai/*"], "endpoints": ["chat"], "parents": []}
    wanted = {"name": "bot", "rights": rights, "tags": ["a", "b"], "parent": parent["id"], "created_by": "cli"}
    assert made.items() >= wanted.items()
    assert (made["project"], made["user"]) == (project["id"], user["id"])
    assert made["expires"] == pytest.approx(time.time() + 30 * 86_400, abs=60)
    shown = got("keys", "show", made["id"])
    assert shown == {name: value for name, value in made.items() if name != "key"}
    assert re.fullmatch(KEY, made["key"])
    text = done("keys", "show", made["id"])
    assert f"project    shop ({project['id']})\n" in text
    assert "models     gpt-*, openai/*\n" in text


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "UTC", "Etc/GMT+12"])
def test_no_end_that_a_key_may_have_breaks_a_list(place: Path, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    done("projects", "create", "makes the database")
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for end in ("9999-12-31T23:59:59Z", "9999-12-29T00:00:01Z"):
            status, _, err = run("keys", "create", "too late", "--expires", end)
            assert (status, err) == (2, "gateway: expires is no time.\n")
        done("keys", "create", "late", "--expires", "9999-12-29T00:00:00Z")
        assert re.search(r"late .* 9999-12-2[89] ", done("keys", "list"))
        assert "9999-12-2" in done("keys", "show", lines("keys", "list")[0]["id"])
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_change_is_of_what_is_named_alone(place: Path) -> None:
    before = got("keys", "create", "bot", "--models", "openai/*", "--tags", "a", "--expires", "1d")
    id = before["id"]
    after = got("keys", "change", id, "--endpoints", "chat", "--expires", "never", "--name", "robot")
    assert after["rights"] == {**before["rights"], "endpoints": ["chat"]}
    assert (after["expires"], after["name"], after["tags"]) == (None, "robot", ["a"])
    after = got("keys", "change", id, "--models", "", "--tags", "")
    assert (after["rights"]["models"], after["tags"]) == ([], [])
    assert run("keys", "change", id)[0] == 2


def test_a_key_is_stopped_resumed_rotated_and_deleted(place: Path) -> None:
    made = got("keys", "create", "bot")
    id, first = made["id"], made["key"]
    assert got("keys", "disable", id)["state"] == "disabled"
    assert not is_good(place, first)
    assert got("keys", "enable", id)["state"] == "active"
    second = done("keys", "rotate", id, "--overlap", "1h").strip()
    assert [is_good(place, key) for key in (first, second)] == [True, True]
    third = got("keys", "rotate", id, "--overlap", "0s")["key"]
    assert [is_good(place, key) for key in (first, second, third)] == [False, False, True]
    last = got("keys", "rotate", id)
    assert last["secrets"][0]["ends"] == pytest.approx(time.time() + 86_400, abs=60)
    assert got("keys", "delete", id)["state"] == "deleted"
    assert not is_good(place, last["key"])
    for command in ("rotate", "delete", "enable"):
        status, out, err = run("keys", command, id)
        assert (status, out, err) == (1, "", "gateway: This key is deleted.\n")


def test_lists_come_in_pages_newest_first(place: Path) -> None:
    for kind in ("keys", "projects", "users"):
        made = [got(kind, "create", f"n{number}")["id"] for number in range(3)]
        first = lines(kind, "list", "--limit", "2")
        assert [one["id"] for one in first] == made[:0:-1]
        assert run(kind, "list", "--limit", "2")[2] == f"There are more: --after {made[1]}\n"
        assert [one["id"] for one in lines(kind, "list", "--after", made[1])] == made[:1]
        table = done(kind, "list").splitlines()
        assert table[0].split()[:2] == ["id", "name"]
        assert [row.split()[0] for row in table[1:]] == made[::-1]
    got("keys", "delete", made_id := lines("keys", "list")[0]["id"])
    assert made_id not in done("keys", "list")
    assert made_id in done("keys", "list", "--deleted")


def test_keys_are_listed_by_whose_they_are(place: Path) -> None:
    project = got("projects", "create", "shop")["id"]
    mine, _other = got("keys", "create", "mine", "--project", project)["id"], got("keys", "create", "other")
    below = got("keys", "create", "below", "--parent", mine)["id"]
    assert [key["id"] for key in lines("keys", "list", "--project", project)] == [below, mine]
    assert [key["id"] for key in lines("keys", "list", "--parent", mine)] == [below]
    assert lines("keys", "list", "--user", "user_nobody") == []


@pytest.mark.parametrize("kind", ["projects", "users"])
def test_an_account_is_renamed_stopped_and_resumed(place: Path, kind: str) -> None:
    made = got(kind, "create", "a")
    key = got("keys", "create", "k", f"--{kind[:-1]}", made["id"])["key"]
    assert got(kind, "change", made["id"], "--name", "b") == {**made, "name": "b"}
    assert got(kind, "disable", made["id"])["disabled"] is True
    assert not is_good(place, key)
    assert done(kind, "show", made["id"]).splitlines()[1].split()[:3] == [made["id"], "b", "disabled"]
    assert got(kind, "enable", made["id"])["disabled"] is False
    assert is_good(place, key)
    assert run(kind, "create", "b")[::2] == (1, f"gateway: Another {kind[:-1]} has this name.\n")


def test_the_audit_tells_who_did_what_and_no_secret(place: Path) -> None:
    assert run("audit")[1:] == ("", "There is nothing.\n")
    made = got("keys", "create", "bot", "--tags", "a")
    got("keys", "rotate", made["id"])
    got("users", "create", "ann")
    found = lines("audit")
    assert [(line["actor"], line["action"], line["kind"]) for line in found] == [
        ("cli", "create", "user"),
        ("cli", "rotate", "key"),
        ("cli", "create", "key"),
    ]
    assert lines("audit", "--kind", "user") == found[:1]
    assert lines("audit", "--target", made["id"]) == found[1:]
    assert lines("audit", "--after", str(found[1]["seq"])) == found[2:]
    assert run("audit", "--limit", "1")[2] == f"There are more: --after {found[0]['seq']}\n"
    assert made["key"].rpartition("-")[2] not in done("audit")
    assert len(done("audit").splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("keys", "show", "nobody"), 1, "There is no such key."),
        (("keys", "delete", "000000000000"), 1, "There is no such key."),
        (("keys", "create", "a", "--project", "nobody"), 1, "There is no such project."),
        (("users", "show", "nobody"), 1, "There is no such user."),
        (("keys", "list", "--after", "nobody"), 1, "There is no such key."),
        (("keys", "create", " a"), 2, "name has 1 to 256"),
        (("keys", "create", "a", "--scopes", "root"), 2, "'root' is no scope"),
        (("keys", "create", "a", "--endpoints", "chats"), 2, "'chats' is no operation"),
        (("keys", "create", "a", "--expires", "2020-01-01"), 2, "has expired already"),
        (("keys", "create", "a", "--expires", "soon"), 2, "is needed"),
        (("keys", "create"), 2, "required"),
        (("keys", "list", "--limit", "0"), 2, "at least 1 is needed"),
        (("audit", "--after", "x"), 2, "a whole number is needed"),
        (("keys", "rotate", "000000000000", "--overlap", "31d"), 2, "The overlap is 0 to"),
        (("keys", "rotate", "000000000000", "--overlap", "1"), 2, "a span such as"),
    ],
)
def test_what_cannot_be_done_says_why_and_nothing_is_printed(
    place: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    found, out, err = run(*arguments)
    assert (found, out) == (status, "")
    assert said in err


def test_settings_that_cannot_be_used_are_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_TIMEOUT_S", "soon")
    for command in (("keys", "list"), ("users", "list"), ("projects", "list"), ("audit",)):
        status, out, err = run(*command)
        assert (status, out) == (2, "")
        assert "GATEWAY_TIMEOUT_S" in err


def test_a_database_that_cannot_be_used_is_named(place: Path) -> None:
    (place / ".gateway").mkdir()
    (place / ".gateway/gateway.db").write_bytes(b"no database" * 1000)
    status, out, err = run("keys", "list")
    assert (status, out) == (1, "")
    assert "gateway.db: is not a database" in err


def test_what_a_terminal_would_obey_is_spelt_out(place: Path) -> None:
    from gateway import assembly
    from gateway.settings import Settings

    done("projects", "create", "plain")
    directory = assembly.directory(Settings.from_env(os.environ, place))
    directory.audit._database.write(
        lambda connection: connection.exec_driver_sql("UPDATE projects SET name = '\x1b[31m' || char(8238)")
    )
    for text in (done("projects", "list"), done("projects", "list", "--json")):
        assert "\x1b" not in text
        assert HOSTILE not in text
    assert directory.projects.page().items[0].name.endswith(HOSTILE)


def test_the_command_of_the_shell_prints_a_key_that_a_script_can_take(place: Path) -> None:
    taken = subprocess.run(
        ["sh", "-c", f'KEY=$("{GATEWAY}" keys create bot 2>/dev/null) && printf %s "$KEY"'],
        cwd=place,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch(KEY, taken.stdout)
    assert is_good(place, taken.stdout)
