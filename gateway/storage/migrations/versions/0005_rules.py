"""Limits and budgets, and what receivers of webhooks are still to be told of them."""

from __future__ import annotations

import sqlalchemy
from alembic import op
from sqlalchemy import BigInteger, Column, Double, ForeignKey, Integer, Text

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "rules",
        Column("id", Text, primary_key=True),
        Column("kind", Text, nullable=False),
        Column("name", Text, nullable=False),
        Column("measure", Text, nullable=False),
        Column("most", BigInteger, nullable=False),
        Column("period", Text),
        Column("key", Text, ForeignKey("keys.id")),
        Column("user", Text, ForeignKey("users.id")),
        Column("project", Text, ForeignKey("projects.id")),
        Column("caller", Text),
        Column("model", Text),
        Column("each", Text, nullable=False),
        Column("soft", Double),
        Column("webhook", Text),
        Column("made", Double, nullable=False),
        Column("made_by", Text, nullable=False),
    )
    op.create_index("rules_by_age", "rules", ["kind", "made", "id"])
    op.create_table(
        "notices",
        Column("id", Text, primary_key=True),
        Column("address", Text, nullable=False),
        Column("document", Text, nullable=False),
        Column("made", Double, nullable=False),
        Column("tries", Integer, nullable=False),
        Column("due", Double, nullable=False),
    )
    op.create_index("notices_by_due", "notices", ["due"])
    revisions = sqlalchemy.table("revisions", Column("name", Text), Column("number", Integer))
    op.execute(sqlalchemy.insert(revisions).values(name="rules", number=0))
