"""Which way a call takes: the provider's own operation where it has it, else a chat that stands in for it."""

from __future__ import annotations

from typing import Protocol

from gateway.core.calls import Attempt, Call, Deployment
from gateway.core.endpoints import Endpoint
from gateway.errors import InvalidRequest
from gateway.upstream import Answer, Upstream
from gateway.upstream.bridge import Bridge


class Lane(Upstream, Protocol):
    """An upstream that serves some operations of some providers."""

    def serves(self, endpoint: Endpoint, deployment: Deployment) -> bool:
        """Whether it can answer the operation there."""


class Lanes:
    """Takes the first lane that serves a call (upstream.Upstream).

    Args:
        lanes: the most faithful first; the last of them has to serve chats.
    """

    def __init__(self, *lanes: Lane) -> None:
        self._lanes = lanes
        self._bridge = Bridge(lanes[-1])

    def start(self) -> None:
        """Make ready in this process (Upstream.start)."""
        for lane in self._lanes:
            lane.start()

    def is_native(self, endpoint: Endpoint, deployment: Deployment) -> bool:
        """Whether the deployment is asked on the operation's own wire, so that what it stores is its own."""
        return deployment.provider in endpoint.native and self._lanes[0].serves(endpoint, deployment)

    def open(self, attempt: Attempt, call: Call) -> Answer:
        """Send the call (Upstream.open).

        Raises:
            InvalidRequest: the provider has no such operation, and a chat is no substitute.
        """
        deployment = attempt.deployment
        for lane in self._lanes:
            if lane.serves(call.endpoint, deployment):
                return lane.open(attempt, call)
        if self._bridge.serves(call.endpoint.name):
            return self._bridge.open(attempt, call)
        raise InvalidRequest(f"{deployment.provider} has no {call.endpoint.name}.", param="model", code="unsupported")
