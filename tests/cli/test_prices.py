"""`gateway prices`: shown, and looked for."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from gateway.cli import main, prices
from gateway.settings import Settings

ROUTES = """
model_list:
  - model_name: fast
    litellm_params: {model: openai/gpt-4o-mini}
  - model_name: ours
    litellm_params: {model: hosted_vllm/ours, api_base: "http://127.0.0.1:9/v1"}
  - model_name: "any/*"
    litellm_params: {model: "openai/*"}
"""
OWN = {
    "hosted_vllm/ours": {
        "input_cost_per_token": 1.5e-6,
        "output_cost_per_token": 2e-6,
        "input_cost_per_token_above_200k_tokens_flex": 1e-6,
        "search_context_cost_per_query": {"search_context_size_low": 0.01},
    }
}


@pytest.fixture
def routed(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (place / "gateway.yaml").write_text(ROUTES)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-real")
    return place


def with_own(place: Path, monkeypatch: pytest.MonkeyPatch, rows: object = OWN) -> None:
    (place / "own.json").write_text(json.dumps(rows))
    monkeypatch.setenv("GATEWAY_PRICES", "own.json")


def checked(*called: str) -> int:
    """Run `prices check` where a ledger says that these were called."""

    def told(_settings: Settings) -> Iterable[str]:
        return called

    parser = argparse.ArgumentParser()
    prices.add(parser.add_subparsers(), told)
    options = parser.parse_args(["prices", "check"])
    status: int = options.run(options)
    return status


def test_every_price_of_an_alias_is_shown_with_its_source(
    routed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_own(routed, monkeypatch)
    assert main(["prices", "show", "ours"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "hosted_vllm/ours, by GATEWAY_PRICES: hosted_vllm/ours",
        "what              tier      prompts above   USD",
        "prompt            standard                  1.5 for 1,000,000 tokens",
        "completion        standard                  2 for 1,000,000 tokens",
        "prompt            flex      200,000 tokens  1 for 1,000,000 tokens",
        "web_search (low)  standard                  0.01 a search",
    ]


@pytest.mark.parametrize("name", ["openai/gpt-4o-mini", "gpt-4o-mini", "fast"])
def test_a_name_is_looked_up_as_a_call_would(name: str, routed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "show", name]) == 0
    assert capsys.readouterr().out.startswith("openai/gpt-4o-mini, by LiteLLM: gpt-4o-mini\n")


def test_prices_are_shown_as_json_too(
    routed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_own(routed, monkeypatch)
    assert main(["prices", "show", "ours", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["provider"], shown["model"], shown["price"]) == (
        "hosted_vllm",
        "ours",
        "GATEWAY_PRICES: hosted_vllm/ours",
    )
    assert shown["rates"][2] == {"kind": "prompt", "tier": "flex", "above_tokens": 200_000, "usd": "0.000001"}


@pytest.mark.parametrize("name", ["ours", "openai/nothing-of-the-kind", "nothing-of-the-kind"])
def test_a_model_without_a_price_is_told_so_and_fails(
    name: str, routed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prices", "show", name]) == 1
    assert capsys.readouterr().out.endswith(": no price\n")


def test_models_of_the_routes_file_without_a_price_are_named(routed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "check"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "model                    provider     priced as  why",
        "ours (hosted_vllm/ours)  hosted_vllm  ours       no price",
        "1 of 2 models in use have a price",
    ]


def test_where_each_has_a_price_all_is_well(
    routed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_own(routed, monkeypatch)
    assert main(["prices", "check"]) == 0
    assert capsys.readouterr().out == "2 of 2 models in use have a price\n"


def test_models_that_were_called_are_looked_at_too(
    routed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_own(routed, monkeypatch)
    assert checked("openai/gpt-4o", "openai/of-long-ago") == 1
    told = capsys.readouterr().out
    assert "openai/of-long-ago" in told
    assert "openai/gpt-4o " not in told
    assert told.endswith("3 of 4 models in use have a price\n")


def test_half_a_price_is_none_but_for_embeddings(
    routed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    half = {"input_cost_per_token": 1e-6}
    with_own(routed, monkeypatch, {"hosted_vllm/ours": half, "openai/vectors": {**half, "mode": "embedding"}})
    assert checked("openai/vectors") == 1
    told = capsys.readouterr().out
    assert "no price of a completion token in GATEWAY_PRICES: hosted_vllm/ours" in told
    assert "openai/vectors" not in told


def test_a_fault_in_the_operators_file_is_told_and_fails(
    routed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_own(routed, monkeypatch, {"m": {"input_cost_per_token": -1}})
    assert main(["prices", "check"]) == 1
    assert main(["prices", "show", "m"]) == 1
    assert capsys.readouterr().err.count("m: input_cost_per_token is -1") == 2
