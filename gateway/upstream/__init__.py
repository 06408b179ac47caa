"""The ways to reach a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from gateway.core.calls import JSON, Attempt, Call, Chunk
from gateway.core.wire import dumps


class Answer(Protocol):
    """What an attempt opened: one body, or the chunks of a stream. `attempt.transcript` grows as they are read."""

    #: The whole answer of a call that is not streamed.
    body: bytes
    #: `chunks` gives None now and then while the provider is silent; else it waits as long as that takes.
    tells_silence: bool

    def chunks(self) -> Iterator[Chunk | None]:
        """Read a stream to its end.

        Raises:
            GatewayError: the provider failed, or ended the stream without a `finish_reason`.
        """

    def close(self) -> None:
        """Free the provider's connection; safe to call again."""


class Upstream(Protocol):
    """One way to reach deployments."""

    def open(self, attempt: Attempt, call: Call) -> Answer:
        """Send the call; return when the provider has begun (streams) or ended (others) its answer.

        Raises:
            GatewayError: the attempt failed; its class says whether another deployment may be tried.
        """

    def opens_in_time(self, attempt: Attempt, call: Call) -> bool:
        """Whether `open` returns soon also where the provider of a stream is silent, and its answer tells of that."""

    def start(self) -> None:
        """Make ready in this process, after the fork."""


class AtHand:
    """An answer that nobody has to be asked for (Answer)."""

    tells_silence = False

    def __init__(self, attempt: Attempt, document: JSON) -> None:
        attempt.transcript.take(document)
        self.body = dumps(document)

    def chunks(self) -> Iterator[Chunk]:
        """It is not streamed."""
        yield from ()

    def close(self) -> None:
        """Nothing is held."""
