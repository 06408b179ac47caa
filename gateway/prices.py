"""The operator's own prices: the file of `GATEWAY_PRICES`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.core.pricing import faults
from gateway.settings import Settings, SettingsError


def own_prices(settings: Settings) -> Mapping[str, Mapping[str, Any]]:
    """Read the operator's prices.

    Returns:
        Model name to row, in the shape of LiteLLM's map.

    Raises:
        SettingsError: the file cannot be used; every fault of every row, by the row's name.
    """
    if (path := settings.prices) is None:
        return {}
    try:
        rows = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError([f"GATEWAY_PRICES: {path} cannot be read as JSON: {error}"]) from error
    if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise SettingsError([f"GATEWAY_PRICES: {path} is no object of model names and their prices"])
    wrong = [f"GATEWAY_PRICES: {path}: {name}: {fault}" for name, row in rows.items() for fault in faults(row)]
    if wrong:
        raise SettingsError(wrong)
    return rows
