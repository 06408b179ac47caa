"""Pages that change something: keys, accounts, limits and budgets; and what a reader sees of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from werkzeug.test import TestResponse

from gateway.app import create_app
from gateway.core.rights import Rights
from gateway.errors import Conflict
from gateway.settings import Settings
from gateway.storage.followed import FollowedRules
from tests.builders import TOKEN
from tests.managed import ADMIN_TOKEN, Managed, text
from tests.pages.test_site import KEY, csrf, sign_in


@pytest.fixture
def managed(tmp_path: Path) -> Iterator[Managed]:
    one = Managed(tmp_path)
    one.gateway.session_key = lambda: KEY
    one.gateway.catalogue = replace(one.gateway.catalogue, demo=frozenset({"demo/echo", "demo/error-429"}))
    one.app = create_app(gateway=one.gateway)
    one.client = one.app.test_client()
    sign_in(one)
    yield one
    one.close()


def post(managed: Managed, path: str, **fields: str) -> TestResponse:
    return managed.client.post(path, data={"csrf": csrf(managed.client), **fields})


def test_a_key_that_is_made_is_shown_once_and_calls_models(managed: Managed) -> None:
    fields = {"name": "a program", "models": "demo/*", "scope.call": "on", "once": "asked-once", "tags": "a, b"}
    page = post(managed, "/ui/keys", **fields).text
    key = re.search(r"sk-gw-[0-9a-z]{12}-[0-9A-Za-z]{51}", page)
    assert key is not None
    managed.keys.poll()
    body = {"model": "demo/echo", "messages": [{"role": "user", "content": "hi"}]}
    assert managed.ask("POST", "/v1/chat/completions", body, key=key[0]).status_code == 200
    [kept] = managed.directory.keys.page().items
    assert (kept.name, kept.rights.models, kept.tags) == ("a program", ("demo/*",), ("a", "b"))
    assert kept.made_by.startswith("adm_")
    assert key[0] not in managed.client.get("/ui/keys").text
    again = post(managed, "/ui/keys", **fields)  # as a page that is loaded again sends it
    assert again.status_code == 409
    assert len(managed.directory.keys.page().items) == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"name": ""}, "name"), ({"name": "x", "expires": "soon"}, "no day"), ({"name": "x", "models": "*" * 9}, "stars")],
)
def test_a_key_that_cannot_be_made_is_told_so_in_the_form(managed: Managed, fields: dict[str, str], said: str) -> None:
    answer = post(managed, "/ui/keys", **fields)
    assert answer.status_code == 400
    assert said in (re.search(r'role="alert" class="bad">([^<]*)', answer.text) or [""])[0]
    assert managed.directory.keys.page().items == []


def test_a_key_is_made_with_its_budget(managed: Managed) -> None:
    fields = {"name": "a program", "scope.call": "on", "budget": "1.5", "budget_period": "total"}
    assert post(managed, "/ui/keys", **fields).status_code == 200
    [kept], [budget] = managed.directory.keys.page().items, managed.directory.budgets.page().items
    assert (budget.rule.name, budget.rule.most, budget.rule.period) == ("a program", 1_500_000, "total")
    assert budget.rule.match.key == kept.id
    managed.gateway.rules = rules = FollowedRules(managed.database)
    rules.poll()
    managed.standings.used[(budget.rule.id,)] = 500_000
    page = managed.client.get(f"/ui/keys/{kept.id}").text
    assert "$0.5 of $1.5" in page
    link = re.search(r'href="(/ui/limits\?key=[0-9a-z]{12})#new"', page)
    assert link is not None
    assert f'name="match.key" value="{kept.id}"' in managed.client.get(link[1]).text


@pytest.mark.parametrize("budget", ["much", "-1", "1e99"])
def test_with_a_budget_that_is_none_no_key_is_made(managed: Managed, budget: str) -> None:
    answer = post(managed, "/ui/keys", name="a program", budget=budget)
    assert answer.status_code == 400
    assert 'class="bad">Budget: ' in answer.text
    assert (managed.directory.keys.page().items, managed.directory.budgets.page().items) == ([], [])


def test_a_key_whose_budget_cannot_be_kept_is_of_no_use(managed: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise Conflict("There are too many.")

    monkeypatch.setattr(managed.directory.budgets, "create", full)
    answer = post(managed, "/ui/keys", name="a program", budget="1")
    assert answer.status_code == 409
    assert "too many" in answer.text
    assert managed.directory.keys.page().items == []
    assert len(managed.directory.keys.page(deleted=True).items) == 1


def test_a_key_is_rotated_disabled_changed_and_deleted(managed: Managed) -> None:
    issued = managed.make("first")
    path = f"/ui/keys/{issued.key.id}"
    page = post(managed, path, action="rotate", overlap_min="0").text
    assert len(re.findall(r"sk-gw-[0-9a-z]{12}-[0-9A-Za-z]{51}", page)) == 1
    assert text(issued) not in page
    assert post(managed, path, action="disable").status_code == 302
    assert managed.directory.keys.show(issued.key.id).disabled
    assert post(managed, path, action="enable").status_code == 302
    assert post(managed, path, action="change", name="second", models="", expires="2030-01-31").status_code == 302
    changed = managed.directory.keys.show(issued.key.id)
    assert (changed.name, changed.rights.models, changed.expires_s) == ("second", ("*",), 1_896_134_400.0)
    assert 'value="2030-01-31"' in managed.client.get(path).text
    assert post(managed, path, action="delete").status_code == 302
    assert managed.directory.keys.show(issued.key.id).deleted_s is not None
    assert post(managed, path, action="enable").status_code == 409
    assert post(managed, path, action="no").status_code == 400
    assert managed.client.get("/ui/keys/000000000000").status_code == 404
    actors = {line.actor for line in managed.directory.audit.page(target=issued.key.id).items}
    assert any(actor.startswith("adm_") for actor in actors)


def test_a_limit_says_what_is_counted_once(managed: Managed) -> None:
    asked = {"object": "limit", "name": "all", "measure": "requests", "most": "6000", "period": "minute"}
    assert post(managed, "/ui/limits", **asked).status_code == 302
    [kept] = managed.directory.limits.page().items
    managed.standings.used[(kept.rule.id,)] = 1_200
    assert ">1,200 of 6,000 requests" in managed.client.get("/ui/limits").text


def test_a_budget_is_made_shown_changed_and_deleted(managed: Managed) -> None:
    asked = {"object": "budget", "name": "all", "measure": "usd", "most": "12.5", "period": "month", "soft": "80"}
    assert post(managed, "/ui/limits", **asked).status_code == 302
    [kept] = managed.directory.budgets.page().items
    assert (kept.rule.most, kept.rule.soft) == (12_500_000, 0.8)
    managed.standings.used[(kept.rule.id,)] = 5_000_000
    assert "$5 of $12.5" in managed.client.get("/ui/limits").text
    assert "counted apart" not in managed.client.get("/ui/limits").text
    wrong = post(managed, f"/ui/limits/{kept.rule.id}", most="a lot")
    assert wrong.status_code == 400
    assert 'role="alert"' in wrong.text
    assert post(managed, f"/ui/limits/{kept.rule.id}", most="20").status_code == 302
    assert managed.directory.budgets.show(kept.rule.id).rule.most == 20_000_000
    managed.standings.away = True
    assert "not known now" in managed.client.get("/ui/limits").text
    assert post(managed, f"/ui/limits/{kept.rule.id}", action="delete").status_code == 302
    assert managed.directory.budgets.page().items == []


def test_a_limit_that_cannot_be_made_keeps_what_was_written(managed: Managed) -> None:
    asked = {"object": "limit", "name": "mine", "measure": "requests", "most": "x", "period": "minute"}
    answer = post(managed, "/ui/limits", **asked)
    assert answer.status_code == 400
    assert 'value="mine"' in answer.text
    assert post(managed, "/ui/limits", object="nothing").status_code == 400
    limit = {**asked, "most": "60", "match.model": "gpt-*", "each.key": "on"}
    assert post(managed, "/ui/limits", **limit).status_code == 302
    [kept] = managed.directory.limits.page().items
    assert (kept.rule.match.model, kept.rule.each, kept.rule.most) == ("gpt-*", ("key",), 60)


def test_projects_and_users_are_made_and_a_taken_name_is_told(managed: Managed) -> None:
    assert post(managed, "/ui/accounts", kind="project", name="shop").status_code == 302
    assert post(managed, "/ui/accounts", kind="user", name="ada").status_code == 302
    assert post(managed, "/ui/accounts", kind="project", name="shop").status_code == 409
    page = managed.client.get("/ui/keys").text
    assert "shop" in page
    assert "ada" in page


@pytest.mark.parametrize("path", ["/ui/keys", "/ui/keys/x", "/ui/accounts", "/ui/limits", "/ui/limits/lim_x"])
def test_who_does_not_manage_the_gateway_changes_nothing(managed: Managed, path: str) -> None:
    assert managed.client.post(path, data={"name": "x"}).status_code == 403  # no token of the session
    sign_in(managed, TOKEN)
    assert post(managed, path, name="x", action="delete", object="limit").status_code == 403
    assert managed.directory.audit.page().items == []


def test_a_reader_sees_what_holds_them_and_only_that(managed: Managed) -> None:
    mine, other = managed.make("mine"), managed.make("other")
    for issued in (mine, other):
        managed.got(
            *("POST", "/admin/v1/limits"),
            {
                "name": f"of {issued.key.name}",
                "measure": "requests",
                "most": 5,
                "period": "minute",
                "match": {"key": issued.key.id},
            },
            status=201,
        )
    managed.rules.poll()
    sign_in(managed, text(mine))
    page = managed.client.get("/ui/limits").text
    assert "of mine" in page
    assert "of other" not in page
    assert '<form method="post" action="/ui/limits' not in page


# What was asked and what it cost.


def called(managed: Managed, model: str = "demo/echo", key: str = TOKEN) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    return managed.ask("POST", "/v1/chat/completions", body, key=key, X_Gateway_Tags="=cmd").headers["request-id"]


def test_the_overview_adds_up_and_is_each_readers_own(managed: Managed) -> None:
    assert "No request yet" in managed.client.get("/ui/").text
    mine = managed.make("mine")
    called(managed)
    called(managed, key=text(mine))
    page = managed.client.get("/ui/?span=1h").text
    assert "demo/echo" in page
    assert "mine" in page  # the key's name, not its id alone
    series = managed.client.get("/ui/overview.json?span=1h").json
    assert series is not None
    assert sum(series["series"]["answered"]) == 2
    sign_in(managed, text(mine))
    series = managed.client.get("/ui/overview.json?span=30d").json
    assert series is not None
    assert sum(series["series"]["answered"]) == 1
    assert managed.client.get("/ui/models").status_code == 403


def test_requests_come_from_the_ledger_and_each_reader_has_their_own(managed: Managed) -> None:
    mine = managed.make("mine")
    first, second = called(managed), called(managed, key=text(mine))
    page = managed.client.get("/ui/requests").text
    assert first in page
    assert second in page
    shown = managed.client.get(f"/ui/requests/{first}")
    assert shown.status_code == 200
    assert "No trace of this request is kept here" in shown.text
    sign_in(managed, text(mine))
    page = managed.client.get("/ui/requests").text
    assert first not in page
    assert second in page
    assert managed.client.get(f"/ui/requests/{first}").status_code == 404
    assert first not in managed.client.get("/ui/requests/export?caller=x").text


def test_pages_of_requests_follow_each_other_without_a_gap(managed: Managed) -> None:
    ids = [called(managed) for _ in range(53)]
    page = managed.client.get("/ui/requests").text
    following = re.search(r'href="(/ui/requests\?[^"]*before=[^"]*)"', page)
    assert following is not None
    other = managed.client.get(following[1].replace("&amp;", "&")).text
    seen = [set(re.findall(r"<code>(req_[0-9a-f]{32})</code>", part)) for part in (page, other)]
    assert (len(seen[0]), len(seen[1])) == (50, 3)
    assert seen[0] | seen[1] == set(ids)


@pytest.mark.parametrize("query", ["status=error", "min_latency=100", "provider=openai", "tag=no", "min_cost=1"])
def test_filters_leave_out_what_is_not_like_that(managed: Managed, query: str) -> None:
    called(managed)
    assert "No request is like that" in managed.client.get(f"/ui/requests?{query}").text


def test_errors_are_told_with_a_way_to_their_requests(managed: Managed) -> None:
    assert "No call of a model has failed" in managed.client.get("/ui/errors").text
    id = called(managed, "demo/error-429")
    page = managed.client.get("/ui/errors?span=1h").text
    link = re.search(r'href="(/ui/requests\?[^"]*error=[^"]*)"', page)
    assert link is not None
    assert id in managed.client.get(link[1].replace("&amp;", "&")).text
    series = managed.client.get("/ui/errors.json?span=7d").json
    assert series is not None
    assert sum(series["lines"][0]["counts"]) == 1


def test_models_are_told_with_their_success(managed: Managed) -> None:
    assert "No model was called in that time" in managed.client.get("/ui/models").text
    called(managed)
    called(managed, "demo/error-429")
    page = managed.client.get("/ui/models?span=24h").text
    assert "demo/echo" in page
    assert "100.0 %" in page
    assert ">0.0 %" in page


def test_a_request_that_is_not_there_yet_is_told_so(managed: Managed) -> None:
    answer = managed.client.get("/ui/requests/req_" + "0" * 32)
    assert answer.status_code == 404
    assert "load this page again" in answer.text


def test_the_playground_begins_with_a_model_that_answers(managed: Managed) -> None:
    managed.gateway.catalogue = replace(managed.gateway.catalogue, demo=frozenset({"demo/cut", "demo/echo"}))
    sign_in(managed, TOKEN)
    assert 'name="model" list="models" required value="demo/echo"' in managed.client.get("/ui/playground").text
    narrow = managed.make("narrow", rights=Rights(models=("demo/cut",)))
    sign_in(managed, text(narrow))
    assert 'required value="demo/cut"' in managed.client.get("/ui/playground").text


def test_a_link_to_braintrust_needs_its_organisation(managed: Managed) -> None:
    id = called(managed)
    assert "In Braintrust" not in managed.client.get(f"/ui/requests/{id}").text
    named = {"BRAINTRUST_API_KEY": "bt", "BRAINTRUST_ORG_NAME": "An org", "BRAINTRUST_PROJECT": "p/q"}
    managed.gateway.shown_settings = Settings.load(named).shown()
    page = managed.client.get(f"/ui/requests/{id}").text
    assert 'href="https://www.braintrust.dev/app/An%20org/p/p%2Fq/logs"' in page
    assert ADMIN_TOKEN not in page
