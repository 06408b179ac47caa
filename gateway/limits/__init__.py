"""What a call is held to: reserved before it, settled after it, whatever becomes of it.

`Limiter.admit` reserves for all rules that are about a call at once, or for none; `Ticket.settle` puts what was used in
the place of what was reserved. Between the two a reservation is a lease: of a process that dies it frees itself.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.core import limits
from gateway.core.calls import Attempt, Call, Outcome
from gateway.core.estimates import Estimate, answers, estimate, largest_answer, likeliest_cost, micro_usd
from gateway.core.limits import Part, Position
from gateway.core.periods import Period
from gateway.core.pricing import Meter
from gateway.core.rules import BUDGET, LIMIT, REQUESTS, TOKENS, USD, Rule, RuleStanding
from gateway.core.windows import LARGEST_AMOUNT, Standing
from gateway.errors import StoreUnavailable
from gateway.limits.learnt import Answers
from gateway.limits.leases import LEASE_S, Leases
from gateway.limits.link import BOUND_S, StoreLink
from gateway.limits.local import Local
from gateway.limits.needs import Rules, Spending
from gateway.limits.ticket import Ticket
from gateway.offload import LARGE_BYTES, offload
from gateway.storage.counters import AWAY, Admission, Counters, Reservation

__all__ = ["Limiter", "Observer", "Policy", "Rules", "Spending", "Ticket"]

log = logging.getLogger(__name__)

#: A counter may vanish again between its opening and the next try.
_OPENINGS = 3
#: How long a ledger is not asked that was silent while the store was away.
_LEDGER_AGAIN_S = 1.0


class Observer(Protocol):
    """Who is told of what limits and budgets did. It must not wait."""

    def refused(self, rule: Rule) -> None:
        """A rule has refused a call."""
        ...

    def soft(self, rule: Rule, each: Mapping[str, str | None], used: int, most: int, period: Period) -> None:
        """A budget is used beyond its soft share; told once in each of its periods, for each that it is counted for."""
        ...


class _Unobserved:
    def refused(self, rule: Rule) -> None:
        """Nobody wants to know."""

    def soft(self, rule: Rule, each: Mapping[str, str | None], used: int, most: int, period: Period) -> None:
        """Nobody wants to know."""


@dataclass(frozen=True)
class Policy:
    """How calls are held to rules.

    Attributes:
        rpm: requests a minute of each caller that no other such limit is about; None for no bound.
        fail_open: while the store is away, each worker counts its share; else calls under a rule are refused.
        reserve_largest: a call that states no maximum reserves the model's own (`models`), else a likely one.
        models: LiteLLM's map, for that.
        allow_unpriced: a model without a price counts nothing towards a budget of money; else it is refused there.
        workers: how many of this host share what is counted while the store is away.
    """

    rpm: int | None = None
    fail_open: bool = True
    reserve_largest: bool = False
    models: Mapping[str, Mapping[str, Any]] | None = None
    allow_unpriced: bool = False
    workers: int = 1


class Limiter:
    """Holds calls to the rules that are about them.

    Args:
        counters: where is counted.
        rules: which rules are in force.
        meter: what calls cost.
        policy: how they are held.
        spending: what was spent before, for a budget whose counter is not there; None where no ledger is kept: such a
            budget begins with 0.
        observer: who is told.
        bounded: the store bounds its own waits.

    Attributes:
        rules: as given; the next call is held to what is put in its place.
        spending: likewise.
    """

    def __init__(
        self,
        counters: Counters,
        rules: Rules,
        meter: Meter,
        policy: Policy | None = None,
        *,
        spending: Spending | None = None,
        observer: Observer | None = None,
        bounded: bool = True,
    ) -> None:
        self.rules = rules
        self._meter = meter
        self._policy = policy or Policy()
        self.spending = spending
        self._observer = observer or _Unobserved()
        self._answers = Answers()
        self._ledger_silent_s = -math.inf
        self._local = Local(self._policy.workers, self._spent_soon)
        meanwhile = "each worker keeps its share" if self._policy.fail_open else "calls under a limit are refused"
        self._link = StoreLink(counters, self._lost, meanwhile, bounded=bounded)
        self._leases = Leases(self._link, self._local, self._open_all, self._told_soft)
        self._opening = threading.Lock()
        self._latest_s = 0.0
        rpm = self._policy.rpm
        self._by_default = (
            Rule("set_rpm", LIMIT, REQUESTS, rpm, "minute", each=("caller",), name="GATEWAY_RATE_LIMIT_RPM")
            if rpm is not None
            else None
        )

    def start(self) -> None:
        """Begin to renew leases, after the fork; safe to call again."""
        self._leases.start()

    def close(self) -> None:
        """Charge what can still be charged, and stop; safe to call again."""
        self._leases.close()

    def admit(self, call: Call, planned: Sequence[Attempt]) -> Ticket:
        """Reserve what a call may take of all rules that are about it.

        Args:
            call: what is asked for.
            planned: the attempts that may be made.

        Raises:
            LimitExceeded: a rule has no room.
            ModelNotPriced: a budget counts money, and none of the models has a price.
            StoreUnavailable: the store is away, and the operator wants no call without it, or a budget's state is
                known to nobody.
        """
        rules = self._rules_of(call, planned)
        if not rules:
            return Ticket(call, planned)
        now_s = self._now_s()
        attempts, wanted = self._priced(call, planned, rules)
        parts = self._parts(call, attempts, wanted, rules, now_s)
        ticket = Ticket(call, attempts, self)
        if parts:
            self._reserve(ticket, call, parts, now_s)
        return ticket

    def look(self, call: Call, planned: Sequence[Attempt]) -> tuple[Position, ...]:
        """Say how the rules stand that are about a call, and reserve nothing.

        Raises:
            StoreUnavailable: the store is away.
        """
        rules = self._rules_of(call, planned)
        attempts, wanted = (planned, None) if not rules else self._priced(call, planned, rules)
        parts = self._parts(call, attempts, wanted, rules, self._now_s()) if rules else ()
        if not parts:
            return ()
        claims = [part.claim for part in parts]
        standings = self._link.ask(lambda it: it.look(claims))
        if missing := [part for part, one in zip(parts, standings, strict=True) if one.missing]:
            self._open_all(missing)
            standings = self._link.ask(lambda it: it.look(claims))
        return _positions(parts, standings, admitted=False)

    def of(self, rule: Rule, subject: Sequence[str] = ()) -> RuleStanding:
        """Say how a rule stands now (core.rules.Standings)."""
        now_s = self._now_s()
        part = limits.looked_at(rule, dict(zip(rule.each, subject, strict=True)), now_s)
        (standing,) = self._link.ask(lambda it: it.look([part.claim]))
        if standing.missing:
            self._open_all([part])
            (standing,) = self._link.ask(lambda it: it.look([part.claim]))
        resets_s = None if standing.empty_s is None else now_s + standing.empty_s
        if part.period is not None:
            resets_s = part.period.end_s
        return RuleStanding(standing.used, max(0, rule.most - standing.used), resets_s)

    # What a call is held to.

    def _rules_of(self, call: Call, planned: Sequence[Attempt]) -> Sequence[Rule]:
        rules = self.rules.of(call.caller, [call.model, *(attempt.deployment.name for attempt in planned)])
        if self._by_default is not None and not limits.limits_requests(rules):
            rules = [*rules, self._by_default]
        return rules

    def _priced(
        self, call: Call, planned: Sequence[Attempt], rules: Sequence[Rule]
    ) -> tuple[Sequence[Attempt], tuple[Estimate, int] | None]:
        """Leave out what has no price where money is counted, and say what the dearest of the others may take."""
        if not call.endpoint.metered or not any(rule.measure in (TOKENS, USD) for rule in rules):
            return planned, None
        money = any(rule.kind == BUDGET and rule.measure == USD for rule in rules)
        if call.body_bytes > LARGE_BYTES:
            guessed = offload(estimate, call, 1)
        else:
            guessed = estimate(call, 1)
        kept: list[Attempt] = []
        tokens, cost = guessed, 0
        for attempt in planned:
            expected = guessed if guessed.stated else self._likely(call, attempt, guessed)
            price = likeliest_cost(self._meter, call, attempt.deployment, expected) if money else None
            if price is None and money and not self._policy.allow_unpriced:
                continue
            kept.append(attempt)
            tokens = max(tokens, expected, key=lambda one: one.tokens)
            cost = max(cost, 0 if price is None else micro_usd(price))
        if not kept and planned:
            refused = limits.unpriced(rules, planned[0].deployment.name)
            if refused is not None:
                refused.held_to = tuple(rule.id for rule in rules)
                self._observer.refused(next(rule for rule in rules if rule.id == refused.refused_by))
                raise refused
        for number, attempt in enumerate(kept, 1):
            attempt.number = number
        return tuple(kept), (tokens, cost)

    def _likely(self, call: Call, attempt: Attempt, guessed: Estimate) -> Estimate:
        """What the answers may have, where the caller states no maximum."""
        one = None
        if self._policy.reserve_largest:
            one = largest_answer(self._policy.models or {}, attempt.deployment)
        if one is None:
            one = self._answers.likely(call.caller.id, attempt.deployment.name)
        return Estimate(guessed.prompt, min(guessed.outputs * one, LARGEST_AMOUNT), stated=False)

    def _parts(
        self,
        call: Call,
        attempts: Sequence[Attempt],
        wanted: tuple[Estimate, int] | None,
        rules: Sequence[Rule],
        now_s: float,
    ) -> tuple[Part, ...]:
        model = attempts[0].deployment.name if attempts else call.model
        tokens, cost = wanted if wanted is not None else (None, 0)
        return limits.parts(rules, call.caller, model, tokens, cost, now_s, call.endpoint.deferred)

    # Reserving.

    def _reserve(self, ticket: Ticket, call: Call, parts: tuple[Part, ...], now_s: float) -> None:
        counters, admission = self._admission(parts)
        admitted = admission.reservation is not None
        positions = _positions(parts, admission.standings, admitted=admitted)
        if counters is self._link.counters:
            for one in positions:
                if one.part.rule.kind == BUDGET:
                    self._local.saw(one.part.claim.subject, one.standing.used)
        for one in positions:
            if one.soft:
                self._leases.notice(one)
        if admission.reservation is not None:
            ticket.hold(counters, admission.reservation, positions)
            self._leases.add(ticket)
            return
        part, error = limits.refusal(parts, admission.standings, now_s)
        self._observer.refused(part.rule)
        anthropic = call.endpoint.dialect == "anthropic"
        error.held_to = tuple(one.rule.id for one in parts)
        error.reply_headers = limits.headers(positions, call.caller, now_s, anthropic=anthropic)
        raise error

    def _admission(self, parts: tuple[Part, ...]) -> tuple[Counters, Admission]:
        """Ask the store; where it is away, this worker's own memory, if that may be."""
        claims = [part.claim for part in parts]
        try:
            for _ in range(_OPENINGS):
                admission = self._link.ask(
                    lambda it: it.reserve(claims, LEASE_S),
                    undo=_free,
                )
                missing = [part for part, one in zip(parts, admission.standings, strict=True) if one.missing]
                if not missing:
                    return self._link.counters, admission
                self._open_all(missing)
            raise StoreUnavailable(AWAY)
        except StoreUnavailable:
            if not (self._policy.fail_open and self._link.away):
                raise
        return self._local.reserve(parts, LEASE_S)

    def _open_all(self, missing: Sequence[Part]) -> None:
        """Open the counters of budgets with what was spent before.

        Raises:
            StoreUnavailable: the store is away, or nobody knows what was spent.
        """
        with self._opening:  # or a hundred calls at once would all ask the ledger
            for part in missing:
                claim = part.claim
                (now,) = self._link.ask(lambda it, claim=claim: it.look([claim]))  # type: ignore[misc]
                if not now.missing:
                    continue
                spent = self._spent(part)
                if spent is None and self._policy.fail_open:
                    spent = self._local.seen(claim.subject)
                if spent is None:
                    raise StoreUnavailable(AWAY)
                amount = min(spent, LARGEST_AMOUNT)
                self._link.ask(lambda it, claim=claim, amount=amount: it.open(claim, amount))  # type: ignore[misc]

    def _lost(self) -> None:
        """The store has gone."""
        self._local.begin()
        self._leases.wake()  # which looks for it

    def _spent(self, part: Part) -> int | None:
        """What the ledger knows of a budget; None where it does not answer."""
        if self.spending is None:
            return 0
        since_s = part.period.start_s if part.period is not None else 0.0
        try:
            return self.spending.spent(part.rule.match, part.each, since_s, part.rule.measure)
        except StoreUnavailable as error:
            log.warning("the ledger does not say what was spent", extra={"fields": {"why": str(error.__cause__)}})
            return None

    def _spent_soon(self, part: Part) -> int | None:
        """The same, for a call that may not wait: None also where the answer does not come in time."""
        if time.monotonic() - self._ledger_silent_s < _LEDGER_AGAIN_S:
            return None
        found: list[int | None] = []
        asking = threading.Thread(target=lambda: found.append(self._spent(part)), name="limits-ledger", daemon=True)
        asking.start()
        asking.join(BOUND_S)
        if not found or found[0] is None:
            self._ledger_silent_s = time.monotonic()
            return None
        return found[0]

    # Settling.

    def settle(
        self, ticket: Ticket, call: Call, outcome: Outcome, reservation: Reservation, counters: Counters
    ) -> None:
        """Charge what a call has used (`Ticket.settle`)."""
        self._leases.remove(ticket)
        for attempt in outcome.attempts:
            bill = self._meter.bill(call, attempt)
            if bill.usage is not None and not bill.estimated:
                each = -(-bill.usage.completion // answers(call))
                self._answers.learn(call.caller.id, attempt.deployment.name, each)
        used = limits.used_by(outcome.attempts)
        amounts = [limits.charged(part, used) for part in ticket.parts]
        if counters is self._link.counters:
            self._leases.settle(reservation, amounts)
            return
        counters.settle(reservation, amounts)
        for part, amount in zip(ticket.parts, amounts, strict=True):
            self._local.owe(part, amount)
        self._leases.wake()

    def _told_soft(self, position: Position) -> None:
        rule, part = position.part.rule, position.part
        log.warning(
            "a budget is used beyond its soft share",
            extra={
                "fields": {
                    "budget": rule.id,
                    "name": rule.name,
                    "period": part.period.name if part.period is not None else None,
                    **{f"each_{name}": value for name, value in part.each.items()},
                    "used": position.before,
                    "most": rule.most,
                    "measure": rule.measure,
                }
            },
        )
        if part.period is not None:
            self._observer.soft(rule, part.each, position.before, rule.most, part.period)

    def _now_s(self) -> float:
        """The time, which never goes back: a worker begins each period of a budget once."""
        self._latest_s = max(self._latest_s, time.time())
        return self._latest_s


def _positions(parts: Sequence[Part], standings: Sequence[Standing], *, admitted: bool) -> tuple[Position, ...]:
    return tuple(Position(part, one, admitted) for part, one in zip(parts, standings, strict=True))


def _free(counters: Counters, admission: Admission) -> None:
    """Give back what was reserved for a call that waited no more."""
    if (reservation := admission.reservation) is not None:
        counters.settle(reservation, [0] * len(reservation.claims))
