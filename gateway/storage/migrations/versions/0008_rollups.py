"""Sums of hours; and the audit is found by target, by kind and by the name of a request."""

from __future__ import annotations

import sqlalchemy
from alembic import op
from sqlalchemy import BigInteger, Column, Integer, Text

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TOKENS = ("prompt", "completion", "cached", "cache_write", "reasoning", "total")
_SUMS = ("requests", "failed", "lost", *(f"{kind}_tokens" for kind in _TOKENS), "cost_nano", "unpriced")


def upgrade() -> None:
    """Make the table, and empty that of the days: the gateway fills both beside its calls, a few hours at a time."""
    op.create_table(
        "usage_hours",
        Column("kind", Text, primary_key=True),
        Column("hour", Integer, primary_key=True, autoincrement=False),
        Column("value", Text, primary_key=True),
        *(Column(name, BigInteger, nullable=False) for name in _SUMS),
        sqlite_with_rowid=False,
    )
    op.create_index("usage_hours_by_hour", "usage_hours", ["hour"])
    # the sums of days have no lengths by deployment yet, and their hours are in the wrong table
    op.execute("DELETE FROM usage_days")
    op.add_column("audit", Column("idempotency", Text))
    op.drop_index("audit_by_target", "audit")
    op.create_index("audit_by_target", "audit", ["target", "kind", "seq"])
    op.create_index("audit_by_kind", "audit", ["kind", "seq"])
    op.create_index("audit_by_idempotency", "audit", ["idempotency"])
    is_file = op.get_bind().dialect.name == "sqlite"
    named = "json_extract(details, '$.idempotency')" if is_file else "details::json ->> 'idempotency'"
    op.execute(sqlalchemy.text(f"UPDATE audit SET idempotency = {named} WHERE action = 'create'"))  # noqa: S608
