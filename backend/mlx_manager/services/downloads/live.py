"""The downloads that are alive in this process, and who may move them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.download import Download
from mlx_manager.domain.progress import RateCurve
from mlx_manager.errors import DownloadNotFound, LedgerFailed

MOST_EVENTS_A_SECOND = 4


@dataclass(slots=True)
class Run:
    """One worker's turn. ``taken``: it has begun its work; ``over``: nothing it still says counts."""

    epoch: int
    taken: bool = False
    over: bool = False


@dataclass(slots=True)
class Live:
    """One download and all that goes with it. Times without ``_at`` of the domain are the loop's, in seconds.

    ``download`` is changed by synchronous steps alone. ``lock`` is held by a move of the person's from its first step
    to its last, and while a run is begun; never while a worker works.
    """

    download: Download
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    run: Run | None = None
    # The download and the number of the last event that told of it; None: nobody heard of it yet.
    told: Download | None = None
    event_id: int = 0
    # The ledger's trouble that was told beside it.
    told_beside: LedgerFailed | None = None
    told_at: float = 0.0
    rates: RateCurve = field(default_factory=RateCurve)
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_EVENTS_A_SECOND))
    # When the worker spoke last: the clock adds to what it said then.
    heard_at: float = 0.0
    saved_at: float = 0.0
    # Writes on their way, and whether one failed: the ledger does not hold this download as it is.
    writes: int = 0
    dirty: bool = False
    # An epoch is being taken: the ledger may be ahead of us for a moment.
    claiming: bool = False
    users: int = 0
    # No longer ours: it never got into the ledger, or another worker has it.
    gone: bool = False

    @property
    def task_id(self) -> str:
        return self.download.task_id


class Registry:
    """Every unfinished download, and finished ones for as long as somebody is busy with them."""

    def __init__(self, load: Callable[[str], Awaitable[tuple[Download, int] | None]]) -> None:
        """``load`` gets a download and its last event's id out of the ledger."""
        self._load = load
        self._lives: dict[str, Live] = {}

    def __iter__(self) -> Iterator[Live]:
        return iter(tuple(self._lives.values()))

    def add(self, live: Live) -> None:
        self._lives[live.task_id] = live

    def get(self, task_id: str) -> Live | None:
        return self._lives.get(task_id)

    def in_flight(self, request: ModelRequest) -> Live | None:
        same = (live for live in self if live.download.status.is_in_flight and live.download.request == request)
        return next(same, None)

    def drop(self, live: Live) -> None:
        live.gone = True
        if live.run:
            live.run.over = True
        if self._lives.get(live.task_id) is live:
            del self._lives[live.task_id]

    def let_go(self, live: Live) -> None:
        """Forget one that is finished, written down, and in nobody's hands."""
        if live.download.status.is_terminal and not (live.users or live.writes or live.dirty):
            self.drop(live)

    @asynccontextmanager
    async def hold(self, task_id: str) -> AsyncIterator[Live]:
        """The download, with its lock. Raises DownloadNotFound."""
        live = self._lives.get(task_id)
        if live is None:
            entry = await self._load(task_id)
            if entry is None:
                raise DownloadNotFound(f"There is no download {task_id!r}.")
            # Somebody else may have fetched it meanwhile: there is one lock to a download.
            live = self._lives.setdefault(task_id, Live(entry[0], told=entry[0], event_id=entry[1]))
        async with self.holding(live):
            yield live

    @asynccontextmanager
    async def holding(self, live: Live) -> AsyncIterator[None]:
        live.users += 1
        try:
            async with live.lock:
                yield
        finally:
            live.users -= 1
            self.let_go(live)
