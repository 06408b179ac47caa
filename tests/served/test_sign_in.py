"""People who sign in at an issuer, in a real browser and at the real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser

from tests.fakes.loopback import Exchange
from tests.fakes.openid import CLIENT_SECRET, OpenIdProvider
from tests.served.browser import Watched
from tests.served.process import TOKEN, Served


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenIdProvider]:
    with OpenIdProvider() as one:
        # another site than 127.0.0.1 to a browser, as an issuer is
        one.described = {"authorization_endpoint": f"http://localhost:{one.port}/authorize?tenant=a"}
        yield one


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, provider: OpenIdProvider) -> Iterator[Served]:
    settings = {
        "GATEWAY_AUTH_TOKEN": TOKEN,
        "GATEWAY_DEMO": "on",
        "WEB_CONCURRENCY": "1",
        **provider.settings(GATEWAY_OIDC_ADMIN_EMAILS="boss@example.com"),
    }
    with Served(tmp_path_factory.mktemp("people"), settings) as served:
        yield served


def at_the_issuer(watched: Watched, email: str) -> None:
    """Click to the issuer, and say there who it is."""
    watched.page.click("text=Sign in at 127.0.0.1")
    watched.page.wait_for_url(lambda url: url.startswith("http://localhost:"))
    watched.page.fill("input[name=email]", email)
    watched.page.keyboard.press("Enter")


def test_somebody_signs_in_at_the_issuer_looks_around_and_signs_out(
    site: Served, provider: OpenIdProvider, chromium: Browser
) -> None:
    provider.asks = True
    watched = Watched(chromium.new_context().new_page(), "localhost")
    page = watched.page
    page.goto(f"{site.url}/ui/requests?model=demo")
    page.wait_for_url(lambda url: url.startswith(f"{site.url}/ui/sign-in?next="))
    assert watched.overflow_px() == 0
    at_the_issuer(watched, "boss@example.com")
    page.wait_for_url(f"{site.url}/ui/requests?model=demo")
    page.click("text=Overview")
    page.wait_for_url(f"{site.url}/ui/")
    assert page.inner_text("li.who") == "boss@example.com"
    assert page.locator("nav >> text=Settings").count() == 1, "an admin sees all pages"
    for cookie in page.context.cookies(site.url):
        assert cookie["httpOnly"], cookie["name"]
    assert [cookie["name"] for cookie in page.context.cookies(site.url)] == ["gateway_session"]
    page.click("text=Sign out")
    page.wait_for_url(f"{site.url}/ui/sign-in")
    page.goto(f"{site.url}/ui/")
    page.wait_for_url(lambda url: url.startswith(f"{site.url}/ui/sign-in?next="))
    assert watched.wrong == []
    assert CLIENT_SECRET not in site.log


def test_who_may_not_look_is_told_so_and_may_use_a_key(
    site: Served, provider: OpenIdProvider, chromium: Browser
) -> None:
    provider.asks = True
    watched = Watched(chromium.new_context(viewport={"width": 375, "height": 900}).new_page(), "localhost")
    page = watched.page
    page.goto(f"{site.url}/ui/")
    at_the_issuer(watched, "nobody@example.com")
    page.wait_for_selector("[role=alert]")
    assert "no user of this gateway has that name" in page.inner_text("[role=alert]")
    assert watched.overflow_px() == 0
    page.fill("input[name=credential]", TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site.url}/ui/")
    assert watched.wrong == []


def test_nobody_else_waits_for_an_issuer_that_hangs(site: Served, provider: OpenIdProvider) -> None:
    provider.asks = False
    let_go = threading.Event()
    asked = threading.Event()

    def hang(exchange: Exchange) -> None:
        asked.set()
        let_go.wait(20)
        exchange.hang_up()

    provider.says["/token"] = hang
    told: list[httpx.Response] = []
    with httpx.Client(base_url=site.url, timeout=30) as client:
        address = client.get("/ui/sign-in/issuer").headers["Location"]
        back = httpx.get(address).headers["Location"]
        waiting = threading.Thread(target=lambda: told.append(client.get(back)))
        waiting.start()
        assert asked.wait(10)
        began_s = time.monotonic()
        for _ in range(5):
            assert httpx.get(f"{site.url}/health").status_code == 200
        assert time.monotonic() - began_s < 3
        waiting.join(20)
    let_go.set()
    provider.says.clear()
    assert told[0].status_code == 503
    assert "sign in with a key" in told[0].text
