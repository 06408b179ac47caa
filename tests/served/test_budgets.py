"""A budget as operators make it: by the admin's API, held by two workers, told of in the ledger and to its callers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.provider import FakeProvider
from tests.served.limited import MODEL, PRICES, Crowd, a_dollar
from tests.served.process import PROVIDER_KEY, TOKEN, Served

ADMIN_TOKEN = "admin-token-of-the-budgets-77c1"
WAIT_S = 15.0


@pytest.fixture(scope="module")
def dollars() -> Iterator[FakeProvider]:
    with FakeProvider() as fake:
        fake.script(MODEL, a_dollar(0.2))
        yield fake


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory, dollars: FakeProvider) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("held")
    (folder / "prices.json").write_text(json.dumps(PRICES))
    settings = {
        "GATEWAY_AUTH_TOKEN": TOKEN,
        "GATEWAY_ADMIN_TOKEN": ADMIN_TOKEN,
        "GATEWAY_LIMITS_FAIL": "closed",
        "GATEWAY_PRICES": str(folder / "prices.json"),
        "OPENAI_API_KEY": PROVIDER_KEY,
        "OPENAI_BASE_URL": dollars.base_url,
        "WEB_CONCURRENCY": "2",
    }
    with Served(folder, settings) as served:
        yield served


def admin(served: Served, method: str, path: str, body: Any = None) -> Any:
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    answer = httpx.request(method, f"{served.url}{path}", json=body, headers=headers, timeout=30)
    assert answer.is_success, answer.text
    return answer.json()


def until(served: Served, path: str, wanted: Any) -> Any:
    """Ask until the answer is as wanted: the ledger is written within a second or so."""
    end_s = time.monotonic() + WAIT_S
    while not wanted(told := admin(served, "GET", path)):
        assert time.monotonic() < end_s, told
        time.sleep(0.2)
    return told


def test_of_200_calls_at_once_a_budget_of_10_dollars_lets_10_through(held: Served, dollars: FakeProvider) -> None:
    wanted = {"name": "ten dollars", "measure": "usd", "most": 10, "period": "month", "each": ["caller"]}
    made = admin(held, "POST", "/admin/v1/budgets", wanted)
    time.sleep(2.5)  # both workers follow the rules once a second
    crowd = Crowd(held.port).ask(200, again_s=60)
    statuses = [status for status, _ in crowd.told]
    assert (statuses.count(200), statuses.count(429), len(statuses)) == (10, 190, 200)
    assert len(dollars.requests(MODEL)) == 10
    refused = [json.loads(body)["error"] for status, body in crowd.told if status == 429]
    assert {error["code"] for error in refused} == {"budget_exceeded"}
    assert all("ten dollars" in error["message"] for error in refused)
    usage = until(held, "/admin/v1/usage?by=model", lambda told: told["total"]["requests"] >= 10)
    assert (usage["total"]["requests"], usage["total"]["cost_usd"]) == (10, 10.0)
    me = httpx.get(f"{held.url}/v1/me", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30).json()
    (mine,) = me["budgets"]
    assert (mine["id"], mine["standing"]["used"], mine["standing"]["remaining"]) == (made["id"], "10", "0")
    subject = me["id"]
    standing = admin(held, "GET", f"/admin/v1/budgets/{made['id']}?subject={subject}")["standing"]
    assert (standing["used"], standing["remaining"]) == ("10", "0")


def test_a_budget_that_is_raised_lets_more_through_within_seconds(held: Served, dollars: FakeProvider) -> None:
    (budget,) = admin(held, "GET", "/admin/v1/budgets")["data"]
    admin(held, "PATCH", f"/admin/v1/budgets/{budget['id']}", {"most": "12"})
    time.sleep(2.5)
    statuses = [status for status, _ in Crowd(held.port).ask(20, again_s=60).told]
    assert (statuses.count(200), statuses.count(429)) == (2, 18)
    assert len(dollars.requests(MODEL)) == 12


def test_a_preflight_tells_of_the_budget_and_takes_nothing(held: Served) -> None:
    body = {"model": f"openai/{MODEL}", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for _ in range(2):
        told = httpx.post(f"{held.url}/v1/preflight", json=body, headers=headers, timeout=30).json()
        (budget,) = told["budget"]["data"]
        assert (budget["used"], budget["would_take"], budget["has_room"]) == ("12", "1", False)
