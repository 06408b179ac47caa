"""Counters: what limits and budgets have counted and reserved, and small values that end by themselves."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Text

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "counter_slots",
        Column("counter", Text, primary_key=True),
        Column("slot", BigInteger, primary_key=True, autoincrement=False),
        Column("amount", BigInteger, nullable=False),
        Column("ends_ms", BigInteger, nullable=False),
    )
    op.create_index("counter_slots_by_end", "counter_slots", ["ends_ms"])
    op.create_table(
        "reservations",
        Column("counter", Text, primary_key=True),
        Column("id", Text, primary_key=True),
        Column("slot", BigInteger, nullable=False),
        Column("amount", BigInteger, nullable=False),
        Column("ends_ms", BigInteger, nullable=False),
    )
    op.create_index("reservations_by_id", "reservations", ["id"])
    op.create_index("reservations_by_end", "reservations", ["ends_ms"])
    op.create_table(
        "counter_values",
        Column("key", Text, primary_key=True),
        Column("number", BigInteger),
        Column("text", Text),
        Column("ends_ms", BigInteger, nullable=False),
    )
    op.create_index("counter_values_by_end", "counter_values", ["ends_ms"])
