"""The gateway that settings make."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.core.routing import plan
from gateway.errors import ModelNotFound, ProviderNotConfigured
from gateway.secret import Secret
from gateway.settings import Settings, SettingsError
from gateway.tracing.console import Console
from gateway.tracing.spool import Spool
from gateway.upstream.files import StoredFiles
from gateway.upstream.scripted import MODELS
from tests.assembly.building import build


def test_with_nothing_set_the_demo_answers_and_the_log_has_the_traces() -> None:
    made = build()
    assert made.catalogue.demo == {f"demo/{name}" for name in MODELS}
    assert [type(sink) for sink in made.tracer._sinks] == [Spool, Console]
    assert list(made.tracer.backlogs()) == ["local"]
    assert [type(sink) for sink in build(GATEWAY_LOCAL_TRACES="off").tracer._sinks] == [Console]
    assert made.preload is None
    with pytest.raises(ProviderNotConfigured):
        plan("openai/gpt-4o", made.catalogue)


def test_with_a_key_its_provider_is_called_and_litellm_is_loaded_before_the_fork() -> None:
    made = build(OPENAI_API_KEY="hunter2-openai", OPENAI_BASE_URL="https://here.example/v1")
    [attempt] = plan("gpt-4o", made.catalogue)
    assert attempt.deployment.api_key == Secret("hunter2-openai")
    assert attempt.deployment.api_base == "https://here.example/v1"
    assert made.preload is not None
    assert isinstance(made.upstreams["litellm"], StoredFiles)
    with pytest.raises(ModelNotFound):
        plan("demo/echo", made.catalogue)


@pytest.mark.parametrize("relay", ["all", "openai"])
def test_where_all_is_relayed_litellm_is_not_loaded(relay: str) -> None:
    assert build(OPENAI_API_KEY="hunter2-openai", GATEWAY_RELAY=relay).preload is None
    assert build(OPENAI_API_KEY="hunter2-openai", GATEWAY_RELAY="hosted_vllm").preload is not None
    also = build(OPENAI_API_KEY="hunter2-openai", ANTHROPIC_API_KEY="hunter2-anthropic", GATEWAY_RELAY=relay)
    assert also.preload is not None, "its chats go by way of LiteLLM"


def test_limits_come_from_the_settings() -> None:
    made = build(GATEWAY_TIMEOUT_S="7", GATEWAY_KEEPALIVE_S="3", GATEWAY_MAX_BODY_MB="0.5")
    assert (made.limits.timeout_s, made.limits.keepalive_s, made.limits.body_bytes) == (7, 3, 1 << 19)


ROUTES = """
model_list:
- {model_name: own, litellm_params: {model: openai/x, api_base: "http://gpu:8000/v1", api_key: "${HALF}-hunter2-b"}}
open_catalogue: false
"""


def test_a_routes_file_gives_the_catalogue_its_names_and_the_redactor_its_keys() -> None:
    made = build(GATEWAY_CONFIG_YAML=ROUTES, HALF="hunter2-a")
    [attempt] = plan("own", made.catalogue)
    assert attempt.deployment.api_base == "http://gpu:8000/v1"
    assert attempt.deployment.api_key == Secret("hunter2-a-hunter2-b")
    assert (made.catalogue.open, made.catalogue.demo) == (False, frozenset())
    assert made.preload is not None
    assert "hunter2" not in made.tracer._redactor.text("key hunter2-a-hunter2-b, half of it hunter2-a")


def test_a_closed_catalogue_without_a_deployment_that_can_be_called_loads_nothing() -> None:
    lame = "model_list: [{model_name: a, litellm_params: {model: azure/x}}]\nopen_catalogue: false"
    made = build(GATEWAY_CONFIG_YAML=lame, OPENAI_API_KEY="k", GATEWAY_DEMO="off")
    assert made.preload is None
    with pytest.raises(ProviderNotConfigured):
        plan("a", made.catalogue)


def test_a_routes_file_with_a_fault_stops_the_start() -> None:
    with pytest.raises(SettingsError, match=r"^GATEWAY_CONFIG_YAML:1:13: model_list: holds no deployment$"):
        build(GATEWAY_CONFIG_YAML="model_list: []")


def test_warnings_of_the_settings_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "gateway"):
        build(GATEWAY_NEW_THING="x", GATEWAY_CONFIG_YAML=ROUTES.replace("${HALF}", "hunter2"))
    assert "GATEWAY_NEW_THING" in caplog.text
    assert "a key stands in the file itself" in caplog.text
    assert "hunter2" not in caplog.text


def test_building_imports_no_litellm_and_starts_no_thread() -> None:
    script = (
        "import sys, threading; from gateway.assembly import build; from gateway.settings import Settings\n"
        "build(Settings.load({'OPENAI_API_KEY': 'k', 'BRAINTRUST_API_KEY': 'k'}))\n"
        "print('litellm' in sys.modules, threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "1"]


def prices(folder: Path, content: Any) -> Path:
    path = folder / "prices.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def test_the_operators_prices_stand_over_litellms(tmp_path: Path) -> None:
    row = {"input_cost_per_token": 9, "output_cost_per_token": 9}
    made = build(prices(tmp_path, {"gpt-4o": row, "openai/own": row}))
    for model in ("gpt-4o", "own"):
        price = made.meter.prices.of("openai", model)
        assert price is not None
        assert price.rate("prompt") == 9
    assert made.meter.prices.of("openai", "gpt-4o-mini") is not None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"1", b"null", b'{"m": 1}', b'{"m": []}', b'{"m": {}, "n": null}'],
    ids=lambda content: repr(content[:12]),
)
def test_a_file_of_prices_that_cannot_be_used_stops_the_start_and_is_named(tmp_path: Path, content: bytes) -> None:
    path = prices(tmp_path, content)
    with pytest.raises(SettingsError) as raised:
        build(path)
    [fault] = raised.value.faults
    assert fault.startswith(f"GATEWAY_PRICES: {path} ")


def test_a_file_of_prices_that_is_gone_or_may_not_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(SettingsError, match="GATEWAY_PRICES"):
            build(path)


def test_a_file_of_prices_with_no_models_is_fine(tmp_path: Path) -> None:
    assert build(prices(tmp_path, {})).meter.prices.of("openai", "gpt-4o") is not None


def test_settings_without_a_file_have_no_prices_of_their_own() -> None:
    assert Settings().prices is None
    assert build().meter.prices._own == {}


def test_the_demo_costs_nothing_and_that_is_known() -> None:
    price = build().meter.prices.of("demo", "echo")
    assert price is not None
    assert (price.rate("prompt"), price.rate("completion")) == (0, 0)


def test_a_text_in_a_variable_is_not_followed() -> None:
    assert build(GATEWAY_CONFIG_YAML=ROUTES, HALF="hunter2-a").routes is None
    assert build().routes is None
