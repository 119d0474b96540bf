"""Room on the disk: what several downloads want counts once, and what is given back is given back alone."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Collection
from hashlib import sha256
from pathlib import Path

import pytest

from fakes.workshop import PATIENCE_S
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.download import Download
from mlx_manager.domain.plan import ROOM_TO_LEAVE, Plan, PlanFile
from mlx_manager.errors import DiskFull
from mlx_manager.services.discovery import Planner
from mlx_manager.services.downloads.room import Room
from mlx_manager.services.hf_cache import HfCache

MODEL = "org/Model-4bit"
SIZE = 4 << 20


def _file(content: str, size: int) -> PlanFile:
    return PlanFile(f"{content}.safetensors", size, "0" * 40, sha256(content.encode()).hexdigest())


def _plan(*files: PlanFile) -> Plan:
    return Plan(MODEL, "main", "c" * 40, files, files)


def _download(task_id: str, model: str = MODEL, total_bytes: int = 0) -> Download:
    return Download(task_id, ModelRequest(model), 0.0, total_bytes=total_bytes)


@pytest.fixture
def cache(tmp_path: Path) -> HfCache:
    return HfCache(tmp_path / "cache")


async def test_what_running_downloads_share_takes_its_room_once(cache: HfCache) -> None:
    room = Room(cache)
    much = cache.free_bytes() * 2 // 5
    shared, other, more = (_file(content, much) for content in ("shared", "other", "more"))
    for download_id, file in (("a", shared), ("b", shared), ("c", other), ("d", shared)):
        await room.take(download_id, _plan(file))
    with pytest.raises(DiskFull, match="more for what runs already"):
        await room.take("e", _plan(more))
    room.leave("c")
    await room.take("e", _plan(more))


def test_a_plan_takes_what_neither_it_nor_anybody_else_in_flight_owns_already(cache: HfCache) -> None:
    room = Room(cache)
    shared, own = _file("shared", SIZE), _file("own", SIZE)
    running, planned = _plan(shared), _plan(shared, own)
    plans = {"known": running, "unknown": None}
    assert room.owed([], plans.get, planned) == 2 * SIZE
    assert room.owed([_download("known")], plans.get, planned) == 2 * SIZE
    assert room.owed([_download("known")], plans.get, running) == SIZE == room.owed([_download("known")], plans.get)
    # Of one that still asks for its files the size is guessed, unless it is the very model of the plan.
    guesses = [_download("unknown", total_bytes=SIZE), _download("unknown", "org/Other", total_bytes=7)]
    assert room.owed(guesses, plans.get) == SIZE + 7
    assert room.owed(guesses, plans.get, planned) == 2 * SIZE + 7
    place = cache.prepare(running)[0]
    with place.part.open("wb") as part:
        part.write(bytes(SIZE))
        part.flush()
        os.fsync(part.fileno())
    assert room.owed([_download("known")], plans.get, planned) == SIZE
    assert room.owed([], plans.get, running) == 0


class Disk(HfCache):
    """One with exactly so much room."""

    free = 0

    def free_bytes(self) -> int:
        return self.free


@pytest.mark.parametrize(("left", "here", "enough"), [(0, 0, True), (-1, 0, False), (-SIZE, SIZE, True)])
async def test_the_plan_promises_no_room_that_the_start_refuses(
    tmp_path: Path, left: int, here: int, enough: bool
) -> None:
    cache, wanted = Disk(tmp_path / "cache"), _plan(_file("wanted", SIZE))
    cache.free = SIZE + ROOM_TO_LEAVE + left
    [place] = cache.prepare(wanted)
    with place.part.open("wb") as part:
        part.write(bytes(here))
        part.flush()
        os.fsync(part.fileno())
    room = Room(cache)

    async def asked(_: ModelRequest) -> Plan:
        return wanted

    async def rate() -> None:
        return None

    async def queued(planned: Plan | None) -> int:
        return room.owed([], lambda _: None, planned)

    told = await Planner(asked, lambda _: {}, cache.free_bytes, rate, queued).plan(ModelRequest(MODEL))
    assert told["enough_room"] == enough
    assert (told["note"] is None) == enough
    if enough:
        await room.take("a", wanted)
    else:
        assert told["note"] == "1 B are missing on the disk: delete a model first."
        with pytest.raises(DiskFull, match="are needed: 1 B are missing on the disk"):
            await room.take("a", wanted)


class SlowToDiscard(HfCache):
    """A disk that takes its time over deleting."""

    def __init__(self, cache_dir: Path) -> None:
        super().__init__(cache_dir)
        self.begun, self.go_on, self.ended = threading.Event(), threading.Event(), threading.Event()

    def discard(self, plan: Plan, *, keep: Collection[str] = ()) -> int:
        self.begun.set()
        self.go_on.wait(PATIENCE_S)
        freed = super().discard(plan, keep=keep)
        self.ended.set()
        return freed


async def test_who_is_cancelled_while_it_gives_back_is_through_with_it_first(tmp_path: Path) -> None:
    """The manager discards what a cancelled download has left: two at once would meet in the same folders."""
    cache = SlowToDiscard(tmp_path / "cache")
    taking = asyncio.create_task(Room(cache).take("a", _plan(_file("vast", 1 << 60))))
    assert await asyncio.to_thread(cache.begun.wait, PATIENCE_S)
    taking.cancel()
    await asyncio.wait([taking], timeout=0.1)
    assert not taking.done(), "it is still at work in the cache"
    cache.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert cache.ended.is_set()
