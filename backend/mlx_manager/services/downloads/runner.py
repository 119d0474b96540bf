"""The engine of one process: tickets in a line, so many at once, each as an asyncio task."""

from __future__ import annotations

import asyncio
import logging
from bisect import insort
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from mlx_manager.services.ports import Ticket

logger = logging.getLogger(__name__)

Run = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True, order=True)
class _InLine:
    rank: int
    number: int
    download_id: str = field(compare=False)


class InProcessRunner:
    """A `Runner`. Belongs to one event loop.

    A running ticket is told to stop by one cancellation, however often it is asked: whoever cleans up after the first
    one is not disturbed by a second.
    """

    def __init__(self, capacity: int = 3) -> None:
        self._capacity = _checked(capacity)
        self._run: Run | None = None
        self._line: list[_InLine] = []
        self._running: dict[str, asyncio.Task[None]] = {}
        self._stopping: set[str] = set()
        self._submitted = 0

    async def start(self, run: Run) -> None:
        self._run = run
        self._fill()

    async def stop(self) -> None:
        self._run = None
        self._line.clear()
        await asyncio.gather(*(self.cancel(download_id) for download_id in tuple(self._running)))

    def submit(self, ticket: Ticket) -> None:
        if ticket.download_id in self._running or ticket.download_id in self.waiting():
            return
        self._submitted += 1
        insort(self._line, _InLine(-ticket.priority, self._submitted, ticket.download_id))
        self._fill()

    async def cancel(self, download_id: str) -> None:
        self._line = [waiting for waiting in self._line if waiting.download_id != download_id]
        task = self._running.get(download_id)
        if task is None:
            return
        if download_id not in self._stopping:
            self._stopping.add(download_id)
            task.cancel()
        # Not `await task`: if our caller is cancelled, that must not reach the task a second time.
        await asyncio.wait([task])

    def set_capacity(self, capacity: int) -> None:
        """A lower one interrupts nothing; it holds for what is started from now on."""
        self._capacity = _checked(capacity)
        self._fill()

    def waiting(self) -> tuple[str, ...]:
        return tuple(waiting.download_id for waiting in self._line)

    def _fill(self) -> None:
        while self._run is not None and self._line and len(self._running) < self._capacity:
            download_id = self._line.pop(0).download_id
            task = asyncio.create_task(self._carry(self._run, download_id), name=f"download {download_id}")
            self._running[download_id] = task
            # For one that is cancelled before its first step: that one never gets to its `finally`.
            task.add_done_callback(partial(self._release, download_id))

    async def _carry(self, run: Run, download_id: str) -> None:
        try:
            await run(download_id)
        except Exception:
            # It is for `run` to make something of an error; one that comes out must not take the line down with it.
            logger.exception("A run ended with an error that nobody had expected.", extra={"task_id": download_id})
        finally:
            # In the same step as the end of `run`: whoever learns that it ended may submit it again at once.
            self._release(download_id, asyncio.current_task())

    def _release(self, download_id: str, task: asyncio.Task[None] | None) -> None:
        if self._running.get(download_id) is task:
            del self._running[download_id]
            self._stopping.discard(download_id)
            self._fill()


def _checked(capacity: int) -> int:
    if capacity < 1:
        raise ValueError("A runner needs a capacity of at least 1.")
    return capacity
