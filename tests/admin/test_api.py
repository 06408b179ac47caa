"""Keys, projects, users and the audit over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.app import create_app
from gateway.core.operations import MANAGING, Operation
from gateway.core.rights import ADMIN, CALL, Rights
from tests.builders import TOKEN, gateway
from tests.managed import ADMIN_TOKEN, BOSS, JSON, Managed, text

KEYS, PROJECTS, USERS, AUDIT = (f"/admin/v1/{name}" for name in ("keys", "projects", "users", "audit"))
CHAT = {"model": "demo/echo", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def managed(tmp_path: Path) -> Iterator[Managed]:
    made = Managed(tmp_path)
    yield made
    made.close()


def calls(managed: Managed, key: str, model: str = "demo/echo") -> int:
    managed.keys.poll()
    return managed.ask("POST", "/v1/chat/completions", {**CHAT, "model": model}, key=key).status_code


# Keys.


def test_a_key_is_made_used_limited_rotated_and_deleted(managed: Managed) -> None:
    project = managed.got("POST", PROJECTS, {"name": "shop"}, status=201)
    user = managed.got("POST", USERS, {"name": "ann@example.com"}, status=201)
    wanted = {
        "name": "checkout",
        "rights": {"models": ["demo/*"]},
        "project": project["id"],
        "user": user["id"],
        "tags": ["web"],
        "expires": time.time() + 3600,
    }
    made = managed.got("POST", KEYS, wanted, status=201)
    assert {name: made[name] for name in wanted if name != "rights"} == {
        name: value for name, value in wanted.items() if name != "rights"
    }
    assert made["rights"] == {"scopes": ["call"], "models": ["demo/*"], "endpoints": ["*"], "parents": []}
    assert (made["state"], made["project_name"], made["user_name"]) == ("active", "shop", "ann@example.com")
    key, path = made.pop("key"), f"{KEYS}/{made['id']}"
    assert calls(managed, key) == 200
    assert managed.got("GET", path) == {**made, "used": managed.directory.keys.show(made["id"]).used_s}

    changed = managed.got("PATCH", path, {"rights": {"models": ["openai/*"]}, "expires": None, "name": "till"})
    assert changed["rights"] == {**made["rights"], "models": ["openai/*"]}
    assert (changed["expires"], changed["name"], changed["tags"]) == (None, "till", ["web"])
    assert calls(managed, key) == 403

    managed.got("PATCH", path, {"rights": {"models": ["*"]}, "tags": []})
    rotated = managed.got("POST", f"{path}/rotate", {"overlap_s": 60})
    assert [calls(managed, one) for one in (key, rotated["key"])] == [200, 200]
    assert [one["ends"] is None for one in rotated["secrets"]] == [False, True]
    last = managed.got("POST", f"{path}/rotate", {"overlap_s": 0})
    assert [calls(managed, one) for one in (key, rotated["key"], last["key"])] == [401, 401, 200]

    assert managed.got("PATCH", path, {"disabled": True})["state"] == "disabled"
    assert calls(managed, last["key"]) == 401
    assert managed.got("PATCH", path, {"disabled": False})["state"] == "active"
    assert calls(managed, last["key"]) == 200

    assert managed.got("DELETE", path) == {"object": "key.deleted", "id": made["id"], "deleted": True}
    assert calls(managed, last["key"]) == 401
    assert managed.got("GET", path)["state"] == "deleted"
    assert managed.got("DELETE", path, status=409)["error"]["code"] == "conflict"


def test_a_rotation_without_a_body_has_the_usual_overlap(managed: Managed) -> None:
    issued = managed.make()
    rotated = managed.got("POST", f"{KEYS}/{issued.key.id}/rotate")
    assert rotated["secrets"][0]["ends"] == pytest.approx(time.time() + 86_400, abs=60)


def test_the_key_itself_is_in_the_answer_that_made_it_and_in_no_other(managed: Managed) -> None:
    asked = {"name": "once"}
    first = managed.got("POST", KEYS, asked, status=201, Idempotency_Key="req 1")
    again = managed.got("POST", KEYS, asked, Idempotency_Key="req 1")
    assert again == {**first, "key": None}
    secret = first["key"].rpartition("-")[2]
    path = f"{KEYS}/{first['id']}"
    answers = [managed.ask("GET", where).text for where in (path, KEYS, AUDIT, f"{KEYS}?deleted=true")]
    answers.append(managed.ask("PATCH", path, {"name": "twice"}).text)
    answers.append(managed.ask("GET", "/v1/me", key=first["key"]).text)
    answers.append(json.dumps([managed.traced.traces, managed.traced.begun]))
    assert [answer for answer in answers if secret in answer] == []


@pytest.mark.parametrize(("path", "other"), [(KEYS, {"name": "b"}), (PROJECTS, {"name": "b"}), (USERS, {"name": "b"})])
def test_a_request_that_comes_again_makes_nothing_again(managed: Managed, path: str, other: JSON) -> None:
    first = managed.got("POST", path, {"name": "a"}, status=201, Idempotency_Key="one")
    again = managed.ask("POST", path, {"name": "a"}, Idempotency_Key="one")
    assert again.status_code in (200, 201)
    assert again.json is not None
    assert again.json["id"] == first["id"]
    assert len(managed.got("GET", path)["data"]) == 1
    refused = managed.got("POST", path, other, status=409, Idempotency_Key="one")
    assert (refused["error"]["code"], refused["error"]["param"]) == ("conflict", "idempotency-key")
    assert managed.got("POST", path, other, status=201, Idempotency_Key="two")["id"] != first["id"]
    assert managed.got("POST", path, {"name": "c"}, status=400, Idempotency_Key="x" * 256)["error"]["code"] is None


def test_two_admins_idempotency_keys_are_their_own(managed: Managed) -> None:
    admin = text(managed.make("admin", rights=Rights(frozenset({ADMIN, CALL}))))
    mine = managed.got("POST", PROJECTS, {"name": "mine"}, status=201, Idempotency_Key="one")
    theirs = managed.got("POST", PROJECTS, {"name": "theirs"}, status=201, Idempotency_Key="one", key=admin)
    assert mine["id"] != theirs["id"]


# Lists.


def pages(managed: Managed, path: str, limit: int = 2) -> list[JSON]:
    """All of a list, page by page."""
    found: list[JSON] = []
    after = ""
    while True:
        page = managed.got("GET", f"{path}{'&' if '?' in path else '?'}limit={limit}{after}")
        assert page["object"] == "list"
        assert page["has_more"] is (page["next"] is not None)
        assert len(page["data"]) <= limit
        found += page["data"]
        if not page["has_more"]:
            return found
        assert len(page["data"]) == limit
        after = f"&after={page['next']}"


@pytest.mark.parametrize("path", [KEYS, PROJECTS, USERS])
def test_a_list_comes_in_pages_newest_first_and_each_thing_once(managed: Managed, path: str) -> None:
    made = [managed.got("POST", path, {"name": f"n{number}"}, status=201)["id"] for number in range(5)]
    assert [one["id"] for one in pages(managed, path)] == made[::-1]
    audited = [line["target"] for line in pages(managed, f"{AUDIT}?kind={path.rpartition('/')[2][:-1]}")]
    assert audited == made[::-1]


def test_a_list_of_keys_is_of_whom_one_asks_for(managed: Managed) -> None:
    project, user = (managed.got("POST", path, {"name": "a"}, status=201)["id"] for path in (PROJECTS, USERS))
    parent = managed.make("parent").key.id
    ids = {
        "project": managed.make("p", project=project).key.id,
        "user": managed.make("u", user=user).key.id,
        "parent": managed.make("c", parent=parent).key.id,
    }
    for name, of in (("project", project), ("user", user), ("parent", parent)):
        assert [key["id"] for key in managed.got("GET", f"{KEYS}?{name}={of}")["data"]] == [ids[name]]
    managed.directory.keys.delete(ids["user"], BOSS)
    assert len(managed.got("GET", KEYS)["data"]) == 3
    assert len(managed.got("GET", f"{KEYS}?deleted=true")["data"]) == 4
    assert len(managed.got("GET", f"{KEYS}?deleted=false")["data"]) == 3


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=", "limit"),
        ("limit=ten", "limit"),
        ("after=", "after"),
        ("deleted=yes", "deleted"),
        ("projects=a", "projects"),
    ],
)
def test_a_query_that_cannot_be_used_is_named(managed: Managed, query: str, param: str) -> None:
    assert managed.got("GET", f"{KEYS}?{query}", status=400)["error"]["param"] == param


def test_a_page_after_nothing_is_not_found(managed: Managed) -> None:
    for path in (KEYS, PROJECTS, USERS):
        assert managed.got("GET", f"{path}?after=nobody", status=404)["error"]["code"] == "not_found"
    assert managed.got("GET", f"{AUDIT}?after=1")["data"] == []
    assert managed.got("GET", f"{AUDIT}?after=nobody", status=400)["error"]["param"] == "after"


# What is refused.

#: A value of each type that none of the others is.
OTHERS: JSON = {
    "name": 1,
    "rights": [],
    "project": 1,
    "user": 1,
    "parent": 1,
    "tags": "a",
    "expires": "soon",
    "measure": 1,
    "most": [],
    "period": 1,
    "match": [],
    "each": "key",
    "soft": "most",
    "webhook": 1,
}
RULE: JSON = {"name": "a", "measure": "tokens", "most": 10, "period": "day"}
TAKING = [row for row in MANAGING if row.body is not None]


def path_of(managed: Managed, row: Operation) -> str:
    """The path of an operation, about something that is there."""
    made: JSON = {
        "keys": lambda: managed.make().key.id,
        "projects": lambda: managed.got("POST", PROJECTS, {"name": f"p{time.time()}"}, status=201)["id"],
        "users": lambda: managed.got("POST", USERS, {"name": f"u{time.time()}"}, status=201)["id"],
        "limits": lambda: managed.got("POST", "/admin/v1/limits", RULE, status=201)["id"],
        "budgets": lambda: managed.got("POST", "/admin/v1/budgets", RULE, status=201)["id"],
    }
    return row.path.replace("{id}", made[row.name.partition(".")[0]]()) if "{id}" in row.path else row.path


def good_for(row: Operation) -> JSON:
    """The smallest body that an operation takes."""
    return {name: RULE[name] for name, field in (row.body or {}).items() if field.required} | (
        {"period": "day"} if "period" in (row.body or {}) else {}
    )


@pytest.mark.parametrize("row", TAKING, ids=lambda row: row.name)
def test_a_field_that_is_not_known_is_named_and_nothing_happens(managed: Managed, row: Operation) -> None:
    path = path_of(managed, row)
    before = managed.got("GET", AUDIT)
    good = good_for(row)
    error = managed.got(row.method, path, {**good, "nmae": "b"}, status=400)["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "nmae")
    assert managed.got("GET", AUDIT) == before
    assert managed.got(row.method, f"{path}?nmae=b", good, status=400)["error"]["param"] == "nmae"


@pytest.mark.parametrize("row", TAKING, ids=lambda row: row.name)
def test_every_field_is_checked_by_its_type(managed: Managed, row: Operation) -> None:
    path = path_of(managed, row)
    good = good_for(row)
    for name in row.body or {}:
        wrong = OTHERS.get(name, "wrong")
        assert managed.got(row.method, path, {**good, name: wrong}, status=400)["error"]["param"] == name
        expected = 400 if name not in row.clears else 200
        refused = managed.ask(row.method, path, {**good, name: None})
        assert refused.status_code == expected, name


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": " a"}, "name"),
        ({"name": "a", "rights": {"modles": []}}, "rights"),
        ({"name": "a", "rights": {"scopes": ["root"]}}, "scopes"),
        ({"name": "a", "rights": {"endpoints": ["chats"]}}, "endpoints"),
        ({"name": "a", "rights": {"models": "*"}}, "models"),
        ({"name": "a", "rights": {"parents": ["x"]}}, "parents"),
        ({"name": "a", "tags": ["a\n"]}, "tags"),
        ({"name": "a", "expires": 1}, "expires"),
        ({"name": "a", "expires": 1e300}, "expires"),
    ],
)
def test_a_key_that_cannot_be_is_refused_by_the_field_at_fault(managed: Managed, asked: JSON, param: str) -> None:
    assert managed.got("POST", KEYS, asked, status=400)["error"]["param"] == param
    assert managed.got("GET", KEYS)["data"] == []


@pytest.mark.parametrize("raw", [b"[]", b"{", b'{"name":"a","name":"b"}', b'{"name":NaN}', b"\xff", b'"a"'])
def test_a_body_that_is_no_json_object_is_refused(managed: Managed, raw: bytes) -> None:
    assert managed.got("POST", KEYS, raw, status=400)["error"]["code"] == "invalid_json"


def test_a_body_is_not_read_beyond_what_is_of_use(managed: Managed) -> None:
    assert managed.got("POST", KEYS, b" " * (2 << 20), status=413)["error"]["code"] == "request_too_large"


@pytest.mark.parametrize("row", [row for row in MANAGING if "{id}" in row.path], ids=lambda row: row.name)
@pytest.mark.parametrize("id", ["nobody", "000000000000", "%00", "%F0%9F%94%91", "x" * 3000, "..%2f"])
def test_what_is_not_there_is_not_found(managed: Managed, row: Operation, id: str) -> None:
    body = {} if row.body is not None else None
    answer = managed.ask(row.method, row.path.replace("{id}", id), body)
    assert answer.status_code == 404
    assert answer.json is not None
    assert answer.json["error"]["code"] in ("not_found", "unknown_url")


@pytest.mark.parametrize("field", ["project", "user", "parent"])
def test_a_key_of_nobody_is_not_made(managed: Managed, field: str) -> None:
    managed.got("POST", KEYS, {"name": "a", field: "nobody"}, status=404)
    assert managed.got("GET", KEYS)["data"] == []


def test_a_name_that_is_taken_is_a_conflict(managed: Managed) -> None:
    for path in (PROJECTS, USERS):
        first = managed.got("POST", path, {"name": "a"}, status=201)
        assert managed.got("POST", path, {"name": "a"}, status=409)["error"]["param"] == "name"
        other = managed.got("POST", path, {"name": "b"}, status=201)
        assert managed.got("PATCH", f"{path}/{other['id']}", {"name": "a"}, status=409)["error"]["param"] == "name"
        assert managed.got("GET", f"{path}/{first['id']}") == first


def test_an_admin_gives_and_manages_no_more_than_it_may_itself(managed: Managed) -> None:
    admin = text(managed.make("admin", rights=Rights(frozenset({ADMIN, CALL}), models=("demo/*",))))
    other = managed.make("wide")
    path = f"{KEYS}/{other.key.id}"
    refusals = [
        managed.got("POST", KEYS, {"name": "a"}, status=403, key=admin),
        managed.got("POST", KEYS, {"name": "a", "rights": {"scopes": ["metrics"]}}, status=403, key=admin),
        managed.got("PATCH", path, {"name": "b"}, status=403, key=admin),
        managed.got("POST", f"{path}/rotate", {}, status=403, key=admin),
        managed.got("DELETE", path, status=403, key=admin),
    ]
    assert {refused["error"]["code"] for refused in refusals} == {"rights_exceeded"}
    mine = managed.got("POST", KEYS, {"name": "a", "rights": {"models": ["demo/echo"]}}, status=201, key=admin)
    wider = {"rights": {"models": ["openai/*"]}}
    assert managed.got("PATCH", f"{KEYS}/{mine['id']}", wider, status=403, key=admin)["error"]["code"]
    assert managed.got("GET", f"{KEYS}/{mine['id']}")["rights"]["models"] == ["demo/echo"]
    assert managed.got("GET", f"{KEYS}/{mine['id']}")["created_by"].startswith("key_")


@pytest.mark.parametrize("row", MANAGING, ids=lambda row: row.name)
def test_who_is_no_admin_manages_nothing(managed: Managed, row: Operation) -> None:
    path = path_of(managed, row)
    before = managed.got("GET", AUDIT)
    for key, status in ((TOKEN, 403), (text(managed.make("plain")), 403), ("nobody", 401)):
        assert managed.ask(row.method, path, {"name": "a"}, key=key).status_code == status
    assert [line["target"] for line in managed.got("GET", AUDIT)["data"]][1:] == [
        line["target"] for line in before["data"]
    ]


@pytest.mark.parametrize("change", ["disabled", "deleted", "rotated", "expired", "narrowed", "project", "parent"])
def test_an_admin_that_is_revoked_manages_nothing_though_its_worker_has_not_heard_of_it(
    managed: Managed, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(managed.keys, "poll", lambda: None)
    keys, rights = managed.directory.keys, Rights(frozenset({ADMIN, CALL}))
    project = managed.directory.projects.create("ops", BOSS)
    above = managed.make("above", rights=rights)
    made = managed.make("admin", rights=rights, project=project.id, parent=above.key.id)
    paths = [(row, path_of(managed, row)) for row in MANAGING]
    managed.got("GET", KEYS, key=text(made))
    known = dict(managed.keys._known)
    {
        "disabled": lambda: keys.change(made.key.id, BOSS, {"disabled": True}),
        "deleted": lambda: keys.delete(made.key.id, BOSS),
        "rotated": lambda: keys.rotate(made.key.id, BOSS, 0),
        "expired": lambda: keys.change(made.key.id, BOSS, {"expires_s": time.time() - 1}),
        "narrowed": lambda: keys.change(made.key.id, BOSS, {"rights": {"scopes": [CALL]}}),
        "project": lambda: managed.directory.projects.change(project.id, BOSS, disabled=True),
        "parent": lambda: keys.delete(above.key.id, BOSS),
    }[change]()
    before = managed.got("GET", AUDIT)
    for row, path in paths:
        managed.keys._known = dict(known)
        assert managed.keys.verify(text(made).encode()) is not None, "its worker has not heard of it"
        refused = managed.ask(row.method, path, {"name": "successor"} if row.body is not None else None, key=text(made))
        assert refused.status_code == (403 if change == "narrowed" else 401)
    assert managed.got("GET", AUDIT) == before
    assert (managed.keys.verify(text(made).encode()) is None) == (change != "narrowed"), "now it has heard"


def test_an_admin_has_at_once_what_it_was_given_meanwhile(managed: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(managed.keys, "poll", lambda: None)
    made = managed.make("admin", rights=Rights(frozenset({ADMIN}), models=("demo/*",)))
    asked = {"name": "a", "rights": {"scopes": ["admin"], "models": ["openai/*"]}}
    managed.got("POST", KEYS, asked, status=403, key=text(made))
    managed.directory.keys.change(made.key.id, BOSS, {"rights": {"models": ["*"]}})
    managed.got("POST", KEYS, asked, status=201, key=text(made))


def test_who_is_no_admin_costs_no_look_into_the_database(managed: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    key = text(managed.make("plain"))
    managed.got("GET", "/v1/me", key=key)
    monkeypatch.setattr(managed.keys, "verify_anew", lambda _credential: pytest.fail("it was looked up"))
    managed.got("GET", KEYS, status=403, key=key)


def test_where_nobody_can_be_managed_nothing_is_there() -> None:
    made = gateway()
    client = create_app(gateway=made).test_client()
    for row in MANAGING:
        answer = client.open(row.path.replace("{id}", "a"), method=row.method, headers={"api-key": TOKEN})
        assert (answer.status_code, answer.json and answer.json["error"]["code"]) == (404, "unknown_url")
    made.close(0.1)


# The store is away.


@pytest.mark.parametrize("row", MANAGING, ids=lambda row: row.name)
def test_while_the_store_is_away_it_is_worth_a_retry(managed: Managed, row: Operation) -> None:
    path = path_of(managed, row)
    Path(managed.database.name).rename(Path(managed.database.name).with_name("aside.db"))
    body = good_for(row) if row.body is not None else None
    answer = managed.ask(row.method, path, body)
    assert (answer.status_code, answer.json and answer.json["error"]["code"]) == (503, "store_unavailable")
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["x-should-retry"] == "true"
    assert managed.database.name not in answer.text


# The audit.


def test_every_change_is_in_the_audit_with_who_and_by_which_request(managed: Managed) -> None:
    made = managed.ask("POST", KEYS, {"name": "a", "tags": ["x"]})
    assert made.json is not None
    path = f"{KEYS}/{made.json['id']}"
    done = [made, managed.ask("PATCH", path, {"tags": []}), managed.ask("POST", f"{path}/rotate", {"overlap_s": 5})]
    done.append(managed.ask("DELETE", path))
    managed.ask("GET", path)
    managed.ask("PATCH", path, {"name": "late"})
    lines = managed.got("GET", f"{AUDIT}?target={made.json['id']}&kind=key")["data"][::-1]
    assert [line["action"] for line in lines] == ["create", "change", "rotate", "delete"]
    assert [line["request_id"] for line in lines] == [answer.headers["request-id"] for answer in done]
    assert {line["actor"] for line in lines} == {managed.got("GET", "/v1/me")["id"]}
    assert [line["details"] for line in lines[1:]] == [{"tags": []}, {"overlap_s": 5}, {}]
    assert managed.got("GET", f"{AUDIT}?kind=user")["data"] == []


def test_two_changes_of_one_keys_rights_at_once_are_both_kept(managed: Managed) -> None:
    path = f"{KEYS}/{managed.make().key.id}"
    managed.got("PATCH", path, {"rights": {"models": ["demo/*"]}})
    managed.got("PATCH", path, {"rights": {"endpoints": ["chat"]}})
    rights = managed.got("PATCH", path, {"rights": {}})["rights"]
    assert rights == {"scopes": ["call"], "models": ["demo/*"], "endpoints": ["chat"], "parents": []}


def test_a_disabled_project_or_user_stops_its_keys_and_can_be_resumed(managed: Managed) -> None:
    for path, field in ((PROJECTS, "project"), (USERS, "user")):
        account = managed.got("POST", path, {"name": "a"}, status=201)
        key = text(managed.make("k", **{field: account["id"]}))
        for disabled, status in ((True, 401), (False, 200)):
            changed = managed.got("PATCH", f"{path}/{account['id']}", {"disabled": disabled})
            assert changed == {**account, "disabled": disabled}
            assert calls(managed, key) == status
        assert managed.got("DELETE", f"{path}/{account['id']}", status=405)["error"]["code"] == "method_not_allowed"


# Traces.


def test_no_trace_has_a_body_of_an_admins(managed: Managed) -> None:
    managed.ask("POST", KEYS, {"name": "canary-one", "tags": ["canary-two"]})
    managed.ask("POST", KEYS, {"name": "canary-three", "tags": 1})
    managed.ask("POST", KEYS, b'{"name":"canary-four"')
    managed.ask("POST", KEYS, {"name": "canary-five"}, key=TOKEN)
    assert [root["metadata"]["status"] for root in managed.traced.roots] == [400, 400, 403]
    assert "canary" not in json.dumps([managed.traced.traces, managed.traced.begun])


def test_the_dialect_of_an_admins_errors_is_openais_whoever_asks(managed: Managed) -> None:
    refused = managed.got("POST", KEYS, {}, status=400, anthropic_version="2023-06-01")
    assert set(refused) == {"error"}
    assert refused["error"]["source"] == "gateway"


def test_a_key_in_a_wrong_place_is_not_repeated_in_the_answer(managed: Managed) -> None:
    key = text(managed.make())
    for answer in (
        managed.ask("GET", f"{KEYS}/{key}"),
        managed.ask("GET", f"/v1/{key}"),
        managed.ask("POST", KEYS, {key: 1}),
        managed.ask("POST", "/v1/chat/completions", {**CHAT, "model": key}, key=TOKEN),
    ):
        assert answer.status_code in (400, 404)
        assert key.rpartition("-")[2] not in answer.text


def test_the_admin_token_is_in_no_answer(managed: Managed) -> None:
    answers = [managed.ask(row.method, path_of(managed, row), {"name": "z"}).text for row in MANAGING]
    assert [answer for answer in answers if ADMIN_TOKEN in answer] == []
