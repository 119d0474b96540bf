"""What the clock makes of downloads that say nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fakes.workshop import TOTAL, sample
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.download import Download, Progressed, SizesKnown, Started, Verifying, apply
from mlx_manager.domain.progress import RATE_POINTS
from mlx_manager.services.downloads.broadcast import Broadcast
from mlx_manager.services.downloads.ledger import Ledger
from mlx_manager.services.downloads.live import Live
from mlx_manager.services.event_bus import InProcessBus
from mlx_manager.storage import SqlDownloadStore, open_database, sqlite_url


async def test_the_curve_of_one_that_only_verifies_falls_to_nothing(tmp_path: Path) -> None:
    """The page drew the rate of a minute ago as if the bytes still came."""
    engine = open_database(sqlite_url(tmp_path / "ledger.db"))
    nobody: Callable[[Live], None] = lambda live: None  # noqa: E731
    ledger = Ledger(SqlDownloadStore(engine), lost=nobody, settled=nobody)
    now = 100.0
    broadcast = Broadcast(InProcessBus(), ledger, tick_s=1.0, save_every_s=5.0, steady=lambda: now)
    live = Live(Download("a", ModelRequest("org/model"), 0.0))
    broadcast.tell(live, apply(live.download, Started(1.0, 1)))
    assert broadcast.rates([live]) == {"a": []}
    broadcast.tell(live, apply(live.download, SizesKnown(1.0, "c" * 40, TOTAL, 1)))
    now = 102.0
    broadcast.heard(live, apply(live.download, Progressed(2.0, sample(TOTAL))))
    broadcast.beat([live])
    assert broadcast.rates([live])["a"][-1] == 100
    broadcast.tell(live, apply(live.download, Verifying(3.0)))
    now = 112.0
    assert broadcast.rates([live])["a"][-5:] == [100, 0, 0, 0, 0]
    now = 3600.0
    assert broadcast.rates([live]) == {"a": [0] * RATE_POINTS}
    await ledger.close()
    engine.dispose()
