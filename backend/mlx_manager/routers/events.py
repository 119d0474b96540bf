"""/api/events: one stream for everything, because a browser allows six connections to a host."""

from __future__ import annotations

from fastapi import APIRouter, Response

from mlx_manager.domain.events import Event
from mlx_manager.domain.states import Status
from mlx_manager.routers.deps import CoreDep, LastEventId, StreamsDep
from mlx_manager.routers.problems import documented
from mlx_manager.routers.sse import EventStream, event_stream_documented, last_event_id
from mlx_manager.wiring import Core

router = APIRouter(prefix="/api", tags=["events"])

RECENT = 50
"""So many ended downloads are told to a new watcher; the list has them all."""
_ENDED = frozenset(status for status in Status if status.is_terminal)


@router.get(
    "/events",
    status_code=200,
    response_class=EventStream,
    responses={
        200: event_stream_documented("Each download as it is, then everything that changes. It does not end."),
        **documented(503, 507),
    },
)
async def events(core: CoreDep, streams: StreamsDep, last_id: LastEventId = None) -> Response:
    """Watch all downloads. A new watcher hears first of each one that is not ended and of those that ended lately."""
    after = last_event_id(last_id)
    # Subscribed before the list is read, so that nothing falls between the two.
    subscription = core.bus.subscribe(None, after)
    try:
        ended = await _ended_before(core, after)
    except BaseException:
        subscription.close()
        raise
    told = {event.task_id: event.id for event in ended}

    def wanted(event: Event) -> bool:
        return event.id > told.get(event.task_id, -1)

    return EventStream(
        streams.frames,
        streams.open,
        subscription,
        first=b"".join(map(streams.frames.of, ended)),
        wanted=wanted,
        until=lambda event: False,
        heartbeat_s=streams.heartbeat_s,
    )


async def _ended_before(core: Core, after: int | None) -> list[Event]:
    """The last event of each download that ended lately and that the bus knows nothing of: it ended in an earlier life
    of the server, or long ago in this one. In the order of their numbers, from ``after`` on."""
    page, _ = await core.manager.page(_ENDED, RECENT, None)
    unknown = [one.task_id for one in page if core.bus.newest(one.task_id) is None]
    events = [await core.manager.last_event(task_id) for task_id in unknown]
    return sorted((event for event in events if after is None or event.id > after), key=lambda event: event.id)
