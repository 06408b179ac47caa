"""The document as it is served: every route of the app stands in it, and what is answered is what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.app import create_app
from gateway.core.operations import OPERATIONS
from tests.builders import TOKEN, gateway
from tests.managed import ADMIN_TOKEN, BOSS, JSON, Managed, text


@pytest.fixture(scope="module")
def managed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Managed]:
    made = Managed(tmp_path_factory.mktemp("managed"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def document(managed: Managed) -> JSON:
    got: JSON = managed.got("GET", "/openapi.json")
    return got


def test_it_is_valid_and_every_known_caller_may_have_it(managed: Managed, document: JSON) -> None:
    OpenAPIV31SpecValidator(document).validate()
    assert managed.got("GET", "/openapi.json", key=TOKEN) == document
    assert managed.got("GET", "/openapi.json", key="nobody", status=401)["error"]["code"] == "invalid_api_key"


def routes_of(app: Any) -> set[tuple[str, str]]:
    """Method and path of each route, with its version where it is also served without."""
    whole = {
        (method, re.sub(r"<(?:\w+:)?\w+>", "{id}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    return {(method, path) for method, path in whole if (method, f"/v1{path}") not in whole}


def test_every_route_stands_in_it_and_nothing_else_does(managed: Managed, document: JSON) -> None:
    said = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert said == routes_of(managed.app)


def test_what_is_not_served_does_not_stand_in_it() -> None:
    made = gateway()
    client = create_app(gateway=made).test_client()
    answer = client.get("/openapi.json", headers={"api-key": TOKEN})
    assert answer.json is not None
    assert {(method.upper(), path) for path, methods in answer.json["paths"].items() for method in methods} == (
        routes_of(client.application)
    )
    made.close(0.1)


RULE = {"name": "a", "measure": "tokens", "most": 1, "period": "day"}
#: Where nothing is stored, or the demo has no such operation.
OTHERWISE = {
    **dict.fromkeys(("/v1/responses/{id}", "/v1/files/{id}", "/v1/batches/{id}"), 404),
    **{
        f"{place}{path}": 400
        for place in ("/v1", "/openai/deployments/{id}")
        for path in ("/images", "/audio", "/embeddings")
    },
    **dict.fromkeys(("/v1/moderations", "/v1/rerank", "/v1/files", "/v1/batches"), 400),
}


def checked(document: JSON, answer: Any, method: str, path: str) -> None:
    """Compare an answer with what the document says of it."""
    said = document["paths"][path][method.lower()]["responses"]
    described = said.get(str(answer.status_code), said["default"])
    assert answer.status_code < 400 or str(answer.status_code) not in said
    content = described["content"][answer.mimetype]
    value = answer.json if answer.mimetype == "application/json" else answer.text
    Draft202012Validator({**content["schema"], "components": document["components"]}).validate(value)


def test_every_example_is_answered_as_the_document_says(managed: Managed, document: JSON) -> None:
    asked = set()
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            id = "demo/echo" if path == "/v1/models/{id}" else "nobody"
            if path.startswith("/admin/v1/keys"):
                id = managed.make().key.id
            elif found := re.match(r"/admin/v1/(project|user)s", path):
                accounts = getattr(managed.directory, f"{found[1]}s")
                id = accounts.create(f"{method} {path}", BOSS).id
            elif found := re.match(r"/admin/v1/(limit|budget)s", path):
                rules = getattr(managed.directory, f"{found[1]}s")
                id = rules.create({**RULE, "measure": {"limit": "tokens", "budget": "usd"}[found[1]]}, BOSS).rule.id
            elif path.startswith("/openai/deployments/"):
                id = "demo/echo"
            content = said.get("requestBody", {}).get("content", {})
            asked.add((method.upper(), path))
            if "multipart/form-data" in content:
                continue  # an example of bytes is none
            body = content.get("application/json", {}).get("example")
            if body is not None and "model" in body:
                body = {**body, "model": "demo/echo"}
            key = ADMIN_TOKEN if path.startswith(("/admin", "/metrics")) else TOKEN
            answer = managed.ask(method.upper(), path.replace("{id}", id), body, key=key)
            if (method, path) == ("post", "/v1/batches"):
                assert answer.status_code == 404, "of a file that nobody has uploaded"
                continue
            otherwise = next((status for place, status in OTHERWISE.items() if path.startswith(place)), None)
            assert answer.status_code in ((otherwise,) if otherwise else (200, 201)), (method, path, answer.text)
            checked(document, answer, method, path)
    assert asked == routes_of(managed.app)


def test_failures_are_as_the_document_says(managed: Managed, document: JSON) -> None:
    plain = text(managed.make("plain"))
    for row in OPERATIONS:
        if row.needs == "public":
            continue
        path = row.path.replace("{id}", "nobody")
        for key in ("nobody", plain, ADMIN_TOKEN):
            checked(document, managed.ask(row.method, path, key=key), row.method, row.path)
    for path in ("/v1/messages", "/v1/responses", "/v1/chat/completions"):
        checked(document, managed.ask("POST", path, {}, key=TOKEN), "POST", path)


def test_lists_with_something_in_them_are_as_the_document_says(managed: Managed, document: JSON) -> None:
    issued = managed.make("lived")
    full = {"match": {"key": issued.key.id, "model": "demo/*"}, "each": ["key"]}
    for kind, more in (("limits", {}), ("budgets", {"measure": "usd", "most": 0.5, "soft": 0.5})):
        asked = {**RULE, **full, **more, **({"webhook": "https://a.example"} if more else {})}
        one = managed.got("POST", f"/admin/v1/{kind}", asked, status=201)
        shown = managed.ask("GET", f"/admin/v1/{kind}/{one['id']}?subject={issued.key.id}")
        assert shown.json is not None
        assert shown.json["standing"] is not None
        checked(document, shown, "GET", f"/admin/v1/{kind}/{{id}}")
        checked(document, managed.ask("GET", f"/admin/v1/{kind}"), "GET", f"/admin/v1/{kind}")
    managed.rules.poll()
    mine = managed.ask("GET", "/v1/me", key=text(issued))
    assert mine.json is not None
    for kind in ("limits", "budgets"):
        assert issued.key.id in [one["match"].get("key") for one in mine.json[kind]]
    checked(document, mine, "GET", "/v1/me")
    managed.got("GET", "/v1/me", key=text(issued))
    managed.got("POST", f"/admin/v1/keys/{issued.key.id}/rotate", {})
    managed.got("DELETE", f"/admin/v1/keys/{issued.key.id}")
    for path in ("/admin/v1/keys", "/admin/v1/audit", "/admin/v1/projects", "/admin/v1/users"):
        query = "?limit=2" + ("&deleted=true" if path.endswith("keys") else "")
        checked(document, managed.ask("GET", path + query), "GET", path)
