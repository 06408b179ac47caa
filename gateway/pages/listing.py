"""The list of requests: from the ledger, and with them those that were refused before anything was tried."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from flask import g, render_template, request

from gateway.core.ledger import NANO
from gateway.pages.sign_in import Route
from gateway.pages.spans import SPANS
from gateway.pipeline import Gateway
from gateway.storage.usage import Wanted
from gateway.tracing.search import Filters, Search, Trace

JSON = dict[str, Any]

_PAGE = 50
#: A search for text goes through what was said, some hundred MB of it at most; so long at once, then whoever asked says
#: whether it goes on.
_SEARCH_S = 0.5
#: Sorts behind every id: a search that goes on begins with all of the moment that it came to.
_LAST_ID = "~"
#: What the list can be asked for, each with its label.
FIELDS: Mapping[str, str] = {
    "model": "Model",
    "status": "Status",
    "error": "Error's code",
    "provider": "Provider",
    "caller": "Caller",
    "key": "Key's id",
    "user": "User",
    "tag": "Tag",
    "min_cost": "Cost from, USD",
    "min_latency": "Took from, seconds",
    "since": "Since",
    "until": "Until",
    "text": "Text",
}
#: What traces are not found by; the list has rows of the ledger alone where one of these is asked for.
_OF_LEDGER = ("error", "provider", "key", "user", "min_latency")
_LARGEST_AMOUNT = 1e9


@dataclass(frozen=True)
class Entry:
    """A line of the list.

    Attributes:
        started_s, took_s, first_s: when it began, and how long it took; seconds.
        state: `ended`, `lost`, `open` or `interrupted`.
        who: what its key is called, or the caller's id.
        rate: tokens of the answer for each second after the first one.
    """

    id: str
    started_s: float
    state: str
    status: int | None
    error: str | None
    model: str | None
    served: str | None
    provider: str | None
    who: str | None
    stream: bool
    tags: Sequence[str]
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    cost_usd: float | None
    took_s: float | None
    first_s: float | None
    attempts: int | None = None

    @property
    def rate(self) -> float | None:
        """Tokens of the answer by the second, from the first one on."""
        if not self.completion_tokens or self.took_s is None:
            return None
        saying_s = self.took_s - (self.first_s or 0.0)
        return self.completion_tokens / saying_s if saying_s > 0.001 else None


@dataclass(frozen=True)
class Asked:
    """What was asked for, read; `faults` says what could not be."""

    fields: Mapping[str, str]
    wanted: Wanted
    filters: Filters
    faults: Sequence[str]

    @property
    def traced(self) -> bool:
        """Whether traces are found by all of it."""
        return not any(name in self.fields for name in _OF_LEDGER)

    @property
    def kept(self) -> bool:
        """Whether the ledger can have a row like that: it tells no call that is open or was interrupted."""
        return self.filters.status not in ("open", "interrupted")

    @property
    def query(self) -> str:
        """The same as an address has it."""
        return urlencode(self.fields)


def routes(gateway: Gateway) -> dict[str, Route]:
    """Return the routes."""

    def listed() -> Any:
        asked = read(request.args)
        before = _cursor(request.args.get("before", ""))
        found, more, searched_to = ([], False, None) if asked.faults else _entries(gateway, asked, before)
        last = f"{found[-1].started_s!r},{found[-1].id}" if more else ""
        if searched_to is not None:
            last = f"{searched_to!r},{_LAST_ID}"
        template = "part_requests.html" if "HX-Request" in request.headers else "requests.html"
        return render_template(
            template,
            kept=gateway.ledger.rows is not None or gateway.local_traces is not None,
            searched=gateway.local_traces is not None,
            asked=asked.fields,
            faults=asked.faults,
            entries=found,
            following=urlencode({**asked.fields, "before": last}) if last else "",
            searched_to=searched_to,
            query=asked.query,
            before=request.args.get("before", ""),
            live=not request.args.get("before") and request.args.get("live") != "off",
        )

    return {"requests": ("/requests", ("GET",), listed)}


def _entries(
    gateway: Gateway, asked: Asked, before: tuple[float, str] | None
) -> tuple[list[Entry], bool, float | None]:
    """A page of the list, newest first; whether there are more; and how far back a search for text came in its time."""
    rows, search = gateway.ledger.rows, gateway.local_traces
    found: dict[str, Entry] = {}
    searched_to: float | None = None
    if search is not None and asked.traced and asked.filters.status != "lost":
        traces, searched_to = _of_traces(search, asked.filters, before)
        found = {one.id: one for one in traces}
    if rows is not None:
        if asked.filters.text is not None:
            kept: Iterable[JSON] = rows.of_requests(list(found)).values()
        elif not asked.kept:
            kept = ()
        else:
            kept = rows.page(asked.wanted, after=before, limit=_PAGE + 1).items
        found |= {one.id: one for one in map(_of_row, kept)}
    entries = sorted(found.values(), key=lambda one: (one.started_s, one.id), reverse=True)
    return _named(gateway, entries[:_PAGE]), len(entries) > _PAGE, searched_to if len(entries) <= _PAGE else None


def _named(gateway: Gateway, entries: Sequence[Entry]) -> list[Entry]:
    """The same with the names of keys where these have one."""
    ids = {
        one.who: one.who.removeprefix("key_") for one in entries if one.who is not None and one.who.startswith("key_")
    }
    names = gateway.directory.keys.names(set(ids.values())) if ids and gateway.directory is not None else {}
    return [replace(one, who=names.get(ids.get(one.who or "", ""), one.who)) for one in entries]


def _of_traces(search: Search, filters: Filters, before: tuple[float, str] | None) -> tuple[list[Entry], float | None]:
    """Traces are in the order of other ids than requests are: those of the very moment of `before` are sorted out."""
    place = None if before is None else (before[0], "\N{REPLACEMENT CHARACTER}")
    traces, reached = search.list_within(filters, limit=_PAGE + 2, before=place, within_s=_SEARCH_S)
    found = [_of_trace(trace) for trace in traces]
    return [one for one in found if before is None or (one.started_s, one.id) < before], reached and reached[0]


def _of_trace(trace: Trace) -> Entry:
    return Entry(
        id=trace.request_id,
        started_s=trace.started,
        state=trace.state,
        status=trace.status,
        error=trace.error_code or trace.error,
        model=trace.model,
        served=trace.served_model,
        provider=trace.provider,
        who=trace.caller,
        stream=trace.stream,
        tags=trace.tags,
        prompt_tokens=trace.prompt_tokens,
        completion_tokens=trace.completion_tokens,
        cached_tokens=trace.cached_tokens,
        cost_usd=trace.cost_usd,
        took_s=None if trace.duration_ms is None else trace.duration_ms / 1000,
        first_s=trace.time_to_first_token_s,
    )


def _of_row(row: JSON) -> Entry:
    return Entry(
        id=row["request_id"],
        started_s=row["started"],
        state=row["state"],
        status=row["status"],
        error=row["error_code"],
        model=row["model"],
        served=row["served_model"] or row["deployment"],
        provider=row["provider"],
        who=row["caller"],
        stream=row["stream"],
        tags=row["tags"] or (),
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        cached_tokens=row["cached_tokens"],
        cost_usd=None if row["cost_nano"] is None else row["cost_nano"] / NANO,
        took_s=row["ended"] - row["started"] if row["state"] == "ended" else None,
        first_s=row["time_to_first_token_s"],
        attempts=row["attempts"],
    )


def read(args: Mapping[str, str]) -> Asked:
    """Read what was asked for; and say which of it cannot be."""
    fields = {name: text for name in FIELDS if (text := args.get(name, "").strip())}
    faults: list[str] = []

    def number(name: str, how: Callable[[str], float], what: str) -> float | None:
        try:
            return how(fields[name]) if name in fields else None
        except ValueError:
            faults.append(f"{FIELDS[name]}: {fields[name][:40]!r} is no {what}.")
            return None

    status = fields.get("status")
    if status is not None and not _is_status(status):
        faults.append("Status: one is 404, 4xx, error, lost, open or interrupted.")
        status = None
    span = SPANS.get(args.get("span", ""))
    since_s, until_s = number("since", _seconds, "time"), number("until", _seconds, "time")
    if span is not None and since_s is None:
        since_s = span.until(time.time()).since_s
    cost_usd, took_s = number("min_cost", _amount, "amount"), number("min_latency", _amount, "number of seconds")
    caller, callers = fields.get("caller") if g.session.is_admin else None, g.session.reader.callers
    wanted = Wanted(
        since_s=since_s,
        until_s=until_s,
        named=fields.get("model"),
        status=None if status in ("open", "interrupted") else status,
        error_code=fields.get("error"),
        provider=fields.get("provider"),
        caller=caller,
        callers=callers,
        key=fields.get("key"),
        user=fields.get("user"),
        tag=fields.get("tag"),
        min_cost_nano=None if cost_usd is None else round(cost_usd * NANO),
        min_took_s=took_s,
    )
    filters = Filters(
        *(since_s, until_s, fields.get("model"), caller, status, cost_usd, fields.get("text"), fields.get("tag")),
        callers=callers,
    )
    if span is not None:
        fields["span"] = args["span"]
    if any("\0" in text or not text.isprintable() for text in fields.values()):  # what no database takes
        faults.append("A filter has characters that nothing has.")
    return Asked(fields, wanted, filters, faults)


def _is_status(text: str) -> bool:
    if text in ("error", "lost", "open", "interrupted"):
        return True
    return len(text) == 3 and text.isascii() and text[0].isdigit() and (text.isdigit() or text[1:] == "xx")


def _amount(text: str) -> float:
    amount = float(text)
    if not 0 <= amount <= _LARGEST_AMOUNT:
        raise ValueError(text)
    return amount


def _seconds(text: str) -> float:
    """A moment as an `<input type="datetime-local">` gives it, in UTC."""
    return datetime.fromisoformat(text if "+" in text or text.endswith("Z") else f"{text}+00:00").timestamp()


def _cursor(text: str) -> tuple[float, str] | None:
    started, comma, id = text.partition(",")
    try:
        return (float(started), id) if comma and id.isascii() and id.isprintable() else None
    except ValueError:
        return None
