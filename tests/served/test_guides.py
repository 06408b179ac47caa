"""The commands and examples of the guides that have no test of their own, as they stand there, but for the port."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.core.pricing import price_of
from gateway.settings import Settings
from tests.served.process import TOP, Served
from tests.served.test_keys_guide import objects, walked

KEY, ADMIN = "sk-choose-a-long-random-one", "admin-choose-a-long-random-one"


def guide(name: str) -> str:
    """What stands in a guide, such as `docs/usage.md`."""
    return (TOP / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", guide(name), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {"GATEWAY_AUTH_TOKEN": KEY, "GATEWAY_ADMIN_TOKEN": ADMIN, "WEB_CONCURRENCY": "1", "GATEWAY_DEMO": "on"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("guides"), environment) as one:
        yield one


def post(served: Served, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    sent = {"Authorization": f"Bearer {KEY}"} | headers
    return httpx.post(f"{served.url}{path}", headers=sent, json=body, trust_env=False, timeout=30)


def test_usage_is_told_as_its_guide_says(served: Served, environment: dict[str, str]) -> None:
    made = post(served, "/admin/v1/projects", {"name": "shop"}, Authorization=f"Bearer {ADMIN}")
    assert made.status_code in (200, 201)
    [told] = walked(served, environment | {"ADMIN": ADMIN, "KEY": KEY}, guide("docs/usage.md"))
    by_user, mine = objects(told[told.index("{") :])
    assert told.startswith("model ")
    assert (by_user["object"], mine["object"]) == ("usage", "usage")
    assert (served.top / "shop.csv").read_text().startswith("tag,")


def test_a_call_is_looked_at_beforehand_as_the_guide_of_routing_says(
    served: Served, environment: dict[str, str]
) -> None:
    [told] = walked(served, environment, guide("docs/routing.md"))
    by_command, by_gateway = told[: told.index("{")], told[told.index("{") :]
    assert by_command.startswith("model demo/echo: ")
    assert [one["deployment"] for one in json.loads(by_gateway)["attempts"]] == ["demo/echo"]


def test_every_request_of_a_log_has_a_trace_by_the_command_of_the_guide(
    served: Served, environment: dict[str, str]
) -> None:
    messages = [{"role": "user", "content": "hi"}]
    assert post(served, "/v1/chat/completions", {"model": "demo/echo", "messages": messages}).status_code == 200
    assert post(served, "/v1/preflight", {"model": "demo/echo", "messages": messages}).status_code == 200, "no call"
    (served.top / "gateway.log").write_text(served.log)
    verify, copy = blocks("docs/operations.md", "sh")
    assert copy == "uv run gateway db copy\n", "tests/cli/test_db.py runs it between two databases"
    [told] = walked(served, environment, f"```sh\n{verify}```\n")
    assert "MISSING" not in told
    assert re.search(r"^log: [1-9]\d* calls?: ", told, re.MULTILINE), told


def test_the_errors_that_the_guide_shows_are_those_that_are_sent(served: Served) -> None:
    openai, anthropic = (json.loads(block) for block in blocks("docs/errors.md", "json"))
    messages = [{"role": "user", "content": "hi"}]
    got = post(served, "/v1/chat/completions", {"model": "openai/gpt-4o-mini", "messages": messages}).json()
    assert got["error"] | {"request_id": "req_…"} == openai["error"]
    asked = {"model": "nope", "max_tokens": 5, "messages": messages}
    told = post(served, "/v1/messages", asked, **{"anthropic-version": "2023-06-01"}).json()
    assert told["error"]["message"].startswith(anthropic["error"]["message"].removesuffix("…"))
    told["error"]["message"] = anthropic["error"]["message"]
    assert told | {"request_id": "req_…"} == anthropic


def test_the_price_file_of_the_guide_has_a_price(tmp_path: Path) -> None:
    [text] = blocks("docs/prices.md", "json")
    (tmp_path / "prices.json").write_text(text)
    assert Settings.from_env({"GATEWAY_PRICES": "prices.json"}, tmp_path).prices == tmp_path / "prices.json"
    [row] = json.loads(text).values()
    assert price_of(row) is not None


def test_the_setting_that_the_guide_of_relaying_shows_is_taken(tmp_path: Path) -> None:
    [line] = blocks("docs/relay.md", "ini")
    name, _, value = line.strip().partition("=")
    assert Settings.from_env({name: value}, tmp_path).relay == frozenset({"openai", "hosted_vllm"})
