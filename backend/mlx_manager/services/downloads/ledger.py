"""The one thread that writes and reads the ledger, in the order in which it was asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from mlx_manager.domain.download import Download
from mlx_manager.domain.states import Desire
from mlx_manager.errors import DownloadInFlight, LedgerFailed
from mlx_manager.services.downloads.live import Live
from mlx_manager.services.downloads.whole import ended
from mlx_manager.services.ports import DownloadStore

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Ledger:
    """A store that blocks, for the loop. ``lost`` is called with a download that another worker has taken over,
    ``settled`` with one whose write has ended."""

    def __init__(self, store: DownloadStore, *, lost: Callable[[Live], None], settled: Callable[[Live], None]) -> None:
        self.store = store
        self._lost = lost
        self._settled = settled
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        self.trouble: LedgerFailed | None = None
        """Why what is written now does not get there; None once a write has succeeded, or none is wanted any more."""
        self.closed = False

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run it on the ledger's thread. Once asked for it is done, whatever becomes of the caller: a cancelled caller
        learns of it when the ledger is through."""
        if self.closed:
            raise LedgerFailed("The list of downloads is closed: MLX Manager is stopping.")
        future = asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *args, **kwargs))
        if await ended(future):
            if error := future.exception():
                logger.debug("Nobody waits for it any more: %s", error)
            raise asyncio.CancelledError
        return future.result()

    def save(self, live: Live) -> None:
        """Write the row as it is now, soon. What goes wrong is told in the log, and kept for `save_again`."""
        download, event_id = live.download, live.event_id
        self._post(live, download, partial(self.store.save, download, event_id))

    def save_again(self, live: Live) -> None:
        """After a failure: all of it, the desire too. Nothing less makes good what is missing."""
        live.dirty = False
        self.set_desire(live, live.download.desire)
        self.save(live)

    def set_desire(self, live: Live, desire: Desire) -> None:
        """As `save`, for what the person wants."""
        self._post(live, live.download, partial(self._set_desire, live.task_id, desire))

    async def close(self) -> None:
        """Returns when everything that was asked for is done."""
        if not self.closed:
            await self.call(lambda: None)
        self.closed = True
        self._thread.shutdown()

    def _set_desire(self, task_id: str, desire: Desire) -> bool:
        self.store.set_desire(task_id, desire)
        return True

    def _post(self, live: Live, download: Download, write: Callable[[], bool]) -> None:
        live.writes += 1
        future = asyncio.get_running_loop().run_in_executor(self._thread, write)
        future.add_done_callback(partial(self._written, live, download))

    def _written(self, live: Live, download: Download, future: asyncio.Future[bool]) -> None:
        live.writes -= 1
        said = {"task_id": live.task_id}
        try:
            saved = future.result()
        except DownloadInFlight as error:
            logger.error("The ledger holds another download of the same: %s", error.detail, extra=said)
            self._lost(live)
        except LedgerFailed as error:
            if not live.gone:
                self.failed(live, error)
        except Exception:
            live.dirty = True
            logger.exception("The ledger could not be written; it is tried again.", extra=said)
        else:
            self._over("The list of downloads can be written again.")
            # A row of an epoch that we have left ourselves meanwhile is no news.
            if not saved and not live.claiming and not live.gone and download.epoch == live.download.epoch:
                logger.warning("Another worker has taken over; this one stops.", extra=said)
                self._lost(live)
        self._settled(live)

    def failed(self, live: Live, error: LedgerFailed) -> None:
        """The ledger does not hold it as it is. Told once, until it works again."""
        live.dirty = True
        level = logging.DEBUG if self.trouble else logging.ERROR
        # The same again is no news for those who were told.
        if self.trouble is None or self.trouble.detail != error.detail:
            self.trouble = error
        told = "%s Downloads go on; it is tried again. %s"
        logger.log(level, told, error.detail, error.advice, extra={"task_id": live.task_id})

    def caught_up(self) -> None:
        """Nothing waits to be written: those it went wrong for are ours no longer."""
        self._over("Nothing waits for the list of downloads any more.")

    def _over(self, said: str) -> None:
        if self.trouble:
            self.trouble = None
            logger.info(said)
