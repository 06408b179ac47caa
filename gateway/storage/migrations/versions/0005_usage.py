"""What each call used and cost."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, Double, Integer, Text

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
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
        *(Column(f"{kind}_tokens", BigInteger) for kind in ("prompt", "completion", "cached", "cache_write")),
        *(Column(f"{kind}_tokens", BigInteger) for kind in ("reasoning", "total")),
        Column("cost_nano", BigInteger),
        Column("estimated", Boolean),
        Column("tags", Text),
        Column("price", Text),
    )
    op.create_index("usage_by_start", "usage", ["started", "request_id"])
    op.create_index("usage_by_caller", "usage", ["caller", "started", "request_id"])
