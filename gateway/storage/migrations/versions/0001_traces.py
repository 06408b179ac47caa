"""Traces: every row, and one line a request."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Boolean, Column, Double, Integer, Text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "spans",
        Column("id", Text, primary_key=True),
        Column("root_span_id", Text, nullable=False),
        Column("span_id", Text, nullable=False),
        Column("parent_span_id", Text),
        Column("name", Text),
        Column("type", Text),
        Column("started", Double, nullable=False),
        Column("ended", Double),
        Column("open", Boolean, nullable=False),
        Column("row", Text, nullable=False),
        Column("bytes", Integer, nullable=False),
    )
    op.create_index("spans_by_place", "spans", ["root_span_id", "parent_span_id"])
    op.create_index("spans_by_start", "spans", ["started"])
    op.create_table(
        "traces",
        Column("id", Text, primary_key=True),
        Column("seq", Integer, nullable=False),
        Column("request_id", Text, nullable=False),
        Column("root_span_id", Text, nullable=False),
        Column("span_id", Text, nullable=False),
        Column("state", Text, nullable=False),
        Column("started", Double, nullable=False),
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
        Column("tags", Text),
    )
    op.create_index("traces_by_seq", "traces", ["seq"])
    op.create_index("traces_by_start", "traces", ["started", "id"])
    op.create_index("traces_by_request", "traces", ["request_id"])
    op.create_index("traces_by_place", "traces", ["root_span_id", "span_id"])
