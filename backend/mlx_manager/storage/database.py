"""The database: opened, checked, and brought to this version's schema before anybody uses it."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    MetaData,
    PrimaryKeyConstraint,
    Row,
    String,
    Table,
    create_engine,
    event,
    insert,
    inspect,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from mlx_manager.errors import DatabaseUnusable
from mlx_manager.storage.tables import metadata

logger = logging.getLogger(__name__)

SCHEMA = "0001"
"""The newest migration: a database that says so is ready."""
VERSIONS = "alembic_version"
_versions = Table(
    VERSIONS,
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name=f"{VERSIONS}_pkc"),
)
"""As alembic has it, which finds there what is made here."""

_BUSY_TIMEOUT_MS = 5000
BEGIN = "mlx_manager_begin"


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
        _bring_up_to_date(engine, place)
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
    return engine.execution_options(**{BEGIN: "BEGIN IMMEDIATE"})


def reason_of(error: SQLAlchemyError) -> str:
    """What the database itself says, in a line, without the statement and its values."""
    return str(getattr(error, "orig", None) or error).splitlines()[0]


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
        if statement := connection.get_execution_options().get(BEGIN, "BEGIN"):
            connection.exec_driver_sql(statement)


def _bring_up_to_date(engine: Engine, place: str) -> None:
    """Look before anything is written. Raises DatabaseUnusable or SQLAlchemyError."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            rows: list[Row[Any]] = list(connection.exec_driver_sql("PRAGMA quick_check(1)"))
            if [tuple(row) for row in rows] != [("ok",)]:
                raise DatabaseUnusable(f"The database {place} is damaged: {rows[0][0]}")
        tables = set(inspect(connection).get_table_names())
        if VERSIONS in tables and set(connection.exec_driver_sql(f"SELECT version_num FROM {VERSIONS}").scalars()) == {  # noqa: S608
            SCHEMA
        }:
            return
    if not tables and _make_anew(engine):
        return
    # Only now: the migration tool takes longer to import than all else that a start does here.
    from mlx_manager.storage.migrating import migrate

    migrate(engine, place)


def _make_anew(engine: Engine) -> bool:
    """The newest schema in an empty database, as all migrations would make it. False when somebody else was faster."""
    set_journal(engine)
    with writing(engine).begin() as connection:
        if inspect(connection).get_table_names():
            return False
        metadata.create_all(connection, checkfirst=False)
        _versions.create(connection)
        connection.execute(insert(_versions).values(version_num=SCHEMA))
    logger.info("The database has schema %s now (before: none).", SCHEMA)
    return True


def set_journal(engine: Engine) -> None:
    """What a SQLite file is to keep of its setting up, and cannot be told inside a transaction."""
    if engine.dialect.name == "sqlite":
        with engine.connect().execution_options(**{BEGIN: ""}) as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")


def _unusable(place: str, error: SQLAlchemyError) -> DatabaseUnusable:
    reason = reason_of(error)
    lowered = reason.lower()
    if "unable to open" in lowered or "readonly" in lowered:
        advice = "Give this user write access to the file and its folder, or set MLX_MANAGER_HOME to another folder."
    elif "locked" in lowered:
        advice = "Another program holds the database: close it, then start again."
    elif "full" in lowered or "i/o" in lowered:
        advice = "Look whether the disk that holds the database has room and works, then start again."
    else:
        return DatabaseUnusable(f"The database {place} cannot be used: {reason}.")
    return DatabaseUnusable(f"The database {place} cannot be used: {reason}.", advice=advice)
