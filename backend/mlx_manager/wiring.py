"""Settings in, started services out: the one place that knows everybody, and introduces the rooms to one another."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from mlx_manager import __version__
from mlx_manager.domain.library import LocalModel
from mlx_manager.domain.reachability import Reachability
from mlx_manager.errors import HubTrouble, TokenRejected
from mlx_manager.services.downloads import DownloadManager, InProcessRunner
from mlx_manager.services.downloads.worker import DownloadWorker
from mlx_manager.services.event_bus import InProcessBus
from mlx_manager.services.hf_cache import HfCache
from mlx_manager.services.hf_client import HubClient
from mlx_manager.services.ports import FileJob, ProgressBus, Transfer
from mlx_manager.services.transfer import (
    Caps,
    ConnectionPool,
    CurlTransfer,
    FailoverTransfer,
    Policy,
    TransferLimits,
    WireOptions,
    XetOptions,
    XetTransfer,
    asks_the_system,
    ca_bundle,
)
from mlx_manager.settings import Settings
from mlx_manager.storage import SqlDownloadStore, SqlVerifiedBlobs, open_database, sqlite_url

logger = logging.getLogger(__name__)

USER_AGENT = f"mlx-manager/{__version__}"
LOOK_AGAIN_S = 30.0
FIRST_LOOK_S = 0.3


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
    behind go on by themselves.
    """

    settings: Settings
    about: About
    bus: ProgressBus
    cache: HfCache
    manager: DownloadManager

    def __init__(
        self,
        settings: Settings,
        *,
        hide: Callable[[str | None], None] = lambda secret: None,
        recover: bool = True,
    ) -> None:
        self.settings = settings
        self.about = About(
            version=__version__,
            pid=os.getpid(),
            platform=f"{platform.system()} {platform.machine()}",
            python=platform.python_version(),
            started_at=time.time(),
        )
        self._hide = hide
        self._recover = recover
        self._ends = AsyncExitStack()
        self._stopping: asyncio.Task[None] | None = None
        self._pool = ConnectionPool(settings.total_connections)
        self._caps = Caps(settings.bandwidth or None)
        self._token: str | None = None
        self._given_up = False

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

    async def local_models(self) -> Sequence[LocalModel]:
        """The models in the cache. Raises DiskError."""
        return await asyncio.to_thread(self.cache.local)

    async def cache_free_bytes(self) -> int:
        """Raises DiskError."""
        return await asyncio.to_thread(self.cache.free_bytes)

    async def hub_reachability(self) -> tuple[Reachability | None, float | None]:
        """What the last look at the Hub found, and how many seconds ago; None while nobody knows."""
        return await self._watch.latest()

    def bandwidth(self, task_id: str | None = None) -> int | None:
        """The cap in bytes per second, on one download or on all together; None for none."""
        rate = (self._caps.of(task_id) if task_id else self._caps.all).rate_bps
        return None if rate is None else int(rate)

    def limit_bandwidth(self, bytes_ps: int | None, task_id: str | None = None) -> None:
        """Cap one download, or all together, from now on."""
        (self._caps.of(task_id) if task_id else self._caps.all).set_rate(bytes_ps)

    async def _start(self, ends: AsyncExitStack) -> None:
        s = self.settings
        database = await asyncio.to_thread(open_database, sqlite_url(s.database))
        ends.callback(database.dispose)
        store = SqlDownloadStore(database)
        self._hub = HubClient(
            s.hf_endpoint,
            timeout_s=s.hub_timeout_s,
            deadline_s=s.size_check_s,
            offline=s.hf_hub_offline,
            user_agent=USER_AGENT,
        )
        ends.callback(self._hub.close)
        if not s.hf_hub_offline:
            await asyncio.to_thread(self._hide_token)
        self._watch = HubWatch(self._hub.reachable, offline=s.hf_hub_offline)
        ends.push_async_callback(self._watch.stop)
        self.cache = HfCache(s.hf_hub_cache)
        self._verified = SqlVerifiedBlobs(database)
        worker = DownloadWorker(store, self._hub, self.cache, self._make_transfer, size_check_s=s.size_check_s)
        self.bus = InProcessBus()
        ends.callback(self.bus.close)
        self.manager = DownloadManager(
            store,
            self.bus,
            InProcessRunner(s.max_downloads),
            worker.execute,
            discard=worker.discard,
            capacity=s.max_downloads,
            recover=self._recover,
        )
        ends.push_async_callback(self.manager.stop)
        await self.manager.start()

    def _make_transfer(self, task_id: str, jobs: Sequence[FileJob]) -> Transfer:
        wire = WireOptions(
            user_agent=USER_AGENT,
            connect_timeout_s=self.settings.hub_timeout_s,
            proxy_for=self._hub.proxy_for,
            ca_file=ca_bundle(),
            native_ca=asks_the_system(),
        )
        limits = TransferLimits(connections=self.settings.connections, stall_s=self.settings.stall_s)
        throttles = (self._caps.all, self._caps.of(task_id))

        def by_ranges(some: Sequence[FileJob]) -> Transfer:
            return CurlTransfer(
                task_id,
                some,
                limits=limits,
                wire=wire,
                token_for=self._token_for,
                verified=self._verified,
                pool=self._pool,
                throttles=throttles,
                mirrors_of=self._mirrors_of,
            )

        def by_xet(some: Sequence[FileJob]) -> Transfer:
            return XetTransfer(
                task_id,
                some,
                limits=limits,
                options=xet_options(self.settings),
                token_for=self._token_for,
                verified=self._verified,
                throttles=throttles,
            )

        policy = Policy(
            xet=self.settings.engine != "http" and not self.settings.hf_hub_disable_xet,
            xet_first=self.settings.engine == "xet",
        )
        return FailoverTransfer(task_id, jobs, by_ranges=by_ranges, by_xet=by_xet, policy=policy)

    def _mirrors_of(self, url: str) -> list[str]:
        """The same file at each of the mirrors, which lay their files out as the Hub does."""
        place = url.removeprefix(self._hub.endpoint)
        return [mirror + place for mirror in self.settings.mirrors]

    def _token_for(self, url: str) -> str | None:
        """The person's token, where the URL lies on the Hub itself; a CDN never gets it."""
        if not self._hub.owns(url):
            return None
        try:
            self._token = self._hub.token()
        except HubTrouble as error:
            # It was to be renewed and could not: the one from before may still do.
            logger.warning("%s %s", error.detail, error.advice)
        self._hide(self._token)
        return self._token

    def _hide_token(self) -> None:
        try:
            self._hide(self._hub.token())
        except (TokenRejected, HubTrouble) as error:
            # What needs it will fail, and what needs none works.
            logger.warning("%s %s", error.detail, error.advice)


def xet_options(settings: Settings) -> XetOptions:
    """hf_xet gives up on a connection before we give up on it."""
    return XetOptions(
        connect_timeout_s=min(5.0, settings.hub_timeout_s),
        read_timeout_s=min(5.0, settings.stall_s / 2),
        patience_s=settings.stall_s * 1.5,
        telemetry=not settings.hf_hub_disable_telemetry,
    )


class HubWatch:
    """Whether the Hub answers: looked up when somebody asks and the last look is older than ``again_after_s``, never on
    its own account. ``patience_s``: how long whoever asks first waits for the answer."""

    def __init__(
        self,
        look: Callable[[], Awaitable[Reachability]],
        *,
        offline: bool,
        again_after_s: float = LOOK_AGAIN_S,
        patience_s: float = FIRST_LOOK_S,
    ) -> None:
        self._look = look
        self._offline = offline
        self._again_after_s = again_after_s
        self._patience_s = patience_s
        self._found: Reachability | None = None
        self._found_at = 0.0
        self._looking: asyncio.Task[None] | None = None

    async def latest(self) -> tuple[Reachability | None, float | None]:
        """What is known and its age in seconds. Waits only while nothing is known at all."""
        if self._offline:
            return None, None
        if self._looking is None and (self._found is None or self._age_s > self._again_after_s):
            self._looking = asyncio.create_task(self._see(), name="look at the Hub")
        if self._found is None and self._looking is not None:
            await asyncio.wait([self._looking], timeout=self._patience_s)
        return (self._found, self._age_s) if self._found else (None, None)

    async def stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    @property
    def _age_s(self) -> float:
        return time.monotonic() - self._found_at

    async def _see(self) -> None:
        try:
            self._found = await self._look()
            self._found_at = time.monotonic()
        finally:
            self._looking = None
