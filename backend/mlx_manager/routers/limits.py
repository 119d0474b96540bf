"""/api/limits and …/{task_id}/limit: caps on the bandwidth, changed while bytes flow."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from mlx_manager.errors import MoveNotAllowed
from mlx_manager.routers.deps import CoreDep
from mlx_manager.routers.problems import documented
from mlx_manager.routers.schemas import NUMBER

router = APIRouter(prefix="/api", tags=["limits"])
LEAST_BPS = 1024


class Bandwidth(BaseModel):
    """``bandwidth_bps``: bytes per second; null for no cap."""

    model_config = ConfigDict(extra="forbid")

    bandwidth_bps: Annotated[int, Field(ge=LEAST_BPS, le=1_000_000_000_000), NUMBER] | None


@router.get("/limits", response_model=Bandwidth, responses=documented())
async def limits(core: CoreDep) -> Bandwidth:
    """The cap on all downloads together."""
    return Bandwidth(bandwidth_bps=core.bandwidth())


@router.put("/limits", response_model=Bandwidth, responses=documented(403, 422))
async def limit_all(body: Bandwidth, core: CoreDep) -> Bandwidth:
    """Cap all downloads together from now on, until the server ends; MLX_MANAGER_BANDWIDTH holds from each start."""
    core.limit_bandwidth(body.bandwidth_bps)
    return body


@router.get("/models/download/{task_id}/limit", response_model=Bandwidth, responses=documented(404))
async def limit_of(task_id: str, core: CoreDep) -> Bandwidth:
    """The cap on one download, beside the one on all."""
    await core.manager.get(task_id)
    return Bandwidth(bandwidth_bps=core.bandwidth(task_id))


@router.put("/models/download/{task_id}/limit", response_model=Bandwidth, responses=documented(403, 404, 409, 422))
async def limit_one(task_id: str, body: Bandwidth, core: CoreDep) -> Bandwidth:
    """Cap one download from now on, until it is completed or cancelled, or the server ends."""
    download = await core.manager.get(task_id)
    if download.status.is_final:
        raise MoveNotAllowed(f"A download that is {download.status} has no use for a cap.")
    core.limit_bandwidth(body.bandwidth_bps, task_id)
    return body
