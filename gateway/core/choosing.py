"""Which deployments a call is tried at, in which order, and why. Values in, values out: time and chance are arguments.

Of a name's deployments those are taken that the call is for (conditions) and that can do what it needs (abilities);
the name's policy ranks them, and those of its fallbacks follow. One whose breaker is open comes behind all others.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate

from gateway.core import policies, routing
from gateway.core.breaker import CLOSED, DeploymentHealth
from gateway.core.calls import Attempt, Call, Deployment
from gateway.core.needs import Facts
from gateway.core.policies import Policy, Trying
from gateway.core.routing import Alias, Catalogue, Target
from gateway.core.usage import Usage
from gateway.errors import GatewayError, ModelNotFound

#: What LiteLLM's map calls what a call may need.
_COLUMNS = {
    "tools": "supports_function_calling",
    "vision": "supports_vision",
    "json_schema": "supports_response_schema",
    "audio": "supports_audio_input",
    "reasoning": "supports_reasoning",
}
#: Deployments that are drawn by weight; those behind them follow by it.
_DRAWN = 8
#: Tokens of an answer where the caller sets no lower bound; only to compare prices with.
_USUAL_OUTPUT = 500
#: The share of calls that try another deployment than the fastest, to learn whether it still is.
_EXPLORED = 0.05
#: As much slower than the fastest a deployment may be and counts as equally fast, so that not all calls go to one.
_AS_FAST = 1.2

Price = Callable[[Deployment, Usage], Decimal | None]


@dataclass(frozen=True)
class World:
    """What a plan depends on besides the call and the catalogue.

    Attributes:
        health: how a deployment is now.
        dice: a number in [0, 1), drawn for this call.
        turn: how many calls of this name came before.
        price: US dollars of so many tokens at a deployment; None where nobody knows.
    """

    health: Callable[[Deployment], DeploymentHealth]
    dice: float = 0.0
    turn: int = 0
    price: Price = lambda _deployment, _usage: None


@dataclass(slots=True)
class Plan:
    """What is tried for a call.

    Attributes:
        attempts: at least one, the most wanted first; each has its `name` and `why`.
        strategy: what ranked them; None where the name is none of the operator's.
        trying: how often a call may be tried; None: each attempt once.
        too_long: instead of those, where the prompt was too long for a model.
        refused: instead of those, where a content filter refused.
        left_out: `provider/model` and why, of those that are not tried.
    """

    attempts: tuple[Attempt, ...]
    strategy: str | None = None
    trying: Trying | None = None
    too_long: tuple[Attempt, ...] = ()
    refused: tuple[Attempt, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()


def plan(call: Call, catalogue: Catalogue, world: Callable[[str], World]) -> Plan:
    """Say what is tried for a call.

    Args:
        call: what was asked; its rights bound which fallbacks count.
        catalogue: what there is.
        world: makes what a plan for a name depends on; not asked where there is nothing to choose.

    Returns:
        A plan in which no deployment stands twice.

    Raises:
        ModelNotFound: nobody answers to the name, or no deployment of it is for this call.
        ProviderNotConfigured: somebody would, had the operator set a credential or an address.
    """
    name = call.model.strip()
    if not catalogue.aliases or call.deployment is not None or name in catalogue.demo:
        return Plan(routing.plan(name, catalogue, only=call.deployment, rights=call.caller.rights))
    found = routing.alias_of(name, catalogue)
    if found is None:
        return Plan(routing.plan(name, catalogue, rights=call.caller.rights))
    planner = _Planner(Facts(call), catalogue, world)
    return planner.plan(name, *found)


@dataclass(slots=True, eq=False)
class _Candidate:
    """A deployment that may be tried."""

    target: Target
    deployment: Deployment
    health: DeploymentHealth
    why: str = ""


class _Planner:
    """Makes the plan of one call."""

    def __init__(self, facts: Facts, catalogue: Catalogue, world: Callable[[str], World]) -> None:
        self._facts = facts
        self._catalogue = catalogue
        self._world = world
        self._left_out: list[tuple[str, str]] = []

    def plan(self, name: str, alias: Alias, rest: str) -> Plan:
        policy = alias.policy
        own, failure = self._ranked_or_not(name, alias, rest)
        others = self._fallbacks(policy.fallbacks, policy)
        ranked = self._able([*own, *others])
        if not ranked:
            assert failure is not None
            raise failure
        seen = {one.deployment.name for _, one in ranked}
        return Plan(
            _attempts(ranked),
            policy.strategy,
            self._catalogue.trying,
            self._instead(policy.context_window_fallbacks, policy),
            self._instead(policy.content_policy_fallbacks, policy),
            tuple(dict.fromkeys(pair for pair in self._left_out if pair[0] not in seen)),
        )

    def _ranked_or_not(
        self, name: str, alias: Alias, rest: str
    ) -> tuple[list[tuple[str, _Candidate]], GatewayError | None]:
        """The deployments of a name, ranked, each with that name; none, and why, where none can be called."""
        try:
            reached = routing.deployments_of(alias, rest)
        except GatewayError as error:
            return [], error
        world = self._world(name)
        fit = []
        for target, deployment in reached:
            if self._facts.meets(target.condition):
                fit.append(_Candidate(target, deployment, world.health(deployment)))
            else:
                self._left_out.append((deployment.name, "it is for other calls"))
        if not fit:
            return [], ModelNotFound(f"No deployment of the model {name!r} is for calls like this one.", param="model")
        return [(name, one) for one in _in_groups(fit, alias.policy, self._facts, world)], None

    def _fallbacks(self, names: Iterable[str], policy: Policy) -> list[tuple[str, _Candidate]]:
        """The deployments of other names, as far as this caller may call them and they can be called."""
        catalogue, call = self._catalogue, self._facts.call
        found: list[tuple[str, _Candidate]] = []
        for name in tuple(names)[: catalogue.trying.most_fallbacks]:
            if name in catalogue.demo:
                continue  # they say what they are told, which is no answer of any model
            if not routing.may_call(call.caller.rights, name, catalogue):
                self._left_out.append((name, "this key may not call it"))
                continue
            alias = routing.alias_of(name, catalogue)
            try:
                if alias is not None:
                    ranked, failure = self._ranked_or_not(name, *alias)
                    if failure is not None:
                        raise failure
                else:
                    [attempt] = routing.plan(name, catalogue)
                    health = self._world(name).health(attempt.deployment)
                    target = Target(attempt.deployment.provider, attempt.deployment.model, routing.Reach())
                    ranked = [(name, _Candidate(target, attempt.deployment, health))]
            except GatewayError as error:
                self._left_out.append((name, error.public_code or "it cannot be called"))
                continue
            for _, one in ranked:
                one.why = f"fallback {name}" + (f", {one.why}" if one.why else "")
            found += ranked
        return found

    def _instead(self, names: Sequence[str], policy: Policy) -> tuple[Attempt, ...]:
        return _attempts(self._able(self._fallbacks(names, policy))) if names else ()

    def _able(self, ranked: list[tuple[str, _Candidate]]) -> list[tuple[str, _Candidate]]:
        """Leave out those that are known to lack what the call needs, as long as one does not; the open ones last."""
        if len(ranked) > 1:
            needs = sorted(self._facts.needs)
            lacking = [self._lacks(one, needs) for _, one in ranked]
            if None in lacking:
                able = []
                for pair, what in zip(ranked, lacking, strict=True):
                    if what is None:
                        able.append(pair)
                    else:
                        self._left_out.append((pair[1].deployment.name, what))
                ranked = able
        first: dict[Deployment, tuple[str, _Candidate]] = {}
        for pair in sorted(ranked, key=lambda pair: not pair[1].health.usable):
            first.setdefault(pair[1].deployment, pair)
        return list(first.values())

    def _lacks(self, one: _Candidate, needs: Sequence[str]) -> str | None:
        """What a deployment is known to lack; None where it may do."""
        target, row = one.target, self._catalogue.row_of(one.deployment)
        for need in needs:
            if target.abilities.get(need, row.get(_COLUMNS[need])) is False:
                return f"it has no {need}"
        most = target.most_tokens if target.most_tokens is not None else row.get("max_input_tokens")
        if isinstance(most, int) and self._facts.prompt_tokens > most:
            return f"its context has {most} tokens"
        return None


def _attempts(ranked: Iterable[tuple[str, _Candidate]]) -> tuple[Attempt, ...]:
    return tuple(
        Attempt(one.deployment, number, name=name, why=_why(one)) for number, (name, one) in enumerate(ranked, 1)
    )


def _why(one: _Candidate) -> str:
    if one.health.state == CLOSED:
        return one.why
    state = "open" if not one.health.usable else "half-open"
    return f"{one.why}, breaker {state}" if one.why else f"breaker {state}"


def _in_groups(fit: list[_Candidate], policy: Policy, facts: Facts, world: World) -> list[_Candidate]:
    """Rank candidates: the lowest `order` first, and within each the policy's way."""
    stuck = facts.sticks_by(policy.sticky)
    ranked: list[_Candidate] = []
    for order in sorted({one.target.order for one in fit}):
        group = [one for one in fit if one.target.order == order]
        # those that are not called now must not count where others are chosen among
        well = [one for one in group if one.health.usable]
        for part in (well, [one for one in group if not one.health.usable]):
            if stuck is not None and len(part) > 1:
                part = _stuck_to(part, stuck)
            else:
                part = RANKINGS[policy.strategy](part, facts, world)
            ranked += part
        if order:
            for one in group:
                one.why = f"{one.why}, order {order}"
    return ranked


def _stuck_to(group: list[_Candidate], stuck: str) -> list[_Candidate]:
    """Weighted rendezvous hashing: a deployment that is lost, or comes back, moves only those that are its own.

    Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1996; the weights by the logarithmic method of
    Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", 2005.
    """

    def score(one: _Candidate) -> float:
        place = f"{stuck}\0{one.deployment.name}\0{one.deployment.api_base or ''}\0{_fingerprint(one.deployment)}"
        digest = hashlib.blake2b(place.encode("utf-8", "replace"), digest_size=8).digest()
        drawn = (int.from_bytes(digest) + 1) / (2**64 + 2)
        return one.target.weight / -math.log(drawn)

    for one in group:
        one.why = "sticky"
    return sorted(group, key=score, reverse=True)


def _fingerprint(deployment: Deployment) -> str:
    """Tells deployments apart that differ by their key alone, without telling the key."""
    key = deployment.api_key.reveal() if deployment.api_key is not None else ""
    return hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8).hexdigest()


def id_of(deployment: Deployment) -> str:
    """Name a deployment for stores that workers share: 32 hex digits, the same in each worker, which tell no key."""
    fields = (deployment.name, deployment.api_base or "", deployment.api_version or "", _fingerprint(deployment))
    return hashlib.blake2b("\0".join(fields).encode("utf-8", "replace"), digest_size=16).hexdigest()


def _ordered(group: list[_Candidate], _facts: Facts, _world: World) -> list[_Candidate]:
    for one in group:
        one.why = "ordered"
    return group


def _weighted(group: list[_Candidate], _facts: Facts, world: World) -> list[_Candidate]:
    """Draw one after the other by weight. What is left of a draw is a draw again, so one is enough.

    Not more than so many: a call seldom comes so far, and each has to look at all that are left.
    """
    dice, left, ranked = world.dice, list(group), list[_Candidate]()
    weights = [one.target.weight for one in left]
    while left:
        sums = list(accumulate(weights))
        if sums[-1] <= 0 or len(ranked) == _DRAWN:
            ranked += sorted(left, key=lambda one: one.target.weight, reverse=True)
            break
        at = dice * sums[-1]
        place = bisect_right(sums, at)
        if place == len(left) or weights[place] <= 0:  # where rounding leaves none
            place = max(index for index, weight in enumerate(weights) if weight > 0)
        dice = min(max((at - (sums[place] - weights[place])) / weights[place], 0.0), 1 - 2**-53)
        ranked.append(left.pop(place))
        del weights[place]
    for one in ranked:
        one.why = f"weight {one.target.weight:g}"
    return ranked


def _round_robin(group: list[_Candidate], _facts: Facts, world: World) -> list[_Candidate]:
    for one in group:
        one.why = "round robin"
    return _from(group, world.turn)


def _least_busy(group: list[_Candidate], _facts: Facts, world: World) -> list[_Candidate]:
    """The fewest attempts under way for its weight; among equals by chance."""
    for one in group:
        one.why = f"{one.health.in_flight} under way"
    return sorted(
        _from(group, int(world.dice * len(group))),
        key=lambda one: (one.health.in_flight + 1) / one.target.weight if one.target.weight > 0 else math.inf,
    )


def _lowest_latency(group: list[_Candidate], facts: Facts, world: World) -> list[_Candidate]:
    """The fastest, and one that nobody has measured; sometimes any, to measure it again."""
    times = {id(one): one.health.first_content_s if facts.call.stream else one.health.whole_s for one in group}
    for one in group:
        known = times[id(one)]
        one.why = "not measured yet" if known is None else f"{1000 * known:.0f} ms"
    measured = [known for known in times.values() if known is not None]
    bound = _AS_FAST * min(measured, default=0.0)
    if group and world.dice < _EXPLORED:
        explored, *others = _from(group, int(world.dice / _EXPLORED * len(group)))
        explored.why = "explored"
        return [explored, *sorted(others, key=lambda one: times[id(one)] or 0.0)]
    turned = _from(group, int((world.dice - _EXPLORED) / (1 - _EXPLORED) * len(group)))
    return sorted(turned, key=lambda one: 0.0 if (time := times[id(one)]) is None or time <= bound else time)


def _cheapest(group: list[_Candidate], facts: Facts, world: World) -> list[_Candidate]:
    """The lowest price of the prompt and of an answer of usual length; one without a price is last."""
    usage = Usage(facts.prompt_tokens, min(facts.most_output or _USUAL_OUTPUT, _USUAL_OUTPUT))
    prices = {id(one): world.price(one.deployment, usage) for one in group}
    for one in group:
        known = prices[id(one)]
        one.why = "no price" if known is None else f"about {known:.6f} USD"
    return sorted(group, key=lambda one: (prices[id(one)] is None, prices[id(one)] or Decimal(0)))


def _from(group: list[_Candidate], place: int) -> list[_Candidate]:
    """The group, beginning with another one."""
    place = place % len(group) if group else 0
    return group[place:] + group[:place]


#: How each strategy ranks the deployments of one `order`; none is lost, and none doubled.
RANKINGS: dict[str, Callable[[list[_Candidate], Facts, World], list[_Candidate]]] = {
    policies.ORDERED: _ordered,
    policies.WEIGHTED: _weighted,
    policies.ROUND_ROBIN: _round_robin,
    policies.LEAST_BUSY: _least_busy,
    policies.LATENCY: _lowest_latency,
    policies.COST: _cheapest,
}
