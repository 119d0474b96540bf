"""All that is kept in the database, opened as one."""

from __future__ import annotations

from pathlib import Path

from mlx_manager.storage.database import open_database, sqlite_url
from mlx_manager.storage.downloads import SqlDownloadStore
from mlx_manager.storage.verified import SqlVerifiedBlobs


class Ledger:
    """On the SQLite ``file``, which is made if it is not there. Raises DatabaseUnusable. All calls block."""

    def __init__(self, file: Path) -> None:
        self._database = open_database(sqlite_url(file))
        self.downloads = SqlDownloadStore(self._database)
        self.verified = SqlVerifiedBlobs(self._database)

    def close(self) -> None:
        self._database.dispose()
