"""A real browser for the tests of the pages: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

#: Where systems put it; Playwright's own download is not needed.
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


def program() -> str | None:
    """The browser of this machine, or None."""
    return next((found for name in _NAMES if (found := shutil.which(name)) is not None), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser that runs; the test is skipped where the machine has none."""
    path = program()
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=path, args=_OPTIONS)
        try:
            yield one
        finally:
            one.close()


class Watched:
    """A page, and whatever went wrong in it.

    That is: errors of scripts, refusals of the content security policy, dialogs, windows that open, and requests to
    another host or to an address that only a payload names (`tests.served.payloads`).
    """

    def __init__(self, page: Page, *others: str) -> None:
        """Watch a page; `others` are hosts that it may ask, too."""
        self.page = page
        self._hosts = {"127.0.0.1", *others}
        self.wrong: list[str] = []
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("dialog", lambda dialog: (self.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("popup", lambda other: self.wrong.append(f"a window: {other.url}"))
        page.on("request", lambda request: self._asked(request.url))

    def _note(self, kind: str, text: str) -> None:
        if kind == "error" and "status of 4" not in text and "status of 5" not in text:
            self.wrong.append(text)

    def _asked(self, url: str) -> None:
        place = urlsplit(url)
        if place.scheme not in ("data", "blob") and (place.hostname not in self._hosts or "xss" in place.path):
            self.wrong.append(f"asked for {url[:200]}")

    def overflow_px(self) -> int:
        """By how much the page is wider than its window."""
        found: int = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        return max(0, found)
