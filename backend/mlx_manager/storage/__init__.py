"""The ledger: the only room that knows SQL."""

from mlx_manager.storage.database import open_database, sqlite_url
from mlx_manager.storage.downloads import SqlDownloadStore
from mlx_manager.storage.ledger import Ledger
from mlx_manager.storage.verified import SqlVerifiedBlobs

__all__ = ["Ledger", "SqlDownloadStore", "SqlVerifiedBlobs", "open_database", "sqlite_url"]
