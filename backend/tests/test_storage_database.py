"""A database is opened with the newest schema, or not at all and untouched."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_mock_engine, inspect
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex

from mlx_manager.errors import DatabaseUnusable
from mlx_manager.storage import open_database, sqlite_url
from mlx_manager.storage.database import SCHEMA
from mlx_manager.storage.tables import metadata, one_in_flight


def opened(file: Path) -> Engine:
    return open_database(sqlite_url(file))


def refusal(file: Path) -> DatabaseUnusable:
    with pytest.raises(DatabaseUnusable) as refused:
        opened(file)
    assert str(file) in refused.value.detail
    return refused.value


def migrated(file: Path) -> Engine:
    """Made by all migrations: one without tables but that of the versions is not new."""
    with sqlite3.connect(file) as connection:
        connection.execute(
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
            "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
    connection.close()
    return opened(file)


def test_the_migrations_make_the_tables_of_the_code(tmp_path: Path) -> None:
    engine = migrated(tmp_path / "old.db")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_a_new_database_is_what_the_migrations_make(tmp_path: Path) -> None:
    def made(engine: Engine) -> tuple[dict[str, list[str]], list[str]]:
        """The words of each statement, since a table's constraints stand in any order; and the versions."""
        with engine.connect() as connection:
            rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").all()
            versions = list(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars())
        engine.dispose()
        return {name: sorted(re.findall(r"[^\s,()]+", sql)) for name, sql in rows}, versions

    assert made(opened(tmp_path / "new.db")) == made(migrated(tmp_path / "old.db"))


def test_the_partial_index_is_the_same_in_both(tmp_path: Path) -> None:
    # Alembic does not compare the condition of an index.
    migrated(tmp_path / "a.db").dispose()
    connection = sqlite3.connect(tmp_path / "a.db")
    (made,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'uq_downloads_in_flight'").fetchone()
    connection.close()
    assert made == str(CreateIndex(one_in_flight).compile(dialect=sqlite.dialect()))


def test_postgresql_has_the_same_condition() -> None:
    made: list[Any] = []
    engine = create_mock_engine("postgresql+asyncpg://", lambda statement, *_: made.append(statement))
    metadata.create_all(engine, checkfirst=False)
    statements = [str(statement.compile(dialect=engine.dialect)) for statement in made]
    (index,) = [statement for statement in statements if "uq_downloads_in_flight" in statement]
    assert index.endswith("WHERE status NOT IN ('completed', 'failed', 'cancelled')")


def test_sqlite_is_set_up_to_survive_a_kill(tmp_path: Path) -> None:
    engine = opened(tmp_path / "a.db")
    with engine.connect() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    engine.dispose()
    assert settings == {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "busy_timeout": 5000}


def test_a_second_opening_changes_nothing(tmp_path: Path) -> None:
    opened(tmp_path / "a.db").dispose()
    before = (tmp_path / "a.db").read_bytes()
    opened(tmp_path / "a.db").dispose()
    assert (tmp_path / "a.db").read_bytes() == before


def test_two_processes_at_once_make_one_database(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    code = (
        "import sys; from pathlib import Path; from mlx_manager.storage import open_database, sqlite_url;"
        "input(); open_database(sqlite_url(Path(sys.argv[1]))).dispose()"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(file)], stdin=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.close()
    assert [process.wait(60) for process in running] == [0, 0, 0]
    engine = opened(file)
    assert "downloads" in inspect(engine).get_table_names()
    engine.dispose()


@pytest.mark.parametrize("content", [b"garbage, not a database\n" * 300, b"SQLite format 3\0" + b"\xff" * 5000, b"{}"])
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.db"
    file.write_bytes(content)
    refused = refusal(file)
    assert "Move the database file away" in refused.advice
    assert file.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]


def test_a_damaged_database(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    opened(file).dispose()
    content = bytearray(file.read_bytes())
    content[4096:] = b"\x5a" * (len(content) - 4096)
    file.write_bytes(content)
    assert "Move the database file away" in refusal(file).advice
    assert file.read_bytes() == content


def test_a_database_of_a_newer_version(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    opened(file).dispose()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    before = file.read_bytes()
    refused = refusal(file)
    assert "newer version" in refused.detail
    assert "9999" in refused.detail
    assert "Update MLX Manager" in refused.advice
    assert file.read_bytes() == before


def test_another_programs_database(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE letters (text TEXT)")
    connection.close()
    before = file.read_bytes()
    assert "another program" in refusal(file).detail
    assert file.read_bytes() == before


def test_an_empty_file_is_a_new_database(tmp_path: Path) -> None:
    (tmp_path / "a.db").touch()
    opened(tmp_path / "a.db").dispose()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "write access" in refusal(tmp_path / "none" / "a.db").advice


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.db").mkdir()
    assert "write access" in refusal(tmp_path / "a.db").advice


@pytest.mark.parametrize("url", ["nosuch://x", "no url at all", "sqlite+nosuch:///x.db"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(DatabaseUnusable) as refused:
        open_database(url)
    assert "Correct the URL" in refused.value.advice


def test_a_url_with_a_password_does_not_show_it() -> None:
    with pytest.raises(DatabaseUnusable) as refused:
        open_database("nosuch://user:hunter2@host/name")
    assert "hunter2" not in f"{refused.value.detail} {refused.value.advice}"


def test_the_schema_that_needs_no_migration_is_the_newest_one() -> None:
    config = Config()
    config.set_main_option("script_location", "mlx_manager.storage:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA]
