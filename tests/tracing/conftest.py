"""Puts the SDK's own logger back where a test put a catcher."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from braintrust.logger import _internal_get_global_state

from gateway.tracing.catcher import Catcher


@pytest.fixture
def catcher() -> Iterator[Catcher]:
    """A catcher in the place of the SDK's background logger."""
    state = _internal_get_global_state()
    before = state._global_bg_logger
    made = Catcher()
    made.install()
    yield made
    state._global_bg_logger = before
