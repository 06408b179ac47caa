"""How limits and budgets stand for a call that is not made yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.core.calls import Attempt, Call
from gateway.core.limits import Position
from gateway.core.rules import amount_of
from gateway.errors import ModelNotPriced, StoreUnavailable
from gateway.limits import Limiter

JSON = dict[str, Any]


def preview(limiter: Limiter, kind: str, call: Call, planned: Sequence[Attempt]) -> JSON | None:
    """Say how the rules of a kind stand for a call, and reserve nothing.

    Args:
        limiter: what would hold the call.
        kind: `core.rules.LIMIT` or `BUDGET`.
        call: as it would be made.
        planned: what would be tried.

    Returns:
        `{"data": […], "refused": why a call would be refused whatever is left, or None}`; None while nobody knows.
    """
    try:
        positions = limiter.look(call, planned)
    except ModelNotPriced as error:
        return {"data": [], "refused": error.message}
    except StoreUnavailable:
        return None
    return {"data": [_told(one) for one in positions if one.part.rule.kind == kind], "refused": None}


def _told(position: Position) -> JSON:
    rule, claim = position.part.rule, position.part.claim
    left = max(0, rule.most - position.standing.used)
    return {
        "id": rule.id,
        "name": rule.name,
        "measure": rule.measure,
        "period": rule.period,
        "most": amount_of(rule.measure, rule.most),
        "used": amount_of(rule.measure, position.standing.used),
        "remaining": amount_of(rule.measure, left),
        "would_take": amount_of(rule.measure, claim.amount),
        "has_room": claim.amount <= left,
    }
