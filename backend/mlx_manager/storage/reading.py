"""A look at the ledger from outside, while nobody holds the data directory: reads, never writes, never migrates."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL

from mlx_manager.domain.download import Download
from mlx_manager.domain.states import Status
from mlx_manager.storage.downloads import SqlDownloadStore

_PAGE = 500


def read_downloads(file: Path, states: Collection[Status] | None = None) -> list[Download]:
    """What the ledger in ``file`` holds, newest first; nothing when there is no such file. ``states`` None: all.

    Raises LedgerFailed when it cannot be read.
    """
    if not file.is_file():
        return []
    with read_only(file) as engine:
        store = SqlDownloadStore(engine)
        found: list[Download] = []
        cursor: str | None = None
        while True:
            page, cursor = store.page(states, _PAGE, cursor)
            found += [download for download, _ in page]
            if cursor is None:
                return found


@contextmanager
def read_only(file: Path) -> Iterator[Engine]:
    """An engine on a file that it cannot change."""
    engine = create_engine(
        URL.create("sqlite", database=f"file:{quote(str(file))}", query={"mode": "ro", "uri": "true"})
    )
    try:
        yield engine
    finally:
        engine.dispose()
