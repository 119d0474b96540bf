"""What there is to find, and whether it runs here: the discovery room with its neighbours."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from mlx_manager.domain.plan import Plan
from mlx_manager.errors import DiskError
from mlx_manager.services.card import render_card
from mlx_manager.services.discovery import Informer, Planner, Searcher, Starter
from mlx_manager.services.downloads import DownloadManager
from mlx_manager.services.hf_account import HubAccount
from mlx_manager.services.hf_cache import HfCache
from mlx_manager.services.hf_client import HubClient
from mlx_manager.services.hf_info import HubInfo
from mlx_manager.services.hf_search import HubSearch
from mlx_manager.services.hub_memory import HubMemory
from mlx_manager.services.machine import this_machine
from mlx_manager.services.transfer import durable_bytes
from mlx_manager.settings import Settings


class Discovery:
    """``hub``: the one way to ask it; ``cache``: what is here already; ``queued(plan)``: room that
    downloads still take, and a plan beside them. To make one blocks: the machine is looked at."""

    def __init__(
        self,
        settings: Settings,
        hub: HubClient,
        cache: HfCache,
        manager: DownloadManager,
        queued: Callable[[Plan | None], Awaitable[int]],
    ) -> None:
        machine = self.machine = this_machine()
        self._cache = cache
        self.memory = HubMemory(settings.hub_memory)
        self.searcher = Searcher(HubSearch(hub).page, self.memory, machine, self._here)

        self.informer = Informer(
            HubInfo(hub).facts, self.memory, cache, self.searcher, machine, render_card, settings.hf_endpoint
        )
        self.starter = Starter(self.informer, self.searcher, machine)
        self.account = HubAccount(hub)
        self.planner = Planner(
            hub.plan,
            lambda plan: cache.held(plan, durable_bytes),
            cache.free_bytes,
            manager.last_rate,
            queued,
        )

    async def _here(self) -> Mapping[str, str]:
        """Model id → "complete" or "partial"; a cache that cannot be read is told where it is asked for."""
        try:
            library = await asyncio.to_thread(self._cache.library)
        except DiskError:
            return {}
        return {model.model_id: "complete" if model.complete else "partial" for model in library.models}
