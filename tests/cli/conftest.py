"""A place to run commands in, and a Braintrust that they find."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.braintrust_server import FakeBraintrust

_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "TZ")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that one is in, with nothing set."""
    for name in set(os.environ) - set(_KEPT):
        if not name.startswith("PYTEST") and not name.startswith("COV"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def braintrust(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBraintrust]:
    with FakeBraintrust() as fake:
        for name, value in fake.environment().items():
            monkeypatch.setenv(name, value)
        yield fake


@pytest.fixture
def folder(braintrust: FakeBraintrust, place: Path) -> Path:
    """The spool's folder of that Braintrust."""
    from tests.cli.spools import mine

    return mine(place, braintrust.environment()).folder
