"""Answers that the cache keeps."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Double, Integer, LargeBinary, Text

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "answers",
        Column("digest", Text, primary_key=True),
        Column("tenant", Text, nullable=False),
        Column("made", Double, nullable=False),
        Column("ends", Double, nullable=False),
        Column("bytes", Integer, nullable=False),
        Column("content", LargeBinary, nullable=False),
    )
    op.create_index("answers_by_end", "answers", ["ends"])
    op.create_index("answers_by_age", "answers", ["made", "bytes"])
    op.create_index("answers_by_tenant", "answers", ["tenant"])
