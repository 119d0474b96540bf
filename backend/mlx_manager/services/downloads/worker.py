"""The work of one download, from the question to the Hub to the finished snapshot. It knows no queue and no engine."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from mlx_manager.domain import words
from mlx_manager.domain.download import Download, Progressed, SizesKnown, Verifying, Waiting
from mlx_manager.domain.plan import Plan, PlanFile
from mlx_manager.domain.states import Phase
from mlx_manager.errors import DownloadNotFound, DownloadSuperseded
from mlx_manager.services.downloads.asking import Asking
from mlx_manager.services.downloads.room import Room
from mlx_manager.services.downloads.whole import not_cancelled, then_cancelled
from mlx_manager.services.ports import (
    BlobPlace,
    Cache,
    DownloadStore,
    FileJob,
    Hub,
    MakeTransfer,
    Report,
    Transfer,
    XetSource,
)

REPORT_EVERY_S = 0.25

log = logging.getLogger(__name__)


class DownloadWorker:
    """``execute`` is `services.ports.Execute`; it may be cancelled at any await and then keeps every byte."""

    def __init__(
        self,
        store: DownloadStore,
        hub: Hub,
        cache: Cache,
        make_transfer: MakeTransfer,
        *,
        size_check_s: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._hub = hub
        self._cache = cache
        self._make_transfer = make_transfer
        self._size_check_s = size_check_s
        self._clock = clock
        self._room = Room(cache)

    async def execute(self, download_id: str, epoch: int, report: Report) -> None:
        """One run. Raises what ended it: a MlxManagerError, or CancelledError when it was told to stop."""
        logger = logging.LoggerAdapter(log, {"task_id": download_id})
        stored = await asyncio.to_thread(self._store.get, download_id)
        if stored is None:
            raise DownloadNotFound(f"There is no download {download_id}.")
        request = stored[0].request
        plan = await asyncio.to_thread(self._store.plan, download_id)
        if plan is None:
            asking = Asking(self._hub, request, report, logger, size_check_s=self._size_check_s, clock=self._clock)
            plan = await asking.until_answered()
            await asyncio.to_thread(self._store.save_plan, download_id, plan)
        sizes = SizesKnown(self._clock(), plan.commit, plan.total_bytes, len(plan.blobs))
        report(sizes)
        count, total = words.count(len(plan.blobs), "file"), words.size(plan.total_bytes)
        logger.info("sizes known: %s, %s, commit %s (epoch %d)", count, total, plan.commit[:12], epoch)
        try:
            places = await self._room.take(download_id, plan)
            await self._transfer(download_id, plan, places, sizes, report)
        finally:
            self._room.leave(download_id)
        report(Waiting(self._clock(), Phase.LINKING, "Linking the files into the cache."))
        # All bytes are right and it takes a moment: who stops it now comes too late, and half a snapshot would be left.
        snapshot = await not_cancelled(self._cache.link, plan)
        logger.info("linked: %s", snapshot)

    async def discard(self, download_id: str) -> None:
        """Remove what a cancelled download left, but nothing that another one needs."""
        plan = await asyncio.to_thread(self._store.plan, download_id)
        if plan is None:
            return
        needed = await asyncio.to_thread(self._needed_by_others, download_id, plan.model_id)
        freed = await asyncio.to_thread(lambda: self._cache.discard(plan, keep=needed))
        log.info("partial files removed, %s freed", words.size(freed), extra={"task_id": download_id})

    async def owed(self, downloads: Sequence[Download], planned: Plan | None = None) -> int:
        """Bytes of the disk that these still take, and what is planned beside them. Raises DiskError, LedgerFailed."""
        return await asyncio.to_thread(self._room.owed, downloads, self._store.plan, planned)

    def _needed_by_others(self, download_id: str, model_id: str) -> set[str]:
        etags: set[str] = set()
        for other, _ in self._store.unfinished():
            if other.task_id == download_id or other.model_id != model_id:
                continue
            if plan := self._store.plan(other.task_id):
                etags.update(blob.etag for blob in plan.blobs)
        return etags

    async def _transfer(
        self, download_id: str, plan: Plan, places: Sequence[BlobPlace], sizes: SizesKnown, report: Report
    ) -> None:
        jobs = [
            FileJob(
                path=place.file.path,
                url=self._hub.resolve_url(plan.model_id, plan.commit, place.file.path),
                size=place.file.size,
                digest=place.file.digest,
                target=place.blob,
                part=place.part,
                lock=place.lock,
                xet=self._xet_source(plan, place.file),
                elsewhere=place.elsewhere,
            )
            for place in places
        ]
        transfer = self._make_transfer(download_id, jobs)
        transfer.start()
        finished = asyncio.ensure_future(transfer.finished())
        try:
            await self._follow(transfer, finished, sizes, report)
        finally:
            finished.cancel()
            # Stopping waits for the disk; it must come to its end even if this task is cancelled a second time.
            try:
                await then_cancelled(transfer.stop)
            finally:
                self._last_word(transfer, report)

    def _xet_source(self, plan: Plan, file: PlanFile) -> XetSource | None:
        if file.xet_hash is None:
            return None
        return XetSource(file.xet_hash, self._hub.xet_token_url(plan.model_id, plan.commit))

    def _last_word(self, transfer: Transfer, report: Report) -> None:
        """Bytes came until the stop: what is told of a paused download counts them."""
        try:
            report(Progressed(self._clock(), transfer.sample()))
        except DownloadSuperseded:
            log.debug("another worker has taken over")

    async def _follow(
        self,
        transfer: Transfer,
        finished: asyncio.Future[None],
        sizes: SizesKnown,
        report: Report,
    ) -> None:
        verifying = False
        while True:
            done, _ = await asyncio.wait({finished}, timeout=REPORT_EVERY_S)
            sample = transfer.sample()
            all_here = sample.phase is Phase.HASHING and sample.downloaded_bytes >= sizes.total_bytes
            if done and not finished.exception():
                all_here = True
            if verifying and not all_here and sample.downloaded_bytes < sizes.total_bytes:
                report(sizes)  # something turned out wrong and comes again
            now = self._clock()
            report(Verifying(now, sample) if all_here and not verifying else Progressed(now, sample))
            verifying = all_here
            if done:
                finished.result()
                return
