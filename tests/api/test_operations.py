"""The routes that the table makes, and the dialect of what they refuse."""

from __future__ import annotations

import dataclasses
import io
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


#: A body with which the demo answers, for each operation that takes one.
BODIES: dict[str, Any] = {
    "chat": {"messages": [{"role": "user", "content": "hi"}]},
    "completions": {"prompt": "hi"},
    "embeddings": {"input": "hi"},
    "responses": {"input": "hi"},
    "responses.input_tokens": {"input": "hi"},
    "messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9},
    "messages.count_tokens": {"messages": [{"role": "user", "content": "hi"}]},
    "moderations": {"input": "hi"},
    "rerank": {"query": "hi", "documents": ["hi"]},
    "images.generations": {"prompt": "hi"},
    "images.edits": {"prompt": "hi", "image": b"a picture"},
    "images.variations": {"image": b"a picture"},
    "audio.transcriptions": {"file": b"a recording"},
    "audio.translations": {"file": b"a recording"},
    "audio.speech": {"input": "hi"},
    "files": {"file": b"some lines", "purpose": "batch"},
    "batches": {"input_file_id": "f", "endpoint": "/v1/chat/completions", "completion_window": "24h"},
}
#: What the demo answers, and nobody else here has anything.
ANSWERED = ("chat", "completions", "responses", "responses.input_tokens", "messages", "messages.count_tokens")
OTHERWISE = {
    **{row.name: 400 for row in ENDPOINTS if row.name not in (*ANSWERED, "models", "model")},
    **{row.name: 404 for row in ENDPOINTS if row.by_id},
    "batches": 404,  # of a file that nobody has uploaded
}
ASKING = [row for row in ENDPOINTS if row.method == "POST" and not row.by_id]


def sent(row: Endpoint, body: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a request with this body, as a form where the operation has one."""
    if not row.form:
        return {"json": body}
    return {
        "data": {
            name: (io.BytesIO(value), "a.bin") if isinstance(value, bytes) else str(value)
            for name, value in body.items()
        }
    }


def path_of(row: Endpoint) -> str:
    return row.path.replace("{id}", "demo/echo" if row.name == "model" else "resp_1")


@pytest.mark.parametrize("row", ENDPOINTS, ids=lambda row: row.name)
def test_every_operation_is_served_with_and_without_its_version(client: FlaskClient, row: Endpoint) -> None:
    body = {"model": "demo/echo", **BODIES[row.name]} if row in ASKING else {}
    expected = OTHERWISE.get(row.name, 200)
    for path in (path_of(row), path_of(row).removeprefix("/v1"), path_of(row) + "/"):
        assert client.open(path, method=row.method).status_code == 401
        got = client.open(path, method=row.method, headers=AUTH, **(sent(row, body) if body else {}))
        assert got.status_code == expected, got.text
        if row.by_id:
            assert got.json["error"]["code"] == "not_found", "the path is served; nothing is stored"  # type: ignore[index]


@pytest.mark.parametrize("row", ASKING, ids=lambda row: row.name)
def test_every_operation_reads_its_parameters_before_it_asks_anybody(client: FlaskClient, row: Endpoint) -> None:
    for body, param in (({}, "model"), ({"model": 5}, "model"), ({"model": "demo/echo", "stream": "yes"}, "stream")):
        untyped = row.form and body.get("model") == 5  # in a form it is the text "5"
        if param in row.parameters and not untyped and (body or "model" in row.required):
            got = client.post(path_of(row), headers=AUTH, **sent(row, {**BODIES[row.name], **body}))
            assert (got.status_code, got.json["error"]["param"]) == (400, param)  # type: ignore[index]
    if not row.names_model:
        return
    got = client.post(path_of(row), headers=AUTH, **sent(row, {**BODIES[row.name], "model": "nobody/has-this"}))
    assert (got.status_code, got.json["error"]["code"]) == (404, "model_not_found")  # type: ignore[index]


def test_nothing_else_is_served_under_a_version(client: FlaskClient) -> None:
    for method, path in (("POST", "/v1/nothing"), ("GET", "/v1/chat"), ("POST", "/v2/chat/completions")):
        assert client.open(path, method=method, headers=AUTH).status_code == 404
    for row in ENDPOINTS:
        allowed = {other.method for other in ENDPOINTS if other.path == row.path}
        for method in {"GET", "POST", "PUT", "DELETE", "PATCH"} - allowed:
            assert client.open(path_of(row), method=method, headers=AUTH).status_code in (404, 405)


def test_each_model_of_the_list_is_answered_or_refused_by_its_provider(client: FlaskClient) -> None:
    for model in client.get("/v1/models", headers=AUTH).json["data"]:  # type: ignore[index]
        body = {"model": model["id"], "messages": [{"role": "user", "content": "hi"}]}
        assert client.post("/v1/chat/completions", json=body, headers=AUTH).status_code == 200


@pytest.mark.parametrize("row", [row for row in ENDPOINTS if row.azure], ids=lambda row: row.name)
def test_azures_path_of_a_deployment_names_the_model(client: FlaskClient, row: Endpoint) -> None:
    path = row.azure_path.replace("{id}", "demo/echo") + "?api-version=2024-10-21"
    got = client.post(path, headers={"api-key": TOKEN}, **sent(row, BODIES[row.name]))
    assert got.status_code == OTHERWISE.get(row.name, 200), got.text
    got = client.post(path, headers={"api-key": TOKEN}, **sent(row, {**BODIES[row.name], "model": "nobody/has-this"}))
    assert got.status_code == OTHERWISE.get(row.name, 200), "the path decides"
    got = client.post(path.replace("demo/echo", "nobody/has-this"), headers=AUTH, **sent(row, BODIES[row.name]))
    assert (got.status_code, got.json["error"]["code"]) == (404, "model_not_found")  # type: ignore[index]


def test_of_lists_the_query_may_say_who_is_asked(client: FlaskClient) -> None:
    got = client.get("/v1/files?model=nobody/files", headers=AUTH)
    assert (got.status_code, got.json["error"]["code"]) == (404, "model_not_found")  # type: ignore[index]
