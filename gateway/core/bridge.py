"""Between the caller's wire and chat completions, for providers that do not speak the caller's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

JSON = dict[str, Any]


@dataclass(frozen=True)
class Bridged:
    """A request of another wire, as a chat completion.

    Attributes:
        body: of `/v1/chat/completions`; `model` and `stream` as they were asked.
        dropped: the caller's fields that chat completions cannot carry, by name (`tools.web_search` for a part of one).
    """

    body: JSON
    dropped: tuple[str, ...] = ()


class Teller(Protocol):
    """Tells in the caller's wire what a chat completion says: whole, or piece by piece. One for each answer."""

    def whole(self, completion: Mapping[str, Any]) -> JSON:
        """The answer to a call that is not streamed."""

    def feed(self, chunk: Mapping[str, Any]) -> list[JSON]:
        """The events that one chunk of the stream makes, each with its `type`; maybe none."""

    def end(self) -> list[JSON]:
        """The events that close the stream, once its last chunk was fed; the last of them is the terminal one."""

    def failed(self, message: str, code: str | None) -> JSON | None:
        """The event that ends a stream which failed on its way; None where the wire has none of its own."""
