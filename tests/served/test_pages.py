"""The pages in a real browser: nothing that anybody said ever runs, and all of it can be used on a phone."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser

from tests.served.browser import Watched, browser
from tests.served.process import TOKEN, Served

ADMIN_TOKEN = "admin-token-of-the-pages-51ab"
PAGES = ("", "requests", "errors", "models", "keys", "limits", "playground", "traces", "settings")

#: What would run where text becomes HTML, an attribute, an address or a script.
PAYLOADS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    '"><script>alert(1)</script>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "</pre></article><script>alert(1)</script>",
    "<iframe srcdoc='<script>parent.alert(1)</script>'>",
    "{{7*7}}{% raw %}",
    "<a href=javascript:alert(1)>x</a>",
    "<style>*{display:none}</style>",
    "<form action=https://evil.example><button>x",
    "<div hx-get=/ui/settings hx-trigger=load>x</div>",
    "<template><script>alert(1)</script></template>",
    "<math><mtext></mtext><script>alert(1)</script></math>",
    "\u2028<script>alert(1)</script>",
    "<!--<script>alert(1)//-->",
    "<base href=https://evil.example/>",
    "<meta http-equiv=refresh content=0;url=https://evil.example>",
    "<object data=javascript:alert(1)>",
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, chromium: Browser) -> Iterator[Served]:
    settings = {
        "GATEWAY_AUTH_TOKEN": TOKEN,
        "GATEWAY_ADMIN_TOKEN": ADMIN_TOKEN,
        "GATEWAY_DEMO": "on",
        "WEB_CONCURRENCY": "1",
    }
    with Served(tmp_path_factory.mktemp("site"), settings) as served:
        yield served


def signed_in(site: Served, chromium: Browser, width: int = 1280, scheme: str = "light") -> Watched:
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    watched = Watched(context.new_page())
    watched.page.goto(f"{site.url}/ui/")
    watched.page.fill("input[name=credential]", ADMIN_TOKEN)
    watched.page.keyboard.press("Enter")
    watched.page.wait_for_url(f"{site.url}/ui/")
    return watched


def say(site: Served, text: str) -> httpx.Response:
    """Have a caller say something wherever a caller can: in messages, tools, names, tags, headers."""
    asked = {
        "model": "demo/echo",
        "messages": [
            {"role": "system", "content": text},
            {"role": "user", "name": "x", "content": [{"type": "text", "text": f"use the tool {text}"}]},
        ],
        "tools": [{"type": "function", "function": {"name": text[:60], "parameters": {text[:40]: text}}}],
        "metadata": {"note": text},
        "user": text,
    }
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Gateway-Tags": text.encode("ascii", "replace").decode()}
    httpx.post(f"{site.url}/v1/chat/completions", json={**asked, "model": text}, headers=headers, timeout=30)
    return httpx.post(f"{site.url}/v1/chat/completions", json=asked, headers=headers, timeout=30)


def test_a_first_start_leads_to_a_first_call(site: Served, chromium: Browser) -> None:
    watched = signed_in(site, chromium)
    page = watched.page
    for name in ("requests", "errors", "models", "keys", "limits"):
        page.goto(f"{site.url}/ui/{name}")
        assert page.locator("main article p").count() >= 1, name  # which says what to do next
    page.goto(f"{site.url}/ui/")
    assert "No request yet" in page.inner_text("h1")
    page.click("text=Open the playground")
    page.wait_for_url(f"{site.url}/ui/playground")
    assert watched.wrong == []


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_page_fits_and_nothing_goes_wrong_in_it(site: Served, chromium: Browser, width: int, scheme: str) -> None:
    say(site, "plain words")
    watched = signed_in(site, chromium, width, scheme)
    for page in PAGES:
        watched.page.goto(f"{site.url}/ui/{page}")
        watched.page.wait_for_load_state("networkidle" if page in ("traces", "settings") else "load")
        assert watched.overflow_px() == 0, page
    assert watched.wrong == []


def test_nothing_that_was_said_runs(site: Served, chromium: Browser) -> None:
    said = [say(site, payload) for payload in PAYLOADS]
    assert all(answer.status_code == 200 for answer in said)
    watched = signed_in(site, chromium)
    page = watched.page
    page.wait_for_timeout(1500)  # the sender keeps traces within a second
    page.goto(f"{site.url}/ui/requests")
    assert page.locator("tbody tr").count() >= 2 * len(PAYLOADS)
    for answer in said:
        page.goto(f"{site.url}/ui/requests/{answer.headers['request-id']}")
        assert page.locator(".message").count() >= 3
    for payload in PAYLOADS:
        page.goto(f"{site.url}/ui/requests?" + httpx.QueryParams({"text": payload, "model": payload}).__str__())
    assert watched.wrong == []
    assert page.locator("iframe, object, base, math, script:not([src])").count() == 0


def test_a_model_is_tried_from_the_keyboard(site: Served, chromium: Browser) -> None:
    watched = signed_in(site, chromium)
    page = watched.page
    page.goto(f"{site.url}/ui/playground")
    page.fill("input[name=call_key]", TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_selector("#try")
    page.fill("input[name=model]", "demo/echo")
    page.fill("input[name=other]", "demo/cut")
    page.fill("textarea[name=message]", PAYLOADS[0] + " and more words to come")
    page.focus("#try button[type=submit]")
    page.keyboard.press("Enter")
    page.wait_for_selector("#answers article:nth-child(2) footer small:not(:empty)")
    page.wait_for_selector("#answers article:nth-child(1) footer small:not(:empty)")
    assert page.locator("#answers pre").nth(0).inner_text() == PAYLOADS[0] + " and more words to come"
    assert "before its answer was complete" in page.locator("#answers pre").nth(1).inner_text()
    assert watched.wrong == []


def test_a_sign_in_link_leaves_no_key_in_the_address(site: Served, chromium: Browser) -> None:
    page = Watched(chromium.new_context().new_page())
    page.page.goto(f"{site.url}/ui/sign-in#key={ADMIN_TOKEN}&calls={TOKEN}")
    page.page.wait_for_url(f"{site.url}/ui/")
    page.page.goto(f"{site.url}/ui/playground")
    assert page.page.locator("#try").count() == 1
    assert ADMIN_TOKEN not in site.log
    assert page.wrong == []
