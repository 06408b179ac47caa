"""Who may see and do what on the pages, in full: every route of the pages for everybody who may come.

A route of the pages that has no row here fails the suite, and so does a row without a route.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import pytest
from flask.testing import FlaskClient

from tests.builders import TOKEN
from tests.fakes.openid import OpenIdProvider
from tests.managed import BOSS, Managed, text
from tests.pages.test_people import trust, walk
from tests.pages.test_site import KEY, csrf, sign_in

#: What a route needs: nothing; a session; one of somebody who manages; a key that calls models.
OPEN, ANYBODY, ADMINS, CALLERS = "open", "anybody", "admins", "callers"
ROUTES: Mapping[str, str] = {
    "GET /ui/static/<path:name>": OPEN,
    "GET /ui/sign-in": OPEN,
    "POST /ui/sign-in": OPEN,
    "GET /ui/sign-in/issuer": OPEN,
    "GET /ui/sign-in/callback": OPEN,
    "POST /ui/sign-out": ANYBODY,
    "GET /ui/": ANYBODY,
    "GET /ui/overview.json": ANYBODY,
    "GET /ui/requests": ANYBODY,
    "GET /ui/requests/<id>": ANYBODY,
    "GET /ui/requests/export": ANYBODY,
    "GET /ui/errors": ANYBODY,
    "GET /ui/errors.json": ANYBODY,
    "GET /ui/limits": ANYBODY,
    "POST /ui/limits": ADMINS,
    "POST /ui/limits/<id>": ADMINS,
    "GET /ui/models": ADMINS,
    "GET /ui/keys": ADMINS,
    "POST /ui/keys": ADMINS,
    "GET /ui/keys/<id>": ADMINS,
    "POST /ui/keys/<id>": ADMINS,
    "POST /ui/accounts": ADMINS,
    "GET /ui/playground": ANYBODY,
    "POST /ui/playground/key": ANYBODY,
    "POST /ui/playground/call": CALLERS,
    "GET /ui/traces": ADMINS,
    "GET /ui/settings": ADMINS,
    "GET /ui/<path:rest>": ANYBODY,
    "POST /ui/<path:rest>": ANYBODY,
}
#: Whoever comes, and what they may besides what is open.
WHO: Mapping[str, frozenset[str]] = {
    "nobody": frozenset(),
    "a key": frozenset({ANYBODY, CALLERS}),
    "a person": frozenset({ANYBODY}),
    "an admin's token": frozenset({ANYBODY, ADMINS}),
    "an admin in person": frozenset({ANYBODY, ADMINS}),
}


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenIdProvider]:
    with OpenIdProvider() as one:
        yield one


@pytest.fixture(scope="module")
def managed(tmp_path_factory: pytest.TempPathFactory, provider: OpenIdProvider) -> Iterator[Managed]:
    one = Managed(tmp_path_factory.mktemp("pages"))
    one.gateway.session_key = lambda: KEY
    trust(one, provider, GATEWAY_OIDC_ADMIN_CLAIM="groups", GATEWAY_OIDC_ADMIN_VALUES="boss")
    one.directory.users.create("ann@example.com", BOSS)
    yield one
    one.close()


def come(managed: Managed, provider: OpenIdProvider, who: str) -> FlaskClient:
    managed.client = managed.app.test_client()
    provider.claims["groups"] = ["boss"] if who == "an admin in person" else ["staff"]
    if who == "a key":
        sign_in(managed, text(managed.make()))
    elif who == "an admin's token":
        sign_in(managed)
    elif who != "nobody":
        assert walk(managed).status_code == 302
    return managed.client


def test_every_page_has_its_row_and_every_row_its_page(managed: Managed) -> None:
    found = {
        f"{method} {rule.rule}"
        for rule in managed.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule.startswith("/ui")
    }
    assert found == set(ROUTES)


@pytest.mark.parametrize("who", WHO)
def test_everybody_gets_what_is_theirs_at_every_page_and_nothing_else(
    managed: Managed, provider: OpenIdProvider, who: str
) -> None:
    client = come(managed, provider, who)
    sent = {"x-csrf-token": csrf(client)} if who != "nobody" else {}
    surprises = []
    for route, needs in ROUTES.items():
        method, rule = route.split()
        if rule == "/ui/sign-out":
            continue  # last, since it ends the session
        path = re.sub(r"<[^>]*>", "nothing-here", rule)
        # a form that can be read, of a key that is good: only rights are to make a difference
        form = {"call_key": TOKEN} if method == "POST" else None
        answer = client.open(path, method=method, headers=sent, data=form)
        ends = answer.status_code == 302 and answer.headers["Location"].startswith("/ui/sign-in?next=")
        bare = method == "POST" and answer.status_code == 401 and not answer.data
        got = "out" if ends or bare else "refused" if answer.status_code == 403 else "in"
        due = "in" if needs == OPEN or needs in WHO[who] else "out" if who == "nobody" else "refused"
        if got != due or answer.status_code >= 500:
            surprises.append((route, answer.status_code, due))
        if (rule, method) == ("/ui/playground/key", "POST") and who != "nobody":
            client = come(managed, provider, who)  # it calls models now
            sent = {"x-csrf-token": csrf(client)}
    assert surprises == []
    assert client.post("/ui/sign-out", headers=sent).status_code == (401 if who == "nobody" else 302)
    assert client.get("/ui/requests").status_code == 302
