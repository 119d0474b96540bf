"""Work in threads, which cannot be cancelled: whoever is cancelled while it waits for one waits on, to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def then_cancelled(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call it in a thread. A cancellation has its way once that has ended, so that nobody meets it still at work."""
    work = asyncio.create_task(asyncio.to_thread(function, *args, **kwargs))
    cancelled = await ended(work)
    result = work.result()
    if cancelled:
        raise asyncio.CancelledError
    return result


async def not_cancelled(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call it in a thread. A cancellation comes too late for it: what it has done counts."""
    work = asyncio.create_task(asyncio.to_thread(function, *args, **kwargs))
    await ended(work)
    return work.result()


async def ended(work: asyncio.Future[T]) -> bool:
    """Wait for it to its end; whether we were cancelled meanwhile."""
    cancelled = False
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            cancelled = True
    return cancelled
