"""Event streams as ASGI: what is written, when it ends, and that a watcher who leaves is let go at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, MutableMapping
from itertools import pairwise
from typing import Any

import pytest

from mlx_manager.domain.events import Event, EventKind
from mlx_manager.routers.sse import EventStream, Frames, OpenStreams, last_event_id
from mlx_manager.services.event_bus import InProcessBus
from mlx_manager.services.ports import Subscription

SCOPE = {"type": "http"}


class Watcher:
    """The other end of an ASGI response. ``leave()`` as a browser does that closes the page."""

    def __init__(self) -> None:
        self.chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self.written: list[tuple[float, bytes]] = []
        self.started: MutableMapping[str, Any] | None = None
        self.complete = False
        self._gone = asyncio.Event()

    def leave(self) -> None:
        self._gone.set()

    async def receive(self) -> MutableMapping[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.started = message
            return
        self.complete = not message.get("more_body", False)
        if message["body"]:
            self.written.append((asyncio.get_running_loop().time(), message["body"]))
            self.chunks.put_nowait(message["body"])

    def watch(self, response: EventStream) -> asyncio.Task[None]:
        return asyncio.create_task(response(SCOPE, self.receive, self.send))


class Quiet:
    """A subscription with nothing to say. ``closed`` tells that it was let go."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        await self.closed.wait()
        raise StopAsyncIteration

    def close(self) -> None:
        self.closed.set()


def stream(subscription: Subscription | None, *, heartbeat_s: float = 60.0, **more: Any) -> EventStream:
    return EventStream(Frames(), OpenStreams(9), subscription, heartbeat_s=heartbeat_s, **more)


async def test_a_watcher_who_leaves_is_let_go_at_once() -> None:
    quiet, watcher = Quiet(), Watcher()
    response = watcher.watch(stream(quiet))
    assert await watcher.chunks.get() == b"retry: 1000\n\n"
    assert not quiet.closed.is_set()
    watcher.leave()
    await asyncio.wait_for(response, 1)
    assert quiet.closed.is_set()


async def test_a_cancelled_stream_lets_go_too() -> None:
    quiet, watcher = Quiet(), Watcher()
    response = watcher.watch(stream(quiet))
    await watcher.chunks.get()
    response.cancel()
    with pytest.raises(asyncio.CancelledError):
        await response
    assert quiet.closed.is_set()


async def test_silence_is_broken_by_a_comment() -> None:
    watcher = Watcher()
    response = watcher.watch(stream(Quiet(), heartbeat_s=0.02))
    await watcher.chunks.get()
    for _ in range(3):
        assert (await asyncio.wait_for(watcher.chunks.get(), 1)).startswith(b": ")
    watcher.leave()
    await response


async def test_events_put_the_heartbeat_off() -> None:
    bus, watcher, heartbeat_s = InProcessBus(), Watcher(), 0.05
    response = watcher.watch(stream(bus.subscribe("a"), heartbeat_s=heartbeat_s))
    for number in range(12):
        bus.publish("a", EventKind.STATE, {})
        # Shorter and longer than the heartbeat in turns.
        await asyncio.sleep(heartbeat_s * (0.4 if number % 2 else 1.6))
    watcher.leave()
    await response
    assert sum(chunk.startswith(b": ") for _, chunk in watcher.written) >= 6
    for (before, _), (at, chunk) in pairwise(watcher.written):
        assert at - before >= heartbeat_s * 0.99 or not chunk.startswith(b": "), "only after so much silence"


async def test_the_terminal_event_ends_it_at_once() -> None:
    bus, watcher = InProcessBus(), Watcher()
    response = watcher.watch(stream(bus.subscribe("a")))
    bus.publish("a", EventKind.STATE, {"status": "completed"}, terminal=True)
    await asyncio.wait_for(response, 1)
    assert watcher.complete
    assert watcher.started is not None
    headers = dict(watcher.started["headers"])
    assert b"content-length" not in headers
    assert headers[b"connection"] == b"close"


async def test_a_stream_without_a_subscription_is_what_it_begins_with() -> None:
    watcher = Watcher()
    await asyncio.wait_for(watcher.watch(stream(None, first=b"id: 1\ndata: {}\n\n")), 1)
    assert await watcher.chunks.get() == b"retry: 1000\n\nid: 1\ndata: {}\n\n"
    assert watcher.complete


async def test_the_bus_can_end_every_stream() -> None:
    bus, watchers = InProcessBus(), [Watcher() for _ in range(3)]
    responses = [
        watcher.watch(stream(bus.subscribe(task), until=lambda event: False))
        for task, watcher in zip(("a", "b", None), watchers, strict=True)
    ]
    for watcher in watchers:
        await watcher.chunks.get()
    bus.close()
    await asyncio.wait_for(asyncio.gather(*responses), 1)
    assert all(watcher.complete for watcher in watchers)


async def test_a_frame_is_made_once_for_all_watchers() -> None:
    bus, frames, watchers = InProcessBus(), Frames(), [Watcher() for _ in range(3)]
    responses = [
        watcher.watch(EventStream(frames, OpenStreams(9), bus.subscribe("a"), heartbeat_s=60)) for watcher in watchers
    ]
    for watcher in watchers:
        await watcher.chunks.get()
    bus.publish("a", EventKind.STATE, {"status": "completed"}, terminal=True)
    await asyncio.gather(*responses)
    told = [await watcher.chunks.get() for watcher in watchers]
    assert all(frame is told[0] for frame in told)


def test_a_frame_is_one_event_whatever_is_in_it() -> None:
    snapshot = {"message": "one\ntwo\r\n\nid: 7\ndata: x\u2028ü"}
    frame = Frames().of(Event(3, "a", EventKind.STATE, snapshot, terminal=False)).decode()
    assert frame.endswith("\n\n")
    assert frame.count("\n") == 3
    fields = dict(line.split(": ", 1) for line in frame.strip().split("\n"))
    assert fields["id"] == "3"
    assert json.loads(fields["data"]) == snapshot


@pytest.mark.parametrize(
    ("header", "number"),
    [
        (None, None),
        ("", None),
        ("12", 12),
        ("0", 0),
        ("-1", None),
        ("1.5", None),
        ("x", None),
        ("٣", None),
        ("9" * 19, None),
    ],
)
def test_last_event_id(header: str | None, number: int | None) -> None:
    assert last_event_id(header) == number


@pytest.mark.parametrize("place", ["127.0.0.1", "192.168.1.7"])
async def test_one_stream_too_many_is_refused_with_the_reason(place: str) -> None:
    open_streams, subscriptions, scope = OpenStreams(3, most_of_one=2), [], {"type": "http", "client": (place, 1)}
    watchers, responses = [Watcher() for _ in range(4)], []
    for watcher in watchers:
        subscriptions.append(Quiet())
        response = EventStream(Frames(), open_streams, subscriptions[-1], heartbeat_s=60.0)
        responses.append(asyncio.create_task(response(scope, watcher.receive, watcher.send)))
        await watcher.chunks.get()
    # Watchers on this machine share what there is; one address of the network has its share of it.
    kept = 3 if place == "127.0.0.1" else 2
    assert len(open_streams) == kept
    statuses = [watcher.started["status"] for watcher in watchers if watcher.started]
    assert statuses == [200] * kept + [503] * (4 - kept)
    refused = watchers[-1]
    assert refused.started is not None
    assert (b"retry-after", b"10") in refused.started["headers"]
    told = json.loads(refused.written[0][1])
    assert told["code"] == "too_many_streams"
    assert "poll" in told["advice"]
    assert subscriptions[-1].closed.is_set(), "nothing is kept of it"
    watchers[0].leave()
    await asyncio.wait_for(responses[0], 1)
    assert len(open_streams) == kept - 1, "and its place is free for another"
    open_streams.end_all()
    await asyncio.wait_for(asyncio.gather(*responses), 1)
    assert len(open_streams) == 0
