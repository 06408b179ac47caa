"""What the limiter asks of others: which rules are about a call, and what was spent before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from gateway.core.calls import Caller
from gateway.core.rules import Match, Rule


class Rules(Protocol):
    """The rules that are in force. Asked for each call, so it answers from memory."""

    def of(self, caller: Caller, models: Sequence[str]) -> Sequence[Rule]:
        """Return the rules that are about a call; nothing where none is.

        Args:
            caller: whose call.
            models: the name that was asked for, and `provider/model` of each deployment that is planned, in order.
        """
        ...


class NoRules:
    """No rule at all (`Rules`)."""

    def of(self, _caller: Caller, _models: Sequence[str]) -> Sequence[Rule]:
        """Return nothing."""
        return ()


class Spending(Protocol):
    """What calls have cost that have ended."""

    def spent(self, match: Match, each: Mapping[str, str | None], since_s: float, measure: str) -> int:
        """Add up what counts towards a budget.

        Args:
            match: which calls count.
            each: of these, those of one subject: for a name of `core.rules.SUBJECTS` its id, a model as
                `provider/model`; None stands for calls that have no such subject.
            since_s: calls that began at this time or later, seconds since the epoch; 0 for all that there ever were.
            measure: `USD`: micro-dollars, each call rounded up; or `TOKENS`.

        Raises:
            StoreUnavailable: nobody knows now.
        """
        ...
