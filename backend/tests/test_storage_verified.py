"""The memory of blobs that were found right."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from mlx_manager.services.ports import VerifiedBlobs
from mlx_manager.storage import SqlVerifiedBlobs, open_database, sqlite_url


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(sqlite_url(tmp_path / "a.db"))
    yield engine
    engine.dispose()


@pytest.fixture
def verified(engine: Engine) -> VerifiedBlobs:
    return SqlVerifiedBlobs(engine)


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(b"right")
    return path


def test_only_what_was_found_right_is(verified: VerifiedBlobs, blob: Path) -> None:
    assert not verified.is_verified(blob)
    verified.remember([blob])
    assert verified.is_verified(blob)
    verified.remember([blob])
    assert verified.is_verified(blob)


def test_the_next_process_knows(verified: VerifiedBlobs, blob: Path, engine: Engine, tmp_path: Path) -> None:
    verified.remember([blob])
    engine.dispose()
    again = open_database(sqlite_url(tmp_path / "a.db"))
    assert SqlVerifiedBlobs(again).is_verified(blob)
    again.dispose()


def test_other_bytes_of_the_same_size_at_another_time(verified: VerifiedBlobs, blob: Path) -> None:
    verified.remember([blob])
    stat = blob.stat()
    blob.write_bytes(b"wrong")
    os.utime(blob, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert not verified.is_verified(blob)


def test_another_size_at_the_same_time(verified: VerifiedBlobs, blob: Path) -> None:
    verified.remember([blob])
    stat = blob.stat()
    blob.write_bytes(b"longer than before")
    os.utime(blob, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not verified.is_verified(blob)


def test_another_file_under_the_same_name(verified: VerifiedBlobs, blob: Path) -> None:
    verified.remember([blob])
    stat = blob.stat()
    other = blob.with_name("other")
    other.write_bytes(b"wrong")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(blob)
    assert not verified.is_verified(blob)


def test_a_file_that_is_gone_is_forgotten(verified: VerifiedBlobs, blob: Path) -> None:
    verified.remember([blob])
    blob.unlink()
    assert not verified.is_verified(blob)
    verified.remember([blob])
    assert not verified.is_verified(blob)
    assert not verified.is_verified(blob / "below a file")


def test_a_name_that_is_no_text(verified: VerifiedBlobs, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff-blob"))
    path.write_bytes(b"x")
    verified.remember([path])
    assert verified.is_verified(path)


def test_any_thread_may_ask(verified: VerifiedBlobs, tmp_path: Path) -> None:
    blobs = [tmp_path / f"blob-{number}" for number in range(8)]
    found: list[bool] = []

    def work(path: Path) -> None:
        path.write_bytes(b"right")
        verified.remember([path])
        found.append(verified.is_verified(path))

    threads = [threading.Thread(target=work, args=(path,)) for path in blobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8


def test_a_database_that_fails_costs_a_hash_and_nothing_more(
    verified: VerifiedBlobs, blob: Path, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    verified.remember([blob])
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE verified_blobs")
    assert not verified.is_verified(blob)
    verified.remember([blob])
    told = [record for record in caplog.records if "verified" in record.message]
    assert [(record.levelname, record.exc_info) for record in told] == [("WARNING", None)] * 2
    assert all(record.message.endswith("no such table: verified_blobs.") for record in told)
