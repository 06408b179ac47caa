"""The pages with a ledger behind them, in a real browser: hostile names, a keyboard, a phone, and who sees badly."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from importlib.resources import files

import httpx
import pytest
from playwright.sync_api import Browser

from tests.served.browser import Watched
from tests.served.foreign import foreign
from tests.served.payloads import PAYLOADS, packs
from tests.served.process import TOKEN, Served
from tests.served.screenshots import ADMIN_TOKEN, admin, made_up, manage, prefilled

PAGES = ("?span=30d", "requests?live=off", "errors?span=30d", "models?span=30d", "keys", "limits", "playground")
MORE = ("?span=1h", "errors?span=24h", "requests?live=off&status=error", "requests?live=off&provider=openai")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, chromium: Browser) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("filled")
    rows = made_up(600, 20.0, time.time() - 60)
    whole = json.dumps(PAYLOADS)
    parts = [{"kind": one, "count": 1, "price_usd": one, "amount_usd": one} for one in PAYLOADS]
    bills = json.dumps([{"attempt": 1, "deployment": PAYLOADS[0], "price": PAYLOADS[0], "parts": parts}])
    for number, payload in enumerate(PAYLOADS):  # newest first on the list, all on the first pages
        row = rows[number]
        row["started"] = row["ended"] = time.time() - 30 + number / 100
        row |= {"model": payload, "served_model": payload, "deployment": f"openai/{payload}", "provider": payload}
        row |= {"error_code": payload, "tags": json.dumps([payload]), "project": payload, "user": payload}
        row |= {"planned": json.dumps([payload]), "cost_nano": 10**9, "caller": payload}
    rows[0] |= {"tags": whole, "planned": whole, "price": bills}
    prefilled(folder, rows)
    settings = {
        "GATEWAY_AUTH_TOKEN": TOKEN,
        "GATEWAY_ADMIN_TOKEN": ADMIN_TOKEN,
        "GATEWAY_DEMO": "on",
        "WEB_CONCURRENCY": "1",
    }
    with Served(folder, settings) as served:
        with admin(served.url) as boss:
            for name in packs(250):
                project, user = (manage(boss, kind, {"name": name})["id"] for kind in ("projects", "users"))
                manage(boss, "keys", {"name": name, "project": project, "user": user, "tags": [name]})
                about = {"model": name, "caller": name}
                budget = {"name": name, "measure": "usd", "most": 10, "period": "total", "match": about}
                manage(boss, "budgets", budget)
        yield served


def signed_in(site: Served, chromium: Browser, width: int = 1280, scheme: str = "light") -> Watched:
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    watched = Watched(context.new_page())
    watched.page.goto(f"{site.url}/ui/sign-in#key={ADMIN_TOKEN}&calls={TOKEN}")
    watched.page.wait_for_url(f"{site.url}/ui/")
    return watched


def test_no_name_that_anybody_chose_runs(site: Served, chromium: Browser) -> None:
    watched = signed_in(site, chromium)
    page = watched.page
    for path in (*PAGES, *MORE):
        page.goto(f"{site.url}/ui/{path}")
        if page.locator(".charts figure").count():
            page.wait_for_selector(".charts figure:last-child .u-legend")
        assert foreign(page) == [], path
    shown = ""
    page.goto(f"{site.url}/ui/requests?live=off")
    for _ in range(3):
        shown += page.text_content("#list") or ""
        assert foreign(page) == []
        page.click("text=Older")
    page.goto(f"{site.url}/ui/models?span=1h")
    assert [payload for payload in PAYLOADS if payload not in shown or payload not in page.inner_text("main")] == []
    page.goto(f"{site.url}/ui/requests/req_{0:032x}")
    told = page.text_content("main") or ""
    assert [payload for payload in PAYLOADS if told.count(payload) < 5] == []  # tags, plan, parts of the bill
    assert foreign(page) == []
    page.goto(f"{site.url}/ui/keys")
    keys = page.locator("tbody tr a")
    for number in range(0, keys.count(), 8):
        keys.nth(number).click()
        page.wait_for_load_state()
        assert foreign(page) == []
        page.go_back()
    assert watched.wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_page_can_be_used_by_who_sees_badly(site: Served, chromium: Browser, scheme: str) -> None:
    axe = (files("axe_playwright_python") / "axe.min.js").read_text()
    watched = signed_in(site, chromium, scheme=scheme)
    page = watched.page
    found = []
    for path in PAGES if scheme == "light" else PAGES[:5:2]:  # colours alone differ
        page.goto(f"{site.url}/ui/{path}")
        page.wait_for_load_state("networkidle")
        page.evaluate("for (const row of document.querySelectorAll('tbody tr:nth-child(n+6)')) row.remove()")
        page.evaluate(axe)
        result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        found += [
            (path, one["id"], one["nodes"][0]["html"][:160], one["nodes"][0]["failureSummary"][:200])
            for one in result["violations"]
            if one["impact"] in ("serious", "critical")
        ]
    assert found == []


def test_each_page_fits_a_phone(site: Served, chromium: Browser) -> None:
    watched = signed_in(site, chromium, 375)
    for path in PAGES:
        watched.page.goto(f"{site.url}/ui/{path}")
        watched.page.wait_for_load_state("networkidle")
        assert watched.overflow_px() == 0, path
    assert watched.wrong == []


def test_a_key_is_made_from_the_keyboard_and_calls_a_model(site: Served, chromium: Browser) -> None:
    watched = signed_in(site, chromium)
    page = watched.page
    page.goto(f"{site.url}/ui/keys")
    page.locator("#new-key input[name=name]").focus()
    page.keyboard.type("made by hand")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "models"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"  # focus can be seen
    page.keyboard.type("demo/*")
    page.keyboard.press("Enter")
    key = page.wait_for_selector("#issued-key")
    assert key is not None
    text = key.inner_text()
    assert re.fullmatch(r"sk-gw-[0-9a-z]{12}-[0-9A-Za-z]{51}", text)
    body = {"model": "demo/echo", "messages": [{"role": "user", "content": "hi"}]}
    answer = httpx.post(f"{site.url}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {text}"})
    assert answer.status_code == 200
    assert watched.wrong == []


def test_a_budget_is_made_changed_and_deleted_in_the_browser(site: Served, chromium: Browser) -> None:
    watched = signed_in(site, chromium)
    page = watched.page
    page.goto(f"{site.url}/ui/limits")
    page.fill("#new-rule input[name=name]", "of the browser")
    page.fill("#new-rule input[name=most]", "1.5")
    page.click("#new-rule button")
    row = page.locator("tr", has_text="of the browser")
    assert "of $1.5" in row.inner_text()
    row.locator("summary").click()
    row.locator("input[name=most]").fill("3")
    row.locator("text=Save").click()
    page.wait_for_load_state()
    assert "of $3" in row.inner_text()
    row.locator("summary").click()
    row.locator("button.danger").click()
    page.wait_for_load_state()
    assert row.count() == 0
    assert watched.wrong == []
