"""/api/models: ask for a model, and watch it come."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from mlx_manager.domain.catalog import ModelRequest, check_request
from mlx_manager.domain.presets import Preset, ignored_by
from mlx_manager.domain.progress import RATE_STEP_S
from mlx_manager.domain.snapshot import snapshot
from mlx_manager.domain.states import Status
from mlx_manager.routers.deps import CoreDep, LastEventId, StreamsDep, fresh
from mlx_manager.routers.problems import documented
from mlx_manager.routers.schemas import Accepted, DownloadPlan, DownloadRequest, DownloadsPage, Rates, Snapshot
from mlx_manager.routers.sse import EventStream, event_stream_documented, last_event_id

CURSOR: dict[str, object] = {"pattern": "^[0-9]+$", "maxLength": 18}
router = APIRouter(prefix="/api/models", tags=["models"])


@router.post(
    "/download",
    status_code=202,
    response_model=Accepted,
    responses={
        200: {"model": Accepted, "description": "In flight already: the same download; a paused one goes on."},
        **documented(403, 413, 422, 503, 507),
    },
)
async def download(wanted: DownloadRequest, core: CoreDep) -> Response:
    """Start a download. The work begins with this call; nobody has to watch it."""
    request = asked(wanted, Preset.ALL)
    accepted, created = await core.manager.request(request, wanted.priority)
    return fresh(
        {"task_id": accepted.task_id, "model_id": accepted.model_id},
        status=202 if created else 200,
        headers={"Location": f"{router.prefix}/download/{accepted.task_id}/status"},
    )


@router.post("/plan", response_model=DownloadPlan, responses=documented(401, 403, 404, 413, 422, 502, 503, 504, 507))
async def plan(wanted: DownloadRequest, core: CoreDep) -> Response:
    """What a download with the same words would do. Starts nothing. Without patterns the preset is `mlx` here, and
    `all` for the download itself: name it in both."""
    return fresh(await core.discovery.planner.plan(asked(wanted, Preset.MLX)))


def asked(wanted: DownloadRequest, default: Preset) -> ModelRequest:
    """Patterns that were given go before a preset that was not."""
    ignored = wanted.ignore_patterns
    if wanted.preset is not None or (wanted.allow_patterns is None and ignored is None):
        ignored = [*(ignored or ()), *(ignored_by(wanted.preset or default) or ())] or None
    return check_request(wanted.model_id, wanted.revision, wanted.allow_patterns, ignored)


@router.get("/download/{task_id}/status", response_model=Snapshot, responses=documented(404, 422, 507))
async def status(
    task_id: str, core: CoreDep, files: Annotated[bool, Query(description="With each file's progress.")] = False
) -> Response:
    """The download as it is: the same object as in its events."""
    return fresh(snapshot(await core.manager.get(task_id), files=files))


@router.get(
    "/download/{task_id}/progress",
    status_code=200,
    response_class=EventStream,
    responses={
        200: event_stream_documented("Events until the download is completed, failed or cancelled; then it closes."),
        204: {"description": "Finished, and nothing came after Last-Event-ID: do not connect again."},
        **documented(404, 503, 507),
    },
)
async def progress(task_id: str, core: CoreDep, streams: StreamsDep, last_id: LastEventId = None) -> Response:
    """Watch a download. Watching changes nothing: the download goes on with many watchers or with none."""
    first, subscription = await core.watch(task_id, last_event_id(last_id))
    if first is None and subscription is None:
        return Response(status_code=204)
    told = b"" if first is None else streams.frames.of(first)
    return EventStream(streams.frames, streams.open, subscription, first=told, heartbeat_s=streams.heartbeat_s)


@router.get("/downloads/rates", response_model=Rates, responses=documented())
async def rates(core: CoreDep) -> Response:
    """How fast the downloads at work were over the last minute and a half: the same for all who ask."""
    return fresh({"step_s": RATE_STEP_S, "rates": core.manager.rates()})


@router.get("/downloads", response_model=DownloadsPage, responses=documented(422, 507))
async def downloads(
    core: CoreDep,
    state: Annotated[list[Status] | None, Query(description="Only these states; may be given more than once.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[
        str | None, Query(description="`next_cursor` of the page before.", json_schema_extra=CURSOR)
    ] = None,
) -> Response:
    """Every download, failed and finished ones too, newest first."""
    page, following = await core.manager.page(state, limit, cursor)
    return fresh({"downloads": [snapshot(one) for one in page], "next_cursor": following})
