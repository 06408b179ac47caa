"""The ways to the providers, and to the demo models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.redaction import Redactor
from gateway.core.routing import DEMO
from gateway.settings import Settings, bytes_of
from gateway.tracing.catcher import Catcher
from gateway.upstream import Upstream
from gateway.upstream.counting import Counting
from gateway.upstream.direct import Direct
from gateway.upstream.failures import Failures
from gateway.upstream.files import StoredFiles
from gateway.upstream.lanes import Lanes
from gateway.upstream.litellm import LiteLLM
from gateway.upstream.scripted import Scripted, count
from gateway.upstream.stored import StoredResponses

if TYPE_CHECKING:
    from gateway.storage.owned import OwnedObjects


@dataclass(frozen=True)
class Upstreams:
    """The upstreams of a gateway.

    Attributes:
        by_provider: the way to each provider, by its name; `litellm` for the others.
        litellm: the lane of LiteLLM, which has to be loaded before it is called.
        direct: the lane that goes without it.
    """

    by_provider: Mapping[str, Upstream]
    litellm: LiteLLM
    direct: Direct

    def close(self) -> None:
        """Close all connections to providers."""
        self.litellm.close()
        self.direct.close()


def upstreams_of(settings: Settings, redactor: Redactor, objects: OwnedObjects) -> Upstreams:
    """Make the upstreams. Starts nothing.

    Args:
        settings: the configuration.
        redactor: takes credentials out of what providers say when they fail.
        objects: who owns what providers, and this gateway, have stored.
    """
    litellm = LiteLLM(
        Failures(redactor),
        first_byte_s=settings.first_byte_timeout_s,
        idle_s=settings.idle_timeout_s,
        silence_s=settings.keepalive_s,
        patch=Catcher.patch,
        form_bytes=bytes_of(settings.max_body_mb),
    )
    direct = Direct(
        Failures(redactor),
        first_byte_s=settings.first_byte_timeout_s,
        idle_s=settings.idle_timeout_s,
        silence_s=settings.keepalive_s,
    )
    lanes = Lanes(direct, Counting(litellm.count), litellm)
    by_provider: dict[str, Upstream] = {
        DEMO: StoredResponses(Lanes(Counting(count), Scripted()), objects),
        "litellm": StoredFiles(lanes, objects, StoredResponses(lanes, objects)),
    }
    return Upstreams(by_provider, litellm, direct)
