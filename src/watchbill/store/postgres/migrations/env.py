"""Alembic's entry: runs the revisions on the connection that `store/postgres/migrate.py` opened."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
