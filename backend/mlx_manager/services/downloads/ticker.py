"""A heart that beats while there is something to watch over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Ticker:
    """Calls ``beat`` every ``interval_s`` seconds for as long as it answers True; `wake` begins again. At rest it costs
    nothing."""

    def __init__(self, beat: Callable[[], bool], interval_s: float) -> None:
        self._beat = beat
        self._interval_s = interval_s
        self._awake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="download ticker")

    def wake(self) -> None:
        self._awake.set()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self) -> None:
        while True:
            await self._awake.wait()
            self._awake.clear()
            while self._survived():  # noqa: ASYNC110 - a beat is what is wanted here
                await asyncio.sleep(self._interval_s)

    def _survived(self) -> bool:
        try:
            return self._beat()
        except Exception:
            # Whatever it was: watchers must go on hearing of all the others.
            logger.exception("The downloads' heartbeat failed once; it goes on.")
            return True
