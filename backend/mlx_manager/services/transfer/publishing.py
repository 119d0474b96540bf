"""The last step of a file: its bytes durable, its name in the cache, both for many files in one go."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial

from mlx_manager.services.drafts import sync_folder
from mlx_manager.services.ports import VerifiedBlobs
from mlx_manager.services.transfer.durable import DiskThread
from mlx_manager.services.transfer.gathering import Gathering

SYNCS_AT_ONCE = 8
BATCH = 24
"""Small files: so many are worth a batch of their own, and the first of them waits ``GATHER_S`` for others."""
GATHER_S = 0.05


class Publisher:
    """Takes files whose hash is right. Belongs to the transfer's thread; the disk thread does the work."""

    def __init__(self, disk: DiskThread, verified: VerifiedBlobs) -> None:
        self._disk = disk
        self._verified = verified
        self._ready: list[Gathering] = []
        self._under_way: list[Gathering] = []
        self._since = 0.0
        self._pool = ThreadPoolExecutor(SYNCS_AT_ONCE, thread_name_prefix="sync")

    def add(self, file: Gathering, now: float) -> None:
        if not self._ready:
            self._since = now
        self._ready.append(file)

    def tend(self, now: float, *, last: bool) -> None:
        """Hand over what is ready, unless more small files are about to come; ``last``: none are."""
        if not self._ready or self._under_way:
            return
        worth_it = last or len(self._ready) >= BATCH or now - self._since >= GATHER_S
        if worth_it or not all(file.is_small for file in self._ready):
            self._under_way, self._ready = self._ready, []
            work = partial(publish, self._under_way, self._verified, self._pool)
            self._disk.submit((self._under_way[0], "publish"), work)

    def done(self) -> list[Gathering]:
        """The disk thread has come to the end of a batch: these files are in place."""
        files, self._under_way = self._under_way, []
        return files

    def close(self) -> None:
        """The disk thread has ended."""
        self._pool.shutdown()


def publish(files: Sequence[Gathering], verified: VerifiedBlobs, pool: Executor) -> None:
    """Bytes first, then names, then the folders that hold the names: after a power cut no name stands for nothing."""
    if len(files) > 1:
        for done in [pool.submit(file.part.make_durable) for file in files]:
            done.result()
    else:
        files[0].part.make_durable()
    for file in files:
        file.part.publish(file.job.target)
    for folder in {file.job.target.parent for file in files}:
        sync_folder(folder)
    for file in files:
        file.part.journal.remove()
    verified.remember([file.job.target for file in files])
