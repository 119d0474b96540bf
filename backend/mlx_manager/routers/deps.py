"""What a route is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Request

from mlx_manager.routers.jsons import Json
from mlx_manager.routers.sse import Frames, OpenStreams
from mlx_manager.wiring import Core


# Both async: a plain function would be run in a thread, for each request.
async def _core(request: Request) -> Core:
    core: Core = request.app.state.core
    return core


@dataclass(frozen=True, slots=True)
class Streams:
    """What every event stream of one app shares."""

    frames: Frames
    open: OpenStreams
    heartbeat_s: float


async def _streams(request: Request) -> Streams:
    state = request.app.state
    return Streams(state.frames, state.open_streams, state.heartbeat_s)


CoreDep = Annotated[Core, Depends(_core)]
StreamsDep = Annotated[Streams, Depends(_streams)]
LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", description="Go on after this event; browsers send it by themselves.")
]


def fresh(content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Json:
    """JSON that nobody may keep: it is true now."""
    return Json(content, status_code=status, headers={"Cache-Control": "no-store", **(headers or {})})
