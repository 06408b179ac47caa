"""Run by Alembic, with the connection of `migrate.upgrade`, whose transaction holds all migrations."""

from __future__ import annotations

from alembic import context

# The transaction is the caller's; SQLite's DDL is transactional too, which Alembic does not take for granted.
context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
