"""Settings in, started services out: the one place that knows everybody, and introduces the rooms to one another."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from mlx_manager import __version__
from mlx_manager.domain.account import Account
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.events import Event
from mlx_manager.domain.library import DeletePlan, Library
from mlx_manager.domain.plan import Plan
from mlx_manager.domain.reachability import Reachability
from mlx_manager.errors import DiskError, HubError
from mlx_manager.services.access import Access
from mlx_manager.services.downloads import DownloadManager, InProcessRunner
from mlx_manager.services.downloads.worker import DownloadWorker
from mlx_manager.services.event_bus import InProcessBus
from mlx_manager.services.hf_cache import HfCache
from mlx_manager.services.hf_client import HubClient
from mlx_manager.services.ports import ProgressBus, Report, Subscription
from mlx_manager.settings import Settings
from mlx_manager.wiring.foresight import Foresight
from mlx_manager.wiring.hub_watch import HubWatch
from mlx_manager.wiring.transfers import Transfers

if TYPE_CHECKING:
    from mlx_manager.storage import Ledger
    from mlx_manager.wiring.discovery import Discovery

USER_AGENT = f"mlx-manager/{__version__}"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class About:
    """This process, as `/api/system` tells of it. ``started_at``: seconds since 1970."""

    version: str
    pid: int
    platform: str
    python: str
    started_at: float


class Core:
    """Everything below the API, started and stopped as one; ``async with`` it on the loop that is to own it.

    ``hide`` is told each secret that must not get into the log. ``recover``: downloads that the last process left
    behind go on by themselves. ``comes_for``: what will be asked for first; the Hub hears of it while the rest is made.
    """

    settings: Settings
    about: About
    access: Access | None
    bus: ProgressBus
    cache: HfCache
    manager: DownloadManager

    def __init__(
        self,
        settings: Settings,
        *,
        hide: Callable[[str | None], None] = lambda secret: None,
        recover: bool = True,
        comes_for: ModelRequest | None = None,
    ) -> None:
        self.settings = settings
        self.about = About(
            version=__version__,
            pid=os.getpid(),
            platform=f"{platform.system()} {platform.machine()}",
            python=platform.python_version(),
            started_at=time.time(),
        )
        # None: nobody needs a token, since nobody from elsewhere can come.
        self.access = Access(settings.home, hide=hide) if settings.needs_token else None
        self._hide = hide
        self._recover = recover
        self._comes_for = comes_for
        self._ends = AsyncExitStack()
        self._stopping: asyncio.Task[None] | None = None
        self._given_up = False
        self._work: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        """Raises StartError; what was started by then is stopped."""
        async with AsyncExitStack() as ends:
            await self._start(ends)
            self._ends = ends.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._given_up:
            await self.stop()

    @cached_property
    def discovery(self) -> Discovery:
        """Made when it is first asked for, see `expect_visitors`."""
        from mlx_manager.wiring import discovery

        return discovery.Discovery(self.settings, self._hub, self.cache, self.manager, self.queue_bytes)

    async def expect_visitors(self) -> None:
        """Have ready what people come to see; a program that came for its own download has no use for it."""
        # Not at the first search, whose import would hold up the downloads' loop.
        await asyncio.to_thread(lambda: self.discovery)
        # The very first look costs a second where the cache is large: nobody should have to wait for it.
        self._spawn(self._look_at_the_cache())

    def end_streams(self) -> None:
        """Every watcher's stream ends now, and new ones end at once."""
        self.bus.close()

    async def stop(self) -> None:
        """Interrupt what runs, with all bytes and states kept. Called twice, both wait for the one end."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._ends.aclose(), name="core stops")
        await asyncio.shield(self._stopping)

    def give_up(self) -> None:
        """Wait no longer for `stop`. What it could not write down any more is found out at the next start."""
        self._given_up = True
        if self._stopping is not None:
            self._stopping.cancel()

    async def library(self) -> Library:
        """The models in the cache. Raises DiskError."""
        return await asyncio.to_thread(self.cache.library)

    async def deletion(self, model_id: str, revision: str | None = None, *, leftovers: bool = False) -> DeletePlan:
        """What `delete` would remove now, and what forbids it. Raises NotInCache, DiskError."""
        plan = await asyncio.to_thread(lambda: self.cache.deletion(model_id, revision, leftovers=leftovers))
        if download := self.manager.in_flight(model_id):
            return replace(plan, blocked=f"{download.model_id} is being downloaded ({download.status}).")
        return plan

    async def delete(self, model_id: str, revision: str | None = None, *, leftovers: bool = False) -> DeletePlan:
        """Remove a model, a commit of it, or what no commit uses. Raises NotInCache, ModelInUse, DiskError."""
        # Begun, it is carried out whole: whoever asked may go away in the middle.
        return await asyncio.shield(self._spawn(self._delete(model_id, revision, leftovers)))

    async def keep_token(self, token: str) -> Account:
        """Test a token of the Hub and keep it. Raises TokenRejected, HubError, DiskError."""
        self._hide(token)
        account = await self.discovery.account.keep(token)
        await asyncio.to_thread(self.discovery.memory.clear)
        return account

    async def forget_token(self) -> Account:
        """Remove the token that is kept, and what the Hub told its bearer. Raises DiskError."""
        account = await self.discovery.account.forget()
        await asyncio.to_thread(self.discovery.memory.clear)
        return account

    async def watch(self, task_id: str, after: int | None) -> tuple[Event | None, Subscription | None]:
        """What a watcher of one download is told who has heard of it up to the event ``after``: first the event, if
        there is one, then what the subscription gives. Neither: nothing came since, and nothing will. How a finished
        one came to this is history for a new watcher; after a restart nobody knows it any more.

        Raises DownloadNotFound, LedgerFailed.
        """
        newest = await self.manager.last_event(task_id)
        if newest.terminal and after is not None and after >= newest.id:
            return None, None
        if not newest.terminal or (after is not None and self.bus.newest(task_id) is not None):
            return None, self.bus.subscribe(task_id, after)
        return newest, None

    async def cache_free_bytes(self) -> int:
        """Raises DiskError."""
        return await asyncio.to_thread(self.cache.free_bytes)

    async def queue_bytes(self, planned: Plan | None = None) -> int:
        """Room on the disk that the downloads that are not at their end still take, together with what is planned
        beside them. Raises DiskError, LedgerFailed."""
        return await self._worker.owed(self.manager.unfinished, planned)

    async def hub_reachability(self) -> tuple[Reachability | None, float | None]:
        """What the last look at the Hub found, and how many seconds ago; None while nobody knows."""
        return await self._watch.latest()

    def bandwidth(self, task_id: str | None = None) -> int | None:
        """The cap in bytes per second, on one download or on all together; None for none."""
        rate = (self._transfers.caps.of(task_id) if task_id else self._transfers.caps.all).rate_bps
        return None if rate is None else int(rate)

    def limit_bandwidth(self, bytes_ps: int | None, task_id: str | None = None) -> None:
        """Cap one download, or all together, from now on."""
        if task_id is None:
            self._transfers.caps.all.set_rate(bytes_ps)
        else:
            self._transfers.caps.limit(task_id, bytes_ps)

    async def _start(self, ends: AsyncExitStack) -> None:
        s = self.settings
        if self.access is not None:
            await asyncio.to_thread(self.access.start)
        self._hub = HubClient(
            s.hf_endpoint,
            timeout_s=s.hub_timeout_s,
            deadline_s=s.size_check_s,
            offline=s.hf_hub_offline,
            user_agent=USER_AGENT,
        )
        ends.callback(self._hub.close)
        self._spawn(self._prepare_for_the_hub())
        hub = Foresight(self._hub)
        ends.push_async_callback(hub.stop)
        if self._comes_for is not None:
            hub.ask_ahead(self._comes_for)
        ledger = await asyncio.to_thread(_open_ledger, s.database)
        ends.callback(ledger.close)
        self._watch = HubWatch(self._hub.reachable, offline=s.hf_hub_offline)
        ends.push_async_callback(self._watch.stop)
        self.cache = HfCache(s.hf_hub_cache, memory=s.library_memory, verified=ledger.verified)
        self._transfers = Transfers(s, self._hub, ledger.verified, user_agent=USER_AGENT, hide=self._hide)
        await asyncio.to_thread(self._transfers.sweep)
        ends.callback(self._transfers.sweep)
        if not s.hf_hub_offline:
            await asyncio.to_thread(self._transfers.hide_token)
        self._worker = DownloadWorker(
            ledger.downloads, hub, self.cache, self._transfers.make, size_check_s=s.size_check_s
        )
        self.bus = InProcessBus()
        ends.callback(self.bus.close)
        self.manager = DownloadManager(
            ledger.downloads,
            self.bus,
            InProcessRunner(s.max_downloads),
            self._execute,
            discard=self._discard,
            capacity=s.max_downloads,
            recover=self._recover,
        )
        ends.push_async_callback(self.manager.stop)
        await self.manager.start()
        ends.push_async_callback(self._work_done)

    async def _execute(self, download_id: str, epoch: int, report: Report) -> None:
        await self._worker.execute(download_id, epoch, report)
        self._transfers.caps.forget(download_id)

    async def _discard(self, download_id: str) -> None:
        self._transfers.caps.forget(download_id)
        await self._worker.discard(download_id)

    async def _delete(self, model_id: str, revision: str | None, leftovers: bool) -> DeletePlan:
        async with self.manager.at_rest(model_id):
            return await asyncio.to_thread(lambda: self.cache.delete(model_id, revision, leftovers=leftovers))

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    async def _work_done(self) -> None:
        while self._work:
            await asyncio.wait(self._work)

    async def _prepare_for_the_hub(self) -> None:
        with suppress(HubError):  # whoever asks the Hub is told
            await asyncio.to_thread(self._hub.prepare)

    async def _look_at_the_cache(self) -> None:
        with suppress(DiskError):  # whoever asks for the library is told
            await self.library()


def _open_ledger(file: Path) -> Ledger:
    # Here, in a thread, and not above: nothing takes longer to import, and meanwhile the Hub can answer.
    from mlx_manager.storage import Ledger

    return Ledger(file)
