"""The database: opened, checked, and brought to this version's schema before anybody uses it."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, Row, create_engine, event, inspect
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from mlx_manager.errors import DatabaseUnusable

logger = logging.getLogger(__name__)

_BUSY_TIMEOUT_MS = 5000
_BEGIN = "mlx_manager_begin"


def sqlite_url(file: Path) -> URL:
    return URL.create("sqlite", database=str(file))


def open_database(url: URL | str) -> Engine:
    """An engine on a database with the newest schema; any URL that SQLAlchemy knows.

    Raises DatabaseUnusable, with nothing changed, for a file that is damaged, no database, another program's, or of a
    newer version of this program. The caller disposes of the engine.
    """
    try:
        engine = create_engine(url)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise DatabaseUnusable(
            f"The database URL cannot be used: {error}",
            advice="Correct the URL, or leave it out to use the SQLite file in the data folder.",
        ) from error
    place = str(engine.url.database or engine.url.render_as_string(hide_password=True))
    if engine.dialect.name == "sqlite":
        _set_up_sqlite(engine)
    try:
        _check(engine, place)
        _migrate(engine, place)
    except SQLAlchemyError as error:
        engine.dispose()
        raise _unusable(place, error) from error
    except BaseException:
        engine.dispose()
        raise
    return engine


def writing(engine: Engine) -> Engine:
    """The same engine for transactions that write: on SQLite they take the write lock at once, so that one that reads
    before it writes waits for its turn instead of failing."""
    return engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})


def _set_up_sqlite(engine: Engine) -> None:
    # SQLAlchemy's documented recipe for real transactions in SQLite, DDL included: the driver starts none by itself.
    @event.listens_for(engine, "connect")
    def on_connect(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA foreign_keys = ON")
        # With the write-ahead log NORMAL survives any end of this process, kill -9 included, and never damages the
        # file. Only a power cut may lose the last moments of the ledger, and a download recovers from that: its bytes
        # are in its journal. FULL would fsync at each commit, on the disk that downloads keep busy: a person's request
        # would wait hundreds of milliseconds for nothing that matters.
        connection.execute("PRAGMA synchronous = NORMAL")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        if statement := connection.get_execution_options().get(_BEGIN, "BEGIN"):
            connection.exec_driver_sql(statement)


def _check(engine: Engine, place: str) -> None:
    """Look before anything is written. Raises DatabaseUnusable or SQLAlchemyError."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            rows: list[Row[Any]] = list(connection.exec_driver_sql("PRAGMA quick_check(1)"))
            if [tuple(row) for row in rows] != [("ok",)]:
                raise DatabaseUnusable(f"The database {place} is damaged: {rows[0][0]}")
        known = {script.revision for script in ScriptDirectory.from_config(_alembic()).walk_revisions()}
        heads = MigrationContext.configure(connection).get_current_heads()
        if strange := set(heads) - known:
            raise DatabaseUnusable(
                f"The database {place} was written by a newer version of MLX Manager (schema {', '.join(strange)}).",
                advice="Update MLX Manager, or set MLX_MANAGER_HOME to another folder.",
            )
        if not heads and (tables := set(inspect(connection).get_table_names()) - {"alembic_version"}):
            raise DatabaseUnusable(f"The database {place} belongs to another program (table {min(tables)}).")


def _migrate(engine: Engine, place: str) -> None:
    if engine.dialect.name == "sqlite":
        # Not possible inside a transaction. The file keeps it.
        with engine.connect().execution_options(**{_BEGIN: ""}) as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
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


def _unusable(place: str, error: SQLAlchemyError) -> DatabaseUnusable:
    reason = str(getattr(error, "orig", None) or error).splitlines()[0]
    lowered = reason.lower()
    if "unable to open" in lowered or "readonly" in lowered:
        advice = "Give this user write access to the file and its folder, or set MLX_MANAGER_HOME to another folder."
    elif "locked" in lowered:
        advice = "Another program holds the database: close it, then start again."
    elif "full" in lowered:
        advice = "Free some space on the disk that holds the database, then start again."
    else:
        return DatabaseUnusable(f"The database {place} cannot be used: {reason}.")
    return DatabaseUnusable(f"The database {place} cannot be used: {reason}.", advice=advice)
