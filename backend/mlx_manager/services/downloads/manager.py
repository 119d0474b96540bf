"""What may be asked of the downloads. Every answer is true when it is given: a paused download has stopped."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.download import Cancelled, Download, InLine, Paused, Resumed, apply
from mlx_manager.domain.events import Event, EventKind
from mlx_manager.domain.snapshot import snapshot
from mlx_manager.domain.states import Desire, Move, Status, after
from mlx_manager.errors import (
    DownloadInFlight,
    DownloadNotFound,
    LedgerFailed,
    MlxManagerError,
    ModelInUse,
    ServerUnreachable,
)
from mlx_manager.services.downloads import story
from mlx_manager.services.downloads.broadcast import Broadcast
from mlx_manager.services.downloads.ledger import Ledger
from mlx_manager.services.downloads.live import Live, Registry
from mlx_manager.services.downloads.recovery import Next, recover
from mlx_manager.services.downloads.resting import Resting
from mlx_manager.services.downloads.runs import Runs
from mlx_manager.services.downloads.ticker import Ticker
from mlx_manager.services.ports import DownloadStore, Execute, ProgressBus, Runner

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Ticks are numbered but not all of them are written down: after a restart the numbers begin well above.
_IDS_TO_SKIP = 1_000_000
_PATIENCE_AT_STOP_S = 1.0
LEAST_TO_MEASURE = 1 << 20


class DownloadManager:
    """Sole owner of the live state of downloads. Belongs to one event loop; all calls are made on it.

    ``execute`` does the work of one download, ``discard`` deletes what a cancelled one left behind. ``clock``: seconds
    since 1970. ``node``: the name of this process's machine in the rows. ``recover``: interrupted downloads go on at
    start by themselves. ``tick_s``: a watcher of an active download hears something at least so often.
    """

    def __init__(
        self,
        store: DownloadStore,
        bus: ProgressBus,
        runner: Runner,
        execute: Execute,
        *,
        discard: Callable[[str], Awaitable[None]],
        clock: Callable[[], float] = time.time,
        capacity: int = 3,
        node: str = "local",
        recover: bool = True,
        tick_s: float = 1.0,
        save_every_s: float = 5.0,
    ) -> None:
        self._bus = bus
        self._runner = runner
        self._discard = discard
        self._clock = clock
        self._node = node
        self._recover = recover
        self._running = False
        self._moves: set[asyncio.Task[Any]] = set()
        runner.set_capacity(capacity)
        self._registry = Registry(self._load)
        self._resting = Resting()
        self._ledger = Ledger(store, lost=self._lost, settled=self._settled)
        self._broadcast = Broadcast(bus, self._ledger, tick_s=tick_s, save_every_s=save_every_s)
        self._ticker = Ticker(lambda: self._broadcast.beat(tuple(self._registry)), self._broadcast.beat_s)
        self._runs = Runs(
            registry=self._registry,
            ledger=self._ledger,
            broadcast=self._broadcast,
            runner=runner,
            execute=execute,
            clock=clock,
            node=node,
            wake=self._ticker.wake,
            spawn=self._spawn,
        )

    async def start(self) -> None:
        """Take up what the last process left behind, then be ready. Raises LedgerFailed."""
        last_id = await self._ledger.call(self._ledger.store.last_event_id)
        self._bus.advance(last_id + _IDS_TO_SKIP if last_id else 0)
        entries = await self._ledger.call(self._ledger.store.unfinished)
        self._ticker.start()
        self._running = True
        found = [recover(download, self._clock(), go_on=self._recover) for download, _ in entries]
        for entry, (_, event_id) in zip(found, entries, strict=True):
            live = Live(entry.download, event_id=event_id)
            self._registry.add(live)
            story.recovered(entry.download, entry.next.value)
            if entry.next is Next.RUN:
                self._runs.submit(live)
        await self._runner.start(self._runs.run)
        for live in self._registry:
            # Those that a slot was free for tell of themselves as soon as they are taken up.
            if (place := self._runs.place(live)) is not None:
                self._broadcast.tell(live, apply(live.download, InLine(self._clock(), place)))
        for entry in found:
            if entry.next is not Next.RUN and (rests := self._registry.get(entry.download.task_id)):
                self._broadcast.tell(rests, rests.download)
            if entry.next is Next.CANCEL:
                self._spawn(self._carry_out_cancel(entry.download.task_id))

    async def stop(self) -> None:
        """Interrupt what runs, with all bytes kept and the rows as they stand, so that the next start goes on. A second
        time it does nothing."""
        self._running = False
        await self._runner.stop()
        if self._moves:
            # What a person asked for is in the ledger: what can't be finished now is finished at the next start.
            _, late = await asyncio.wait(self._moves, timeout=_PATIENCE_AT_STOP_S)
            for move in late:
                move.cancel()
            if late:
                await asyncio.wait(late)
        await self._ticker.stop()
        for live in self._registry:
            if self._ledger.closed:
                break
            if live.dirty:
                self._ledger.save_again(live)
            elif live.download.status.is_active:
                self._ledger.save(live)
        await self._ledger.close()

    async def request(self, request: ModelRequest, priority: int = 0) -> tuple[Download, bool]:
        """The download of this, and whether it is a new one. In flight already: that one, set going again where it was
        paused. It is in the ledger and watchers can be told of it when this returns. Raises LedgerFailed."""
        return await self._owned(self._request(request, priority))

    async def pause(self, task_id: str) -> Download:
        """Returns when its bytes have stopped; all are kept. Raises DownloadNotFound, MoveNotAllowed."""
        return await self._owned(self._pause(task_id))

    async def resume(self, task_id: str) -> Download:
        """A paused or failed one goes on. Raises DownloadNotFound, MoveNotAllowed, DownloadInFlight."""
        return await self._owned(self._resume(task_id))

    async def cancel(self, task_id: str) -> Download:
        """Returns when its bytes have stopped and nothing partial is left. Raises DownloadNotFound, MoveNotAllowed."""
        return await self._owned(self._cancel(task_id))

    async def get(self, task_id: str) -> Download:
        """As it stands at this moment. Raises DownloadNotFound, LedgerFailed."""
        return (await self._entry(task_id))[0]

    async def last_event(self, task_id: str) -> Event:
        """The last event that told of it, with its number and the download as of now; of a finished one the terminal
        event, also after a restart. Raises DownloadNotFound, LedgerFailed."""
        download, event_id = await self._entry(task_id)
        return Event(event_id, task_id, EventKind.STATE, snapshot(download), download.status.is_terminal)

    async def page(
        self, states: Collection[Status] | None = None, limit: int = 50, before: str | None = None
    ) -> tuple[list[Download], str | None]:
        """Newest first, finished ones too, with the cursor of the next page. Raises InvalidRequest, LedgerFailed."""
        entries, following = await self._ledger.call(self._ledger.store.page, states, limit, before)
        shown = [self._broadcast.now(live) if (live := self._registry.get(d.task_id)) else d for d, _ in entries]
        return [d for d in shown if states is None or d.status in states], following

    def in_flight(self, model_id: str) -> Download | None:
        """A download of any commit of this model that is not at its end, paused ones too."""
        same = (live.download for live in self._registry if live.download.model_id.casefold() == model_id.casefold())
        return next((download for download in same if download.status.is_in_flight), None)

    @asynccontextmanager
    async def at_rest(self, model_id: str) -> AsyncIterator[None]:
        """While this lasts nobody downloads this model, and who wants to waits. Raises ModelInUse."""
        if download := self.in_flight(model_id):
            raise ModelInUse(f"{download.model_id} is being downloaded ({download.status}).")
        with self._resting.hold(model_id) as ours:
            if not ours:
                raise ModelInUse(f"{model_id} is being deleted already.", advice="Nothing to do: it is on its way.")
            yield

    @property
    def unfinished(self) -> list[Download]:
        """All that are not at their end, paused ones too, as they were told last."""
        return [live.download for live in self._registry if live.download.status.is_in_flight]

    def rates(self) -> dict[str, list[int]]:
        """The rate of each that is at work, over the last while; see `domain.progress.RateCurve`."""
        return self._broadcast.rates(self._registry)

    async def last_rate(self) -> int | None:
        """Bytes per second of the last download that was long enough to tell; None when there is none."""
        finished, _ = await self.page((Status.COMPLETED,), 20)
        for one in finished:
            if one.started_at and one.finished_at and one.received_bytes >= LEAST_TO_MEASURE:
                return int(one.received_bytes / max(0.001, one.finished_at - one.started_at))
        return None

    @property
    def trouble(self) -> LedgerFailed | None:
        """Why downloads that are there cannot be written down now; it is tried again."""
        return self._ledger.trouble

    @property
    def active_count(self) -> int:
        """Downloads that a worker is busy with."""
        return sum(live.download.status.is_active for live in self._registry)

    @property
    def waiting_count(self) -> int:
        """Downloads in the line."""
        return len(self._runner.waiting())

    def set_capacity(self, capacity: int) -> None:
        """So many at once from now on; what runs already goes on."""
        self._runner.set_capacity(capacity)
        self._runs.refresh_line()

    # --- the moves; each is a task of its own, and holds the download's lock from its first step to its last ----------

    async def _request(self, request: ModelRequest, priority: int) -> tuple[Download, bool]:
        while True:
            await self._resting.until_free(request.model_id)
            live = self._registry.in_flight(request)
            if live is None:
                return await self._accept(request, priority)
            async with self._registry.holding(live):
                if live.gone or live.download.status.is_terminal:
                    continue  # it ended while we waited for it
                if self._can_be_set_going(live):
                    await self._set_going(live)
                else:
                    story.asked_again(live.download)
                return live.download, False

    async def _accept(self, request: ModelRequest, priority: int) -> tuple[Download, bool]:
        at = self._clock()
        live = Live(Download(secrets.token_hex(8), request, at, priority, since=at))
        self._registry.add(live)
        async with self._registry.holding(live):
            # The runner knows if a slot is free. What it starts waits for our lock before it does anything.
            place = self._runs.submit(live)
            if place is None:
                self._runs.started(live, epoch=1)
            else:
                live.download = apply(live.download, InLine(at, place))
            node = self._node if place is None else None
            try:
                await self._ledger.call(self._ledger.store.insert, live.download, node)
            except MlxManagerError as error:
                self._registry.drop(live)
                await self._runs.still(live)
                if isinstance(error, DownloadInFlight):
                    # Another process was faster.
                    theirs = await self._ledger.call(self._ledger.store.find_in_flight, request)
                    if theirs is not None:
                        return theirs, False
                raise
            self._broadcast.tell(live, live.download)
            story.accepted(live.download)
            self._runs.refresh_line()
            return live.download, True

    async def _pause(self, task_id: str) -> Download:
        async with self._registry.hold(task_id) as live:
            after(live.download.status, Move.PAUSE)
            await self._want(live, Desire.PAUSED, "Pausing.")
            await self._runs.still(live)
            # Or it had to pause by itself in the meantime.
            if live.download.status is not Status.PAUSED:
                self._broadcast.tell(live, apply(live.download, Paused(self._clock())))
                story.paused(live.download)
            return live.download

    async def _resume(self, task_id: str) -> Download:
        async with self._registry.hold(task_id) as live:
            if not self._can_be_set_going(live):
                after(live.download.status, Move.RESUME)
            other = self._registry.in_flight(live.download.request)
            if other is not None and other is not live:
                raise DownloadInFlight(f"The same is in flight already, as download {other.task_id}.")
            await self._set_going(live)
            return live.download

    async def _cancel(self, task_id: str) -> Download:
        async with self._registry.hold(task_id) as live:
            after(live.download.status, Move.CANCEL)
            await self._want(live, Desire.CANCELLED, "Cancelling.")
            await self._runs.still(live)
            after(live.download.status, Move.CANCEL)
            leftover = await self._discarded(live)
            self._broadcast.tell(live, apply(live.download, Cancelled(self._clock(), leftover)))
            story.cancelled(live.download)
            return live.download

    def _can_be_set_going(self, live: Live) -> bool:
        """Paused, or left lying since the last process."""
        if live.download.status is Status.QUEUED:
            return self._runs.place(live) is None
        return live.download.status is Status.PAUSED

    async def _set_going(self, live: Live) -> None:
        """Into the line, or to work at once. The caller holds the lock."""
        await self._want(live, Desire.RUN)
        if live.download.status is not Status.QUEUED:
            await self._resting.until_free(live.download.model_id)
            live.download = apply(live.download, Resumed(self._clock()))
            story.resumed(live.download)
        # An engine may need a moment longer than we do to see that the run before has ended.
        await self._runner.cancel(live.task_id)
        place = self._runs.submit(live)
        self._bus.begin(live.task_id)
        if place is None:
            await self._runs.begin(live)
        else:
            self._broadcast.tell(live, apply(live.download, InLine(self._clock(), place)))
        self._runs.refresh_line()

    async def _want(self, live: Live, desire: Desire, message: str = "") -> None:
        """Write down what the person wants before anything is done about it."""
        live.download = replace(live.download, desire=desire)
        try:
            await self._ledger.call(self._ledger.store.set_desire, live.task_id, desire)
        except LedgerFailed as error:
            # What the person asked for is done all the same.
            self._ledger.failed(live, error)
            self._settled(live)
        if live.download.status.is_active:
            self._broadcast.tell(live, replace(live.download, message=message))

    async def _discarded(self, live: Live) -> str | None:
        """Delete what is partial; what could not be deleted, in words."""
        try:
            await self._discard(live.task_id)
        except MlxManagerError as error:
            logger.warning("Partial files are left: %s", error.detail, extra={"task_id": live.task_id})
            return f"Some partial files could not be removed: {error.detail}"
        except Exception:
            logger.exception("Partial files are left.", extra={"task_id": live.task_id})
            return "Some partial files could not be removed; the log says why."
        return None

    async def _carry_out_cancel(self, task_id: str) -> None:
        await self._cancel(task_id)

    # --- the rest -----------------------------------------------------------------------------------------------------

    async def _entry(self, task_id: str) -> tuple[Download, int]:
        """The download as of now, and the number of the last event that told of it."""
        live = self._registry.get(task_id)
        if live is not None:
            return self._broadcast.now(live), live.event_id
        entry = await self._load(task_id)
        if entry is None:
            raise DownloadNotFound(f"There is no download {task_id!r}.")
        return entry

    async def _load(self, task_id: str) -> tuple[Download, int] | None:
        return await self._ledger.call(self._ledger.store.get, task_id)

    def _lost(self, live: Live) -> None:
        self._runs.lost(live)

    def _settled(self, live: Live) -> None:
        self._registry.let_go(live)
        if live.dirty:
            self._ticker.wake()

    async def _owned(self, move: Coroutine[Any, Any, T]) -> T:
        """Carry a move out whole: whoever asked for it may go away in the middle."""
        if not self._running:
            move.close()
            raise ServerUnreachable("MLX Manager is stopping.")
        return await asyncio.shield(self._spawn(move))

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._moves.add(task)
        task.add_done_callback(self._moved)
        return task

    def _moved(self, task: asyncio.Task[Any]) -> None:
        self._moves.discard(task)
        # Nobody may be there any more to take the error.
        if not task.cancelled() and (error := task.exception()):
            logger.debug("Not done: %s", error)
