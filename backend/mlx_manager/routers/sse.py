"""Server-Sent Events on the wire: frames that are encoded once, and the response that writes them.

FastAPI's own event streams encode for each watcher and cannot choose 204 before they begin, so only its framing is
used here. A stream reads its subscription and nothing else: opening, losing or closing one changes no download.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from fastapi import Response
from fastapi.sse import format_sse_event
from starlette.types import Receive, Scope, Send

from mlx_manager.domain.events import Event
from mlx_manager.errors import TooManyStreams
from mlx_manager.routers.jsons import encode
from mlx_manager.routers.problems import problem_of
from mlx_manager.services.access import is_here, place_of
from mlx_manager.services.ports import Subscription

# How long a browser waits before it connects again; the first thing on every stream, so that headers leave at once.
_OPENING = b"retry: 1000\n\n"
_HEARTBEAT = b": nothing new\n\n"
_HEADERS = {
    "Cache-Control": "no-store",
    # nginx and its kin would hold events back to fill a buffer.
    "X-Accel-Buffering": "no",
    # The stream is the connection's last answer, so its end is seen at once by those who wait for the connection's.
    "Connection": "close",
}


MOST_OF_ONE = 64
"""Streams from one address of the network. A page has one, so this is for a household behind one address."""


class OpenStreams:
    """The streams that are open: ``most`` at once, so that strangers cannot use up the connections of those who are
    here, and ``most_of_one`` from one address. Those of this machine share what there is."""

    def __init__(self, most: int, most_of_one: int = MOST_OF_ONE) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._open: set[Subscription] = set()
        self._places: Counter[str] = Counter()

    @contextmanager
    def counted(self, place: str, subscription: Subscription) -> Iterator[None]:
        """``place``: what `place_of` makes of the watcher's address. Raises TooManyStreams."""
        if len(self._open) >= self._most:
            raise TooManyStreams(f"{self._most} event streams are open, which is all that this server keeps.")
        if self._places[place] >= self._most_of_one and not is_here(place):
            raise TooManyStreams(
                f"{self._most_of_one} event streams are open to {place}, which is all for one address."
            )
        self._open.add(subscription)
        self._places[place] += 1
        try:
            yield
        finally:
            self._open.discard(subscription)
            self._places[place] -= 1
            if not self._places[place]:
                del self._places[place]

    def end_all(self) -> None:
        """Each watcher has to come again, and to show that it may."""
        for subscription in [*self._open]:
            subscription.close()

    def __len__(self) -> int:
        return len(self._open)


class Frames:
    """The frame of an event, made once and shared by all its watchers; forgotten with the event."""

    def __init__(self) -> None:
        self._frames: WeakKeyDictionary[Event, bytes] = WeakKeyDictionary()

    def of(self, event: Event) -> bytes:
        frame = self._frames.get(event)
        if frame is None:
            data = encode(event.snapshot).decode()
            frame = self._frames[event] = format_sse_event(data_str=data, id=str(event.id))
        return frame


def last_event_id(header: str | None) -> int | None:
    """The number in a Last-Event-ID header; None where there is none, or it is none of ours: then all is sent."""
    if header is None or not header.isascii() or not header.isdecimal() or len(header) > 18:
        return None
    return int(header)


def event_stream_documented(description: str) -> dict[str, Any]:
    """For ``responses=`` of a route that answers with events; `itemSchema` as in OpenAPI 3.2 and as FastAPI has it."""
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": "#/components/schemas/Snapshot"},
    }
    item = {
        "type": "object",
        "required": ["id", "data"],
        "properties": {"id": {"type": "string"}, "data": data, "retry": {"type": "integer", "minimum": 0}},
    }
    return {
        "description": description,
        "content": {"text/event-stream": {"schema": {"type": "string"}, "itemSchema": item}},
    }


class EventStream(Response):
    """Writes ``first`` (whole frames), then what the subscription yields, until it ends or the watcher leaves.

    ``until(event)`` true: the event was the last. ``wanted(event)`` false: it is left out. A comment is written when
    nothing was for ``heartbeat_s`` seconds. The subscription is closed in every case, at once when the watcher leaves.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: Frames,
        open_streams: OpenStreams,
        subscription: Subscription | None,
        *,
        first: bytes = b"",
        wanted: Callable[[Event], bool] = lambda event: True,
        until: Callable[[Event], bool] = lambda event: event.terminal,
        heartbeat_s: float,
    ) -> None:
        super().__init__(headers=_HEADERS)
        # The base class has counted an empty body; a stream's length is nobody's to know.
        del self.headers["content-length"]
        self._frames = frames
        self._open = open_streams
        self._subscription = subscription
        self._first = first
        self._wanted = wanted
        self._until = until
        self._heartbeat_s = heartbeat_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._subscription is None:
            await self._write_all(receive, send)
            return
        client = scope.get("client")
        try:
            with self._open.counted(place_of(client[0] if client else None), self._subscription):
                await self._write_all(receive, send)
        except TooManyStreams as error:
            await problem_of(error)(scope, receive, send)
        finally:
            self._subscription.close()

    async def _write_all(self, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        written_at = loop.time()

        async def write(chunk: bytes, *, more: bool = True) -> None:
            nonlocal written_at
            written_at = loop.time()
            await send({"type": "http.response.body", "body": chunk, "more_body": more})

        async def beat() -> None:
            while True:
                await asyncio.sleep(written_at + self._heartbeat_s - loop.time())
                if loop.time() - written_at >= self._heartbeat_s:
                    await write(_HEARTBEAT)

        async def follow(subscription: Subscription) -> None:
            async for event in subscription:
                if self._wanted(event):
                    await write(self._frames.of(event))
                if self._until(event):
                    break

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await write(_OPENING + self._first)
        if self._subscription is not None:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._close_when_gone(self._subscription, receive))
                heart = group.create_task(beat())
                try:
                    await follow(self._subscription)
                finally:
                    watch.cancel()
                    heart.cancel()
        await write(b"", more=False)

    @staticmethod
    async def _close_when_gone(subscription: Subscription, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        subscription.close()
