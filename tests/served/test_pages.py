"""The pages in a real browser: nothing that anybody said ever runs, and all of it can be used on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import urlencode

import httpx
import pytest
from playwright.sync_api import Browser

from tests.fakes.provider import FakeProvider, answer, error
from tests.served.browser import Watched
from tests.served.caller import CHAT, body
from tests.served.foreign import foreign
from tests.served.payloads import BECOME_ELEMENTS, KINDS, PAYLOADS, packs
from tests.served.process import TOKEN, Served

ADMIN_TOKEN = "admin-token-of-the-pages-51ab"
PAGES = ("", "requests", "errors", "models", "keys", "limits", "playground", "traces", "settings")

ROUTES = """\
model_list:
  - {{model_name: "said/*", litellm_params: {{model: "hosted_vllm/*", api_base: "{base}", api_key: k}}}}
  - {{model_name: weak, litellm_params: {{model: hosted_vllm/weak, api_base: "{base}", api_key: k}}}}
router_settings: {{num_retries: 0, allowed_fails: 2, cooldown_time: 2}}
"""
#: Where a filter is written back into its field.
FILTERS = ("text", "model", "error", "provider", "caller", "key", "user", "tag", "status", "min_cost", "since")


@pytest.fixture(scope="module")
def place() -> Iterator[FakeProvider]:
    with FakeProvider() as fake:
        yield fake


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, chromium: Browser, place: FakeProvider) -> Iterator[Served]:
    settings = {
        "GATEWAY_CONFIG_YAML": ROUTES.format(base=place.base_url),
        "GATEWAY_RELAY": "all",
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


@pytest.fixture(scope="module")
def caller(site: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30) as one:
        yield one


def say(caller: httpx.Client, place: FakeProvider, number: int, payloads: Sequence[str]) -> str:
    """Have a caller and a provider say these wherever they can: in messages, tools, answers, names, tags, headers.

    Returns:
        The request's id.
    """
    calls = [{"id": one, "type": "function", "function": {"name": one, "arguments": one}} for one in payloads]
    tools = [{"type": "function", "function": {"name": one[:60], "parameters": {one: one}}} for one in payloads]
    asked = {
        "model": f"said/all-{number}",
        "messages": [
            *({"role": "system", "content": one} for one in payloads),
            {"role": "assistant", "content": None, "tool_calls": calls},
            *({"role": "tool", "tool_call_id": one, "content": one} for one in payloads),
            {"role": "user", "name": "x", "content": [{"type": "text", "text": one} for one in payloads]},
        ],
        "tools": tools,
        "metadata": {"note": payloads[0]},
        "user": payloads[1],
    }
    said = {"tool_calls": calls, "reasoning_content": "\n".join(payloads)}
    place.script(f"all-{number}", answer(payloads, message=said, finish=payloads[0], extra={"model": payloads[2]}))
    tags = ",".join(payload.replace(",", "").encode("ascii", "replace").decode() for payload in payloads)
    answered = caller.post(
        CHAT,
        json=asked,
        headers={"X-Gateway-Tags": tags, "User-Agent": payloads[3].encode("ascii", "replace").decode()},
    )
    assert answered.status_code == 200, answered.text
    return answered.headers["request-id"]


def fail(caller: httpx.Client, place: FakeProvider, name: str, words: str) -> str:
    """Have a provider refuse a call for a model of that name with an error of these words; returns its request's id."""
    error_of = {"message": words, "type": name, "code": name, "param": name}
    place.script(name, error(400, {"error": error_of}))
    answered = caller.post(CHAT, json=body(f"said/{name}"))
    assert answered.status_code in (400, 404), answered.text
    return answered.headers["request-id"]


def test_a_first_start_leads_to_a_first_call(site: Served, chromium: Browser) -> None:
    watched = signed_in(site, chromium)
    page = watched.page
    for name in ("requests", "errors", "keys", "limits"):
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
    watched = signed_in(site, chromium, width, scheme)
    for page in PAGES:
        watched.page.goto(f"{site.url}/ui/{page}")
        watched.page.wait_for_load_state("networkidle" if page in ("traces", "settings") else "load")
        assert watched.overflow_px() == 0, page
    assert watched.wrong == []


def test_nothing_that_was_said_runs(site: Served, chromium: Browser, caller: httpx.Client, place: FakeProvider) -> None:
    quarter = len(PAYLOADS) // 4 + 1
    parts = [PAYLOADS[at : at + quarter] for at in range(0, len(PAYLOADS), quarter)]
    said = [say(caller, place, number, part) for number, part in enumerate(parts)]
    for payload in PAYLOADS:
        fail(caller, place, payload, payload)
    failed = {fail(caller, place, f"failed-{number}", words): words for number, words in enumerate(packs(900))}
    watched = signed_in(site, chromium)
    page = watched.page
    page.goto(f"{site.url}/ui/playground")
    page.fill("input[name=call_key]", TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_selector("#try")
    page.wait_for_timeout(1000)  # the sender keeps traces within a second
    page.goto(f"{site.url}/ui/requests?live=off")
    listed = page.text_content("#list") or ""
    while page.locator("text=Older").count():
        assert foreign(page) == []
        page.click("text=Older")
        listed += page.text_content("#list") or ""
    assert foreign(page) == []
    assert [payload for payload in PAYLOADS if f"said/{payload}".strip() not in listed] == []
    for id, part in zip(said, parts, strict=True):
        page.goto(f"{site.url}/ui/requests/{id}")
        shown = page.locator(".message").all_text_contents()
        texts, told = "\n".join(shown), page.text_content("main") or ""
        # as system, tool, user; as the name, arguments and id of a tool that was called; as answer and as reasoning
        assert [one for one in part if texts.count(one) < 6] == []
        assert [one for one in part if one.isascii() and "," not in one and one[:100] not in told] == []  # tags
        assert foreign(page) == []
        page.goto(f"{site.url}/ui/playground?request={id}")
        assert page.input_value("textarea[name=message]") == "\n".join(part)
        assert foreign(page) == []
    for id, words in failed.items():
        page.goto(f"{site.url}/ui/requests/{id}")
        assert page.locator("main > .bad").text_content() == words
        assert foreign(page) == []
    for at in range(0, len(PAYLOADS), len(FILTERS)):
        page.goto(f"{site.url}/ui/requests?{urlencode(dict(zip(FILTERS, PAYLOADS[at:], strict=False)))}")
        assert page.input_value("input[name=text]") == PAYLOADS[at].strip()
        assert foreign(page) == []
    for name in PAGES:
        page.goto(f"{site.url}/ui/{name}")
        assert foreign(page) == [], name
    assert watched.wrong == []


def test_what_became_an_element_would_be_found(chromium: Browser, site: Served) -> None:
    watched = signed_in(site, chromium)
    assert foreign(watched.page, "<main><p>nothing</p></main>") == []
    unseen = [
        payload
        for kind in BECOME_ELEMENTS
        for payload in KINDS[kind]
        if not any(
            foreign(watched.page, text)
            for text in (f"<p>{payload}</p>", f'<input value="{payload}">', f"<input value='{payload}'>")
        )
    ]
    assert unseen == []
    watched.page.evaluate("location.href = '/ui/xss'")
    watched.page.wait_for_url(f"{site.url}/ui/xss")
    assert f"asked for {site.url}/ui/xss" in watched.wrong
    assert any("Content Security Policy" in wrong for wrong in watched.wrong)  # which holds for a document of text too


def test_a_breaker_that_is_open_is_shown_until_the_deployment_answers_again(
    site: Served, chromium: Browser, caller: httpx.Client, place: FakeProvider
) -> None:
    limits = {"x-ratelimit-remaining-requests": "41", "x-ratelimit-remaining-tokens": "39000"}
    place.script("weak", answer("strong", headers=limits), error(500))
    watched = signed_in(site, chromium)
    page = watched.page

    def row() -> str:
        page.goto(f"{site.url}/ui/models")
        return page.locator("tr", has=page.locator("a", has_text="hosted_vllm/weak")).inner_text()

    assert "closed" in row()
    assert caller.post(CHAT, json=body("weak")).status_code == 200
    assert [caller.post(CHAT, json=body("weak")).status_code for _ in range(3)] == [500, 500, 500]
    assert re.search(r"\topen for .*\t41 requests, 39000 tokens", row())
    page.wait_for_timeout(2000)
    assert re.search(r"\thalf-open\t4\t3\t25\.0 %\t", row())
    place.script("weak", answer("strong"))
    assert caller.post(CHAT, json=body("weak")).status_code == 200
    assert "closed" in row()
    assert watched.wrong == []


def test_a_model_is_tried_from_the_keyboard(site: Served, chromium: Browser, place: FakeProvider) -> None:
    words = "\n".join(PAYLOADS)
    place.script("echo", answer(echo=True))
    watched = signed_in(site, chromium)
    page = watched.page
    page.goto(f"{site.url}/ui/playground")
    page.fill("input[name=call_key]", TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_selector("#try")
    page.fill("input[name=model]", "said/echo")
    page.fill("input[name=other]", "demo/cut")
    page.fill("textarea[name=message]", words)
    page.focus("#try button[type=submit]")
    page.keyboard.press("Enter")
    page.wait_for_selector("#answers article:nth-child(2) footer small:not(:empty)")
    page.wait_for_selector("#answers article:nth-child(1) footer small:not(:empty)")
    assert page.locator("#answers pre").nth(0).text_content() == f"got {words}"
    assert foreign(page) == []
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


def test_a_sign_in_link_does_what_it_says_for_who_has_signed_in_before(site: Served, chromium: Browser) -> None:
    watched = signed_in(site, chromium)
    page = watched.page
    page.goto(f"{site.url}/ui/playground")
    assert page.locator("#try").count() == 0
    page.goto(f"{site.url}/ui/sign-in?next=/ui/playground#key={ADMIN_TOKEN}&calls={TOKEN}")
    page.wait_for_url(f"{site.url}/ui/playground")
    assert page.locator("#try").count() == 1
    page.goto(f"{site.url}/ui/sign-in")
    page.wait_for_url(f"{site.url}/ui/")
    assert watched.wrong == []
