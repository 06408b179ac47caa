"""What the ledger says of a call: who it was for, what became of it, and what it used and cost."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from gateway.core import pricing
from gateway.core.calls import Attempt, Bill, Call, Outcome
from gateway.core.usage import Usage

JSON = dict[str, Any]

#: States of a row: the call's own end is known, or nobody saw it (its process died, or its row had no room).
ENDED = "ended"
LOST = "lost"

NANO = 1_000_000_000
#: A million US dollars. No call costs as much; sums of what is stored stay within 64 bits.
MOST_NANO = 1_000_000 * NANO

#: Of what others name: a provider's `model`, a code of an error. Names of models are bounded where they are planned.
_LONGEST_TEXT = 512
_LONGEST_LOGGED = 256


def nano(cost_usd: Decimal) -> int:
    """Return US dollars as whole nano-dollars, rounded half up; at most `MOST_NANO`."""
    return min(pricing.nano(cost_usd), MOST_NANO)


def cost_usd(bills: Sequence[Bill]) -> Decimal | None:
    """Add up what the attempts of a call cost.

    Args:
        bills: of each attempt.

    Returns:
        US dollars, exact; 0 where nothing was used, as by an attempt that got no answer. None where one of them used
        something that has no price.
    """
    total = Decimal(0)
    for bill in bills:
        if bill.cost_usd is not None:
            total += bill.cost_usd
        elif bill.usage is not None:
            return None
    return total


def opening(call: Call, planned: Sequence[str]) -> JSON:
    """What is known of a call once its attempts are planned.

    Args:
        call: what was asked.
        planned: `provider/model` of the deployments that may be tried, in order, each once.

    Returns:
        Columns of the table `usage`, by name, without its id, times and state.
    """
    caller = call.caller
    return {
        "operation": call.endpoint.name,
        "caller": caller.id,
        "caller_kind": caller.kind,
        "tenant": caller.tenant,
        "key_id": caller.key_id,
        "project_id": caller.project_id,
        "project": caller.project,
        "user_id": caller.user_id,
        "user": caller.user,
        "tags": list(call.tags) or None,
        "model": call.model,
        "planned": list(planned),
        "stream": call.stream,
    }


def entry(call: Call, planned: Sequence[str], outcome: Outcome, bills: Sequence[Bill]) -> JSON:
    """What is known of a call that has ended.

    Args:
        call: what was asked.
        planned: as in `opening`.
        outcome: what became of it.
        bills: of each attempt, in order.

    Returns:
        As `opening`, and: who answered, tokens and money summed over the attempts, and the bill of each.
    """
    found, last, error = opening(call, planned), outcome.answered, outcome.error
    used = [bill.usage for bill in bills if bill.usage is not None]
    cost = cost_usd(bills)
    found |= {
        "status": outcome.status,
        "error_code": _short((error.public_code or error.public_type) if error else None),
        "caller_gone": outcome.caller_gone,
        "attempts": len(outcome.attempts),
        **(_added(used) if used else {}),
        "cost_nano": None if cost is None else nano(cost),
        "estimated": any(bill.estimated for bill in bills),
    }
    if last is not None:
        found |= {
            "provider": last.deployment.provider,
            "deployment": last.deployment.name,
            "served_model": _short(last.transcript.model),
            "time_to_first_token_s": _waited_s(last),
            "price": _price(outcome.attempts, bills) if used else None,
        }
    return found


def summary(outcome: Outcome, bills: Sequence[Bill]) -> JSON:
    """What a line of the log says of a call that has ended, besides its request: who answered, how much, how dear.

    Args:
        outcome: what became of it.
        bills: of each attempt, in order.

    Returns:
        `deployment`, `attempts`, `prompt_tokens` and `completion_tokens` (summed over the attempts), `cost_usd`,
        `time_to_first_token_ms` and `cached`, as far as there is something to say; no word of prompt or answer.
    """
    last, cost = outcome.answered, cost_usd(bills)
    used = [bill.usage for bill in bills if bill.usage is not None]
    counts = _added(used) if used else {}
    first_s = _waited_s(last) if last is not None else None
    found = {
        "deployment": last.deployment.name[:_LONGEST_LOGGED] if last is not None else None,
        "attempts": len(outcome.attempts) or None,
        "prompt_tokens": counts.get("prompt_tokens"),
        "completion_tokens": counts.get("completion_tokens"),
        "cost_usd": None if cost is None or not outcome.attempts else float(cost),
        "time_to_first_token_ms": None if first_s is None else round(1000 * first_s, 1),
        "cached": True if outcome.remembered is not None else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _price(attempts: Sequence[Attempt], bills: Sequence[Bill]) -> list[JSON]:
    return [
        {"attempt": attempt.number, "deployment": attempt.deployment.name, **_bill(bill)}
        for attempt, bill in zip(attempts, bills, strict=True)
        if bill.usage is not None
    ]


def _tokens(used: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": used.prompt,
        "completion_tokens": used.completion,
        "cached_tokens": used.cached,
        "cache_write_tokens": used.cache_write,
        "reasoning_tokens": used.reasoning,
        "total_tokens": used.total,
    }


def _added(used: Sequence[Usage]) -> dict[str, int]:
    each = [_tokens(usage) for usage in used]
    return each[0] if len(each) == 1 else {name: sum(counts[name] for counts in each) for name in TOKENS}


#: Token counts of a row; the same as `core.usage.Usage` has them.
TOKENS = tuple(_tokens(Usage()))


def _waited_s(attempt: Attempt) -> float | None:
    return None if attempt.first_content_s is None else attempt.first_content_s - attempt.started_s


def _short(text: str | None) -> str | None:
    return text if text is None else text[:_LONGEST_TEXT]


def _bill(bill: Bill) -> JSON:
    """The bill of an attempt, and what it used."""
    used = bill.usage
    return {**bill.document(), "estimated": bill.estimated, "usage": None if used is None else _tokens(used)}
