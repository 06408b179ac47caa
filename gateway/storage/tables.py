"""The tables, as the newest migration leaves them; a test compares the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

metadata = MetaData()

#: The newest migration. Where a database names it, a start has nothing to do.
REVISION = "0008"

#: Every row of a trace, as Braintrust would get it.
spans = Table(
    "spans",
    metadata,
    Column("id", Text, primary_key=True),
    Column("root_span_id", Text, nullable=False),
    Column("span_id", Text, nullable=False),
    Column("parent_span_id", Text),
    Column("name", Text),
    Column("type", Text),
    Column("started", Double, nullable=False),  # seconds since the epoch
    Column("ended", Double),
    Column("open", Boolean, nullable=False),
    Column("row", Text, nullable=False),  # JSON
    Column("bytes", Integer, nullable=False),
    Index("spans_by_place", "root_span_id", "parent_span_id"),
    Index("spans_by_start", "started"),
)

#: One line a request, made from its root row alone, for lists. `id` is that row's.
traces = Table(
    "traces",
    metadata,
    Column("id", Text, primary_key=True),
    Column("seq", Integer, nullable=False),  # grows with every change, so that a reader can follow
    Column("request_id", Text, nullable=False),
    Column("root_span_id", Text, nullable=False),
    Column("span_id", Text, nullable=False),
    Column("state", Text, nullable=False),  # open, ended or interrupted
    Column("started", Double, nullable=False),  # seconds since the epoch
    Column("duration_ms", Double),
    Column("name", Text),
    Column("model", Text),
    Column("served_model", Text),
    Column("provider", Text),
    Column("caller", Text),
    Column("status", Integer),
    Column("error", Text),
    Column("error_code", Text),
    Column("cost_usd", Double),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("cached_tokens", Integer),
    Column("time_to_first_token_s", Double),
    Column("stream", Boolean),
    Column("caller_gone", Boolean),
    Column("tags", Text),  # a JSON list
    Index("traces_by_seq", "seq"),
    Index("traces_by_start", "started", "id"),
    Index("traces_by_request", "request_id"),
    Index("traces_by_place", "root_span_id", "span_id"),
)

#: Whose an object is that outlives its call, at a provider or here. Document and items come last, since
#: SQLite reads a row only up to the last column that is asked for.
owned = Table(
    "owned",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("caller", Text, nullable=False),
    Column("model", Text, nullable=False),  # as the caller named it
    Column("provider", Text, nullable=False),
    Column("deployment", Text, nullable=False),
    Column("made", Double, nullable=False),  # seconds since the epoch
    Column("kept_here", Boolean, nullable=False),  # also once its document is gone
    Column("bytes", Integer, nullable=False),  # of document and items
    Column("document", Text),  # JSON
    Column("items", Text),  # JSON
    Index("owned_by_age", "kept_here", "made", "bytes"),
)

#: Who keys belong to. Nothing is ever taken out of these: old traces and audit lines name them.
projects = Table(
    "projects",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("made", Double, nullable=False),  # seconds since the epoch
    Column("disabled", Boolean, nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("made", Double, nullable=False),  # seconds since the epoch
    Column("disabled", Boolean, nullable=False),
)

#: Virtual keys; a deleted one stays, without its secrets.
keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("project", Text, ForeignKey("projects.id")),
    Column("user", Text, ForeignKey("users.id")),
    Column("parent", Text, ForeignKey("keys.id")),
    Column("rights", Text, nullable=False),  # JSON
    Column("tags", Text, nullable=False),  # a JSON list
    Column("made", Double, nullable=False),  # seconds since the epoch, as are all times here
    Column("made_by", Text, nullable=False),
    Column("expires", Double),
    Column("disabled", Boolean, nullable=False),
    Column("deleted", Double),
    Column("used", Double),
    Column("revision", Integer, nullable=False),  # of its last change
    Column("idempotency", Text, unique=True),  # a hash of who made it and the name that they gave the request
    Column("request", Text),  # a hash of what was asked for
    Index("keys_by_age", "made", "id"),
    Index("keys_by_revision", "revision"),
    Index("keys_by_parent", "parent"),
    Index("keys_by_project", "project"),
    Index("keys_by_user", "user"),
)

#: What proves a key: one row, or several while a rotation's overlap lasts.
key_secrets = Table(
    "key_secrets",
    metadata,
    Column("hash", Text, primary_key=True),  # HMAC-SHA256, hex
    Column("key", Text, ForeignKey("keys.id"), nullable=False),
    Column("pepper", Text, nullable=False),  # the name of the one it was made with
    Column("made", Double, nullable=False),
    Column("ends", Double),
    Index("key_secrets_by_key", "key"),
)

#: A number that grows with every change of what `name` names, so that others see that there was one.
revisions = Table(
    "revisions",
    metadata,
    Column("name", Text, primary_key=True),
    Column("number", Integer, nullable=False),
)

#: Who changed what. Rows are added and never changed.
audit = Table(
    "audit",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("at", Double, nullable=False),  # seconds since the epoch
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("details", Text, nullable=False),  # JSON, without secrets
    Column("request_id", Text),
    Column("idempotency", Text),  # of what was made: a hash of who made it and the name that they gave the request
    Index("audit_by_target", "target", "kind", "seq"),
    Index("audit_by_kind", "kind", "seq"),
    Index("audit_by_idempotency", "idempotency"),
)

#: Limits and budgets (`core/rules.py`). A deleted one is gone; the audit has what it was.
rules = Table(
    "rules",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("measure", Text, nullable=False),
    Column("most", BigInteger, nullable=False),  # of money, micro-dollars
    Column("period", Text),
    Column("key", Text, ForeignKey("keys.id")),
    Column("user", Text, ForeignKey("users.id")),
    Column("project", Text, ForeignKey("projects.id")),
    Column("caller", Text),
    Column("model", Text),
    Column("each", Text, nullable=False),  # a JSON list
    Column("soft", Double),
    Column("webhook", Text),
    Column("made", Double, nullable=False),  # seconds since the epoch
    Column("made_by", Text, nullable=False),
    Index("rules_by_age", "kind", "made", "id"),
)

#: What receivers of webhooks are still to be told; a row goes when it was delivered or given up.
notices = Table(
    "notices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("address", Text, nullable=False),
    Column("document", Text, nullable=False),  # JSON
    Column("made", Double, nullable=False),  # seconds since the epoch
    Column("tries", Integer, nullable=False),
    Column("due", Double, nullable=False),  # when it may be tried next, seconds since the epoch
    Index("notices_by_due", "due"),
)

#: What was counted, by counter and slot of its window (`core/windows.py`). All times are milliseconds since the epoch.
counter_slots = Table(
    "counter_slots",
    metadata,
    Column("counter", Text, primary_key=True),
    Column("slot", BigInteger, primary_key=True, autoincrement=False),
    Column("amount", BigInteger, nullable=False),
    Column("ends_ms", BigInteger, nullable=False),
    Index("counter_slots_by_end", "ends_ms"),
)

#: What is reserved and not settled: a row for each counter of a reservation.
reservations = Table(
    "reservations",
    metadata,
    Column("counter", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("slot", BigInteger, nullable=False),  # where its amount was counted
    Column("amount", BigInteger, nullable=False),
    Column("ends_ms", BigInteger, nullable=False),
    Index("reservations_by_id", "id"),
    Index("reservations_by_end", "ends_ms"),
)

#: Numbers and short texts that end by themselves.
counter_values = Table(
    "counter_values",
    metadata,
    Column("key", Text, primary_key=True),
    Column("number", BigInteger),
    Column("text", Text),
    Column("ends_ms", BigInteger, nullable=False),
    Index("counter_values_by_end", "ends_ms"),
)

#: What each call used and cost: a row for each that was planned.
usage = Table(
    "usage",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("started", Double, nullable=False),  # seconds since the epoch
    Column("ended", Double, nullable=False),
    Column("state", Text, nullable=False),  # ended or lost
    Column("operation", Text, nullable=False),
    Column("caller", Text, nullable=False),
    Column("caller_kind", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("key_id", Text),
    Column("project_id", Text),
    Column("project", Text),
    Column("user_id", Text),
    Column("user", Text),
    Column("model", Text, nullable=False),  # as the caller named it
    Column("planned", Text, nullable=False),  # a JSON list of deployments
    Column("provider", Text),
    Column("deployment", Text),
    Column("served_model", Text),
    Column("status", Integer),
    Column("error_code", Text),
    Column("stream", Boolean, nullable=False),
    Column("caller_gone", Boolean),
    Column("attempts", Integer),
    Column("time_to_first_token_s", Double),
    Column("prompt_tokens", BigInteger),
    Column("completion_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("cache_write_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Column("total_tokens", BigInteger),
    Column("cost_nano", BigInteger),  # thousand millionths of a US dollar; null where nobody knows
    Column("estimated", Boolean),
    Column("tags", Text),  # a JSON list
    Column("price", Text),  # JSON: the bill of each attempt
    Index("usage_by_start", "started", "request_id"),
    Index("usage_by_caller", "caller", "started", "request_id"),
)


def _sums_of(unit: str) -> list[Column[Any]]:
    """The columns of sums of the ledger's rows, over hours or days."""
    counts = ("requests", "failed", "lost", *(f"{kind}_tokens" for kind in _TOKENS), "cost_nano", "unpriced")
    return [
        Column("kind", Text, primary_key=True),  # what they are added up by
        Column(unit, Integer, primary_key=True, autoincrement=False),  # UTC, counted from the epoch
        Column("value", Text, primary_key=True),
        *(Column(name, BigInteger, nullable=False) for name in counts),
    ]


_TOKENS = ("prompt", "completion", "cached", "cache_write", "reasoning", "total")
#: Sums of the rows of whole hours and days (`storage/usage_rollups.py`).
usage_hours = Table(
    "usage_hours", metadata, *_sums_of("hour"), Index("usage_hours_by_hour", "hour"), sqlite_with_rowid=False
)
usage_days = Table("usage_days", metadata, *_sums_of("day"), Index("usage_days_by_day", "day"))

#: Answers that the cache keeps (`storage/answers_table.py`). The content comes last, as in `owned`.
answers = Table(
    "answers",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("made", Double, nullable=False),  # seconds since the epoch
    Column("ends", Double, nullable=False),
    Column("bytes", Integer, nullable=False),  # of the content, and of the row about
    Column("content", LargeBinary, nullable=False),
    Index("answers_by_end", "ends"),
    Index("answers_by_age", "made", "bytes"),
    Index("answers_by_tenant", "tenant"),
)

#: Traces are kept where they were made, in the file of their host, also where all else is on a server.
LOCAL = frozenset({spans.name, traces.name})
#: Where Alembic keeps which migration a database has; not one of the gateway's own tables.
alembic_version = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
#: What migrations put rows into.
SEEDED = frozenset({revisions.name})
#: The rows of a new database, as the migrations leave it.
FIRST_ROWS: Sequence[tuple[Table, Sequence[Mapping[str, str | int]]]] = (
    (alembic_version, [{"version_num": REVISION}]),
    (revisions, [{"name": name, "number": 0} for name in ("keys", "rules", "usage")]),
)
