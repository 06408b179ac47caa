"""Virtual keys: who they belong to, what proves them, and who changed what."""

from __future__ import annotations

import sqlalchemy
from alembic import op
from sqlalchemy import Boolean, Column, Double, ForeignKey, Integer, Text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    for name in ("projects", "users"):
        op.create_table(
            name,
            Column("id", Text, primary_key=True),
            Column("name", Text, nullable=False, unique=True),
            Column("made", Double, nullable=False),
            Column("disabled", Boolean, nullable=False),
        )
    op.create_table(
        "keys",
        Column("id", Text, primary_key=True),
        Column("name", Text, nullable=False),
        Column("project", Text, ForeignKey("projects.id")),
        Column("user", Text, ForeignKey("users.id")),
        Column("parent", Text, ForeignKey("keys.id")),
        Column("rights", Text, nullable=False),
        Column("tags", Text, nullable=False),
        Column("made", Double, nullable=False),
        Column("made_by", Text, nullable=False),
        Column("expires", Double),
        Column("disabled", Boolean, nullable=False),
        Column("deleted", Double),
        Column("used", Double),
        Column("revision", Integer, nullable=False),
        Column("idempotency", Text, unique=True),
        Column("request", Text),
    )
    op.create_index("keys_by_age", "keys", ["made", "id"])
    for column in ("revision", "parent", "project", "user"):
        op.create_index(f"keys_by_{column}", "keys", [column])
    op.create_table(
        "key_secrets",
        Column("hash", Text, primary_key=True),
        Column("key", Text, ForeignKey("keys.id"), nullable=False),
        Column("pepper", Text, nullable=False),
        Column("made", Double, nullable=False),
        Column("ends", Double),
    )
    op.create_index("key_secrets_by_key", "key_secrets", ["key"])
    revisions = op.create_table(
        "revisions",
        Column("name", Text, primary_key=True),
        Column("number", Integer, nullable=False),
    )
    op.execute(sqlalchemy.insert(revisions).values(name="keys", number=0))
    op.create_table(
        "audit",
        Column("seq", Integer, primary_key=True),
        Column("at", Double, nullable=False),
        Column("actor", Text, nullable=False),
        Column("action", Text, nullable=False),
        Column("kind", Text, nullable=False),
        Column("target", Text, nullable=False),
        Column("details", Text, nullable=False),
        Column("request_id", Text),
    )
    op.create_index("audit_by_target", "audit", ["kind", "target", "seq"])
