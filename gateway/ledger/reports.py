"""What is asked of the ledger and answered from it: queries, JSON and CSV, the same over HTTP and for commands."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from gateway.core.ledger import NANO, TOKENS
from gateway.core.paging import Page
from gateway.errors import InvalidRequest
from gateway.storage.usage import GROUPS, Report, Sums, Wanted

JSON = dict[str, Any]

MOST_GROUPS = 1000

_FILTERS = ("key", "user", "project", "caller", "model", "provider", "deployment", "tag", "operation")
_YEAR_10000_S = 253_402_300_800.0
#: What a spreadsheet takes for the beginning of a formula (OWASP, "CSV Injection"), in full width as well.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def wanted_of(asked: Mapping[str, Any], now_s: float) -> Wanted:
    """Read which rows are meant.

    Args:
        asked: fields of a query, those of `Wanted` with `since` and `until` for its times.
        now_s: seconds since the epoch. Where `since` is not there, the month (UTC) that has begun is meant.

    Raises:
        InvalidRequest: a time cannot be read.
    """
    since, until = asked.get("since"), asked.get("until")
    return Wanted(
        since_s=month_began_s(now_s) if since is None else moment_s(since, "since"),
        until_s=None if until is None else moment_s(until, "until"),
        **{name: asked.get(name) for name in _FILTERS},
    )


def by_of(text: str | None, allowed: Sequence[str] = GROUPS) -> tuple[str, ...]:
    """Read what rows are grouped by: names with commas between, none where there is no text.

    Raises:
        InvalidRequest: a name is not among those allowed, or stands twice.
    """
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    if unknown := [name for name in names if name not in allowed]:
        raise InvalidRequest(f"{unknown[0][:64]!r} is nothing to group by; there are {', '.join(allowed)}.", param="by")
    if len(set(names)) < len(names):
        raise InvalidRequest("by names one thing twice.", param="by")
    return names


def moment_s(text: str, name: str) -> float:
    """Read a time: seconds since the epoch, or ISO 8601 (UTC where it names no zone).

    Raises:
        InvalidRequest: it is neither; names the field.
    """
    try:
        if "-" in text:
            moment = datetime.fromisoformat(text)
            found = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        else:
            found = float(text)
    except (ValueError, OverflowError):
        found = math.nan
    if not 0 <= found < _YEAR_10000_S:
        raise InvalidRequest(f"{name} must be seconds since the epoch, or a time like 2026-01-31T12:00Z", param=name)
    return found


def month_began_s(now_s: float) -> float:
    """When the month began that is now, UTC; seconds since the epoch."""
    now = datetime.fromtimestamp(now_s, UTC)
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()


def report_document(report: Report, wanted: Wanted, by: Sequence[str]) -> JSON:
    """Write a report as JSON."""
    return {
        "object": "usage",
        "since": wanted.since_s,
        "until": wanted.until_s,
        "by": list(by),
        "data": [_sums_document(one) for one in report.groups],
        "total": _sums_document(report.total),
        "has_more": report.more,
    }


def calls_document(page: Page[JSON]) -> JSON:
    """Write a page of single rows as JSON; `next` is what to send as `after` for the page behind it."""
    return {
        "object": "list",
        "data": [_call_document(row) for row in page.items],
        "has_more": page.more,
        "next": place_of(page.items[-1]) if page.more else None,
    }


def report_csv(report: Report, by: Sequence[str]) -> str:
    """Write the groups of a report as CSV; the total alone where there are none to group by."""
    rows = report.groups if by else [report.total]
    header = [*by, *_NUMBERS, "cost_usd"]
    return csv_text(header, [[*one.by.values(), *_numbers(one).values(), usd_text(one.cost_nano)] for one in rows])


def calls_csv(page: Page[JSON]) -> str:
    """Write single rows as CSV; lists have commas between, and the bills of attempts are left out."""
    header = [name for name in _CALL if name not in ("object", "price")]
    rows = []
    for row in page.items:
        cells = {**_call_document(row), "cost_usd": usd_text(row["cost_nano"])}
        cells |= {name: ",".join(cells[name]) for name in ("tags", "planned")}
        rows.append([cells[name] for name in header])
    return csv_text(header, rows)


def csv_text(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Write CSV (RFC 4180) that a spreadsheet opens without running any of it.

    A text that begins like a formula gets an apostrophe in front. None is an empty cell.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(header)
    writer.writerows([[_cell(value) for value in row] for row in rows])
    return out.getvalue()


def usd_text(cost_nano: int | None) -> str | None:
    """Write nano-dollars as US dollars, exact; None where they are unknown."""
    return None if cost_nano is None else f"{cost_nano // NANO}.{cost_nano % NANO:09d}"


def place_of(row: JSON) -> str:
    """Where a row stands in a list of calls."""
    return f"{row['started']!r}_{row['request_id']}"


def read_place(text: str) -> tuple[float, str]:
    """Read what `place_of` wrote.

    Raises:
        InvalidRequest: it did not write that.
    """
    started, _, request_id = text.partition("_")
    try:
        found = float(started)
    except ValueError:
        found = math.nan
    if not math.isfinite(found) or not request_id or not request_id.isprintable():
        raise InvalidRequest("after must be what `next` of the page before it was", param="after")
    return found, request_id


_NUMBERS = ("requests", "failed", "lost", *TOKENS, "unpriced", "cost_nano")


def _numbers(sums: Sums) -> dict[str, int]:
    counts = {name: getattr(sums, name) for name in _NUMBERS if name not in TOKENS} | dict(sums.tokens)
    return {name: counts[name] for name in _NUMBERS}


def _sums_document(sums: Sums) -> JSON:
    return {**sums.by, **_numbers(sums), "cost_usd": sums.cost_nano / NANO}


_CALL = (
    "object", "request_id", "state", "started", "ended", "operation", "caller", "caller_kind", "tenant", "key_id",
    "project_id", "project", "user_id", "user", "tags", "model", "planned", "provider", "deployment", "served_model",
    "status", "error_code", "stream", "caller_gone", "attempts", "time_to_first_token_s", *TOKENS, "estimated",
    "cost_nano", "cost_usd", "price",
)  # fmt: skip


def _call_document(row: JSON) -> JSON:
    cost_nano = row["cost_nano"]
    found = {
        **row,
        "object": "call",
        "tags": row["tags"] or [],
        "price": row["price"] or [],
        "cost_usd": None if cost_nano is None else cost_nano / NANO,
    }
    return {name: found[name] for name in _CALL}


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
