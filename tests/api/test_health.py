"""Load balancers ask; nobody needs a key, and no model is called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from gateway.app import create_app
from gateway.pipeline import Gateway
from gateway.routes import Table
from gateway.routes.follower import RoutesFollower
from gateway.settings import SettingsError
from gateway.storage.database import StorageFailed
from gateway.storage.health import StoreHealth
from tests.builders import TOKEN, Recorder, Script, gateway, says

SCRIPT, TRACED = Script([says("never")]), Recorder()


@pytest.fixture
def client() -> Iterator[FlaskClient]:
    made = gateway(SCRIPT, TRACED)
    yield create_app(gateway=made).test_client()
    made.close(0.1)


@pytest.mark.parametrize("path", ["/health", "/health/liveness", "/health/liveliness", "/health/readiness", "/"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_it_is_well(client: FlaskClient, path: str, method: str) -> None:
    response = client.open(path, method=method)
    assert response.status_code == 200
    assert response.mimetype == "application/json"
    assert SCRIPT.opened == []
    assert TRACED.traces == []


def test_it_says_so(client: FlaskClient) -> None:
    assert client.get("/health").json == {"status": "ok"}


def test_readiness_says_how_the_stores_are_and_stays_200(client: FlaskClient) -> None:
    def away() -> None:
        raise StorageFailed("postgresql://db.example/name: the server cannot be reached")

    assert client.get("/health/readiness").json == {"status": "ok"}
    current: Gateway = client.application.extensions["gateway"]
    current.stores = StoreHealth({"database": lambda: None, "counters": away})
    response = client.get("/health/readiness")
    assert response.status_code == 200
    stores = {"database": {"status": "ok"}, "counters": {"status": "unavailable"}}
    assert response.json == {"status": "degraded", "stores": stores}
    assert "db.example" not in response.text, "anybody may ask"


def test_readiness_says_that_a_changed_routes_file_is_refused_and_not_what_is_wrong_with_it(
    client: FlaskClient, tmp_path: Path
) -> None:
    def fails() -> Table:
        raise SettingsError(["gateway.yaml:1:1: model_list is missing"])

    path = tmp_path / "gateway.yaml"
    current: Gateway = client.application.extensions["gateway"]
    current.routes = RoutesFollower(path, None, "", fails, lambda _table: None)
    assert client.get("/health/readiness").json == {"status": "ok", "routes": {"status": "ok"}}
    path.write_text("model_lst: []")
    current.routes.look()
    current.routes.look()
    response = client.get("/health/readiness")
    assert response.status_code == 200
    assert response.json == {"status": "degraded", "routes": {"status": "refused"}}


def test_the_front_door_says_where_to_go(client: FlaskClient) -> None:
    assert "POST /v1/chat/completions" in client.get("/").text


def test_nothing_can_be_posted(client: FlaskClient) -> None:
    assert client.post("/health", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 405
