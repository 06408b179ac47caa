"""Owned objects: whose a stored response is, and its document where it is kept here."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Boolean, Column, Double, Integer, Text

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "owned",
        Column("kind", Text, primary_key=True),
        Column("id", Text, primary_key=True),
        Column("tenant", Text, nullable=False),
        Column("caller", Text, nullable=False),
        Column("model", Text, nullable=False),
        Column("provider", Text, nullable=False),
        Column("deployment", Text, nullable=False),
        Column("made", Double, nullable=False),
        Column("kept_here", Boolean, nullable=False),
        Column("bytes", Integer, nullable=False),
        Column("document", Text),
        Column("items", Text),
    )
    op.create_index("owned_by_age", "owned", ["kept_here", "made", "bytes"])
