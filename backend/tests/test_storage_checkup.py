"""The ledger as a check-up sees it: never changed, never believed without a look."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.download import Download
from mlx_manager.domain.plan import PlanFile, make_plan
from mlx_manager.storage import SqlDownloadStore, open_database, sqlite_url
from mlx_manager.storage.checkup import examine_ledger
from mlx_manager.storage.database import SCHEMA

ETAG = "a" * 40


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """One download in the line, with its plan."""
    file = tmp_path / "ledger.db"
    engine = open_database(sqlite_url(file))
    store = SqlDownloadStore(engine)
    store.insert(Download("t1", ModelRequest("org/model"), 1.0, since=1.0, total_bytes=900, downloaded_bytes=400))
    store.save_plan("t1", make_plan("org/model", "main", "c" * 40, [PlanFile("config.json", 900, ETAG, None)]))
    engine.dispose()
    return file


def test_what_is_whole_is_counted_and_not_changed(file: Path) -> None:
    before = file.read_bytes()
    facts = examine_ledger(file)
    assert facts.database.problem is None
    assert (facts.database.schema, facts.database.newest) == (SCHEMA, SCHEMA)
    assert (facts.database.downloads, facts.database.unfinished, facts.database.failed) == (1, 1, 0)
    assert (facts.owed, facts.owing) == (500, 1)
    assert facts.contents == {("org/model", ETAG)}
    assert file.read_bytes() == before


def test_none_is_not_made(tmp_path: Path) -> None:
    assert not examine_ledger(tmp_path / "none.db").database.exists
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_one_is_named_so(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[4096 : 4096 * 3] = b"\x5a" * 8192
    file.write_bytes(data)
    problem = examine_ledger(file).database.problem
    assert problem is not None
    assert "damaged" in problem or "malformed" in problem


def test_what_is_no_database_at_all(file: Path) -> None:
    file.write_text("a shopping list, " * 100)
    assert examine_ledger(file).database.problem == "it cannot be read: file is not a database"


def test_another_program_s(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE songs (title)")
    assert examine_ledger(tmp_path / "other.db").database.problem == "it belongs to another program (table songs)"


def test_one_of_a_newer_version_tells_it_and_no_more(file: Path) -> None:
    with closing(sqlite3.connect(file)) as ledger, ledger:
        ledger.execute("UPDATE alembic_version SET version_num = '9999'")
    facts = examine_ledger(file)
    assert (facts.database.schema, facts.database.problem) == ("9999", None)
    assert facts.contents == set(), "nobody can tell what its rows mean"
