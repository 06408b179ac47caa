"""What `docs/limits.md` says of managing, as it stands there, and what a served gateway makes of it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.core.rules import BUDGET, Match, Rule
from gateway.notify import PAUSES_S, TIMEOUT_S, Notifier
from gateway.secret import Secret
from gateway.storage.database import Database
from gateway.storage.migrate import upgrade
from gateway.storage.notices import Notices
from tests.fakes.receiver import Receiver
from tests.served.process import TOKEN, TOP, Served
from tests.served.test_keys_guide import objects, walked

GUIDE = (TOP / "docs/limits.md").read_text(encoding="utf-8").partition("## Managing\n")[2]
BY_COMMAND, OVER_HTTP, WEBHOOKS = (part.partition("\n")[2] for part in GUIDE.split("\n### ")[1:])
SECRET = "whsec_" + "c2VjcmV0" * 6


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    [admin] = re.findall(r"Bearer (admin-[\w-]+)", OVER_HTTP)
    return {"GATEWAY_ADMIN_TOKEN": admin, "GATEWAY_DEMO": "on", "GATEWAY_WEBHOOK_SECRET": SECRET}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
    settings: dict[str, str],
    environment: dict[str, str],
    receiver: Receiver,
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("limits")
    (folder / "data").mkdir()
    leave_a_notice(folder / "data/gateway.db", receiver)
    with Served(folder, settings | environment) as one:
        yield one


def leave_a_notice(path: Path, receiver: Receiver) -> None:
    """Leave what a gateway leaves behind that was killed before it could tell somebody."""
    upgrade(path)
    database = Database(path)
    rule = Rule(
        *("bud_4f9k2m7x0a1b", BUDGET, "usd", 50_000_000, "month", Match(), ("key",), "shop, a month", 0.8),
        webhook=receiver.url,
    )
    left = Notifier(Notices(database), Secret(SECRET))
    left.soft(rule, ["4f9k2m7x0a1b"], 41_250_000, rule.most, (1_761_955_200, 1_764_547_200))
    left.close()
    database.release()


def test_the_walk_by_command_is_as_it_stands(served: Served, environment: dict[str, str]) -> None:
    [told, budget] = walked(served, environment, BY_COMMAND, "BUDGET")
    assert budget.startswith("bud_")
    assert re.search(rf"^{budget}  shop, a month  50 usd a month  project proj_\w+ ", told, re.MULTILINE)
    assert told.count("most       75.5 usd a month\n") == 3
    assert "most       60 requests a minute\n" in told
    assert "most       8 at once\n" in told
    lines = [line.split() for line in told.splitlines() if line.endswith("}")]
    assert [(line[3], line[4]) for line in lines] == [("delete", "budget"), ("change", "budget"), ("create", "budget")]


def test_the_walk_over_http_is_as_it_stands(served: Served, environment: dict[str, str]) -> None:
    [told, id] = walked(served, environment, OVER_HTTP, "ID")
    page, changed, shown, deleted = objects(told)
    assert [one["id"] for one in page["data"]] == [id]
    assert (changed["most"], shown["id"], deleted) == (
        "75.5",
        id,
        {"object": "budget.deleted", "id": id, "deleted": True},
    )


def test_a_change_is_felt_by_a_gateway_that_runs(served: Served, environment: dict[str, str]) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}

    def held() -> list[str]:
        told = httpx.get(f"{served.url}/v1/me", headers=headers, timeout=30).json()
        return [one["name"] for one in told["limits"]]

    assert "a new one" not in held()
    block = "```sh\nuv run gateway limits create 'a new one' --most 5 --period day\n```\n"
    walked(served, environment, block)
    until_s = time.monotonic() + 8  # a second or two, and some for a busy machine
    while "a new one" not in held():
        assert time.monotonic() < until_s
        time.sleep(0.1)


def snippet() -> dict[str, Any]:
    """What the guide's Python defines."""
    [source] = re.findall(r"^```python\n(.*?)^```$", WEBHOOKS, re.MULTILINE | re.DOTALL)
    made: dict[str, Any] = {}
    exec(compile(source, "docs/limits.md", "exec"), made)
    return made


def test_a_start_sends_what_was_left_and_the_guides_check_takes_it(served: Served, receiver: Receiver) -> None:
    [told] = receiver.wait_for(1)
    genuine = snippet()["is_genuine"]
    assert genuine(SECRET, told.headers, told.body)
    assert not genuine("whsec_" + "T3RoZXIh" * 6, told.headers, told.body)
    assert not genuine(SECRET, told.headers, told.body + b" ")
    assert not genuine(SECRET, {**told.headers, "webhook-id": "msg_other"}, told.body)
    later = str(int(told.headers["webhook-timestamp"]) + 1)
    assert not genuine(SECRET, {**told.headers, "webhook-timestamp": later}, told.body)
    old = {**told.headers, "webhook-timestamp": str(int(told.headers["webhook-timestamp"]) - 1000)}
    assert not genuine(SECRET, old, told.body)
    assert "/hook" not in served.log
    assert SECRET not in served.log


def test_a_notice_has_what_the_guide_says(served: Served, receiver: Receiver) -> None:
    [example] = re.findall(r"^```json\n(.*?)^```$", WEBHOOKS, re.MULTILINE | re.DOTALL)
    said, told = json.loads(example), json.loads(receiver.wait_for(1)[0].body)
    chance = {"id": said["id"], "at": said["at"]}
    assert told | chance == said
    assert list(told) == list(said)


def test_the_guides_pauses_are_those_that_are_kept() -> None:
    numbers = [f"{pause_s:g}" for pause_s in PAUSES_S]
    assert f"after {', '.join(numbers[:-1])} and {numbers[-1]} s" in WEBHOOKS
    assert f"within {TIMEOUT_S:g} s" in WEBHOOKS


def test_every_block_of_the_guide_is_run_by_one_of_these() -> None:
    assert GUIDE.count("```sh\n") == BY_COMMAND.count("```sh\n") + OVER_HTTP.count("```sh\n") == 2
    assert len(re.findall(r"^```\w", GUIDE, re.MULTILINE)) == 4
