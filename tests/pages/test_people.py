"""Signing in to the pages at an issuer: who gets in, what they see, and every answer that is not the issuer's."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from gateway import assembly
from gateway.app import create_app
from gateway.auth.sign_in import SignIn
from gateway.core.rights import ADMIN, METRICS
from gateway.pages.session import SESSION_S
from gateway.settings import Settings
from gateway.tracing.search import Search
from tests.fakes.destination import root
from tests.fakes.openid import OpenIdProvider
from tests.managed import ADMIN_TOKEN, BOSS, Managed, text
from tests.pages.test_site import KEY, csrf, keep, sign_in

CALLBACK = "/ui/sign-in/callback"
ASKED = {"model": "demo/echo", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def provider() -> Iterator[OpenIdProvider]:
    with OpenIdProvider() as one:
        yield one


@pytest.fixture
def managed(tmp_path: Path, provider: OpenIdProvider) -> Iterator[Managed]:
    one = Managed(tmp_path)
    one.gateway.session_key = lambda: KEY
    one.gateway.local_traces = Search(one.database)
    trust(one, provider)
    yield one
    one.close()


def trust(managed: Managed, provider: OpenIdProvider, **more: str) -> SignIn:
    """Have the gateway let people of a provider in, by settings as an operator writes them."""
    settings = Settings.load(provider.settings(**more))
    made = assembly.sign_in(settings, assembly.issuer_keys(settings), managed.database)
    assert made is not None
    if managed.gateway.sign_in is not None:
        managed.gateway.sign_in.close()
    managed.gateway.sign_in = made
    managed.app = create_app(gateway=managed.gateway)
    managed.client = managed.app.test_client()
    return made


def begun(managed: Managed, then: str = "", **more: Any) -> str:
    """Go to the issuer: the address that a browser is sent to."""
    answer = managed.client.get(f"/ui/sign-in/issuer?{urlencode({'next': then})}", **more)
    assert answer.status_code == 302, answer.text
    return answer.headers["Location"]


def answered(address: str) -> str:
    """Sign in at the issuer: the path and query that the browser is sent back to."""
    back = urlsplit(httpx.get(address).headers["Location"])
    return f"{back.path}?{back.query}"


def walk(managed: Managed, then: str = "") -> TestResponse:
    """Sign in, all the way."""
    return managed.client.get(answered(begun(managed, then)))


def refused(managed: Managed, answer: TestResponse, status: int, said: str) -> None:
    """Nobody is signed in, they are told why, and can sign in with a key."""
    assert answer.status_code == status, answer.text
    problem = re.search(r'role="alert" class="bad">([^<]*)', answer.text)
    assert problem is not None
    assert said in problem[1]
    assert "gateway_session=" not in str(answer.headers.getlist("Set-Cookie"))
    assert managed.client.get("/ui/requests").status_code == 302
    assert 'name="credential"' in answer.text
    assert sign_in(managed).status_code == 302
    assert managed.client.get("/ui/requests").status_code == 200


def session_of(client: FlaskClient) -> str | None:
    cookie = client.get_cookie("gateway_session")
    return cookie.value if cookie is not None else None


# Who gets in.


def test_the_page_offers_the_issuer_only_where_there_is_one(managed: Managed) -> None:
    assert "Sign in at 127.0.0.1" in managed.client.get("/ui/sign-in").text
    managed.gateway.sign_in = None
    without = create_app(gateway=managed.gateway).test_client()
    assert "/ui/sign-in/issuer" not in without.get("/ui/sign-in").text
    for path in ("issuer", "callback"):
        assert without.get(f"/ui/sign-in/{path}").status_code == 302  # as any page that is not there


@pytest.mark.parametrize(
    ("rule", "claims"),
    [
        ({"GATEWAY_OIDC_ADMIN_EMAILS": "bob@example.com, Ann@Example.com"}, {}),
        (
            {"GATEWAY_OIDC_ADMIN_CLAIM": "realm_access.roles", "GATEWAY_OIDC_ADMIN_VALUES": "boss,llm-admin"},
            {"realm_access": {"roles": ["x", "llm-admin"]}, "email": None},
        ),
    ],
    ids=["by address", "by claim"],
)
def test_an_admin_sees_all_and_manages(
    managed: Managed, provider: OpenIdProvider, rule: dict[str, str], claims: dict[str, Any]
) -> None:
    trust(managed, provider, **rule)
    provider.claims |= claims
    assert walk(managed).headers["Location"] == "/ui/"
    for page in ("/ui/", "/ui/requests", "/ui/keys", "/ui/models", "/ui/traces", "/ui/settings"):
        assert managed.client.get(page).status_code == 200, page
    fields = {"csrf": csrf(managed.client), "name": "made by a person", "scope.call": "on"}
    assert managed.client.post("/ui/keys", data=fields).status_code == 200
    [key] = managed.directory.keys.page().items
    assert re.fullmatch(r"oidc_[0-9a-f]{16}", key.made_by)


@pytest.mark.parametrize(
    ("rule", "claims"),
    [
        ({"GATEWAY_OIDC_ADMIN_EMAILS": "ann@example.com"}, {"email_verified": False}),
        ({"GATEWAY_OIDC_ADMIN_CLAIM": "groups", "GATEWAY_OIDC_ADMIN_VALUES": "boss"}, {"groups": ["bosses"]}),
    ],
    ids=["unverified", "other groups"],
)
def test_who_is_neither_an_admin_nor_a_user_is_refused(
    managed: Managed, provider: OpenIdProvider, rule: dict[str, str], claims: dict[str, Any]
) -> None:
    trust(managed, provider, **rule)
    provider.claims |= claims
    refused(managed, walk(managed), 403, "You have signed in")
    assert [line.action for line in managed.directory.audit.page(kind="session").items] == []


def test_a_user_is_who_has_their_verified_address(managed: Managed, provider: OpenIdProvider) -> None:
    managed.directory.users.create("Ann@example.com", BOSS)
    assert walk(managed).status_code == 302
    provider.claims |= {"email_verified": False}
    managed.client.delete_cookie("gateway_session")
    refused(managed, walk(managed), 403, "has verified no e-mail address")


def test_two_users_of_one_address_are_nobody(managed: Managed) -> None:
    managed.directory.users.create("Ann@example.com", BOSS)
    managed.directory.users.create("ann@example.com", BOSS)
    refused(managed, walk(managed), 403, "no user of this gateway has that name")


def test_a_user_sees_the_requests_and_the_spend_of_their_own_keys_and_nothing_else(managed: Managed) -> None:
    user = managed.directory.users.create("ann@example.com", BOSS)
    mine = [managed.make(name, user=user.id) for name in ("mine", "gone")]
    other = managed.make("other", user=managed.directory.users.create("bob@example.com", BOSS).id)
    managed.directory.keys.delete(mine[1].key.id, BOSS)
    for issued in (*mine, other):
        row = root(f"row-of-{issued.key.name}", root_span_id=issued.key.id, span_id=issued.key.id)
        row["metadata"] |= {"caller": f"key_{issued.key.id}", "request_id": f"req_{issued.key.name}"}
        keep(managed, row)
    managed.keys.poll()
    for issued, times in ((mine[0], 2), (other, 3)):
        for _ in range(times):
            managed.got("POST", "/v1/chat/completions", ASKED, key=text(issued))
    walk(managed)
    client = managed.client
    for query in ("", f"?caller=key_{other.key.id}", f"?key={other.key.id}", "?user=bob@example.com"):
        page = client.get(f"/ui/requests{query}").text
        assert "req_other" not in page
        assert f"key_{other.key.id}" not in page.replace(query[1:], "")
    listed = client.get("/ui/requests").text
    assert "req_mine" in listed
    assert "req_gone" in listed
    assert client.get("/ui/requests/req_mine").status_code == 200
    assert client.get("/ui/requests/req_other").status_code == 404
    calls = [json.loads(line) for line in client.get("/ui/requests/export?format=jsonl").text.splitlines()]
    assert [call["key_id"] for call in calls] == [mine[0].key.id] * 2
    series = client.get("/ui/overview.json").json
    assert series is not None
    assert sum(series["series"]["answered"]) == 2
    for page in ("/ui/keys", "/ui/models", "/ui/traces", "/ui/settings"):
        assert client.get(page).status_code == 403, page
    assert client.post("/ui/keys", data={"csrf": csrf(client), "name": "x"}).status_code == 403
    call = client.post("/ui/playground/call", json=ASKED, headers={"x-csrf-token": csrf(client)})
    assert call.status_code == 403


def test_a_user_without_keys_sees_nobodys_requests(managed: Managed) -> None:
    managed.directory.users.create("ann@example.com", BOSS)
    managed.got("POST", "/v1/chat/completions", ASKED, key=text(managed.make()))
    walk(managed)
    assert "req_" not in managed.client.get("/ui/requests").text
    assert "No request yet" in managed.client.get("/ui/").text


def test_a_user_tries_models_with_a_key_of_theirs(managed: Managed) -> None:
    managed.directory.users.create("ann@example.com", BOSS)
    walk(managed)
    fields = {"csrf": csrf(managed.client), "call_key": text(managed.make())}
    assert managed.client.post("/ui/playground/key", data=fields).status_code == 204
    headers = {"x-csrf-token": csrf(managed.client)}
    assert managed.client.post("/ui/playground/call", json=ASKED, headers=headers).status_code == 200
    assert "ann@example.com" in managed.client.get("/ui/requests").text, "it is still their session"


def test_a_sign_in_is_in_the_audit_and_no_credential_is(managed: Managed, provider: OpenIdProvider) -> None:
    trust(managed, provider, GATEWAY_OIDC_ADMIN_EMAILS="boss@example.com")
    user = managed.directory.users.create("ann@example.com", BOSS)
    walk(managed)
    provider.claims |= {"sub": "boss-1", "email": "boss@example.com"}
    walk(managed)
    boss, ann = managed.directory.audit.page(kind="session").items
    assert (ann.action, ann.details) == ("sign_in", {"admin": False, "email": "ann@example.com", "user": user.id})
    assert boss.details == {"admin": True, "email": "boss@example.com"}
    assert boss.actor == boss.target != ann.actor
    assert boss.request_id is not None
    assert boss.request_id.startswith("req_")


# How long it lasts.


def test_a_session_ends_by_signing_out_and_after_its_time(managed: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    managed.directory.users.create("ann@example.com", BOSS)
    walk(managed)
    assert managed.client.post("/ui/sign-out", data={"csrf": csrf(managed.client)}).status_code == 302
    assert managed.client.get("/ui/requests").status_code == 302
    walk(managed)
    assert managed.client.get("/ui/requests").status_code == 200
    assert SESSION_S <= 12 * 3600
    now_s = time.time()
    monkeypatch.setattr("gateway.pages.session.time.time", lambda: now_s + SESSION_S + 1)
    assert managed.client.get("/ui/requests").status_code == 302


def test_who_is_disabled_is_out_at_once(managed: Managed) -> None:
    user = managed.directory.users.create("ann@example.com", BOSS)
    walk(managed)
    managed.directory.users.change(user.id, BOSS, disabled=True)
    assert managed.client.get("/ui/requests").status_code == 302
    refused(managed, walk(managed), 403, "that user is disabled here")


def test_an_admin_whom_the_settings_name_no_more_is_out(managed: Managed, provider: OpenIdProvider) -> None:
    trust(managed, provider, GATEWAY_OIDC_ADMIN_EMAILS="ann@example.com")
    walk(managed)
    kept = session_of(managed.client)
    assert kept is not None
    for other in ({"GATEWAY_OIDC_ADMIN_EMAILS": "bob@example.com"}, {"GATEWAY_OIDC_ISSUER": "https://id.example"}):
        trust(managed, provider, **{"GATEWAY_OIDC_ADMIN_EMAILS": "ann@example.com", **other})
        managed.client.set_cookie("gateway_session", kept)
        assert managed.client.get("/ui/requests").status_code == 302, other
    managed.gateway.sign_in = None
    client = create_app(gateway=managed.gateway).test_client()
    client.set_cookie("gateway_session", kept)
    assert client.get("/ui/requests").status_code == 302


def test_rights_of_a_person_are_those_of_rights(managed: Managed, provider: OpenIdProvider) -> None:
    made = trust(managed, provider, GATEWAY_OIDC_ADMIN_EMAILS="@example.com")
    address, kept = made.begin("http://localhost/back")
    answer = dict(parse_qs(urlsplit(answered(address)).query))
    person = made.finish(kept, {name: values[0] for name, values in answer.items()}, "http://localhost/back")
    admin = made.reader(person).caller
    assert (admin.kind, admin.rights.scopes, admin.user) == ("admin", {ADMIN, METRICS}, "ann@example.com")


# The way there.


def test_the_issuer_is_asked_for_a_code_with_pkce_state_and_nonce(managed: Managed, provider: OpenIdProvider) -> None:
    trust(managed, provider, GATEWAY_OIDC_SCOPE="openid email groups")
    one, two = (parse_qs(urlsplit(begun(managed)).query) for _ in range(2))
    assert one["redirect_uri"] == ["http://localhost/ui/sign-in/callback"]
    assert one["scope"] == ["openid email groups"]
    for name, least in (("state", 43), ("nonce", 43), ("code_challenge", 43)):
        assert len(one[name][0]) >= least
        assert one[name] != two[name]


def test_afar_the_issuer_sends_back_over_tls_and_the_cookie_is_of_that_host_alone(managed: Managed) -> None:
    answer = managed.client.get("/ui/sign-in/issuer", base_url="http://gateway.example:8443")
    asked = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert asked["redirect_uri"] == ["https://gateway.example:8443/ui/sign-in/callback"]
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-gateway_sign_in=")
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))


def test_signing_in_leads_to_our_own_pages_only(managed: Managed) -> None:
    managed.directory.users.create("ann@example.com", BOSS)
    places = {
        "/ui/requests?model=a&status=4xx": "/ui/requests?model=a&status=4xx",
        "https://evil.example": "/ui/",
        "//evil.example": "/ui/",
        "/ui//evil.example": "/ui/",
        "/ui/\\evil": "/ui/",
        "/ui/\r\nLocation: https://evil.example": "/ui/",
        "javascript:alert(1)": "/ui/",
        "/ui/requests?text=" + "x" * 1000: "/ui/requests?text=" + "x" * 1000,
        "/ui/requests?text=" + "\N{SNOWMAN}" * 800: "/ui/",  # no cookie holds it
    }
    for asked, then in places.items():
        back = answered(begun(managed, asked))
        assert managed.client.get(f"{back}&next=https://evil.example").headers["Location"] == then


# Answers that are not to what this browser has begun.


def changed(back: str, **query: str | None) -> str:
    """The same answer with other parts of its query; None takes one out."""
    path, _, text = back.partition("?")
    found = {name: values[0] for name, values in parse_qs(text).items()} | query
    return f"{path}?{urlencode({name: value for name, value in found.items() if value is not None})}"


@pytest.mark.parametrize(
    "change",
    [
        lambda back: changed(back, state=None),
        lambda back: changed(back, state="another"),
        lambda back: f"{back}&code=another",
        lambda _: CALLBACK,
    ],
    ids=["no state", "other state", "two codes", "nothing"],
)
def test_an_answer_that_is_not_the_one_to_this_sign_in_is_refused(
    managed: Managed, change: Callable[[str], str]
) -> None:
    managed.directory.users.create("ann@example.com", BOSS)
    back = change(answered(begun(managed)))
    refused(managed, managed.client.get(back), 400, "Sign in again")


def test_the_state_is_looked_at_before_anything_is_asked(managed: Managed, provider: OpenIdProvider) -> None:
    back = answered(begun(managed))
    managed.client.get(changed(back, state="another"))
    assert "/token" not in provider.paths()
    managed.client.get(changed(back, state="another", error="access_denied", code=None))
    assert "/token" not in provider.paths()


def test_an_answer_is_of_use_once_and_in_the_browser_that_began(managed: Managed) -> None:
    managed.directory.users.create("ann@example.com", BOSS)
    back = answered(begun(managed))
    kept = managed.client.get_cookie("gateway_sign_in")
    assert kept is not None
    stranger = managed.app.test_client()
    assert stranger.get(back).status_code == 400
    begun_there = urlsplit(stranger.get("/ui/sign-in/issuer").headers["Location"])
    assert begun_there.path == "/authorize"
    assert stranger.get(back).status_code == 400, "the state is another browser's"
    assert managed.client.get(back).status_code == 302
    managed.client.delete_cookie("gateway_session")
    assert managed.client.get(back).status_code == 400, "the cookie is gone"
    managed.client.set_cookie("gateway_sign_in", kept.value)
    refused(managed, managed.client.get(back), 400, "used up")  # the issuer knows the code no more


def test_a_sign_in_that_takes_too_long_is_over(managed: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    managed.directory.users.create("ann@example.com", BOSS)
    back = answered(begun(managed))
    now_s = time.time()
    monkeypatch.setattr("gateway.pages.people.time.time", lambda: now_s + 601)
    assert managed.client.get(back).status_code == 400


def test_what_is_kept_on_the_way_is_no_session_and_a_session_is_not_that(managed: Managed) -> None:
    managed.directory.users.create("ann@example.com", BOSS)
    back = answered(begun(managed))
    on_the_way = managed.client.get_cookie("gateway_sign_in")
    assert on_the_way is not None
    managed.client.set_cookie("gateway_session", on_the_way.value)
    assert managed.client.get("/ui/requests").status_code == 302
    assert managed.client.get(back).status_code == 302
    kept = session_of(managed.client)
    assert kept is not None
    managed.client.set_cookie("gateway_sign_in", kept)
    assert managed.client.get(back).status_code == 400


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [("access_denied", 403, "refused at the issuer"), ("server_error", 503, "does not answer as it should")],
)
def test_an_error_of_the_issuer_is_told(
    managed: Managed, provider: OpenIdProvider, error: str, status: int, said: str
) -> None:
    provider.error = error
    refused(managed, walk(managed), status, said)


# An issuer that does not do its part.


def test_nothing_waits_for_an_issuer_that_is_down(managed: Managed, provider: OpenIdProvider) -> None:
    provider.close()
    managed.gateway.sign_in = None
    began_s = time.monotonic()
    trust(managed, provider)
    managed.gateway.open()
    assert managed.client.get("/ui/sign-in").status_code == 200
    assert time.monotonic() - began_s < 2
    refused(managed, managed.client.get("/ui/sign-in/issuer"), 503, "sign in with a key")


def test_an_issuer_that_goes_away_on_the_way_is_said_to_be_away(managed: Managed, provider: OpenIdProvider) -> None:
    back = answered(begun(managed))
    provider.close()
    refused(managed, managed.client.get(back), 503, "sign in with a key")


def test_an_issuer_without_keys_is_said_to_be_away(managed: Managed, provider: OpenIdProvider) -> None:
    provider.keys = []
    refused(managed, walk(managed), 503, "The issuer")


def test_an_id_token_that_is_not_for_this_sign_in_signs_nobody_in(managed: Managed, provider: OpenIdProvider) -> None:
    managed.directory.users.create("ann@example.com", BOSS)
    provider.claims["nonce"] = "another"
    refused(managed, walk(managed), 400, "not for this sign-in")
    assert managed.directory.audit.page(kind="session").items == []


def test_the_secret_of_the_client_is_in_no_answer_and_no_log(
    managed: Managed, provider: OpenIdProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    provider.says["/token"] = lambda exchange: exchange.respond_json(401, {"error": "invalid_client"})
    address = begun(managed)
    answer = managed.client.get(answered(address))
    fields = [getattr(record, "fields", {}) for record in caplog.records]
    for place in (address, answer.text, str(answer.headers), caplog.text, str(fields)):
        assert "client secret" not in place
        assert ADMIN_TOKEN not in place
    assert any("invalid_client" in str(one) for one in fields)
