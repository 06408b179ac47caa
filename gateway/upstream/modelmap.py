"""LiteLLM's map of models, read as the data that it is.

The file comes with the package. Reading it takes 10 ms; importing LiteLLM for it takes seconds and 200 MB.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import orjson

FILE = "model_prices_and_context_window_backup.json"


@cache
def read() -> Mapping[str, Mapping[str, Any]]:
    """Return model name → row (`litellm_provider`, `mode`, prices in USD per token, context sizes).

    Raises:
        FileNotFoundError: LiteLLM is not installed, or keeps its map elsewhere.
    """
    package = importlib.util.find_spec("litellm")
    if package is None or package.origin is None:
        raise FileNotFoundError("litellm is not installed")
    rows = orjson.loads((Path(package.origin).parent / FILE).read_bytes())
    rows.pop("sample_spec", None)  # the map's own documentation
    return {name: row for name, row in rows.items() if isinstance(row, dict)}
