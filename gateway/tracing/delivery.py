"""What the sender asks of the place that it delivers to, and what that place can answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

JSON = dict[str, Any]


class Piece(NamedTuple):
    """One row on its way.

    Attributes:
        id: the row's own; rows replace by it.
        row: the whole row, a JSON object in bytes, as `tracing.rows` writes it.
        to: where a caller wants it: `{"project_id" | "project_name" | "experiment_id" | "prompt_session_id": "…"}`;
            None for the destination's own place.
        request: the request's id, where the row is its root.
    """

    id: str
    row: bytes
    to: JSON | None = None
    request: str | None = None


class Undelivered(Exception):
    """Pieces were not taken."""


class Unavailable(Undelivered):
    """The destination cannot take anything now; the pieces are kept and tried again.

    Args:
        why: one line for the log and for `gateway spool status`; holds no secret.
        retry_after_s: how long the destination asks to wait, or None.
        refused: it said that the gateway may not (401, 403): an operator has to act.
    """

    def __init__(self, why: str, *, retry_after_s: float | None = None, refused: bool = False) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s
        self.refused = refused


class TooLarge(Undelivered):
    """Too many bytes at once: fewer pieces, or a shorter one, may pass."""


class Rejected(Undelivered):
    """At least one of the pieces is not acceptable; `str()` says why."""


class Destination(Protocol):
    """Where traces go in the end. Used by one thread at a time."""

    @property
    def limit_bytes(self) -> int:
        """The most bytes of rows that one `deliver` may have."""

    def deliver(self, pieces: Sequence[Piece]) -> None:
        """Take all of these rows or none, for good: each replaces the one of its id, so that a row may come twice.

        Args:
            pieces: rows whose ids differ, all with the same `to`; the rows of a trace in order, children first.

        Raises:
            Unavailable: not now.
            TooLarge: not so many.
            Rejected: not these.
        """

    def close(self) -> None:
        """Let go of connections and handles."""


class Counts:
    """What happens to the rows of one sink, for metrics; this one forgets it."""

    def sent(self, rows: int) -> None:
        """So many rows were delivered."""

    def dropped(self, rows: int) -> None:
        """So many rows could not be kept."""

    def quarantined(self, rows: int) -> None:
        """So many rows were refused for good, and put aside."""

    def damaged(self, frames: int) -> None:
        """So many frames of a segment could not be read."""

    def interrupted(self, calls: int) -> None:
        """So many calls were open when their process died."""


@runtime_checkable
class Tended(Protocol):
    """A destination that has work of its own between deliveries."""

    def tend(self) -> None:
        """Do a bounded part of what is due, if anything is. Called by the thread that delivers; logs what fails."""
