"""OpenAI's dialect: the routes that the table makes, and the list of models."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from gateway.app import create_app
from gateway.core.endpoints import ENDPOINTS, Endpoint
from gateway.pipeline import Gateway
from tests.builders import TOKEN, catalogue, gateway

AUTH = {"Authorization": f"Bearer {TOKEN}"}
ROWS: dict[str, Any] = {
    "gpt-test": {"litellm_provider": "openai", "mode": "chat"},
    "claude-test": {"litellm_provider": "anthropic", "mode": "chat"},
    "an-embedding": {"litellm_provider": "openai", "mode": "embedding"},
}


@pytest.fixture
def made() -> Iterator[Gateway]:
    one = gateway()
    one.catalogue = dataclasses.replace(catalogue("openai", models=ROWS), demo=frozenset({"demo/echo"}))
    yield one
    one.close(0.1)


@pytest.fixture
def client(made: Gateway) -> FlaskClient:
    return create_app(gateway=made).test_client()


@pytest.mark.parametrize("row", ENDPOINTS, ids=lambda row: row.name)
def test_every_operation_is_served_with_and_without_its_version(client: FlaskClient, row: Endpoint) -> None:
    for path in (row.path, row.path.removeprefix("/v1"), row.path + "/"):
        assert client.open(path, method=row.method).status_code == 401
        assert client.open(path, method=row.method, headers=AUTH).status_code in (200, 400)


def test_nothing_else_is_served_under_a_version(client: FlaskClient) -> None:
    served = {(row.method, row.path) for row in ENDPOINTS}
    for method, path in {(row.method, row.path) for row in ENDPOINTS} | {("POST", "/v1/embeddings")}:
        expected = (200, 400) if (method, path) in served else (404,)
        assert client.open(path, method=method, headers=AUTH).status_code in expected


def test_the_models_are_those_that_can_be_called(client: FlaskClient) -> None:
    got = client.get("/v1/models", headers=AUTH).json
    assert got == {
        "object": "list",
        "data": [
            {"id": "demo/echo", "object": "model", "created": 0, "owned_by": "demo"},
            {"id": "gpt-test", "object": "model", "created": 0, "owned_by": "openai"},
        ],
    }


def test_each_model_of_the_list_is_answered_or_refused_by_its_provider(client: FlaskClient) -> None:
    for model in client.get("/v1/models", headers=AUTH).json["data"]:  # type: ignore[index]
        body = {"model": model["id"], "messages": [{"role": "user", "content": "hi"}]}
        assert client.post("/v1/chat/completions", json=body, headers=AUTH).status_code == 200
