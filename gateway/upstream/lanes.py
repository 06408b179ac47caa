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
        self._bridge = Bridge(self)

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
        if (lane := self._lane(attempt, call)) is not None:
            return lane.open(attempt, call)
        raise InvalidRequest(f"{deployment.provider} has no {call.endpoint.name}.", param="model", code="unsupported")

    def opens_in_time(self, attempt: Attempt, call: Call) -> bool:
        """As the lane does that serves it (Upstream.opens_in_time)."""
        lane = self._lane(attempt, call)
        return lane is not None and lane.opens_in_time(attempt, call)

    def _lane(self, attempt: Attempt, call: Call) -> Upstream | None:
        for lane in self._lanes:
            if lane.serves(call.endpoint, attempt.deployment):
                return lane
        return self._bridge if self._bridge.serves(call.endpoint.name) else None
