"""The walk of `docs/keys.md`, line by line as it stands there. Only the port and the way to the command are others."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.served.process import TOP, Served

GUIDE = (TOP / "docs/keys.md").read_text(encoding="utf-8")
WALK = GUIDE.partition("\n## A walk\n")[2].partition("\n## ")[0]
BY_COMMAND, OVER_HTTP = (part.partition("\n")[2] for part in WALK.split("\n### ")[1:])
NEXT = "== next"


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {**dict(re.findall(r"^(GATEWAY_\w+)=(.+)$", WALK, re.MULTILINE)), "GATEWAY_DEMO": "on"}


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str], environment: dict[str, str]
) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("walk"), settings | environment) as one:
        yield one


def walked(served: Served, environment: dict[str, str], section: str, *shown: str) -> list[str]:
    """Run the blocks of a section in one shell, as a reader does, and return what each printed.

    Args:
        shown: variables that are printed at the end, each as one more.
    """
    blocks = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert blocks
    script = f"\necho; echo '{NEXT}'\n".join([*blocks, *(f'printf %s "${name}"\n' for name in shown)])
    script = script.replace("127.0.0.1:8000", f"127.0.0.1:{served.port}")
    done = subprocess.run(
        ["sh", "-euc", script.replace("uv run gateway", f"'{Path(sys.executable).with_name('gateway')}'")],
        cwd=served.top,
        env={"PATH": os.environ["PATH"], "GATEWAY_DATA_DIR": str(served.data_dir), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    parts = [part.strip() for part in done.stdout.split(f"{NEXT}\n")]
    assert len(parts) == len(blocks) + len(shown)
    return parts


def objects(text: str) -> list[Any]:
    """The JSON texts that stand one behind the other."""
    found, rest = [], text.strip()
    while rest:
        value, end = json.JSONDecoder().raw_decode(rest)
        found.append(value)
        rest = rest[end:].strip()
    return found


def is_refused_soon(served: Served, key: str) -> bool:
    """Whether a key gets a 401 within the five seconds that are promised, and some for a busy machine."""
    until_s = time.monotonic() + 8
    with httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as http:
        while http.get("/v1/models").status_code != 401:
            if time.monotonic() > until_s:
                return False
            time.sleep(0.1)
    return True


def test_the_walk_by_command_is_as_it_stands(served: Served, environment: dict[str, str]) -> None:
    made, used, limited, ended, rest, key, new, id = walked(served, environment, BY_COMMAND, "KEY", "NEW", "ID")
    assert made == "", "the key is in the variable"
    chat, me = objects(used)
    assert "Hello, gateway!" in chat["choices"][0]["message"]["content"]
    assert (me["key"], me["rights"]["models"], me["tags"]) == (id, ["demo/*"], ["checkout"])
    assert "models     gpt-*, openai/*\n" in limited
    assert "endpoints  chat, responses\n" in limited
    assert [line.split()[1] for line in ended.splitlines() if line.startswith("state ")] == [
        "disabled",
        "active",
        "deleted",
    ]
    assert re.search(r"^proj_\w+ +shop ", rest, re.MULTILINE)
    assert re.search(r"^user_\w+ +ann@example.com ", rest, re.MULTILINE)
    assert re.search(rf"^{id} +checkout +deleted ", rest, re.MULTILINE)
    lines = [line.split() for line in rest.splitlines() if line.endswith("}")]
    assert [line[3] for line in lines] == ["delete", "change", "change", "rotate", "change", "create"]
    assert {line[2] for line in lines} == {"cli"}
    assert new.startswith(f"sk-gw-{id}-")
    assert new != key
    assert is_refused_soon(served, key)
    assert is_refused_soon(served, new)


def test_the_walk_over_http_is_as_it_stands(served: Served, environment: dict[str, str]) -> None:
    used, changed, rest, key, id = walked(served, environment, OVER_HTTP, "KEY", "ID")
    [me] = objects(used)
    assert (me["key"], me["rights"]["models"]) == (id, ["demo/*"])
    limited, rotated, disabled, enabled, deleted = objects(changed)
    assert (limited["rights"]["models"], limited["rights"]["scopes"]) == (["openai/*"], ["call"])
    assert limited["expires"] == pytest.approx(time.time() + 90 * 86_400, abs=120)
    assert rotated["key"].startswith(f"sk-gw-{id}-")
    assert (disabled["state"], enabled["state"], deleted["deleted"]) == ("disabled", "active", True)
    project, user, keys, audit = objects(rest)
    assert (project["name"], user["name"]) == ("shop-eu", "bob@example.com")
    assert id in [one["id"] for one in keys["data"]]
    assert [line["action"] for line in audit["data"]] == ["delete", "change", "change", "rotate", "change", "create"]
    assert is_refused_soon(served, key)


def test_the_first_admins_key_needs_no_token(served: Served, environment: dict[str, str]) -> None:
    [line] = re.findall(r"`uv run (gateway keys create .+?)`", WALK)
    key = walked(served, environment, f"```sh\nuv run {line}\n```\n")[0]
    with httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as http:
        assert http.get("/admin/v1/keys").status_code == 200


def test_every_block_of_the_walk_is_run_by_one_of_these() -> None:
    assert WALK.count("```sh\n") == BY_COMMAND.count("```sh\n") + OVER_HTTP.count("```sh\n") == 8
