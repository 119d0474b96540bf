"""The one thread of the ledger, from the side of those who wait for it."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_manager.errors import LedgerFailed
from mlx_manager.services.downloads.ledger import Ledger
from mlx_manager.services.downloads.live import Live
from mlx_manager.storage.database import open_database, sqlite_url
from mlx_manager.storage.downloads import SqlDownloadStore


async def test_what_fails_when_nobody_waits_any_more_is_no_loose_end(tmp_path: Path) -> None:
    """A start that a full disk broke off ended with "Future exception was never retrieved" and a traceback."""
    loose: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, said: loose.append(str(said["message"])))
    engine = open_database(sqlite_url(tmp_path / "ledger.db"))
    nobody: Callable[[Live], None] = lambda live: None  # noqa: E731
    ledger = Ledger(SqlDownloadStore(engine), lost=nobody, settled=nobody)
    go_on = threading.Event()

    def fails() -> None:
        go_on.wait(10)
        raise LedgerFailed("The disk is full.")

    waiting = asyncio.create_task(ledger.call(fails))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await ledger.close()
    engine.dispose()
    del waiting
    gc.collect()
    assert loose == []
