"""How a limit or a budget stands, for whoever looks at it; no call waits for this."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from gateway.core.calls import Caller
from gateway.core.limits import subjects_of
from gateway.core.rules import Rule, RuleStanding, Standings
from gateway.errors import StoreUnavailable

log = logging.getLogger(__name__)


def standing(standings: Standings | None, rule: Rule, subject: Sequence[str] = ()) -> RuleStanding | None:
    """Say how a rule stands now.

    Args:
        standings: who knows; None where nothing is counted.
        rule: any.
        subject: for whom or what, where it is counted apart: a value for each of `rule.each`, in its order.

    Returns:
        None where nobody can say now, or the subject has not all the parts that the rule is counted apart for.
    """
    if standings is None or len(subject) != len(rule.each):
        return None
    try:
        return standings.of(rule, subject)
    except StoreUnavailable as error:
        log.warning("a rule's standing cannot be told", extra={"fields": {"rule": rule.id, "why": str(error)}})
        return None


def standing_for(standings: Standings | None, rule: Rule, caller: Caller) -> RuleStanding | None:
    """Say how a rule stands for a caller.

    Args:
        standings: as in `standing`.
        rule: any.
        caller: whose calls are counted.

    Returns:
        None as `standing`; so too where it is counted apart for what no caller alone is, such as a model.
    """
    own = subjects_of(caller)
    return standing(standings, rule, [value for name in rule.each if (value := own.get(name)) is not None])
