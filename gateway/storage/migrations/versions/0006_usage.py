"""What each call used and cost, and the sums of whole days."""

from __future__ import annotations

import sqlalchemy
from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, Double, Integer, Text, column, table

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TOKENS = ("prompt", "completion", "cached", "cache_write", "reasoning", "total")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "usage",
        Column("request_id", Text, primary_key=True),
        *(Column(name, Double, nullable=False) for name in ("started", "ended")),
        *(Column(name, Text, nullable=False) for name in ("state", "operation", "caller", "caller_kind", "tenant")),
        *(Column(name, Text) for name in ("key_id", "project_id", "project", "user_id", "user")),
        *(Column(name, Text, nullable=False) for name in ("model", "planned")),
        *(Column(name, Text) for name in ("provider", "deployment", "served_model")),
        Column("status", Integer),
        Column("error_code", Text),
        Column("stream", Boolean, nullable=False),
        Column("caller_gone", Boolean),
        Column("attempts", Integer),
        Column("time_to_first_token_s", Double),
        *(Column(f"{kind}_tokens", BigInteger) for kind in _TOKENS),
        Column("cost_nano", BigInteger),
        Column("estimated", Boolean),
        Column("tags", Text),
        Column("price", Text),
    )
    op.create_index("usage_by_start", "usage", ["started", "request_id"])
    op.create_index("usage_by_caller", "usage", ["caller", "started", "request_id"])
    counts = ("requests", "failed", "lost", *(f"{kind}_tokens" for kind in _TOKENS), "cost_nano", "unpriced")
    op.create_table(
        "usage_days",
        Column("kind", Text, primary_key=True),
        Column("day", Integer, primary_key=True, autoincrement=False),
        Column("value", Text, primary_key=True),
        *(Column(name, BigInteger, nullable=False) for name in counts),
    )
    op.create_index("usage_days_by_day", "usage_days", ["day"])
    revisions = table("revisions", column("name", Text), column("number", Integer))
    op.execute(sqlalchemy.insert(revisions).values(name="usage", number=0))
