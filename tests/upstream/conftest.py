"""LiteLLM as the gateway loads it, once a session: the import takes seconds."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator

import pytest
from braintrust.logger import _internal_get_global_state

from gateway.core.providers import PROVIDERS
from gateway.core.redaction import Redactor
from gateway.tracing.catcher import Catcher
from gateway.upstream.failures import Failures
from gateway.upstream.litellm import LiteLLM
from tests.fakes.provider import FakeProvider
from tests.upstream.natively import OWN_KEY, Natively

__all__ = ["OWN_KEY"]


@pytest.fixture(scope="session")
def loaded() -> Iterator[LiteLLM]:
    """The adapter, with Braintrust's patch over LiteLLM and no provider's key in the environment."""
    state = _internal_get_global_state()
    before = state._global_bg_logger
    # LiteLLM asks the main thread for a loop and never closes it: left to it, whichever test runs when it is collected
    # fails for a resource that was not closed
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    made = LiteLLM(Failures(Redactor([OWN_KEY])), first_byte_s=5, idle_s=5, patch=Catcher.patch)
    with pytest.MonkeyPatch.context() as environment, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what LiteLLM's own import warns of is not the gateway's
        for name in {name for row in PROVIDERS.values() for name in row.keys}:
            environment.delenv(name, raising=False)
        made.load()
        made.start()
        yield made
    made.close()
    state._global_bg_logger = before
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as server:
        yield server


@pytest.fixture
def native(provider: FakeProvider) -> Iterator[Natively]:
    made = Natively(provider)
    yield made
    made.direct.close()
