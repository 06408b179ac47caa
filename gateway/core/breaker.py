"""Circuit breakers, retry budgets and moving averages: how a deployment has done of late, and what follows from it.

The clock is an argument throughout: seconds on any clock that does not go back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from gateway.core.policies import Trying

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half-open"

#: The calls of which half may fail.
_LAST = 20
#: A deployment that is left alone is probed as often as this at most, once its cooldown is over: above a second, so
#: that the deployment sees no two within one where the first was a little longer on its way.
PROBE_EVERY_S = 1.2
#: A probe that has told nothing for so long is not waited for: another may go.
_PROBE_TAKES_S = 30.0

#: How long what counts for a budget is remembered.
_BUDGET_S = 10
#: So many tries a window are allowed where there are hardly any calls.
_ALWAYS_ALLOWED = 3

#: The weight of the newest of what is averaged: about the last six count.
_NEWEST = 0.3


class Breaker:
    """Whether a deployment is called: closed, it is; open, it is left alone; half-open, one call may probe it."""

    def __init__(self) -> None:
        self._until_s: float | None = None
        self._opened_s = 0.0
        self._row = 0
        self._last: deque[bool] = deque(maxlen=_LAST)
        self._probed_s: float | None = None
        self._probing = False

    def state(self, now_s: float) -> str:
        """`CLOSED`, `OPEN` or `HALF_OPEN`."""
        if self._until_s is None:
            return CLOSED
        return OPEN if now_s < self._until_s else HALF_OPEN

    @property
    def until_s(self) -> float | None:
        """Until when it is open; None where it is closed."""
        return self._until_s

    def may_probe(self, now_s: float) -> bool:
        """Whether a half-open one would let a call through now."""
        if self.state(now_s) != HALF_OPEN:
            return False
        if self._probed_s is None:
            return True
        return now_s - self._probed_s >= (_PROBE_TAKES_S if self._probing else PROBE_EVERY_S)

    def admit(self, now_s: float) -> bool:
        """Let a call through, or not; of a half-open one this is the probe."""
        if self._until_s is None:
            return True
        if not self.may_probe(now_s):
            return False
        self._probed_s, self._probing = now_s, True
        return True

    def succeeded(self, now_s: float, began_s: float) -> None:
        """Note that a call was answered. One that began before the breaker opened proves nothing, and closes nothing.

        Args:
            now_s: when.
            began_s: when the call was sent.
        """
        if self._until_s is None:
            self._row = 0
            self._last.append(True)
        elif began_s >= self._opened_s:
            self.close()

    def failed(self, now_s: float, trying: Trying) -> bool:
        """Note that a call failed by the deployment's fault.

        Returns:
            Whether that opened it.
        """
        if self._until_s is not None:
            return False
        self._row += 1
        self._last.append(False)
        half = len(self._last) == _LAST and 2 * self._last.count(False) >= _LAST
        if trying.cooldown_s <= 0 or (self._row < trying.allowed_fails and not half):
            return False  # with no time to be left alone it never is: LiteLLM's `disable_cooldowns`
        self.open(now_s, now_s + trying.cooldown_s)
        return True

    def released(self) -> None:
        """Note that the probe is over, whatever it told; the next may go `PROBE_EVERY_S` after it began."""
        self._probing = False

    def open(self, now_s: float, until_s: float) -> None:
        """Leave the deployment alone until then."""
        self._until_s, self._opened_s = until_s, now_s
        self._probed_s, self._probing = None, False

    def close(self) -> None:
        """Call it again, as if it had never failed."""
        self._until_s, self._row, self._probing = None, 0, False
        self._last.clear()


class RetryBudget:
    """How many tries more than calls a deployment may see, so that an outage is not multiplied."""

    def __init__(self) -> None:
        self._seconds: deque[list[int]] = deque()  # of a second: which, calls, tries beyond them

    def call(self, now_s: float) -> None:
        """Count a call."""
        self._second(now_s)[1] += 1

    def take(self, now_s: float, share: float) -> bool:
        """Take one try more, if the calls of the last 10 s allow it.

        Args:
            now_s: when.
            share: of those calls, from 0 on; three a window are always allowed, unless it is 0.
        """
        newest = self._second(now_s)
        allowed = max(_ALWAYS_ALLOWED, share * sum(second[1] for second in self._seconds)) if share > 0 else 0
        if sum(second[2] for second in self._seconds) + 1 > allowed:
            return False
        newest[2] += 1
        return True

    def _second(self, now_s: float) -> list[int]:
        number = int(now_s)
        seconds = self._seconds
        if not seconds or seconds[-1][0] != number:
            seconds.append([number, 0, 0])
            while seconds[0][0] <= number - _BUDGET_S:
                seconds.popleft()
        return seconds[-1]


class Average:
    """An exponentially weighted moving average; `value` is None before the first of what is averaged."""

    def __init__(self) -> None:
        self.value: float | None = None

    def add(self, newest: float) -> None:
        """Take one more in."""
        self.value = newest if self.value is None else self.value + _NEWEST * (newest - self.value)


class DeploymentHealth(NamedTuple):
    """How a deployment is, at one moment, as far as this process knows.

    Attributes:
        state: its breaker's.
        probe: a half-open breaker would let a call through.
        in_flight: attempts under way.
        first_content_s: how long a stream waits for its first content, on average; None where nobody knows.
        whole_s: how long an answer takes that is not streamed, likewise.
        left_alone_s: how much longer an open breaker stays open.
        limits: the provider's rate limits as its last answer told them, `x-provider-ratelimit-*`.
    """

    state: str = CLOSED
    probe: bool = False
    in_flight: int = 0
    first_content_s: float | None = None
    whole_s: float | None = None
    left_alone_s: float = 0.0
    limits: Mapping[str, str] = MappingProxyType({})

    @property
    def usable(self) -> bool:
        """Whether a call may be sent there now."""
        return self.state == CLOSED or self.probe
