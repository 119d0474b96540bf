"""Whether the Hub answers, without anybody having to wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from mlx_manager.domain.reachability import Reachability

LOOK_AGAIN_S = 30.0
FIRST_LOOK_S = 0.3


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
