"""/health and /api/system: is it alive, and where does it stand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter

from mlx_manager.errors import DiskError
from mlx_manager.routers.deps import CoreDep
from mlx_manager.routers.problems import documented
from mlx_manager.routers.schemas import Health, System

router = APIRouter(tags=["system"])


@router.get("/health", response_model=Health, responses=documented())
async def health(core: CoreDep) -> dict[str, Any]:
    """Answers at once, whatever the Hub and the disk do. 200 as long as it serves, also with a problem."""
    trouble = core.manager.trouble
    return {
        "status": "degraded" if trouble else "ok",
        "version": core.about.version,
        "pid": core.about.pid,
        "problem": {"code": trouble.code, "detail": trouble.detail, "advice": trouble.advice} if trouble else None,
    }


@router.get("/api/system", response_model=System, responses=documented())
async def system(core: CoreDep) -> dict[str, Any]:
    """Version, disk, cache place, and whether the Hub answers. Never waits for the Hub longer than a moment."""
    settings, about = core.settings, core.about
    free, queue, trouble = None, None, None
    try:
        free = await core.cache_free_bytes()
        queue = await core.queue_bytes()
    except DiskError as error:
        trouble = error.detail
    hub, age_s = await core.hub_reachability()
    return {
        "version": about.version,
        "pid": about.pid,
        "platform": about.platform,
        "python": about.python,
        "started_at": datetime.fromtimestamp(about.started_at, UTC),
        "data_dir": str(settings.home),
        "log_file": str(settings.log_file),
        "cache": {"path": str(settings.hf_hub_cache), "free_bytes": free, "queue_bytes": queue, "error": trouble},
        "hub": {
            "endpoint": settings.hf_endpoint,
            "offline": settings.hf_hub_offline,
            "reachable": hub.reachable if hub else None,
            "latency_ms": hub.latency_ms if hub else None,
            "error": hub.error if hub else None,
            "age_s": None if age_s is None else round(age_s, 1),
        },
        "limits": {
            "max_downloads": settings.max_downloads,
            "connections_per_download": settings.connections,
            "size_check_s": settings.size_check_s,
            "hub_timeout_s": settings.hub_timeout_s,
            "stall_s": settings.stall_s,
        },
        "downloads": {"active": core.manager.active_count, "waiting": core.manager.waiting_count},
    }
