"""A round of load: downloads are asked for, everybody watches, and when all is over the server is counted again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from api_client import Api
from torture.census import Census, settled
from torture.watchers import Watchers

LetGo = Callable[[], object]

SETTLES_WITHIN_S = 20.0
OF_EVERYTHING = 50
"""One watcher in so many watches everything, as the page does; the others one download each, as `pull` does."""
AT_REST = Census(descriptors=1 << 20, threads=1 << 20, connections=0, children=0, kept=0, rss=0)
"""What a server is waited for that was never counted before: nobody is connected."""


@dataclass
class Round:
    """``left``: what the server holds more of than before."""

    took_s: float
    watchers: Watchers
    after: Census
    left: list[str]


def run_round(api: Api, pid: int, models: list[str], watchers: int, let_go: LetGo, before: Census = AT_REST) -> Round:
    """From the first request to the moment when the server has come to rest again."""
    begun = time.monotonic()
    found = watched(api, models, watchers, let_go)
    took_s = time.monotonic() - begun
    after = settled(pid, before, SETTLES_WITHIN_S)
    return Round(took_s, found, after, after.beyond(before))


def watched(api: Api, models: list[str], watchers: int, let_go: LetGo, slow: int = 0) -> Watchers:
    """Ask for the models and watch to the last end. ``let_go``: the hub holds all bytes of files until it is called,
    which is when everybody watches; so every end is heard live. ``slow``: so many more ask for everything and read
    nothing."""
    found = Watchers(api.url)
    for _ in range(slow):
        found.add_slow("/api/events")
    asyncio.run(_watched(found, [api.download(model) for model in models], watchers, let_go))
    return found


async def _watched(found: Watchers, tasks: list[str], watchers: int, let_go: LetGo) -> None:
    async with asyncio.TaskGroup() as group:
        for n in range(watchers):
            everything = n % OF_EVERYTHING == 0
            group.create_task(found.of_all(tasks) if everything else found.of_one(tasks[n % len(tasks)]))
        await found.all_here(watchers)
        await asyncio.to_thread(let_go)
