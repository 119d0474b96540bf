"""From a ticket to the end of the work: taking a download up, hearing its worker, making something of how it ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from mlx_manager.domain.download import Change, Completed, Failed, InLine, Paused, Started, apply
from mlx_manager.domain.states import Status
from mlx_manager.errors import DiskFull, DownloadSuperseded, MlxManagerError
from mlx_manager.services.downloads import story
from mlx_manager.services.downloads.broadcast import Broadcast
from mlx_manager.services.downloads.ledger import Ledger
from mlx_manager.services.downloads.live import Live, Registry, Run
from mlx_manager.services.ports import Execute, Runner, Ticket
from mlx_manager.task_context import working_for

logger = logging.getLogger(__name__)


class Runs:
    """What the runner runs. The moves of the person's are the manager's."""

    def __init__(
        self,
        *,
        registry: Registry,
        ledger: Ledger,
        broadcast: Broadcast,
        runner: Runner,
        execute: Execute,
        clock: Callable[[], float],
        node: str,
        wake: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._registry = registry
        self._ledger = ledger
        self._broadcast = broadcast
        self._runner = runner
        self._execute = execute
        self._clock = clock
        self._node = node
        self._wake = wake
        self._spawn = spawn

    def submit(self, live: Live) -> int | None:
        """Put it in the line; its place there, from 1, None where a slot was free."""
        self._runner.submit(Ticket(live.task_id, live.download.priority))
        return self.place(live)

    def place(self, live: Live) -> int | None:
        waiting = self._runner.waiting()
        return waiting.index(live.task_id) + 1 if live.task_id in waiting else None

    async def begin(self, live: Live) -> None:
        """Take a queued download up in a new epoch. The caller holds its lock."""
        live.claiming = True
        try:
            epoch = await self._ledger.call(self._ledger.store.claim, live.task_id, self._node)
        except MlxManagerError as error:
            self.fail(live, error)
            return
        finally:
            live.claiming = False
        self.started(live, epoch)
        self._broadcast.heard(live, live.download)
        story.begun(live.download)

    def started(self, live: Live, epoch: int) -> None:
        """It is at work from now on, in this epoch; nobody is told yet."""
        at = self._clock()
        live.download = apply(live.download, Started(at, epoch))
        live.run = Run(epoch)
        self._wake()

    def refresh_line(self) -> None:
        """Tell those in the line whose place has changed."""
        for place, task_id in enumerate(self._runner.waiting(), start=1):
            live = self._registry.get(task_id)
            # One that nobody heard of yet is told its place by whoever accepts it.
            if live and live.told and live.download.status is Status.QUEUED and live.download.place != place:
                self._broadcast.tell(live, apply(live.download, InLine(self._clock(), place)))

    async def still(self, live: Live) -> None:
        """Out of the line, or its worker stopped; returns when nothing moves any more."""
        await self._runner.cancel(live.task_id)
        if live.run:
            live.run.over = True
        self.refresh_line()

    async def run(self, task_id: str) -> None:
        """What the runner calls with a ticket. Cancelled: the worker is told to stop, and is waited for; what that
        means for the download is for the one to say who had it cancelled."""
        live = self._registry.get(task_id)
        if live is None:
            return
        async with self._registry.holding(live):
            if live.download.status is Status.QUEUED and not live.gone:
                await self.begin(live)
            self.refresh_line()
            run = live.run
            if live.gone or run is None or run.taken or run.over or not live.download.status.is_active:
                return
            run.taken = True
        with working_for(task_id):
            work = self._execute(task_id, run.epoch, partial(self._report, live, run))
            worker, told_to_stop = await _until_still(work, f"worker {task_id}")
        # No waiting from here on: with this step the run is over, and the download is free for the next.
        self._ended(live, run, worker, told_to_stop)

    def _report(self, live: Live, run: Run, change: Change) -> None:
        if run.over or live.run is not run:
            raise DownloadSuperseded(f"The run of epoch {run.epoch} is over.")
        self._broadcast.heard(live, apply(live.download, change))

    def _ended(self, live: Live, run: Run, worker: asyncio.Task[None], told_to_stop: bool) -> None:
        if run.over or live.run is not run:
            # Replaced while it worked. Whatever it ended with, it is not ours to tell.
            if not worker.cancelled() and (late := worker.exception()):
                logger.info(
                    "A worker that was replaced ended: %s", type(late).__name__, extra={"task_id": live.task_id}
                )
            return
        run.over = True
        if worker.cancelled():
            if not told_to_stop:
                self._broke(live, "The worker was interrupted, and nobody had asked for it.")
            return
        match worker.exception():
            case None:
                self._complete(live)
            case DownloadSuperseded():
                self.lost(live)
            case error if told_to_stop:
                logger.warning("The worker ended with an error as it stopped.", exc_info=error, extra=_of(live))
            case DiskFull() as error:
                self._hold_up(live, error)
            case MlxManagerError() as error:
                self.fail(live, error)
            case error:
                logger.error("The worker broke.", exc_info=error, extra=_of(live))
                self._broke(live, f"An error in MLX Manager itself: {type(error).__name__}.")

    def _complete(self, live: Live) -> None:
        try:
            done = apply(live.download, Completed(self._clock()))
        except MlxManagerError as error:
            logger.error("The worker returned before its time: %s", error.detail, extra=_of(live))
            self._broke(live, "The worker returned before everything was verified.")
            return
        self._broadcast.tell(live, done)
        story.completed(done)

    def _hold_up(self, live: Live, error: DiskFull) -> None:
        """The machine itself can't go on: it waits for the person, with all bytes kept."""
        paused = apply(live.download, Paused(self._clock(), error.detail, error.code, error.advice))
        self._ledger.set_desire(live, paused.desire)
        self._broadcast.tell(live, paused)
        story.held_up(paused)

    def fail(self, live: Live, error: MlxManagerError) -> None:
        failed = apply(live.download, Failed(self._clock(), error.detail, error.code, error.advice))
        self._broadcast.tell(live, failed)
        story.failed(failed)

    def _broke(self, live: Live, what: str) -> None:
        self.fail(live, MlxManagerError(what))

    def lost(self, live: Live) -> None:
        """Another worker has it: ours stops, and what it still says is not heard."""
        if not live.gone:
            self._registry.drop(live)
            self._spawn(self._runner.cancel(live.task_id))


def _of(live: Live) -> dict[str, str]:
    return {"task_id": live.task_id}


async def _until_still(work: Awaitable[None], name: str) -> tuple[asyncio.Task[None], bool]:
    """Run it to its end, and say if it was told to stop. However often we are cancelled, it is cancelled once: its
    cleaning up is not disturbed, and nothing of it is left behind."""

    async def worker() -> None:
        await work

    task = asyncio.create_task(worker(), name=name)
    told_to_stop = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            if not told_to_stop:
                told_to_stop = True
                task.cancel()
    return task, told_to_stop
