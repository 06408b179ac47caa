"""What calls are held to: limits of a rate, and budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.core.rights import matches

if TYPE_CHECKING:
    from gateway.core.calls import Caller

LIMIT = "limit"
BUDGET = "budget"

#: What is counted. Amounts are whole numbers; of money, micro-dollars.
REQUESTS = "requests"
TOKENS = "tokens"
PARALLEL = "parallel"
USD = "usd"
MEASURES = {LIMIT: (REQUESTS, TOKENS, PARALLEL), BUDGET: (USD, TOKENS)}

#: Over which time. A limit's is a sliding window; a budget's begins with the clock (UTC, weeks on Monday).
PERIODS = {LIMIT: ("minute", "day"), BUDGET: ("hour", "day", "week", "month", "total")}

MICRO = 1_000_000

#: What a rule can be about, and what it can be counted for apart.
SUBJECTS = ("key", "user", "project", "caller", "model")


@dataclass(frozen=True)
class Match:
    """Which calls a rule is about: those that have all of what is set; all calls where nothing is.

    Attributes:
        key: the id of a virtual key.
        user: the id or the name of a user, and `project` likewise of a project.
        caller: the id of a caller (`core.calls.Caller.id`).
        model: a pattern as in rights, of the name that was asked for or of `provider/model`.
    """

    key: str | None = None
    user: str | None = None
    project: str | None = None
    caller: str | None = None
    model: str | None = None

    def takes(self, caller: Caller, models: Sequence[str]) -> bool:
        """Whether a call is among them.

        Args:
            caller: whose call.
            models: the name that was asked for, and those of the deployments that are planned.
        """
        return (
            self.key in (None, caller.key_id)
            and self.user in (None, caller.user_id, caller.user)
            and self.project in (None, caller.project_id, caller.project)
            and self.caller in (None, caller.id)
            and (self.model is None or any(matches(self.model, model) for model in models))
        )


@dataclass(frozen=True)
class Rule:
    """A limit or a budget.

    Attributes:
        id: `lim_` or `bud_` and 12 digits and small letters; `set_` and a name for one of the settings.
        kind: `LIMIT` or `BUDGET`.
        measure: of `MEASURES`.
        most: how much is allowed, 0 to `core.windows.LARGEST_AMOUNT`; of money, micro-dollars.
        period: of `PERIODS`; None for calls at once.
        match: which calls it is about.
        each: of `SUBJECTS`: for each of them it is counted apart; empty: all calls that it is about share it.
        name: the operator's, for errors and lists.
        soft: the share of a budget, above 0 and below 1, from which on callers and the operator are warned; or None.
        webhook: where the operator is told, an `https` address (`http` on a loopback); None for nowhere.
    """

    id: str
    kind: str
    measure: str
    most: int
    period: str | None = None
    match: Match = field(default_factory=Match)
    each: tuple[str, ...] = ()
    name: str = ""
    soft: float | None = None
    webhook: str | None = None
