"""What holds calls to limits and budgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.assembly.stores import place_of_counters
from gateway.core.periods import Period
from gateway.core.pricing import Meter
from gateway.core.rules import Match, Rule
from gateway.errors import StoreUnavailable
from gateway.limits import Limiter, Policy, Rules
from gateway.metrics import Metrics
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.notify import Notifier
    from gateway.storage.counters import Counters
    from gateway.storage.usage import UsageRows


def limiter(
    settings: Settings,
    counted: Counters,
    meter: Meter,
    metrics: Metrics,
    models: Mapping[str, Mapping[str, Any]],
    rules: Rules,
    spending: UsageRows,
    notices: Notifier,
    workers: int,
) -> Limiter:
    """What holds calls to limits and budgets. Starts nothing.

    Args:
        settings: the configuration.
        counted: what they are counted in.
        meter: what calls cost.
        metrics: where refusals are counted.
        models: LiteLLM's map.
        rules: which rules there are.
        spending: the ledger.
        notices: who is told of budgets that run out.
        workers: how many processes serve on this host.
    """
    policy = Policy(
        rpm=settings.rate_limit_rpm,
        fail_open=settings.limits_fail == "open",
        reserve_largest=settings.budget_reserve == "max",
        models=models,
        allow_unpriced=settings.budget_unpriced == "allow",
        workers=workers,
    )
    bounded = place_of_counters(settings) != "database"
    observer = _Observed(metrics, notices)
    return Limiter(counted, rules, meter, policy, spending=_Spent(spending), observer=observer, bounded=bounded)


class _Spent:
    """What the ledger knows of a budget (limits.Spending)."""

    def __init__(self, rows: UsageRows) -> None:
        self._rows = rows

    def spent(self, match: Match, each: Mapping[str, str | None], since_s: float, measure: str) -> int:
        """Add up what counts towards a budget."""
        from gateway.storage.counters import AWAY  # noqa: PLC0415  # SQLAlchemy is slow to import
        from gateway.storage.database import StorageError  # noqa: PLC0415

        try:
            return self._rows.spent(match, each, since_s, measure)
        except StorageError as error:
            raise StoreUnavailable(AWAY) from error


class _Observed:
    """Counts in the gateway's metrics what limits and budgets refuse, and tells of budgets that run out."""

    def __init__(self, metrics: Metrics, notices: Notifier) -> None:
        self._metrics = metrics
        self._notices = notices

    def refused(self, rule: Rule) -> None:
        """Count a call that a rule has refused."""
        self._metrics.limit_refused(rule.kind, rule.measure)

    def soft(self, rule: Rule, each: Mapping[str, str | None], used: int, most: int, period: Period) -> None:
        """Tell the budget's webhook."""
        subject = [value or "" for value in each.values()]
        self._notices.soft(rule, subject, used, most, (period.start_s, period.end_s))
