"""A gateway that settings make."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gateway import assembly
from gateway.pipeline import Gateway
from tests.builders import settings


def build(prices: Path | None = None, **environ: str) -> Gateway:
    return assembly.build(dataclasses.replace(settings(**environ), prices=prices))
