"""What Alembic runs for each of its commands. The connection, with its transaction, is handed in by `database`."""

from __future__ import annotations

from alembic import context

from mlx_manager.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # `database` sees to it, on SQLite too: a migration that fails leaves nothing behind.
    transactional_ddl=True,
    # SQLite can't alter a column in place.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
