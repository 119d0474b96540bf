"""The progress bus of one process: numbered events from one writer to any number of watchers, newest wins.

What a watcher is given, in the order of the ids:

- the story so far: every kept change of state of the present run (or, with ``after``, those it has missed), then the
  newest tick if it is newer; a watcher of everything who names no ``after`` gets the newest event of each download;
- then what comes, live. One that reads slowly gets every change of state, and of the ticks of each download the newest.

All is bounded. A watcher that lets more than ``pending_limit`` changes of state lie is brought up to date instead: of
each download it gets the newest, which says all there is to say, and goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from mlx_manager.domain.events import Event, EventKind

logger = logging.getLogger(__name__)

KEPT_STATES = 256
KEPT_ENDED = 200
PENDING_LIMIT = 256


@dataclass(slots=True)
class _Story:
    """What is kept of one download."""

    states: deque[Event]
    tick: Event | None = None
    # The present run's events have this id or a higher one.
    begun: int = 0

    def since(self, after: int | None) -> Iterable[Event]:
        """In the order of ids; all of the present run where ``after`` is None."""
        first = self.begun if after is None else after + 1
        for event in (*self.states, *([self.tick] if self.tick else [])):
            if event.id >= first:
                yield event

    @property
    def newest(self) -> Event | None:
        return self.tick or (self.states[-1] if self.states else None)

    @property
    def ended(self) -> bool:
        newest = self.newest
        return newest is not None and newest.terminal and newest.id >= self.begun


class InProcessBus:
    """A `ProgressBus`. Belongs to one event loop; nothing here blocks or waits.

    ``kept_states``: changes of state kept for late watchers, per download. ``kept_ended``: finished downloads whose
    story is kept. ``pending_limit``: changes of state that one watcher may let lie.
    """

    def __init__(
        self, *, kept_states: int = KEPT_STATES, kept_ended: int = KEPT_ENDED, pending_limit: int = PENDING_LIMIT
    ) -> None:
        self._kept_states = kept_states
        self._kept_ended = kept_ended
        self._pending_limit = pending_limit
        self._last_id = 0
        self._stories: dict[str, _Story] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        # By task; None are those who watch everything.
        self._watchers: dict[str | None, set[InProcessSubscription]] = {}
        self._closed = False

    def publish(self, task_id: str, kind: EventKind, snapshot: dict[str, Any], *, terminal: bool = False) -> Event:
        self._last_id += 1
        event = Event(self._last_id, task_id, kind, snapshot, terminal)
        story = self._story(task_id)
        if kind is EventKind.STATE:
            story.states.append(event)
            story.tick = None
        else:
            story.tick = event
        self._keep_or_forget(task_id, terminal)
        for watcher in (*self._watchers.get(task_id, ()), *self._watchers.get(None, ())):
            watcher.offer(event)
        return event

    def advance(self, event_id: int) -> None:
        self._last_id = max(self._last_id, event_id)

    def begin(self, task_id: str) -> None:
        story = self._story(task_id)
        story.begun = self._last_id + 1
        story.tick = None
        self._ended.pop(task_id, None)

    def subscribe(self, task_id: str | None = None, after: int | None = None) -> InProcessSubscription:
        if after is not None and after > self._last_id:
            # An id of another life of the data directory: what this watcher knows is worth nothing.
            after = None
        watchers = self._watchers.setdefault(task_id, set())

        def leave(subscription: InProcessSubscription) -> None:
            watchers.discard(subscription)
            if not watchers and self._watchers.get(task_id) is watchers:
                del self._watchers[task_id]

        subscription = InProcessSubscription(leave, self._pending_limit, ends=task_id is not None)
        watchers.add(subscription)
        for event in self._missed_of_all(after) if task_id is None else self._missed(task_id, after):
            subscription.offer(event)
        ended = task_id is not None and (story := self._stories.get(task_id)) is not None and story.ended
        if ended or self._closed:
            subscription.end()
        return subscription

    def newest(self, task_id: str) -> Event | None:
        story = self._stories.get(task_id)
        return story.newest if story else None

    def close(self) -> None:
        self._closed = True
        for watcher in [watcher for watchers in self._watchers.values() for watcher in watchers]:
            watcher.end()

    def _story(self, task_id: str) -> _Story:
        if (story := self._stories.get(task_id)) is None:
            story = self._stories[task_id] = _Story(deque(maxlen=self._kept_states))
        return story

    def _keep_or_forget(self, task_id: str, terminal: bool) -> None:
        self._ended.pop(task_id, None)
        if terminal:
            self._ended[task_id] = None
        if len(self._ended) > self._kept_ended:
            oldest, _ = self._ended.popitem(last=False)
            del self._stories[oldest]

    def _missed(self, task_id: str, after: int | None) -> list[Event]:
        story = self._stories.get(task_id)
        return list(story.since(after)) if story else []

    def _missed_of_all(self, after: int | None) -> list[Event]:
        stories = self._stories.values()
        if after is None:
            missed = [story.newest for story in stories if story.newest]
        else:
            missed = [event for story in stories for event in story.since(after)]
        return sorted(missed, key=attrgetter("id"))


class InProcessSubscription:
    """A `Subscription`. One reader; a reader that is cancelled while it waits has lost nothing."""

    __slots__ = ("__weakref__", "_ended", "_ends", "_leave", "_limit", "_states", "_ticks", "_wakeup")

    def __init__(self, leave: Callable[[InProcessSubscription], None], limit: int, *, ends: bool) -> None:
        """``ends``: a terminal event is the last one."""
        self._leave = leave
        self._limit = limit
        self._ends = ends
        self._ended = False
        self._states: deque[Event] = deque()
        # By task, in the order of ids: a newer one is put in at the end.
        self._ticks: dict[str, Event] = {}
        self._wakeup: asyncio.Future[None] | None = None

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while (event := self._next()) is None:
            if self._ended:
                raise StopAsyncIteration
            self._wakeup = asyncio.get_running_loop().create_future()
            try:
                await self._wakeup
            finally:
                self._wakeup = None
        return event

    def close(self) -> None:
        """The watcher leaves; what lies for it is dropped."""
        self._states.clear()
        self._ticks.clear()
        self.end()

    def end(self) -> None:
        """No more will come; what lies is still given."""
        self._ended = True
        self._leave(self)
        self._wake()

    def offer(self, event: Event) -> None:
        if self._ended:
            return
        self._ticks.pop(event.task_id, None)
        if event.kind is EventKind.TICK:
            self._ticks[event.task_id] = event
        else:
            self._states.append(event)
            if len(self._states) > self._limit:
                self._catch_up()
        if event.terminal and self._ends:
            self.end()
        else:
            self._wake()

    def _next(self) -> Event | None:
        tick = next(iter(self._ticks.values()), None)
        if self._states and (tick is None or self._states[0].id < tick.id):
            return self._states.popleft()
        if tick is not None:
            del self._ticks[tick.task_id]
        return tick

    def _catch_up(self) -> None:
        newest = {event.task_id: event for event in self._states}
        logger.info("A watcher fell behind by %d changes of state and was brought up to date.", len(self._states))
        self._states = deque(sorted(newest.values(), key=attrgetter("id")))
        # With more downloads than the limit there is nothing left to fold: what is bounded then is their number.
        self._limit = max(self._limit, 2 * len(self._states))

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)
