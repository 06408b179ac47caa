"""How the deployments are: breakers, retry budgets, latencies and attempts under way, and the plans made of that.

What is counted is this process's own. That a breaker has opened, or closed again, is told to the other workers through
the counters' store, about once a second, and whoever probes one asks there whether another just does; where that does
not answer, each worker finds out by itself.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from gateway.core import choosing, trying
from gateway.core.breaker import CLOSED, HALF_OPEN, OPEN, PROBE_EVERY_S, Average, Breaker, DeploymentHealth, RetryBudget
from gateway.core.calls import Attempt, Call, Deployment
from gateway.core.choosing import Plan, Price, World
from gateway.core.policies import Trying
from gateway.core.routing import Catalogue
from gateway.errors import DeadlineExceeded, GatewayError, StoreUnavailable, UpstreamError
from gateway.storage.counters import Counters

log = logging.getLogger(__name__)

_TELL_EVERY_S = 1.0
#: Deployments that are remembered; where names have a star, callers choose some of them.
_MOST_DEPLOYMENTS = 1000
#: Deployments that the other workers are asked about at once: those that were used last.
_MOST_ASKED = 200
_MOST_TURNS = 4096
#: A value in the store outlives its breaker's opening by this, so that a worker which looks late still learns of it.
_KEPT_S = 30.0
_PREFIX = "breaker/"
#: What is published of a breaker that is closed; of an open one, until when, in seconds since the epoch.
_CLOSED = "closed"
#: A value that ends by itself: a worker has sent a probe, and no other does so before it has ended. It ends before that
#: worker may send its next one, or every second of these would find it there.
_PROBED, _PROBED_S = "probed/", PROBE_EVERY_S - 0.1
_UNKNOWN = DeploymentHealth()


class _Watched:
    """What is known of one deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self.name = deployment.name
        self.id = choosing.id_of(deployment)
        self.breaker = Breaker()
        self.budget = RetryBudget()
        self.first_content = Average()
        self.whole = Average()
        self.in_flight = 0
        self.limits: Mapping[str, str] = {}
        #: What the store had when it was last looked at, and whether that is older than what is known here.
        self.shared: str | None = None
        self.untold = False


class Health:
    """Knows the deployments, plans by them, and is told what became of each attempt (`trying.Gate` for a call).

    Args:
        counters: where workers tell one another of breakers; None where there is but one.
        price: of tokens at a deployment, for the strategy that wants the cheapest; None where nobody knows it.
        now_s: the monotonic clock; `wall_s` is the time since the epoch, which hosts share.
        dice: draws a number in [0, 1).
    """

    def __init__(
        self,
        counters: Counters | None = None,
        price: Price = lambda _deployment, _usage: None,
        *,
        now_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._counters = counters
        self.price = price
        self._now_s = now_s
        self._wall_s = wall_s
        self._dice = dice
        self._lock = threading.Lock()
        self._known: dict[Deployment, _Watched] = {}
        self._turns: Counter[str] = Counter()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._was_away = False
        self._unwatched = Watching(self, None, hurried=False)

    def start(self) -> None:
        """Begin to tell the other workers, after the fork; safe to call again."""
        if self._counters is not None and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="gateway-health", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop telling the others; safe to call again."""
        self._ended.set()

    def plan(self, call: Call, catalogue: Catalogue) -> Plan:
        """Say what is tried for a call, by how the deployments are now (`choosing.plan`)."""
        return choosing.plan(call, catalogue, self._world)

    def look(self, call: Call, catalogue: Catalogue) -> Plan:
        """As `plan`, for a call that is not made: nobody's turn is over by it."""
        return choosing.plan(call, catalogue, self._world_unturned)

    def of(self, deployment: Deployment) -> DeploymentHealth:
        """How a deployment is now."""
        if (known := self._known.get(deployment)) is None:
            return _UNKNOWN
        breaker, open_s = known.breaker, 0.0
        state, probe = CLOSED, False
        if breaker.until_s is not None:
            now_s = self._now_s()
            state, probe = breaker.state(now_s), breaker.may_probe(now_s)
            open_s = max(0.0, breaker.until_s - now_s)
        return DeploymentHealth(
            state, probe, known.in_flight, known.first_content.value, known.whole.value, open_s, known.limits
        )

    def told(self, deployments: Iterable[Deployment]) -> dict[str, list[DeploymentHealth]]:
        """How deployments are now, for a reader: these, and all that this worker has tried.

        What another worker alone has tried is asked of the store; where that does not answer, it is left out.

        Returns:
            By `provider/model`, which several deployments can share.
        """
        known = list(self._known)
        strangers = [one for one in dict.fromkeys(deployments) if one not in self._known]
        found: dict[str, list[DeploymentHealth]] = {}
        for one in known:
            found.setdefault(one.name, []).append(self.of(one))
        for one, health in self._elsewhere(strangers):
            found.setdefault(one.name, []).append(health)
        return found

    def _elsewhere(self, strangers: Sequence[Deployment]) -> Iterator[tuple[Deployment, DeploymentHealth]]:
        """What other workers have published of deployments that are not known here."""
        if self._counters is None or not strangers:
            return
        ids = {one: _PREFIX + choosing.id_of(one) for one in strangers}
        try:
            there = self._counters.fetch(list(ids.values()))
        except StoreUnavailable as error:
            fields = {"why": str(error.__cause__ or error)}
            log.warning("the breakers of other workers cannot be told", extra={"fields": fields})
            return
        for one, id in ids.items():
            shared = there.get(id)
            left_s = 0.0 if shared in (None, _CLOSED) else float(shared) - self._wall_s()
            state = CLOSED if shared in (None, _CLOSED) else OPEN if left_s > 0 else HALF_OPEN
            yield one, DeploymentHealth(state, state == HALF_OPEN, left_alone_s=max(0.0, left_s))

    def watch(self, call: Call, rules: Trying | None) -> Watching:
        """What the attempts of a call are told to; where its plan says nothing of trying, nobody listens."""
        return self._unwatched if rules is None else Watching(self, rules, hurried=call.hurried)

    def dice(self) -> float:
        """Draw a number in [0, 1)."""
        return self._dice()

    def first_to_probe(self, deployment: Deployment) -> bool:
        """Whether no other worker has just probed a deployment; then this one has."""
        if self._counters is None or self._was_away:
            return True
        try:
            return self._counters.swap(_PROBED + choosing.id_of(deployment), None, "1", _PROBED_S)
        except StoreUnavailable:  # `exchange` tells of it
            return True

    def _world(self, name: str) -> World:
        with self._lock:
            if len(self._turns) > _MOST_TURNS:  # callers choose names, where a name has a star
                self._turns.clear()
            turn = self._turns[name]
            self._turns[name] += 1
        return World(self.of, self._dice(), turn, self.price)

    def _world_unturned(self, name: str) -> World:
        return World(self.of, self._dice(), self._turns[name], self.price)

    def _watched(self, deployment: Deployment) -> _Watched:
        """What is known of a deployment, the last used at the end."""
        known = self._known.pop(deployment, None) or _Watched(deployment)
        self._known[deployment] = known
        if len(self._known) > _MOST_DEPLOYMENTS:
            idle = (one for one, state in self._known.items() if not state.in_flight)
            self._known.pop(next(idle), None)
        return known

    def _state(self, deployment: Deployment) -> tuple[_Watched, float]:
        """What is known of a deployment, and the time; to be asked under the lock."""
        return self._watched(deployment), self._now_s()

    # What the other workers know.

    def _run(self) -> None:
        while not self._ended.wait(_TELL_EVERY_S):
            try:
                self.exchange()
                self._was_away = False
            except StoreUnavailable as error:
                if not self._was_away:
                    fields = {"why": str(error.__cause__ or error)}
                    log.warning("workers cannot tell one another of breakers", extra={"fields": fields})
                self._was_away = True

    def exchange(self) -> None:
        """Tell the other workers what is new here, and take in what is new there.

        Raises:
            StoreUnavailable: the store does not answer; what was not told is told the next time.
        """
        if self._counters is None:
            return
        with self._lock:
            asked = list(self._known.values())[-_MOST_ASKED:]
        if not asked:
            return
        there = self._counters.fetch([_PREFIX + one.id for one in asked])
        for one in asked:
            shared = there.get(_PREFIX + one.id)
            if one.untold:
                self._tell(self._counters, one, shared)
            elif shared != one.shared:
                self._take(one, shared)

    def _tell(self, counters: Counters, one: _Watched, shared: str | None) -> None:
        """Publish until when a breaker is open, or that it is closed."""
        with self._lock:
            one.untold = False
            now_s, until_s = self._now_s(), one.breaker.until_s
        new = _CLOSED if until_s is None else f"{self._wall_s() + until_s - now_s:.3f}"
        kept_s = _KEPT_S + (0.0 if until_s is None else max(0.0, until_s - now_s))
        if new == shared or counters.swap(_PREFIX + one.id, shared, new, kept_s):
            one.shared = new
        else:
            one.untold = True  # another worker was faster: look again, and tell then

    def _take(self, one: _Watched, shared: str | None) -> None:
        """Open or close a breaker as another worker did."""
        with self._lock:
            one.shared, now_s = shared, self._now_s()
            closed = one.breaker.state(now_s) == CLOSED
            if shared == _CLOSED and not closed:
                one.breaker.close()
            elif shared not in (_CLOSED, None) and closed:
                one.breaker.open(now_s, now_s + float(shared or 0) - self._wall_s())


class Watching:
    """What becomes of the attempts of one call: who may be tried (`trying.Gate`), and how each went.

    Args:
        health: what is told.
        rules: of the call's plan; None: nothing is to be told, and nobody asks.
        hurried: its caller set a deadline of its own.
    """

    def __init__(self, health: Health, rules: Trying | None, *, hurried: bool) -> None:
        self._health = health
        self._hurried = hurried
        self._rules = rules
        self._begun: dict[int, float] = {}
        self._probes: set[Deployment] = set()

    def closed(self, deployment: Deployment) -> bool:
        """Whether its breaker is closed (`Gate.closed`)."""
        return self._health.of(deployment).state == CLOSED

    def admit(self, deployment: Deployment) -> bool:
        """Whether its breaker lets a call through (`Gate.admit`)."""
        with self._health._lock:
            known, now_s = self._health._state(deployment)
            admitted, closed = known.breaker.admit(now_s), known.breaker.state(now_s) == CLOSED
        if not admitted or closed:
            return admitted
        # outside of the lock: for this one call a second the store is asked, which may take a while
        first = False
        try:
            first = self._health.first_to_probe(deployment)
        finally:
            if first:
                self._probes.add(deployment)
            else:
                with self._health._lock:
                    known, _ = self._health._state(deployment)
                    known.breaker.released()
        return first

    def again(self, deployment: Deployment) -> bool:
        """Whether it may be asked once more (`Gate.again`)."""
        rules = self._rules or Trying()
        with self._health._lock:
            known, now_s = self._health._state(deployment)
            return known.breaker.state(now_s) == CLOSED and known.budget.take(now_s, rules.budget)

    def spare(self, deployment: Deployment) -> bool:
        """Whether one try more is allowed (`Gate.spare`)."""
        rules = self._rules or Trying()
        with self._health._lock:
            known, now_s = self._health._state(deployment)
            return known.budget.take(now_s, rules.budget)

    def began(self, attempt: Attempt, *, counted: bool) -> None:
        """Note that an attempt begins.

        Args:
            attempt: which; its `number` tells it apart.
            counted: it is not one that the budget was asked for.
        """
        if self._rules is None:
            return
        with self._health._lock:
            known, now_s = self._health._state(attempt.deployment)
            known.in_flight += 1
            if counted:
                known.budget.call(now_s)
            self._begun[attempt.number] = now_s

    def answered(self, attempt: Attempt, *, stream: bool) -> None:
        """Note that a stream has its first content, or that a whole answer has come."""
        if (began_s := self._begun.get(attempt.number)) is None:
            return
        with self._health._lock:
            known, now_s = self._health._state(attempt.deployment)
            (known.first_content if stream else known.whole).add(now_s - began_s)
            self._succeeded(known, now_s, began_s)

    def failed(self, attempt: Attempt, error: GatewayError) -> None:
        """Note that an attempt failed; only the deployment's own failures count against it."""
        if self._rules is None or (began_s := self._begun.get(attempt.number)) is None:
            return
        ours = isinstance(error, DeadlineExceeded) and not self._hurried
        with self._health._lock:
            known, now_s = self._health._state(attempt.deployment)
            if ours or trying.whose(error) == trying.DEPLOYMENTS:
                if known.breaker.failed(now_s, self._rules):
                    known.untold = True
                    fields = {"deployment": known.name, "error": error.public_code or error.public_type}
                    log.warning("a deployment is left alone for a while", extra={"fields": fields})
            elif isinstance(error, UpstreamError):
                self._succeeded(known, now_s, began_s)  # it answers, and finds the request at fault

    def ended(self, attempt: Attempt) -> None:
        """Note that an attempt is over, however it ended; once for each that began."""
        if self._begun.pop(attempt.number, None) is None:
            return
        with self._health._lock:
            known, _ = self._health._state(attempt.deployment)
            known.in_flight -= 1
            known.limits = attempt.provider_headers or known.limits
            if attempt.deployment in self._probes:
                self._probes.discard(attempt.deployment)
                known.breaker.released()

    @staticmethod
    def _succeeded(known: _Watched, now_s: float, began_s: float) -> None:
        was = known.breaker.state(now_s)
        known.breaker.succeeded(now_s, began_s)
        if was != CLOSED and known.breaker.state(now_s) == CLOSED:
            known.untold = True
            log.info("a deployment is called again", extra={"fields": {"deployment": known.name}})
