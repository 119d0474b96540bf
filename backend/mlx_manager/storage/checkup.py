"""The ledger as a check-up sees it: is it whole, is it of this version, and what do its downloads still want?"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import inspect
from sqlalchemy.exc import SQLAlchemyError

from mlx_manager.domain.machine_checks import DatabaseFacts
from mlx_manager.domain.states import Status
from mlx_manager.errors import LedgerFailed
from mlx_manager.storage.database import SCHEMA, VERSIONS, reason_of
from mlx_manager.storage.downloads import SqlDownloadStore
from mlx_manager.storage.reading import read_downloads, read_only


@dataclass(slots=True)
class LedgerFacts:
    """``contents``: (model_id, etag) of what the downloads that are not over, and those that failed, may go on with.
    ``owed``: bytes that ``owing`` unfinished ones still have to get."""

    database: DatabaseFacts
    contents: set[tuple[str, str]] = field(default_factory=set)
    owed: int = 0
    owing: int = 0


def examine_ledger(file: Path) -> LedgerFacts:
    """Read only, also while a server writes. Never raises for what is wrong with the file."""
    path = str(file)
    if not file.is_file():
        return LedgerFacts(DatabaseFacts(path, exists=False, newest=SCHEMA))
    try:
        schema, problem = _look(file)
    except SQLAlchemyError as error:
        schema, problem = None, f"it cannot be read: {reason_of(error)}"
    facts = LedgerFacts(DatabaseFacts(path, True, problem, schema, SCHEMA))
    if problem is None and schema == SCHEMA:
        try:
            _count(file, facts)
        except LedgerFailed as error:
            facts.database = DatabaseFacts(path, True, error.detail.rstrip("."), schema, SCHEMA)
    return facts


def _look(file: Path) -> tuple[str | None, str | None]:
    """Its schema, and what is wrong with it."""
    with read_only(file) as engine, engine.connect() as connection:
        words = [str(word) for word in connection.exec_driver_sql("PRAGMA integrity_check(1)").scalars()]
        if words != ["ok"]:
            return None, f"it is damaged: {words[0].splitlines()[0] if words else 'no answer'}"
        tables = set(inspect(connection).get_table_names())
        if VERSIONS not in tables:
            return None, f"it belongs to another program (table {min(tables)})" if tables else None
        schema = connection.exec_driver_sql(f"SELECT version_num FROM {VERSIONS}").scalar()  # noqa: S608
        return (None if schema is None else str(schema)), None


def _count(file: Path, facts: LedgerFacts) -> None:
    downloads = read_downloads(file)
    unfinished = [one for one in downloads if one.status.is_in_flight]
    failed = [one for one in downloads if one.status is Status.FAILED]
    facts.database = DatabaseFacts(
        str(file),
        True,
        schema=SCHEMA,
        newest=SCHEMA,
        downloads=len(downloads),
        unfinished=len(unfinished),
        failed=len(failed),
    )
    facts.owing = len(unfinished)
    facts.owed = sum(max(0, one.total_bytes - one.downloaded_bytes) for one in unfinished)
    with read_only(file) as engine:
        store = SqlDownloadStore(engine)
        for one in (*unfinished, *failed):
            if plan := store.plan(one.task_id):
                facts.contents.update((one.model_id, blob.etag) for blob in plan.blobs)
