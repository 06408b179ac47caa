"""What holds for every page: who may look, what a browser may do with it, how it fails."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from gateway.app import create_app
from gateway.pages.seal import MOST_CHARACTERS, Seal
from gateway.pages.session import SESSION_S
from gateway.settings import Settings
from gateway.storage.keys import KeyChanges
from gateway.tracing.delivery import Piece
from gateway.tracing.local import LocalTraces
from gateway.tracing.search import Search
from tests.builders import TOKEN
from tests.fakes.destination import root
from tests.forms import CONTENT_TYPE, form
from tests.managed import ADMIN_TOKEN, BOSS, Managed, text

KEY = bytes(range(32))
PAGES = ("/ui/", "/ui/requests", "/ui/playground", "/ui/traces", "/ui/settings")


@pytest.fixture
def managed(tmp_path: Path) -> Iterator[Managed]:
    one = Managed(tmp_path)
    one.gateway.session_key = lambda: KEY
    one.gateway.local_traces = Search(one.database)
    one.gateway.shown_settings = Settings.load({"BRAINTRUST_API_KEY": "bt-secret-of-the-pages"}).shown()
    one.app = create_app(gateway=one.gateway)
    one.client = one.app.test_client()
    yield one
    one.close()


def keep(managed: Managed, *rows: dict[str, Any]) -> None:
    """Keep traces, as the sender does."""
    LocalTraces(managed.database, 100_000, 1 << 30).deliver(
        [Piece(row["id"], json.dumps(row).encode()) for row in rows]
    )


def sign_in(managed: Managed, credential: str = ADMIN_TOKEN, **more: str) -> TestResponse:
    return managed.client.post("/ui/sign-in", data={"credential": credential, **more})


def csrf(client: FlaskClient) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', client.get("/ui/requests").text)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("page", PAGES)
def test_nobody_sees_a_page_without_signing_in(managed: Managed, page: str) -> None:
    answer = managed.client.get(page)
    assert (answer.status_code, answer.headers["Location"]) == (302, f"/ui/sign-in?next={page}")
    part = managed.client.get(page, headers={"HX-Request": "true"})
    assert part.status_code == 401
    assert part.headers["HX-Redirect"].startswith("/ui/sign-in")


@pytest.mark.parametrize("page", PAGES)
def test_who_has_signed_in_sees_each_page(managed: Managed, page: str) -> None:
    assert sign_in(managed).status_code == 302
    answer = managed.client.get(page)
    assert (answer.status_code, answer.mimetype) == (200, "text/html")


@pytest.mark.parametrize("credential", ["", "wrong", "sk-gw-0123456789ab-" + "x" * 51, "ключ", "a" * 100_000, "\0"])
def test_a_credential_that_is_none_is_refused(managed: Managed, credential: str) -> None:
    answer = sign_in(managed, credential)
    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers
    assert managed.client.get("/ui/requests").status_code == 302


def test_a_link_that_is_opened_by_who_has_signed_in_brings_its_key_for_calls(managed: Managed) -> None:
    sign_in(managed)
    assert 'id="try"' not in managed.client.get("/ui/playground").text, "the admin token calls no model"
    page = managed.client.get("/ui/sign-in?next=/ui/playground")
    assert 'data-signed-in="/ui/playground"' in page.text, "who brings no key is led on by the page's script"
    assert sign_in(managed, call_key=TOKEN, linked="1").status_code == 302
    assert 'id="try"' in managed.client.get("/ui/playground").text
    assert sign_in(managed, linked="1").status_code == 302
    assert 'id="try"' in managed.client.get("/ui/playground").text, "a link without one takes none away"


def test_a_link_makes_nobody_who_has_signed_in_somebody_else(managed: Managed) -> None:
    sign_in(managed)
    answer = sign_in(managed, TOKEN, linked="1")
    assert answer.status_code == 409
    assert "Set-Cookie" not in answer.headers
    assert "another key than yours" in answer.text
    assert "data-signed-in" not in answer.text
    assert sign_in(managed, TOKEN).status_code == 302, "whoever fills the form in means it"
    assert managed.client.get("/ui/keys").status_code == 403


def test_a_cookie_is_of_no_use_to_a_script_and_to_other_sites(managed: Managed) -> None:
    cookie = sign_in(managed).headers["Set-Cookie"]
    assert cookie.startswith("gateway_session=")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert ADMIN_TOKEN not in cookie
    afar = managed.client.post(
        "/ui/sign-in", data={"credential": ADMIN_TOKEN}, base_url="https://gateway.example", follow_redirects=False
    )
    assert afar.headers["Set-Cookie"].startswith("__Host-gateway_session=")
    assert "Secure" in afar.headers["Set-Cookie"]


@pytest.mark.parametrize("changed", ["", "x", "A" * 60, "A" * 3900, "é", "=="])
def test_a_cookie_that_we_did_not_seal_is_no_session(managed: Managed, changed: str) -> None:
    managed.client.set_cookie("gateway_session", changed, domain="localhost")
    assert managed.client.get("/ui/requests").status_code == 302


def test_a_session_ends_after_its_time(managed: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    sign_in(managed)
    assert managed.client.get("/ui/requests").status_code == 200
    monkeypatch.setattr("gateway.pages.session.SESSION_S", SESSION_S - 2 * SESSION_S)
    assert managed.client.get("/ui/requests").status_code == 302


def test_a_key_that_is_revoked_ends_its_sessions(managed: Managed) -> None:
    issued = managed.make("reader")
    sign_in(managed, text(issued))
    assert managed.client.get("/ui/requests").status_code == 200
    managed.directory.keys.change(issued.key.id, BOSS, KeyChanges(disabled=True))
    managed.keys.poll()
    assert managed.client.get("/ui/requests").status_code == 302


def test_signing_out_ends_it(managed: Managed) -> None:
    sign_in(managed)
    assert managed.client.post("/ui/sign-out", data={"csrf": csrf(managed.client)}).status_code == 302
    assert managed.client.get("/ui/requests").status_code == 302


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-csrf-token": "wrong"},
        {"x-csrf-token": "TOKEN", "Origin": "https://evil.example"},
        {"x-csrf-token": "TOKEN", "Origin": "null"},
        {"x-csrf-token": "TOKEN", "Sec-Fetch-Site": "cross-site"},
        {"x-csrf-token": "TOKEN", "Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("path", ["/ui/sign-out", "/ui/playground/key", "/ui/playground/call"])
def test_another_sites_page_changes_nothing(managed: Managed, path: str, headers: dict[str, str]) -> None:
    sign_in(managed)
    token = csrf(managed.client)
    sent = {name: value.replace("TOKEN", token) for name, value in headers.items()}
    assert managed.client.post(path, headers=sent).status_code == 403
    assert managed.client.get("/ui/requests").status_code == 200


def test_another_sites_page_signs_nobody_in(managed: Managed) -> None:
    answer = managed.client.post(
        "/ui/sign-in", data={"credential": ADMIN_TOKEN}, headers={"Origin": "https://evil.example"}
    )
    assert answer.status_code == 403
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("origin", ["http://[x", "null", "", "x", "http://", "http://localhost.evil.example", "\xff"])
@pytest.mark.parametrize("path", ["/ui/sign-in", "/ui/sign-out"])
def test_an_origin_that_is_not_ours_is_refused_whatever_it_looks_like(managed: Managed, path: str, origin: str) -> None:
    sign_in(managed)
    sent = {"credential": ADMIN_TOKEN, "csrf": csrf(managed.client)}
    assert managed.client.post(path, data=sent, headers={"Origin": origin}).status_code == 403
    assert managed.client.post(path, data=sent, headers={"Origin": "http://localhost"}).status_code == 302


@pytest.mark.parametrize("path", ["/ui/sign-in", "/ui/keys", "/ui/sign-out", "/ui/playground/key"])
def test_a_form_of_a_page_has_a_bound(managed: Managed, path: str) -> None:
    sign_in(managed)
    token = csrf(managed.client)
    large = form(("csrf", token.encode()), ("file", bytes(1 << 20), "a file"))
    answer = managed.client.post(path, data=large, content_type=CONTENT_TYPE)
    assert answer.status_code == 413
    small = form(("csrf", token.encode()), ("file", b"x", "a file"))
    assert managed.client.post(path, data=small, content_type=CONTENT_TYPE).status_code not in (403, 413)


@pytest.mark.parametrize(
    "asked",
    ["https://evil.example", "//evil.example", "/ui//evil.example", "/ui/\\evil", "/v1/models", "javascript:alert(1)"],
)
def test_signing_in_leads_to_our_own_pages_only(managed: Managed, asked: str) -> None:
    assert sign_in(managed, next=asked).headers["Location"] == "/ui/"
    assert sign_in(managed, next="/ui/requests?model=a").headers["Location"] == "/ui/requests?model=a"


@pytest.mark.parametrize("path", [*PAGES, "/ui/sign-in", "/ui/nothing/here", "/ui/static/gateway.js"])
def test_no_page_runs_what_is_not_ours(managed: Managed, path: str) -> None:
    sign_in(managed)
    policy = managed.client.get(path).headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy


def test_no_template_has_a_script_or_a_style_within_it() -> None:
    for path in (Path(__file__).parents[2] / "gateway/pages/templates").glob("*.html"):
        page = path.read_text()
        assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=|javascript:|\|\s*safe", page), path.name


def test_what_a_browser_loads_is_small() -> None:
    static = Path(__file__).parents[2] / "gateway/pages/static"
    files = [path for path in static.rglob("*") if path.suffix in (".js", ".css", ".svg")]
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) < 100_000


@pytest.mark.parametrize("name", ["../site.py", "vendor/../../site.py", "vendor/LICENSES.md", "", "nothing.js"])
def test_only_what_is_meant_for_browsers_is_served(managed: Managed, name: str) -> None:
    assert managed.client.get(f"/ui/static/{name}").status_code in (302, 404)


def test_static_files_never_change_under_their_address(managed: Managed) -> None:
    sign_in(managed)
    address = re.search(r'src="(/ui/static/gateway\.js\?v=[0-9a-f]{12})"', managed.client.get("/ui/requests").text)
    assert address is not None
    answer = managed.client.get(address[1])
    assert (answer.status_code, answer.mimetype) == (200, "text/javascript")
    assert "immutable" in answer.headers["Cache-Control"]


@pytest.mark.parametrize("page", ["/ui/traces", "/ui/settings"])
def test_who_does_not_manage_the_gateway_does_not_see_how_it_is(managed: Managed, page: str) -> None:
    sign_in(managed, TOKEN)
    assert managed.client.get(page).status_code == 403


def test_settings_show_no_secret(managed: Managed) -> None:
    sign_in(managed)
    page = managed.client.get("/ui/settings").text
    assert "BRAINTRUST_API_KEY" in page
    assert "bt-secret-of-the-pages" not in page


def test_readers_see_their_own_requests_and_managers_see_all(managed: Managed) -> None:
    mine, other = managed.make("mine"), managed.make("other")
    for issued in (mine, other):
        row = root(f"row-of-{issued.key.name}", root_span_id=issued.key.id, span_id=issued.key.id)
        row["metadata"]["caller"] = f"key_{issued.key.id}"
        row["metadata"]["request_id"] = f"req_{issued.key.name}"
        keep(managed, row)
    sign_in(managed, text(mine))
    page = managed.client.get("/ui/requests?caller=key_" + other.key.id).text
    assert "req_mine" in page
    assert "req_other" not in page
    assert managed.client.get("/ui/requests/req_mine").status_code == 200
    assert managed.client.get("/ui/requests/req_other").status_code == 404
    assert "req_other" not in managed.client.get("/ui/playground?request=req_other").text
    sign_in(managed)
    page = managed.client.get("/ui/requests").text
    assert "req_mine" in page
    assert "req_other" in page


@pytest.mark.parametrize("query", ["status=abc", "status=9", "min_cost=x", "since=yesterday", "before=x", "before=1,"])
def test_a_filter_that_is_none_is_said(managed: Managed, query: str) -> None:
    sign_in(managed)
    answer = managed.client.get(f"/ui/requests?{query}")
    assert answer.status_code == 200
    assert ('role="alert"' in answer.text) is not query.startswith("before")


def test_a_page_that_is_not_there_is_a_page(managed: Managed) -> None:
    sign_in(managed)
    answer = managed.client.get("/ui/nothing/here")
    assert (answer.status_code, answer.mimetype) == (404, "text/html")


# The seal.


def test_a_seal_opens_what_it_closed_and_nothing_else() -> None:
    seal, other = Seal(KEY), Seal(bytes(32))
    closed = seal.close({"credential": "secret-word"})
    assert seal.open(closed) == {"credential": "secret-word"}
    assert "secret-word" not in closed
    assert other.open(closed) is None
    for at in range(0, len(closed), 7):
        changed = closed[:at] + ("A" if closed[at] != "A" else "B") + closed[at + 1 :]
        assert seal.open(changed) is None
    assert seal.close({}) != seal.close({})


def test_what_does_not_fit_a_cookie_is_not_sealed() -> None:
    with pytest.raises(ValueError, match="too long"):
        Seal(KEY).close({"credential": "x" * MOST_CHARACTERS})


def test_a_search_for_text_that_takes_long_is_gone_on_with_by_who_asked(
    managed: Managed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.pages.listing._SEARCH_S", 0)
    rows = [root(f"row-{number:03}", root_span_id=f"{number:032x}", span_id=f"{number:016x}") for number in range(230)]
    for number, row in enumerate(rows):
        row["metadata"]["request_id"] = f"req_{number:032x}"
        row["input"] = "a needle" if number == 0 else "hay"
        row["metrics"] = {"start": time.time() - 300 + number, "end": time.time() - 300 + number}
    keep(managed, *rows)
    sign_in(managed)
    page = managed.client.get("/ui/requests?text=needle&live=off").text
    assert "Nothing so far." in page
    assert "Searched back to" in page
    on = re.search(r'href="([^"]+)">Search on<', page)
    assert on is not None
    page = managed.client.get(on[1].replace("&amp;", "&")).text
    assert f"req_{0:032x}" in page
    assert "Search" not in page.partition('id="list"')[2]
