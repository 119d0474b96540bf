"""A worker whose every step is the test's, and a manager around it on a real SQLite file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.download import Download, Progressed, Sample, SizesKnown, Verifying
from mlx_manager.domain.events import Event
from mlx_manager.domain.states import Phase
from mlx_manager.services.downloads import DownloadManager, InProcessRunner
from mlx_manager.services.event_bus import InProcessBus
from mlx_manager.services.ports import Report
from mlx_manager.storage import SqlDownloadStore, open_database, sqlite_url

PATIENCE_S = 10.0
TOTAL = 1000


def sample(done: int, phase: Phase = Phase.TRANSFERRING, age_s: float | None = 0.0) -> Sample:
    return Sample(
        downloaded_bytes=done,
        reused_bytes=0,
        received_bytes=done,
        speed_bps=100.0,
        eta_s=9.0,
        last_byte_age_s=age_s,
        files_done=0,
        phase=phase,
        message=f"{done} received.",
        since=1.0,
        deadline=None,
        connections=2,
    )


async def come_true(holds: Callable[[], bool]) -> None:
    """For what has no event to wait for: a file, a log."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@dataclass
class Turn:
    """One run of a download, at a standstill until the test says what happens next."""

    task_id: str
    epoch: int
    report: Report
    end: asyncio.Future[None]
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    still: asyncio.Event = field(default_factory=asyncio.Event)
    cancellations: int = 0

    def sizes(self) -> None:
        self.report(SizesKnown(time.time(), "c" * 40, TOTAL, 2))

    def progress(self, done: int, phase: Phase = Phase.TRANSFERRING, age_s: float | None = 0.0) -> None:
        self.report(Progressed(time.time(), sample(done, phase, age_s)))

    def verify(self) -> None:
        self.report(Verifying(time.time()))

    def complete(self) -> None:
        self.sizes()
        self.progress(TOTAL)
        self.verify()
        self.finish()

    def finish(self) -> None:
        self.end.set_result(None)

    def fail(self, error: BaseException) -> None:
        self.end.set_exception(error)

    @property
    def over(self) -> bool:
        return self.still.is_set()


class Workshop:
    """`execute` and `discard` as the manager wants them. ``slow_stop``: set an event for workers to wait on when they
    are told to stop; ``discarding``: for discards to wait on."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.discarded: list[str] = []
        self.discard_error: Exception | None = None
        self.slow_stop: asyncio.Event | None = None
        self.discarding: asyncio.Event | None = None
        self._news = asyncio.Condition()

    async def execute(self, task_id: str, epoch: int, report: Report) -> None:
        turn = Turn(task_id, epoch, report, asyncio.get_running_loop().create_future())
        self.turns.append(turn)
        async with self._news:
            self._news.notify_all()
        try:
            await turn.end
        except asyncio.CancelledError:
            turn.cancellations += 1
            turn.stopped.set()
            if self.slow_stop is not None:
                await self._clean_up(turn, self.slow_stop)
            raise
        finally:
            turn.still.set()

    async def discard(self, task_id: str) -> None:
        assert not any(turn.task_id == task_id and not turn.over for turn in self.turns), "a worker still has it open"
        if self.discarding is not None:
            await self.discarding.wait()
        if self.discard_error is not None:
            raise self.discard_error
        self.discarded.append(task_id)

    async def turn(self, task_id: str, number: int = 1) -> Turn:
        """The download's first, second … run, as soon as it begins."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            while len(found := [turn for turn in self.turns if turn.task_id == task_id]) < number:
                await self._news.wait()
            return found[number - 1]

    @property
    def at_work(self) -> list[str]:
        return [turn.task_id for turn in self.turns if not turn.over]

    async def _clean_up(self, turn: Turn, done: asyncio.Event) -> None:
        while not done.is_set():
            try:
                await done.wait()
            except asyncio.CancelledError:
                turn.cancellations += 1


@dataclass
class House:
    """One life of the product's core: a manager, started, on the file."""

    file: Path
    engine: Engine
    store: SqlDownloadStore
    bus: InProcessBus
    runner: InProcessRunner
    workshop: Workshop
    manager: DownloadManager

    async def request(self, model: str = "org/model", **fields: Any) -> Download:
        download, _ = await self.manager.request(ModelRequest(model), **fields)
        return download

    async def running(self, model: str = "org/model") -> tuple[Download, Turn]:
        download = await self.request(model)
        return download, await self.workshop.turn(download.task_id)

    async def until(self, task_id: str, holds: Callable[[dict[str, Any]], bool]) -> Event:
        """The first event, kept or to come, that ``holds``."""
        subscription = self.bus.subscribe(task_id)
        try:
            async with asyncio.timeout(PATIENCE_S):
                async for event in subscription:
                    if holds(event.snapshot):
                        return event
        finally:
            subscription.close()
        raise AssertionError(f"The stream of {task_id} ended before it held.")

    async def until_status(self, task_id: str, status: str) -> Event:
        return await self.until(task_id, lambda shown: shown["status"] == status)

    async def told(self, task_id: str) -> list[str]:
        """The statuses of all state events that a new watcher is told."""
        subscription = self.bus.subscribe(task_id)
        events: list[Event] = []
        try:
            async with asyncio.timeout(PATIENCE_S):
                newest = self.bus.newest(task_id)
                while newest is not None and (not events or events[-1].id < newest.id):
                    events.append(await subscription.__anext__())
        finally:
            subscription.close()
        return [event.snapshot["status"] for event in events if event.kind == "state"]

    def row(self, task_id: str) -> Download:
        found = self.store.get(task_id)
        assert found is not None
        return found[0]


@asynccontextmanager
async def house(file: Path, workshop: Workshop | None = None, **options: Any) -> AsyncIterator[House]:
    """``options`` are the manager's."""
    workshop = workshop or Workshop()
    engine = open_database(sqlite_url(file))
    try:
        store, bus, runner = SqlDownloadStore(engine), InProcessBus(), InProcessRunner()
        manager = DownloadManager(store, bus, runner, workshop.execute, discard=workshop.discard, **options)
        await manager.start()
        try:
            yield House(file, engine, store, bus, runner, workshop, manager)
        finally:
            await manager.stop()
            bus.close()
        assert workshop.at_work == []
    finally:
        engine.dispose()
