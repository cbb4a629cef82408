"""Run by Alembic inside the transaction that schema.py has begun."""

from __future__ import annotations

from alembic import context

from failback.catalog.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    # SQLite can roll schema changes back; Alembic does not count on it by itself.
    transactional_ddl=True,
    # SQLite cannot alter a table: later revisions copy it.
    render_as_batch=True,
)

with context.begin_transaction():
    context.run_migrations()
