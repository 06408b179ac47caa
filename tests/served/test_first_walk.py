"""The first five minutes: from a start with no key at all to a key that has spent its budget, by what the pages say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser

from tests.served.browser import Watched
from tests.served.caller import CHAT, body
from tests.served.process import Served

#: Of the demo's words, which else are free: with them a call of ten and ten words costs 0.40 USD.
PRICES = {"demo/echo": {"input_cost_per_token": 0.02, "output_cost_per_token": 0.02}}
WORDS = "ten ships left the harbour and nine of them returned"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, chromium: Browser) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("first")
    (folder / "prices.json").write_text(json.dumps(PRICES))
    with Served(folder / "start", {"GATEWAY_PRICES": str(folder / "prices.json")}) as served:
        yield served


def test_a_newcomer_gets_from_the_first_start_to_a_budget_that_holds(site: Served, chromium: Browser) -> None:
    link = re.search(r"http://\S+/ui/sign-in#\S+", site.log)
    assert link is not None, "the start leads nowhere"
    watched = Watched(chromium.new_context().new_page())
    page = watched.page
    page.goto(link[0])
    page.wait_for_url(f"{site.url}/ui/")
    page.click("text=Open the playground")

    page.click("text=Send")
    page.click("#answers footer a")
    while page.locator("h1", has_text="No such request").count():  # which says to load it again
        page.wait_for_timeout(200)
        page.reload()
    assert page.inner_text("h1") == "chat demo/echo"
    assert page.locator(".message.assistant pre").inner_text() == "Hello, gateway!"
    assert page.locator(".waterfall tbody tr").count() == 2
    assert page.locator(".waterfall .first").count() == 1  # the first token is marked
    page.click("nav >> text=Requests")
    assert page.locator("tbody tr").count() == 1

    page.click("nav >> text=Keys")
    page.fill("#new-key input[name=name]", "first program")
    page.fill("#new-key input[name=budget]", "1")
    page.select_option("#new-key select[name=budget_period]", "total")
    page.click("text=Make the key")
    key = page.inner_text("#issued-key")
    page.click("text=What it may and what it has spent")
    page.wait_for_selector("text=$0 of $1")

    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=site.url, headers=headers, timeout=30, trust_env=False) as program:
        answers = [program.post(CHAT, json=body("demo/echo", WORDS, max_tokens=12)) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    spent = sum(answer.json()["usage"]["cost"] for answer in answers[:2])
    assert spent == pytest.approx(0.8)
    assert "has 1.00 USD: 0.80 USD are used" in answers[2].json()["error"]["message"]
    page.reload()
    page.wait_for_selector("text=$0.8 of $1")

    page.wait_for_timeout(1200)  # the sender keeps traces within a second
    page.goto(f"{site.url}/ui/requests?status=429&live=off")
    assert page.locator("tbody tr", has_text="budget_exceeded").count() == 2
    assert "first program" in page.inner_text("tbody tr:first-child")
    page.click("tbody tr:first-child a")
    page.click("text=What holds its key")
    assert "2 requests, $0.80" in page.inner_text("main")
    assert watched.wrong == []
