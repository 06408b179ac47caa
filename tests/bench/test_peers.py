"""Each gateway that is compared is laid out in a folder of its own, or says why it is absent."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.peers import CONTENDERS, KEY, gateway
from gateway import routes
from gateway.settings import Settings

PROVIDER: Any = SimpleNamespace(
    port=9, url="http://127.0.0.1:9", environment=lambda: {"OPENAI_API_BASE": "http://127.0.0.1:9/v1"}
)


@pytest.mark.parametrize("name", ["litellm", "tensorzero"])
def test_a_peer_that_is_not_installed_says_how_it_would_be(name: str, tmp_path: Path) -> None:
    assert "bench/peers.py" in (CONTENDERS[name](PROVIDER, tmp_path).absent or "")


@pytest.mark.parametrize("name", ["nginx", "litellm", "tensorzero"])
def test_a_peer_is_sent_to_the_provider_of_the_run(name: str, tmp_path: Path) -> None:
    contender = CONTENDERS[name](PROVIDER, tmp_path)
    contender.lay_out(tmp_path / name)
    assert any("127.0.0.1:9" in file.read_text() for file in (tmp_path / name).iterdir())


def test_names_are_those_of_the_table_of_contenders(tmp_path: Path) -> None:
    assert [make(PROVIDER, tmp_path).name for make in CONTENDERS.values()] == list(CONTENDERS)


@pytest.mark.parametrize(("lane", "relayed"), [("default", None), ("relay", "all")])
def test_the_gateway_is_started_as_an_operator_does(lane: str, relayed: str | None, tmp_path: Path) -> None:
    contender = gateway(PROVIDER, lane)
    assert contender.command[1:] == ["wsgi:app", "-b", f"127.0.0.1:{contender.port}"]
    assert contender.environment["GATEWAY_AUTH_TOKEN"] == KEY
    assert contender.environment["OPENAI_API_BASE"] == "http://127.0.0.1:9/v1"
    assert contender.environment.get("GATEWAY_RELAY") == relayed
    contender.lay_out(tmp_path / "home")
    assert (tmp_path / "home" / "gunicorn.conf.py").exists()
    assert not (tmp_path / "home" / ".env").exists()


def test_a_routes_file_of_many_deployments_is_one_that_the_gateway_takes(tmp_path: Path) -> None:
    contender = gateway(PROVIDER, "relay", deployments=50)
    contender.lay_out(tmp_path / "home")
    file = tmp_path / "home" / contender.environment["GATEWAY_CONFIG"]
    table = routes.read(Settings.load({"GATEWAY_CONFIG": str(file), "GATEWAY_RELAY": "all"}))
    assert all("a key stands in the file itself" in warning for warning in table.warnings)
    assert len({target.reach.api_key for target in table.aliases[contender.model].targets}) == 50
