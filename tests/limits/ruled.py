"""What tests of the limiter share: rules in a list, a ledger that is told, a store that can be taken away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from gateway.core.calls import Attempt, Bill, Call, Caller, Outcome
from gateway.core.periods import Period
from gateway.core.pricing import Meter, Prices
from gateway.core.rules import BUDGET, LIMIT, MICRO, REQUESTS, USD, Match, Rule
from gateway.core.transcript import Usage
from gateway.core.windows import Claim, Standing
from gateway.errors import StoreUnavailable
from gateway.limits import Limiter, Policy
from gateway.storage.counters import AWAY, Admission, Counters, Reservation
from gateway.storage.memory import MemoryCounters
from tests.builders import attempt, call

MODEL = "openai/gpt-test"
#: An output token costs a dollar, so a call whose answer has one costs one.
DOLLAR = {"litellm_provider": "openai", "input_cost_per_token": 0, "output_cost_per_token": 1}


def meter(**rows: Any) -> Meter:
    return Meter(Prices({MODEL: DOLLAR, **rows}))


def limit(measure: str = REQUESTS, most: int = 2, period: str | None = "minute", **more: Any) -> Rule:
    return Rule(more.pop("id", "lim_abcdefghijkl"), LIMIT, measure, most, period, **more)


def budget(measure: str = USD, most: int = 10 * MICRO, period: str = "month", **more: Any) -> Rule:
    return Rule(more.pop("id", "bud_abcdefghijkl"), BUDGET, measure, most, period, **more)


class Listed:
    """Rules (`limits.needs.Rules`) that stand in a list."""

    def __init__(self, *rules: Rule) -> None:
        self.rules = list(rules)
        self.asked: list[tuple[str, list[str]]] = []

    def of(self, caller: Caller, models: Sequence[str]) -> Sequence[Rule]:
        self.asked.append((caller.id, list(models)))
        return [rule for rule in self.rules if rule.match.takes(caller, models)]


class Told:
    """A ledger (`limits.needs.Spending`) that says what it is told to; None: it is away."""

    def __init__(self, spent: int | None = 0) -> None:
        self.amount = spent
        self.asked: list[tuple[Match, Mapping[str, str | None], float, str]] = []

    def spent(self, match: Match, each: Mapping[str, str | None], since_s: float, measure: str) -> int:
        self.asked.append((match, each, since_s, measure))
        if self.amount is None:
            raise StoreUnavailable(AWAY)
        return self.amount


class Watched:
    """An observer (`limits.Observer`)."""

    def __init__(self) -> None:
        self.refusals: list[str] = []
        self.softs: list[tuple[str, dict[str, str | None], int, int]] = []

    def refused(self, rule: Rule) -> None:
        self.refusals.append(rule.id)

    def soft(self, rule: Rule, each: Mapping[str, str | None], used: int, most: int, _period: Period) -> None:
        self.softs.append((rule.id, dict(each), used, most))


class Removable:
    """Counters in memory that a test takes away, slows down, or has forget all."""

    def __init__(self) -> None:
        self.inner = MemoryCounters()
        self.away = False
        self.silent = threading.Event()
        self.silent.set()
        self.asked: list[str] = []

    def forget(self) -> None:
        self.inner = MemoryCounters()

    def _ask(self, name: str, work: Callable[[], Any]) -> Any:
        self.asked.append(name)
        self.silent.wait(20)
        if self.away:
            raise StoreUnavailable(AWAY)
        return work()

    def start(self) -> None:
        """Nothing has to be."""

    def close(self) -> None:
        """Nothing is open."""

    def check(self) -> None:
        self._ask("check", self.inner.check)

    def reserve(self, claims: Sequence[Claim], lease_s: float) -> Admission:
        made: Admission = self._ask("reserve", lambda: self.inner.reserve(claims, lease_s))
        return made

    def open(self, claim: Claim, amount: int) -> bool:
        return bool(self._ask("open", lambda: self.inner.open(claim, amount)))

    def settle(self, reservation: Reservation, amounts: Sequence[int]) -> bool:
        return bool(self._ask("settle", lambda: self.inner.settle(reservation, amounts)))

    def renew(self, ids: Collection[str], lease_s: float) -> set[str]:
        kept: set[str] = self._ask("renew", lambda: self.inner.renew(ids, lease_s))
        return kept

    def look(self, claims: Sequence[Claim]) -> tuple[Standing, ...]:
        found: tuple[Standing, ...] = self._ask("look", lambda: self.inner.look(claims))
        return found

    def add(self, key: str, amount: int, ttl_s: float) -> int:
        return int(self._ask("add", lambda: self.inner.add(key, amount, ttl_s)))

    def get(self, key: str) -> int:
        return int(self._ask("get", lambda: self.inner.get(key)))

    def fetch(self, keys: Collection[str]) -> dict[str, str]:
        found: dict[str, str] = self._ask("fetch", lambda: self.inner.fetch(keys))
        return found

    def swap(self, key: str, old: str | None, new: str | None, ttl_s: float) -> bool:
        return bool(self._ask("swap", lambda: self.inner.swap(key, old, new, ttl_s)))


def limiter(*rules: Rule, counters: Counters | None = None, policy: Policy | None = None, **more: Any) -> Limiter:
    priced = more.pop("meter", None) or meter()
    return Limiter(counters or MemoryCounters(), Listed(*rules), priced, policy, **more)


def asked(outputs: int | None = 1, **more: Any) -> Call:
    """A call that wants an answer of so many tokens, a dollar each."""
    body = {**({} if outputs is None else {"max_tokens": outputs}), **more.pop("body", {})}
    return call(MODEL, body=body, **more)


def planned(*names: str) -> list[Attempt]:
    return [attempt(name, number=number) for number, name in enumerate(names or (MODEL,), 1)]


def ended(*outputs: int, name: str = MODEL) -> Outcome:
    """An outcome with an attempt for each number of output tokens; the prompt has 10 tokens and costs nothing."""
    tried = [attempt(name, number=number) for number in range(1, len(outputs) + 1)]
    for one, tokens in zip(tried, outputs, strict=True):
        one.transcript.add({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": tokens}})
    return Outcome(200, tried, time.time())


def billed(cost: Bill | None = None, usage: Usage | None = None) -> Outcome:
    one = attempt(MODEL)
    one.bill = cost or Bill(usage)
    return Outcome(200, [one], time.time())


def used(it: Limiter, made: Call | None = None) -> list[int]:
    """What each rule of a call holds."""
    return [one.standing.used for one in it.look(made or asked(), planned())]


def within(most_s: float, holds: Callable[[], object]) -> None:
    end_s = time.monotonic() + most_s
    while not holds():
        assert time.monotonic() < end_s, f"not within {most_s} s"
        time.sleep(0.01)
