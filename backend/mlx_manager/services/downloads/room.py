"""Room on the disk: who may take how much of it, and what the downloads that are under way still take."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path

from mlx_manager.domain import words
from mlx_manager.domain.download import Download
from mlx_manager.domain.plan import ROOM_TO_LEAVE, Plan
from mlx_manager.errors import DiskFull, MlxManagerError
from mlx_manager.services.downloads.whole import then_cancelled
from mlx_manager.services.ports import BlobPlace, Cache


class Room:
    """The cache's disk. A file takes its whole room before its bytes come, where the platform can do that."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._lock = asyncio.Lock()
        self._placed: dict[str, list[BlobPlace]] = {}

    async def take(self, download_id: str, plan: Plan) -> list[BlobPlace]:
        """The places of all blobs, with the disk checked for this download and those already running. Raises DiskFull,
        and as `Cache.prepare` does; nothing is left then of what was made."""
        try:
            # One at a time: two that look at the same free room at once would both take it.
            async with self._lock:
                # Whoever discards what this makes must not meet it at work.
                places = await then_cancelled(self._cache.prepare, plan)
                await asyncio.to_thread(self._check, places)
                self._placed[download_id] = places
                return places
        except MlxManagerError:
            # A cancelled download is discarded by the manager too: not beside this.
            await then_cancelled(self._cache.discard, plan, keep=[blob.etag for blob in plan.blobs])
            raise

    def leave(self, download_id: str) -> None:
        """It runs no longer."""
        self._placed.pop(download_id, None)

    def owed(
        self, downloads: Iterable[Download], plan_of: Callable[[str], Plan | None], planned: Plan | None = None
    ) -> int:
        """Bytes of the disk that these still take, and what is ``planned`` beside them; what several share counts once.
        Of one whose files nobody knows yet its size counts, as far as that is known and the plan does not know better.
        Blocks. Raises DiskError."""
        wanted: dict[Path, BlobPlace] = {} if planned is None else _by_blob(self._cache.places(planned))
        untold = 0
        for download in downloads:
            places = self._placed.get(download.task_id)
            if places is None:
                plan = plan_of(download.task_id)
                if plan is None:
                    if planned is None or not _is_of(download, planned):
                        untold += max(0, download.total_bytes - download.downloaded_bytes)
                    continue
                places = self._cache.places(plan)
            wanted.update(_by_blob(places))
        return untold + _bytes_to_allocate(wanted.values())

    def _check(self, places: Iterable[BlobPlace]) -> None:
        ours = _by_blob(places)
        theirs = _by_blob(chain.from_iterable(tuple(self._placed.values())))
        needed = _bytes_to_allocate(ours.values())
        promised = _bytes_to_allocate(place for blob, place in theirs.items() if blob not in ours)
        short = needed + promised + ROOM_TO_LEAVE - self._cache.free_bytes()
        if needed and short > 0:
            others = f", {words.size(promised)} more for what runs already" if promised else ""
            raise DiskFull(f"{words.size(needed)} are needed{others}: {words.size(short)} are missing on the disk.")


def _is_of(download: Download, plan: Plan) -> bool:
    return (download.model_id, download.request.revision) == (plan.model_id, plan.revision)


def _by_blob(places: Iterable[BlobPlace]) -> dict[Path, BlobPlace]:
    """Each content once, whoever wants it."""
    return {place.blob: place for place in places}


def _bytes_to_allocate(places: Iterable[BlobPlace]) -> int:
    """What the disk still has to give: partial files own their room already."""
    needed = 0
    for place in places:
        whole = _stat(place.blob)
        if whole and whole.st_size == place.file.size:
            continue
        part = _stat(place.part)
        needed += max(0, place.file.size - (part.st_blocks * 512 if part else 0))
    return needed


def _stat(path: Path) -> os.stat_result | None:
    """None where it is not, or cannot be looked at: then it has no room yet that we know of."""
    try:
        return path.stat()
    except OSError:
        return None
