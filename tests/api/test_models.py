"""The models that can be called, in OpenAI's shape and in Anthropic's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import anthropic.types
import openai.types
import pytest
from flask.testing import FlaskClient

from gateway.app import create_app
from tests.builders import TOKEN, catalogue, gateway

JSON = dict[str, Any]

AUTH = {"Authorization": f"Bearer {TOKEN}"}
ANTHROPIC = {"x-api-key": TOKEN, "anthropic-version": "2023-06-01"}
ROWS: JSON = {
    "gpt-test": {"litellm_provider": "openai", "mode": "chat", "max_output_tokens": 4096},
    "claude-test": {"litellm_provider": "anthropic", "mode": "chat"},
    "an-embedding": {"litellm_provider": "openai", "mode": "embedding"},
    "a-film": {"litellm_provider": "openai", "mode": "video_generation"},
}
LISTED = ["demo/echo", "gpt-test", "an-embedding"]


@pytest.fixture
def client() -> Iterator[FlaskClient]:
    one = gateway()
    one.catalogue = dataclasses.replace(catalogue("openai", models=ROWS), demo=frozenset({"demo/echo"}))
    yield create_app(gateway=one).test_client()
    one.close(0.1)


def got(client: FlaskClient, path: str, headers: dict[str, str] = AUTH, status: int = 200) -> JSON:
    answered = client.get(path, headers=headers)
    assert answered.status_code == status, answered.text
    document: JSON = answered.json or {}
    return document


def test_the_models_are_those_that_can_be_called(client: FlaskClient) -> None:
    assert got(client, "/v1/models") == {
        "object": "list",
        "data": [
            {"id": "demo/echo", "object": "model", "created": 0, "owned_by": "demo"},
            {"id": "gpt-test", "object": "model", "created": 0, "owned_by": "openai"},
            {"id": "an-embedding", "object": "model", "created": 0, "owned_by": "openai"},
        ],
    }
    for model in got(client, "/v1/models")["data"]:
        assert openai.types.Model.model_validate(model, strict=True)


def test_anthropics_clients_get_their_own_shape(client: FlaskClient) -> None:
    page = got(client, "/v1/models", ANTHROPIC)
    assert [model["id"] for model in page["data"]] == LISTED
    assert (page["has_more"], page["first_id"], page["last_id"]) == (False, "demo/echo", "an-embedding")
    for model in page["data"]:
        assert anthropic.types.ModelInfo.model_validate(model)


@pytest.mark.parametrize(
    ("query", "ids", "more"),
    [
        ("limit=2", LISTED[:2], True),
        ("limit=3", LISTED, False),
        ("after_id=demo/echo", LISTED[1:], False),
        ("after_id=demo/echo&limit=1", LISTED[1:2], True),
        ("before_id=an-embedding", LISTED[:2], False),
        ("before_id=an-embedding&limit=1", LISTED[1:2], True),
        ("after_id=an-embedding", [], False),
        ("after_id=gpt-test&before_id=gpt-test", [], False),
    ],
)
def test_anthropics_list_comes_in_pages(client: FlaskClient, query: str, ids: list[str], more: bool) -> None:
    page = got(client, f"/v1/models?{query}", ANTHROPIC)
    assert ([model["id"] for model in page["data"]], page["has_more"]) == (ids, more)
    assert page["first_id"] == (ids[0] if ids else None)


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "limit=-1", "limit=000000001000000000", "after_id=nobody", "before_id="],
)
def test_a_page_that_there_is_not_is_refused_in_anthropics_dialect(client: FlaskClient, query: str) -> None:
    refused = got(client, f"/v1/models?{query}", ANTHROPIC, 400)
    assert (refused["type"], refused["error"]["type"]) == ("error", "invalid_request_error")
    assert refused["error"]["param"] == query.partition("=")[0]


@pytest.mark.parametrize("name", ["gpt-test", "openai/gpt-test", "openai/not-in-any-map", "demo/echo"])
def test_one_model_is_found_if_it_can_be_called(client: FlaskClient, name: str) -> None:
    assert got(client, f"/v1/models/{name}")["id"] == name
    theirs = got(client, f"/models/{name}", ANTHROPIC)
    assert (theirs["id"], theirs["display_name"], theirs["lifecycle"]) == (name, name, "active")
    assert theirs["max_tokens"] == (4096 if name == "gpt-test" else None)


@pytest.mark.parametrize(("name", "status"), [("nobody", 404), ("nobody/x", 404), ("anthropic/claude-test", 503)])
def test_one_that_cannot_is_refused_in_the_callers_dialect(client: FlaskClient, name: str, status: int) -> None:
    assert got(client, f"/v1/models/{name}", AUTH, status)["error"]["code"]
    theirs = got(client, f"/v1/models/{name}", ANTHROPIC, status)
    assert theirs["error"]["type"] == {404: "not_found_error", 503: "api_error"}[status]
    assert theirs["request_id"].startswith("req_")


def test_who_is_not_known_sees_no_models_in_either_dialect(client: FlaskClient) -> None:
    assert got(client, "/v1/models", {}, 401)["error"]["code"] == "invalid_api_key"
    theirs = got(client, "/v1/models", {"anthropic-version": "2023-06-01"}, 401)
    assert theirs["error"]["type"] == "authentication_error"
