"""The operator's file of prices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.prices import own_prices
from gateway.settings import Settings, SettingsError


def read(folder: Path, content: Any) -> Any:
    (folder / "prices.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return own_prices(Settings.from_env({"GATEWAY_PRICES": "prices.json"}, folder))


def test_rows_are_read_as_they_stand(tmp_path: Path) -> None:
    rows = {"ours": {"input_cost_per_token": 1e-6, "output_cost_per_token": "2e-6", "mode": "chat", "note": "x"}}
    assert read(tmp_path, rows) == rows


def test_without_a_file_there_are_none() -> None:
    assert own_prices(Settings()) == {}


def test_every_fault_is_named_with_its_row_and_key_at_once(tmp_path: Path) -> None:
    rows = {
        "good": {"input_cost_per_token": 0},
        "bad": {"input_cost_per_token": -1, "output_cost_per_token": "free"},
        "worse": {"input_cost_per_tokens": 1, "cache_read_input_token_cost": None},
    }
    with pytest.raises(SettingsError) as raised:
        read(tmp_path, rows)
    place = f"GATEWAY_PRICES: {tmp_path / 'prices.json'}"
    assert list(raised.value.faults) == [
        f"{place}: bad: input_cost_per_token is -1, and has to be a number of USD, 0 or more",
        f"{place}: bad: output_cost_per_token is 'free', and has to be a number of USD, 0 or more",
        f"{place}: worse: input_cost_per_tokens is no key that is known; is input_cost_per_token meant?",
    ]


def test_what_json_does_not_have_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="m: input_cost_per_token is nan, "):
        read(tmp_path, '{"m": {"input_cost_per_token": NaN}}')


def test_a_file_of_great_depth_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read as JSON"):
        read(tmp_path, "[" * 100_000)
