"""Runs the migrations on the connection that `matching.schema` passes in."""

from __future__ import annotations

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table_schema="matching", transaction_per_migration=False)
with context.begin_transaction():
    context.run_migrations()
