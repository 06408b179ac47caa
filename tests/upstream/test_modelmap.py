"""LiteLLM's map of models, read without LiteLLM."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from gateway.core.pricing import price_of
from gateway.upstream import modelmap


def test_the_installed_map_has_the_fields_that_the_gateway_reads() -> None:
    rows = modelmap.read()
    assert len(rows) > 1500
    row = rows["gpt-4o-mini"]
    assert (row["litellm_provider"], row["mode"]) == ("openai", "chat")
    assert price_of(row) is not None


def test_the_maps_own_documentation_is_no_model() -> None:
    assert "sample_spec" not in modelmap.read()


def test_reading_it_imports_no_litellm() -> None:
    script = "import sys; from gateway.upstream import modelmap; modelmap.read(); print('litellm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_it_is_read_once() -> None:
    assert modelmap.read() is modelmap.read()


def test_without_litellm_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(FileNotFoundError, match="litellm is not installed"):
        modelmap.read.__wrapped__()
