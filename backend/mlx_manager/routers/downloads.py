"""/api/models/download/{task_id}/…: what a person may ask of a download."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Response

from mlx_manager.domain.download import Download
from mlx_manager.domain.snapshot import snapshot
from mlx_manager.errors import MoveNotAllowed
from mlx_manager.routers.deps import CoreDep, fresh
from mlx_manager.routers.problems import documented, problem_of
from mlx_manager.routers.schemas import Snapshot
from mlx_manager.wiring import Core

router = APIRouter(prefix="/api/models/download/{task_id}", tags=["downloads"])
_RESPONSES = documented(403, 404, 409, 503, 507)


@router.post("/pause", response_model=Snapshot, responses=_RESPONSES)
async def pause(task_id: str, core: CoreDep) -> Response:
    """Stop the bytes and keep them all; answers when they have stopped. It stays paused over restarts."""
    return await _moved(core, task_id, core.manager.pause)


@router.post("/resume", response_model=Snapshot, responses=_RESPONSES)
async def resume(task_id: str, core: CoreDep) -> Response:
    """Go on from where it stood; a failed download tries again with what it has."""
    return await _moved(core, task_id, core.manager.resume)


@router.post("/cancel", response_model=Snapshot, responses=_RESPONSES)
async def cancel(task_id: str, core: CoreDep) -> Response:
    """End it and keep nothing partial; answers when the bytes have stopped."""
    return await _moved(core, task_id, core.manager.cancel)


async def _moved(core: Core, task_id: str, move: Callable[[str], Awaitable[Download]]) -> Response:
    try:
        return fresh(snapshot(await move(task_id)))
    except MoveNotAllowed as error:
        # Whoever asked had another picture of it: here is the true one.
        return problem_of(error, download=snapshot(await core.manager.get(task_id)))
