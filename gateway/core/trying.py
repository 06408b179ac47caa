"""What is tried after a failure: whose it is, where the next try goes, and how long it waits before that."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from typing import Protocol

from gateway.core.calls import Attempt, Deployment
from gateway.core.choosing import Plan
from gateway.errors import GatewayError, ProviderRefused, ProviderRejectedKey, UpstreamError

#: Whose failure it is.
CALLERS = "caller's"
DEPLOYMENTS = "deployment's"
TOO_LONG = "too long"
REFUSED = "refused"

#: Full jitter (Brooker, "Exponential Backoff And Jitter", 2015): anything from 0 up to a bound that doubles.
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 4.0
#: A provider that wants a longer pause is not waited for: its answer goes back, which says when to come again.
_LONGEST_WAIT_S = 5.0
#: A try that has less time than this before the deadline is not begun.
_SHORTEST_TRY_S = 0.1

#: Codes and sentences of a prompt that is longer than the model's context: OpenAI and its like, Anthropic, Gemini,
#: Bedrock and Cohere, as their references and SDKs' tests have them.
_TOO_LONG_CODES = frozenset({"context_length_exceeded", "string_above_max_length", "request_too_large"})
_TOO_LONG_WORDS = re.compile(
    r"maximum context length|context[ _](length|window)|prompt is too long|input is too long"
    r"|exceeds? the (maximum|max)[a-z ]* (number of )?tokens|too many (input )?tokens|input token count",
    re.IGNORECASE,
)
_REFUSED_CODES = frozenset(
    {"content_filter", "content_policy_violation", "responsibleaipolicyviolation", "moderation_blocked"}
)
_REFUSED_WORDS = re.compile(
    r"content (management )?policy|content[ _]filter|safety system|blocked by .{0,40}(safety|filter)|input was flagged",
    re.IGNORECASE,
)


def whose(error: GatewayError) -> str:
    """Say whose failure it is: `CALLERS`, `DEPLOYMENTS`, or of a refusal what the model could not take.

    A provider that wants to be paid (402) or to know who asks (401, 403) is the deployment's: another has another key.
    """
    if isinstance(error, ProviderRefused):
        code = (error.public_code or "").lower()
        if code in _TOO_LONG_CODES or (error.http_status in (400, 413) and _TOO_LONG_WORDS.search(error.message)):
            return TOO_LONG
        if code in _REFUSED_CODES or (error.http_status in (400, 403) and _REFUSED_WORDS.search(error.message)):
            return REFUSED
        return DEPLOYMENTS if error.http_status == 402 else CALLERS
    return DEPLOYMENTS if isinstance(error, UpstreamError) and error.elsewhere else CALLERS


def wait_s(error: GatewayError, now_s: float) -> float:
    """Read how long a provider wants to be left alone (RFC 9110, section 10.2.3, and OpenAI's `retry-after-ms`).

    Args:
        error: what it answered.
        now_s: seconds since the epoch, for a wait that is told as a date.

    Returns:
        Seconds from now, 0 where it says nothing.
    """
    if error.retry_after_ms is not None:
        return float(error.retry_after_ms) / 1000
    if error.retry_after is None:
        return 0.0
    try:
        return max(0.0, float(error.retry_after))
    except ValueError:
        return max(0.0, _date_s(error.retry_after, now_s) - now_s)


def _date_s(text: str, otherwise_s: float) -> float:
    """Read a date as HTTP has it, seconds since the epoch; what looks like one and is none says nothing."""
    date = parsedate_tz(text)
    try:
        return otherwise_s if date is None else mktime_tz(date)
    except (ValueError, OverflowError):
        return otherwise_s


def pause_s(before: int, wanted_s: float, dice: float) -> float:
    """How long to wait before a deployment is asked again.

    Args:
        before: how often it was asked again before, in this call.
        wanted_s: what it wants to be left alone for.
        dice: in [0, 1); also behind a wait that all callers were told alike, they are to come one by one.
    """
    return wanted_s + dice * min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0**before)


class Gate(Protocol):
    """Who knows how deployments are, and how many tries more they may see."""

    def closed(self, deployment: Deployment) -> bool:
        """Whether its breaker is closed."""

    def admit(self, deployment: Deployment) -> bool:
        """Whether its breaker lets a call through now; of a half-open one this call is then the probe."""

    def again(self, deployment: Deployment) -> bool:
        """Whether its breaker is closed, and its retry budget has a try more, which is then taken."""

    def spare(self, deployment: Deployment) -> bool:
        """Whether its retry budget has a try more, which is then taken, whatever its breaker says."""


@dataclass(frozen=True)
class Turn:
    """The next try: where, and after how many seconds."""

    attempt: Attempt
    pause_s: float = 0.0


class Turns:
    """Whose turn it is, in one call. A first try is never refused; the plan's deployments get one each.

    Args:
        plan: what is tried.
        gate: of its deployments; not asked where the plan says nothing of trying.
        once: only the first deployment is tried, and only once.
    """

    __slots__ = ("_failed", "_gate", "_instead", "_once", "_own", "_plan", "_put_off", "_repeats", "_waiting")

    def __init__(self, plan: Plan, gate: Gate, *, once: bool = False) -> None:
        self._plan = plan
        self._gate = gate
        self._once = once
        self._waiting = list(plan.attempts)
        self._put_off: list[Attempt] = []
        self._failed: list[tuple[Attempt, GatewayError]] = []
        self._repeats = 0
        self._instead = False
        self._own = plan.attempts[0].name if plan.attempts else ""

    def first(self) -> Attempt:
        """The deployment that is tried first: the first that is let through, else the first of all."""
        if self._plan.trying is None:
            return self._waiting.pop(0)
        attempt = self._admitted(self._waiting)
        return attempt if attempt is not None else self._put_off.pop(0)

    @property
    def more(self) -> bool:
        """Whether a deployment is left to try that is well."""
        return not self._once and any(self._gate.closed(attempt.deployment) for attempt in self._waiting)

    def after(self, attempt: Attempt, error: GatewayError, now_s: float, left_s: float, dice: float) -> Turn | None:
        """Say what comes after a failure.

        Args:
            attempt: what failed.
            error: how.
            now_s: seconds since the epoch.
            left_s: seconds until the call's deadline.
            dice: in [0, 1), for the length of a pause.

        Returns:
            None: the failure is the call's.
        """
        kind = whose(error)
        if self._once or left_s < _SHORTEST_TRY_S or kind == CALLERS:
            return None
        if kind in (TOO_LONG, REFUSED):
            return self._other_names(kind)
        self._failed.append((attempt, error))
        trying = self._plan.trying
        if trying is None:
            return Turn(self._waiting.pop(0)) if self._waiting else None
        own = [one for one in self._waiting if one.name == attempt.name]
        if (found := self._admitted(own)) is not None:
            return Turn(found)
        repeats = attempt.name == self._own and self._repeats < trying.retries
        if repeats and (turn := self._again(now_s, left_s, dice)) is not None:
            return turn
        if (found := self._admitted(self._waiting)) is not None:
            return Turn(found)
        return self._last_resort()

    def _admitted(self, among: Sequence[Attempt]) -> Attempt | None:
        """The first that its breaker lets through; those before it are put off."""
        for attempt in tuple(among):
            self._waiting.remove(attempt)
            if self._gate.admit(attempt.deployment):
                return attempt
            self._put_off.append(attempt)
        return None

    def _again(self, now_s: float, left_s: float, dice: float) -> Turn | None:
        """One of those that failed, the soonest to be asked again."""
        soonest: list[tuple[float, Attempt]] = []
        for attempt, error in self._failed:
            wanted_s = wait_s(error, now_s)
            hopeless = isinstance(error, ProviderRejectedKey | ProviderRefused) or error.should_retry is False
            if attempt.name == self._own and not hopeless and wanted_s <= _LONGEST_WAIT_S:
                soonest.append((wanted_s, attempt))
        for wanted_s, attempt in sorted(soonest, key=lambda pair: pair[0]):
            pause = pause_s(self._repeats, wanted_s, dice)
            if pause + _SHORTEST_TRY_S <= left_s and self._gate.again(attempt.deployment):
                self._repeats += 1
                self._failed = [pair for pair in self._failed if pair[0] is not attempt]
                return Turn(Attempt(attempt.deployment, name=attempt.name, why="tried again"), pause)
        return None

    def _last_resort(self) -> Turn | None:
        """One whose breaker is open, where nothing else is left."""
        while self._put_off:
            attempt = self._put_off.pop(0)
            if self._gate.spare(attempt.deployment):
                return Turn(attempt)
        return None

    def _other_names(self, kind: str) -> Turn | None:
        """The names that are tried for a prompt that is too long, or was refused; once in a call."""
        others = list(self._plan.too_long if kind == TOO_LONG else self._plan.refused)
        if self._instead or not others:
            return None
        self._instead, self._waiting, self._put_off = True, others, []
        if (found := self._admitted(self._waiting)) is not None:
            return Turn(found)
        return self._last_resort()
