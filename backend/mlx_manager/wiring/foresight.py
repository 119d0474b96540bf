"""The Hub as downloads ask it, with one question asked ahead: the one that is sure to come."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.plan import Plan
from mlx_manager.services.ports import Hub

FRESH_S = 10.0
"""A branch may move on: an answer to a question of longer ago is not taken."""


@dataclass(frozen=True, slots=True)
class _Ahead:
    request: ModelRequest
    answer: asyncio.Task[Plan]
    asked_at: float


class Foresight:
    """Implements `ports.Hub` over another one. All on one loop. ``fresh_s``: how old a question may be."""

    def __init__(self, hub: Hub, *, fresh_s: float = FRESH_S) -> None:
        self._hub = hub
        self._fresh_s = fresh_s
        self._ahead: _Ahead | None = None
        self.resolve_url = hub.resolve_url
        self.xet_token_url = hub.xet_token_url
        self.token = hub.token

    def ask_ahead(self, request: ModelRequest) -> None:
        """Ask for this plan now. The first `plan` takes the answer or the refusal, if it is about the same."""
        self._ahead = _Ahead(request, asyncio.create_task(self._hub.plan(request)), asyncio.get_running_loop().time())

    async def plan(self, request: ModelRequest) -> Plan:
        """As of `ports.Hub`."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            age_s = asyncio.get_running_loop().time() - ahead.asked_at
            if ahead.request == request and age_s < self._fresh_s:
                return await ahead.answer
            await _leave(ahead)
        return await self._hub.plan(request)

    async def stop(self) -> None:
        """Wait no longer for what nobody has asked for."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            await _leave(ahead)


async def _leave(ahead: _Ahead) -> None:
    ahead.answer.cancel()
    await asyncio.wait({ahead.answer})
