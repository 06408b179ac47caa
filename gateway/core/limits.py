"""From the rules that are about a call to what it claims, to what it is told, and to what it is charged."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from gateway.core.calls import Attempt, Caller
from gateway.core.endpoint import BEGUN
from gateway.core.estimates import Estimate, micro_usd
from gateway.core.periods import Period, period_at, timestamp
from gateway.core.rules import BUDGET, LIMIT, MICRO, PARALLEL, REQUESTS, TOKENS, USD, Rule
from gateway.core.windows import LARGEST_AMOUNT, Claim, Standing, Window
from gateway.core.wire import header_value
from gateway.errors import BudgetExceeded, LimitExceeded, ModelNotPriced

_LENGTHS_S = {"minute": 60.0, "day": 86_400.0}
#: Calls under way, of which the last may have begun a day ago (`GATEWAY_TIMEOUT_S`).
_PARALLEL_KEEP_S = 2 * 86_400.0
_LONGEST_VALUE = 80

#: Of calls at once nobody knows when one will end.
PARALLEL_WAIT_S = 1.0


@dataclass(frozen=True)
class Part:
    """One rule as one call meets it.

    Attributes:
        rule: of those that are about the call.
        claim: what the call wants of it.
        each: whom it is counted for, by the names in `rule.each`; None where the call has no such subject.
        period: of a budget.
    """

    rule: Rule
    claim: Claim
    each: Mapping[str, str | None]
    period: Period | None = None


def parts(
    rules: Sequence[Rule],
    caller: Caller,
    model: str,
    wanted: Estimate | None,
    cost: int,
    now_s: float,
    deferred: str = "",
) -> tuple[Part, ...]:
    """Say what a call claims.

    Args:
        rules: those that are about it.
        caller: whose call it is.
        model: `provider/model` of the first deployment that is planned.
        wanted: the tokens that it may use; None for a call that has no model say anything, which claims requests alone.
        cost: what it may cost, micro-dollars.
        now_s: seconds since the epoch.
        deferred: of a call that says nothing itself, as its operation has it (`Endpoint.deferred`).

    Returns:
        A part for each rule that such a call is counted in.
    """
    found = (_part(rule, caller, model, wanted, cost, now_s, deferred) for rule in rules)
    return tuple(part for part in found if part is not None)


def _part(
    rule: Rule, caller: Caller, model: str, wanted: Estimate | None, cost: int, now_s: float, deferred: str
) -> Part | None:
    own = {**subjects_of(caller), "model": model}
    each = {name: own[name] for name in rule.each}
    if wanted is None and rule.measure in (TOKENS, USD):
        return _deferred(looked_at(rule, each, now_s), deferred) if rule.kind == BUDGET and deferred else None
    return _claimed(rule, each, wanted, cost, now_s)


def _deferred(part: Part, deferred: str) -> Part:
    """A part in a budget of what nobody can estimate: to begin it something must be left; its end is charged anyhow."""
    begun = deferred == BEGUN
    return replace(part, claim=replace(part.claim, amount=int(begun), limit=part.claim.limit if begun else None))


def looked_at(rule: Rule, each: Mapping[str, str | None], now_s: float) -> Part:
    """The part of a call that would take nothing, to see how a rule stands.

    Args:
        rule: any.
        each: for whom, where it is counted apart: a value for each of `rule.each`.
        now_s: seconds since the epoch.
    """
    part = _claimed(rule, each, None, 0, now_s)
    return replace(part, claim=replace(part.claim, amount=0))


def _claimed(rule: Rule, each: Mapping[str, str | None], wanted: Estimate | None, cost: int, now_s: float) -> Part:
    values = "/".join(_written(value) for value in each.values())
    if rule.kind == BUDGET:
        period = period_at(rule.period or "total", now_s)
        amount = cost if rule.measure == USD else wanted.tokens if wanted is not None else 0
        subject = f"{BUDGET}/{rule.id}/{values}/{period.name}/{_about(rule)}"
        return Part(rule, Claim(subject, Window(None, period.keep_s), amount, rule.most, opened=True), each, period)
    subject = f"{LIMIT}/{rule.id}/{values}/{rule.measure}"
    if rule.measure == PARALLEL:
        return Part(rule, Claim(subject, Window(None, _PARALLEL_KEEP_S), 1, rule.most), each)
    amount = 1
    if rule.measure == TOKENS and wanted is not None:
        # a guess alone must not make a call impossible that would fit
        amount = min(wanted.tokens, max(wanted.firm, rule.most))
    return Part(rule, Claim(subject, Window(_LENGTHS_S[rule.period or "minute"]), amount, rule.most), each)


def subjects_of(caller: Caller) -> dict[str, str | None]:
    """Whom a caller's calls may be counted for, by the names in `Rule.each`.

    What cannot be renamed comes first; None where there is nobody of that name.
    """
    return {
        "key": caller.key_id,
        "user": caller.user_id or caller.user,
        "project": caller.project_id or caller.project,
        "caller": caller.id,
    }


def _written(value: str | None) -> str:
    """A name as a part of a subject: without a slash, and not so long that there is no room for others."""
    text = "" if value is None else quote(value, safe="", errors="replace")
    if len(text) <= _LONGEST_VALUE:
        return text
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


def _about(rule: Rule) -> str:
    """What a budget counts: one that is changed to count something else begins a counter of its own."""
    match = rule.match
    said = repr((rule.measure, match.key, match.user, match.project, match.caller, match.model, rule.each))
    return f"{rule.measure}-{hashlib.blake2b(said.encode(errors='replace'), digest_size=4).hexdigest()}"


def limits_requests(rules: Sequence[Rule]) -> bool:
    """Whether one of them limits requests a minute."""
    return any(rule.kind == LIMIT and rule.measure == REQUESTS and rule.period == "minute" for rule in rules)


# What is charged.


@dataclass(frozen=True)
class Used:
    """What a call has used. `cost` is micro-dollars, rounded up once for the whole call."""

    tokens: int = 0
    cost: int = 0


def used_by(attempts: Sequence[Attempt]) -> Used:
    """Add up the bills of all attempts of a call; one that has none, or no price, adds nothing."""
    bills = [attempt.bill for attempt in attempts if attempt.bill is not None]
    tokens = sum(bill.usage.total for bill in bills if bill.usage is not None)
    costs = [bill.cost_usd for bill in bills if bill.cost_usd is not None]
    return Used(min(tokens, LARGEST_AMOUNT), micro_usd(sum(costs[1:], costs[0])) if costs else 0)


def charged(part: Part, used: Used) -> int:
    """What a call that has ended takes of a rule."""
    return {REQUESTS: 1, PARALLEL: 0, TOKENS: used.tokens, USD: used.cost}[part.rule.measure]


# What the caller is told.


def unpriced(rules: Sequence[Rule], model: str) -> ModelNotPriced | None:
    """The refusal of a call at models that have no price, where one of these rules counts money."""
    for rule in rules:
        if rule.kind == BUDGET and rule.measure == USD:
            error = ModelNotPriced(
                f"The model {model[:256]!r} has no known price, and t{_name(rule)[1:]} counts US dollars; "
                "GATEWAY_PRICES can name one.",
                param="model",
            )
            error.refused_by = rule.id
            return error
    return None


def refusal(refused: Sequence[Part], standings: Sequence[Standing], now_s: float) -> tuple[Part, LimitExceeded]:
    """Say no to a call, in the name of the rule that holds longest.

    Args:
        refused: what it claimed.
        standings: how these stand, in the same order; one at least has no room.
        now_s: seconds since the epoch.
    """
    without_room = [(part, one) for part, one in zip(refused, standings, strict=True) if one.wait_s != 0.0]
    part, standing = max(without_room, key=lambda pair: _holds_s(pair[0], pair[1], now_s))
    error = _over_budget(part, standing) if part.rule.kind == BUDGET else _over_limit(part, standing)
    error.refused_by = part.rule.id
    return part, error


def _holds_s(part: Part, standing: Standing, now_s: float) -> float:
    if part.period is not None:
        return math.inf if part.period.end_s is None else max(0.0, part.period.end_s - now_s)
    if standing.wait_s is not None:
        return standing.wait_s
    return PARALLEL_WAIT_S if part.rule.measure == PARALLEL and part.rule.most > 0 else math.inf


def _over_limit(part: Part, standing: Standing) -> LimitExceeded:
    rule, claim = part.rule, part.claim
    window = "at once" if rule.measure == PARALLEL else f"a {rule.period}"
    most = rule.most if standing.limit is None else standing.limit
    said = f"{_name(rule)} allows {counted(rule, most)} {window}{_apart(rule)}; {standing.used:,} are taken"
    wait_s = standing.wait_s
    if wait_s is None and rule.measure == PARALLEL and rule.most > 0:
        wait_s = PARALLEL_WAIT_S
    if wait_s is None:
        return LimitExceeded(
            f"{said}, and this call may take {claim.amount:,}, which it never has room for.", should_retry=False
        )
    wants = f" and this call may take {claim.amount:,}" if rule.measure == TOKENS else ""
    return LimitExceeded(
        f"{said}{wants}. Try again in {duration(wait_s)}.",
        retry_after=str(max(1, math.ceil(wait_s))),
        retry_after_ms=str(max(1, math.ceil(1000 * wait_s))),
        should_retry=True,
    )


def _over_budget(part: Part, standing: Standing) -> LimitExceeded:
    rule, period = part.rule, part.period
    ends = "It is not renewed." if period is None or period.end_s is None else f"It ends at {timestamp(period.end_s)}."
    return BudgetExceeded(
        f"{_name(rule)} has {_amount(rule, rule.most)}{_apart(rule)}: {_amount(rule, standing.used)} are used or "
        f"reserved, and this call may take {_amount(rule, part.claim.amount)}. {ends}"
    )


def _name(rule: Rule) -> str:
    kind = "budget" if rule.kind == BUDGET else "limit"
    return f"The {kind} {rule.name[:100]!r} ({rule.id})" if rule.name else f"The {kind} {rule.id}"


def _apart(rule: Rule) -> str:
    return f" for each {' and '.join(rule.each)}" if rule.each else ""


def _amount(rule: Rule, amount: int) -> str:
    return f"{dollars(amount)} USD" if rule.measure == USD else counted(rule, amount)


def counted(rule: Rule, amount: int) -> str:
    """Name an amount of what a rule counts for people: `60 requests`, `1,200 tokens`, `5 calls`; not of money."""
    return f"{amount:,} {'calls' if rule.measure == PARALLEL else rule.measure}"


def dollars(micro: int) -> str:
    """Write micro-dollars as US dollars: two decimals at least, and no more than it needs."""
    whole, rest = divmod(micro, MICRO)
    decimals = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{whole}.{decimals}"


def duration(span_s: float) -> str:
    """Write a span of time as OpenAI's `x-ratelimit-reset-*` have it: `12ms`, `1.5s`, `6m0s`, `23h59m0s`."""
    ms = max(0, math.ceil(1000 * span_s - 1e-6))
    if 0 < ms < 1000:
        return f"{ms}ms"
    minutes, left = divmod(ms, 60_000)
    seconds = f"{left / 1000:.3f}".rstrip("0").rstrip(".")
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{seconds}s"


@dataclass(frozen=True)
class Position:
    """How a rule stands for a call.

    Attributes:
        part: the rule as the call meets it.
        standing: of its counter.
        admitted: the call's own claim is in it.
    """

    part: Part
    standing: Standing
    admitted: bool

    @property
    def before(self) -> int:
        """What is used without the call itself."""
        return max(0, self.standing.used - self.part.claim.amount) if self.admitted else self.standing.used

    @property
    def soft(self) -> bool:
        """Whether a budget is used beyond its soft share."""
        rule = self.part.rule
        if rule.soft is None or rule.kind != BUDGET or rule.most <= 0:
            return False
        return self.before >= rule.soft * rule.most


def headers(positions: Sequence[Position], caller: Caller, now_s: float, *, anthropic: bool) -> dict[str, str]:
    """Say in an answer's headers how limits and budgets stand; nothing of those that are not about the call.

    Args:
        positions: of all rules that are.
        caller: whose call it is.
        now_s: seconds since the epoch.
        anthropic: by Anthropic's names and in its form (API reference, "Rate limits"), else OpenAI's.
    """
    said: dict[str, str] = {}
    for measure in (REQUESTS, TOKENS):
        limits = [one.standing for one in positions if _is_rate(one.part.rule, measure)]
        if limits:
            tightest = min(limits, key=lambda one: (one.remaining or 0, -(one.empty_s or 0.0)))
            reset_s = tightest.empty_s or 0.0
            reset = timestamp(math.ceil(now_s + reset_s)) if anthropic else duration(reset_s)
            for name, value in (("limit", tightest.limit), ("remaining", tightest.remaining), ("reset", reset)):
                header = f"anthropic-ratelimit-{measure}-{name}" if anthropic else f"x-ratelimit-{name}-{measure}"
                said[header] = str(value)
    warned = [(one.before / one.part.rule.most, one.part.rule) for one in positions if one.soft]
    if warned:
        share, rule = max(warned, key=lambda pair: pair[0])
        said["x-gateway-budget-warning"] = f"{header_value(rule.name or rule.id)[:200]} {int(100 * share)}%"
    own = [one.before for one in positions if _is_of_the_key(one.part, caller)]
    if own:
        said["x-gateway-key-spend"] = dollars(max(own))
    return said


def _is_rate(rule: Rule, measure: str) -> bool:
    return rule.kind == LIMIT and rule.measure == measure


def _is_of_the_key(part: Part, caller: Caller) -> bool:
    """Whether a budget counts the money of the caller's key and no other."""
    rule = part.rule
    about = rule.match.key is not None or "key" in rule.each
    return caller.key_id is not None and about and rule.kind == BUDGET and rule.measure == USD
