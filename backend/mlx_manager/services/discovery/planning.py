"""What a download would do, before it starts: files, what is here, bytes over the wire, time, and room on the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mlx_manager.domain import words
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.plan import ROOM_TO_LEAVE, Plan


class Planner:
    """``ask``: the Hub's plan. ``here(plan)``: etag → bytes that are here of each content, blocking. ``free``: room on
    the disk, blocking. ``rate``: bytes per second when last measured. ``queued(plan)``: room that those in flight
    still take, with a plan beside them where one is given: what it shares with them, or owns already, counts once."""

    def __init__(
        self,
        ask: Callable[[ModelRequest], Awaitable[Plan]],
        here: Callable[[Plan], Mapping[str, int]],
        free: Callable[[], int],
        rate: Callable[[], Awaitable[int | None]],
        queued: Callable[[Plan | None], Awaitable[int]],
    ) -> None:
        self._ask = ask
        self._here = here
        self._free = free
        self._rate = rate
        self._queued = queued

    async def plan(self, request: ModelRequest) -> dict[str, Any]:
        """As the API tells of it. Raises HubError and its kinds, DiskError."""
        plan = await self._ask(request)
        here = await asyncio.to_thread(self._here, plan)
        free = await asyncio.to_thread(self._free)
        rate, queued, taken = await self._rate(), await self._queued(None), await self._queued(plan)
        here_bytes = sum(here.get(blob.etag, 0) for blob in plan.blobs)
        fetch = plan.total_bytes - here_bytes
        chosen = {file.path for file in plan.files}
        after = free - taken
        # Of what is under way the start counts only what runs; here is told whether all of it will fit at last. What
        # takes no room is never short of it.
        short = ROOM_TO_LEAVE - after if fetch and taken else 0
        note = None
        if not fetch:
            note = "All of it is here already."
        elif short > 0:
            whom = " for this and what is under way" if queued else ""
            note = f"{words.size(short)} are missing on the disk{whom}: delete a model first."
        return {
            "model_id": plan.model_id,
            "revision": plan.revision,
            "commit": plan.commit,
            "files": [
                {
                    "path": file.path,
                    "size": file.size,
                    "here_bytes": here.get(file.etag, 0),
                    "action": _action(here.get(file.etag), file.size),
                }
                for file in plan.files
            ],
            "left_out": [{"path": file.path, "size": file.size} for file in plan.tree if file.path not in chosen],
            "total_bytes": plan.total_bytes,
            "here_bytes": here_bytes,
            "fetch_bytes": fetch,
            "rate_bps": rate,
            "eta_s": round(fetch / rate, 1) if rate else None,
            "disk_free_bytes": free,
            "disk_after_bytes": after,
            "queue_bytes": queued,
            "enough_room": short <= 0,
            "note": note,
        }


def _action(here: int | None, size: int) -> str:
    if here is None:
        return "fetch"
    return "here" if here == size else "resume" if here else "fetch"
