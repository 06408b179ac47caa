"""Routes files as texts, and what they come to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway import routes
from gateway.core.routing import Target
from gateway.routes import Table
from gateway.settings import Settings, SettingsError


def read(text: str, **environ: str) -> Table:
    return routes.read(Settings.load({"GATEWAY_CONFIG_YAML": text, **environ}))


def faults(text: str, **environ: str) -> list[str]:
    """The faults of a text, without the name of where it is from."""
    with pytest.raises(SettingsError) as caught:
        read(text, **environ)
    return [fault.removeprefix("GATEWAY_CONFIG_YAML") for fault in caught.value.faults]


def entry(name: str = "fast", model: str = "openai/gpt-x", **params: Any) -> str:
    """One entry of a file with nothing else in it; JSON is YAML."""
    info = params.pop("model_info", None)
    made: dict[str, Any] = {"model_name": name, "litellm_params": {"model": model, **params}}
    return json.dumps({"model_list": [made | ({"model_info": info} if info is not None else {})]})


def target(text: str, **environ: str) -> Target:
    """The one deployment of a file."""
    [(_, found)] = read(text, **environ).targets
    return found


def said(text: str, **environ: str) -> str:
    """Its warnings, in one text."""
    return "\n".join(read(text, **environ).warnings)


def lines(*entries: str, **sections: Any) -> str:
    """Several entries (of `entry`) in one file, with other keys at its top."""
    listed = [one for text in entries for one in json.loads(text)["model_list"]]
    return json.dumps({"model_list": listed, **sections})
