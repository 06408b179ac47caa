"""Which time a page looks at, and whose calls."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from flask import g, request

from gateway.storage.usage import Span, UsageRows, Wanted

_HOUR_S, _DAY_S = 3_600, 86_400


@dataclass(frozen=True)
class Choice:
    """A time that can be chosen. It begins with an hour or a day, so that sums of whole ones are of use.

    Attributes:
        label: how it is called.
        length_s: how long it is.
        step_s: how long a step of its charts is, and `whole_s` what it begins with.
    """

    label: str
    length_s: int
    step_s: int
    whole_s: int

    def until(self, now_s: float, step_s: int | None = None) -> Span:
        """The span that ends with the step that is now; `step_s` is another length of its steps."""
        step_s = step_s or self.step_s
        since_s = (math.ceil(now_s / self.whole_s) * self.whole_s) - self.length_s
        return Span(float(since_s), step_s, max(1, math.ceil((now_s - since_s) / step_s)))


SPANS: Mapping[str, Choice] = {
    "1h": Choice("1 hour", _HOUR_S, 60, 60),
    "24h": Choice("24 hours", _DAY_S, _HOUR_S, _HOUR_S),
    "7d": Choice("7 days", 7 * _DAY_S, 3 * _HOUR_S, _DAY_S),
    "30d": Choice("30 days", 30 * _DAY_S, 12 * _HOUR_S, _DAY_S),
}
DEFAULT = "24h"


@dataclass(frozen=True)
class View:
    """What a page was asked to look at.

    Attributes:
        rows: the ledger.
        name: of `SPANS`.
        now_s: seconds since the epoch.
        whose: of whom all that is shown is; without times.
    """

    rows: UsageRows
    name: str
    now_s: float
    whose: Wanted

    @property
    def choice(self) -> Choice:
        """The time that was chosen."""
        return SPANS[self.name]

    @property
    def span(self) -> Span:
        """The same until now, in steps."""
        return self.choice.until(self.now_s)

    def wanted(self, back_s: float = 0.0) -> Wanted:
        """The rows of that time, or of the same one so many seconds before."""
        return replace(self.whose, since_s=self.span.since_s - back_s, until_s=self.now_s - back_s)


def viewed(rows: UsageRows) -> View:
    """Read what was asked for. Who does not manage the gateway sees their own."""
    name = request.args.get("span", DEFAULT)
    whose = Wanted(callers=g.session.reader.callers)
    return View(rows, name if name in SPANS else DEFAULT, time.time(), whose)
