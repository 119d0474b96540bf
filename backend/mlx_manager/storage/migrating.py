"""Bringing an older database to this version's schema, with alembic. Imported only when there is something to do."""

from __future__ import annotations

import logging

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine, inspect

from mlx_manager.errors import DatabaseUnusable
from mlx_manager.storage.database import VERSIONS, set_journal, writing

logger = logging.getLogger(__name__)


def _check(engine: Engine, place: str) -> None:
    """Look before anything is written. Raises DatabaseUnusable or SQLAlchemyError."""
    with engine.connect() as connection:
        known = {script.revision for script in ScriptDirectory.from_config(_alembic()).walk_revisions()}
        heads = MigrationContext.configure(connection).get_current_heads()
        if strange := set(heads) - known:
            raise DatabaseUnusable(
                f"The database {place} was written by a newer version of MLX Manager (schema {', '.join(strange)}).",
                advice="Update MLX Manager, or set MLX_MANAGER_HOME to another folder.",
            )
        if not heads and (tables := set(inspect(connection).get_table_names()) - {VERSIONS}):
            raise DatabaseUnusable(f"The database {place} belongs to another program (table {min(tables)}).")


def migrate(engine: Engine, place: str) -> None:
    """To the newest schema. Raises DatabaseUnusable or SQLAlchemyError."""
    _check(engine, place)
    set_journal(engine)
    config = _alembic()
    with writing(engine).begin() as connection:
        config.attributes["connection"] = connection
        before = MigrationContext.configure(connection).get_current_heads()
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise DatabaseUnusable(f"The database {place} could not be brought up to date: {error}") from error
        after = MigrationContext.configure(connection).get_current_heads()
    if before != after:
        logger.info("The database has schema %s now (before: %s).", after[0], before[0] if before else "none")


def _alembic() -> Config:
    config = Config()
    # Found through the package, so it works from a checkout and from a wheel alike.
    config.set_main_option("script_location", "mlx_manager.storage:migrations")
    config.set_main_option("path_separator", "os")
    return config
