"""What any bus owes its watchers; then what is particular to the one in this process."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from mlx_manager.domain.events import Event, EventKind
from mlx_manager.services.event_bus import InProcessBus
from mlx_manager.services.ports import ProgressBus, Subscription

STATE, TICK = EventKind.STATE, EventKind.TICK

MakeBus = Callable[[], ProgressBus]
BUSES: list[MakeBus] = [InProcessBus]


@pytest.fixture(params=BUSES, ids=lambda make: make.__name__)
def bus(request: pytest.FixtureRequest) -> ProgressBus:
    made: ProgressBus = request.param()
    return made


def told(bus: ProgressBus, task_id: str, *words: str) -> list[Event]:
    """``words`` such as "s1" for a state, "t1" for a tick, "end" for a terminal state."""
    kinds = {"s": STATE, "t": TICK, "e": STATE}
    return [
        bus.publish(task_id, kinds[word[0]], {"task_id": task_id, "word": word}, terminal=word == "end")
        for word in words
    ]


async def heard(subscription: Subscription) -> list[str]:
    """All that lies for this watcher now. What is to come is not waited for."""
    words: list[str] = []
    while True:
        following: asyncio.Task[Event] = asyncio.ensure_future(_next(subscription))
        # One turn of the loop is enough for what lies there already.
        await asyncio.sleep(0)
        if not following.done():
            following.cancel()
            await asyncio.wait([following])
            return words
        try:
            words.append(following.result().snapshot["word"])
        except StopWatching:
            return [*words, "."]


class StopWatching(Exception):
    """The stream has ended. (A task can't raise StopAsyncIteration through a Future.)"""


async def _next(subscription: Subscription) -> Event:
    try:
        return await subscription.__anext__()
    except StopAsyncIteration:
        raise StopWatching from None


# --- any bus ---------------------------------------------------------------------------------------------------------


async def test_numbers_only_grow(bus: ProgressBus) -> None:
    ids = [event.id for event in (*told(bus, "a", "s1", "t1"), *told(bus, "b", "s1"), *told(bus, "a", "end"))]
    assert ids == sorted(set(ids))
    assert ids[0] > 0


async def test_numbers_go_on_above_those_of_another_life(bus: ProgressBus) -> None:
    bus.advance(500)
    (event,) = told(bus, "a", "s1")
    assert event.id > 500
    bus.advance(3)
    (later,) = told(bus, "a", "s2")
    assert later.id > event.id


async def test_a_new_watcher_hears_every_state_of_the_run_and_the_newest_tick(bus: ProgressBus) -> None:
    told(bus, "a", "s1", "t1", "s2", "t2", "t3")
    assert await heard(bus.subscribe("a")) == ["s1", "s2", "t3"]


async def test_a_tick_that_a_state_has_overtaken_is_not_told(bus: ProgressBus) -> None:
    told(bus, "a", "s1", "t1", "s2")
    assert await heard(bus.subscribe("a")) == ["s1", "s2"]


async def test_then_what_comes(bus: ProgressBus) -> None:
    told(bus, "a", "s1")
    watcher = bus.subscribe("a")
    assert await heard(watcher) == ["s1"]
    told(bus, "a", "t1")
    assert await heard(watcher) == ["t1"]
    told(bus, "b", "s1")
    assert await heard(watcher) == []


async def test_a_watcher_that_waits_is_woken(bus: ProgressBus) -> None:
    watcher = bus.subscribe("a")
    waiting = asyncio.ensure_future(_next(watcher))
    await asyncio.sleep(0)
    (event,) = told(bus, "a", "t1")
    assert await asyncio.wait_for(waiting, 5) is event
    watcher.close()


async def test_one_that_comes_back_hears_the_states_it_missed_and_the_newest_tick(bus: ProgressBus) -> None:
    events = told(bus, "a", "s1", "t1", "s2", "s3", "t2", "t3")
    assert await heard(bus.subscribe("a", after=events[1].id)) == ["s2", "s3", "t3"]
    assert await heard(bus.subscribe("a", after=events[4].id)) == ["t3"]
    assert await heard(bus.subscribe("a", after=events[5].id)) == []


async def test_one_that_comes_back_over_a_new_run_has_missed_nothing(bus: ProgressBus) -> None:
    events = told(bus, "a", "s1", "s2")
    told(bus, "a", "s3")
    bus.begin("a")
    told(bus, "a", "s4")
    assert await heard(bus.subscribe("a", after=events[1].id)) == ["s3", "s4"]
    assert await heard(bus.subscribe("a")) == ["s4"], "to a new watcher the run before is of no interest"


async def test_a_new_run_of_one_that_had_ended(bus: ProgressBus) -> None:
    told(bus, "a", "s1", "end")
    bus.begin("a")
    watcher = bus.subscribe("a")
    assert await heard(watcher) == []
    told(bus, "a", "s2")
    assert await heard(watcher) == ["s2"]


async def test_an_id_of_another_life_is_as_good_as_none(bus: ProgressBus) -> None:
    told(bus, "a", "s1", "s2")
    watcher = bus.subscribe("a", after=10**12)
    assert await heard(watcher) == ["s1", "s2"]
    told(bus, "a", "t1")
    assert await heard(watcher) == ["t1"]


async def test_a_slow_reader_hears_every_state_and_the_newest_tick(bus: ProgressBus) -> None:
    watcher = bus.subscribe("a")
    told(bus, "a", "s1", "t1", "t2", "s2", "t3", "s3", *(f"t{n}" for n in range(4, 500)))
    assert await heard(watcher) == ["s1", "s2", "s3", "t499"]


async def test_the_terminal_event_ends_the_stream_at_once(bus: ProgressBus) -> None:
    watcher = bus.subscribe("a")
    told(bus, "a", "s1", "end")
    assert await heard(watcher) == ["s1", "end", "."]
    assert await heard(watcher) == ["."]


async def test_whoever_comes_after_the_end_is_told_and_let_go(bus: ProgressBus) -> None:
    *_, end = told(bus, "a", "s1", "end")
    assert await heard(bus.subscribe("a")) == ["s1", "end", "."]
    assert await heard(bus.subscribe("a", after=end.id)) == ["."]


async def test_a_watcher_of_everything_hears_the_newest_of_each_then_all(bus: ProgressBus) -> None:
    told(bus, "a", "s1", "s2")
    told(bus, "b", "s1", "t1")
    told(bus, "c", "end")
    watcher = bus.subscribe()
    assert await heard(watcher) == ["s2", "t1", "end"]
    told(bus, "b", "end")
    told(bus, "a", "t5")
    assert await heard(watcher) == ["end", "t5"], "one download's end is not the stream's"


async def test_a_watcher_of_everything_that_comes_back(bus: ProgressBus) -> None:
    first, *_ = told(bus, "a", "s1", "s2")
    told(bus, "b", "s3", "t1", "t2")
    told(bus, "a", "s4")
    assert await heard(bus.subscribe(after=first.id)) == ["s2", "s3", "t2", "s4"]


async def test_a_slow_watcher_of_everything_hears_the_newest_tick_of_each(bus: ProgressBus) -> None:
    watcher = bus.subscribe()
    told(bus, "a", "t1")
    told(bus, "b", "t2")
    told(bus, "a", "t3")
    told(bus, "b", "s4")
    assert await heard(watcher) == ["t3", "s4"]


async def test_all_watchers_are_given_the_same_event(bus: ProgressBus) -> None:
    watchers = [bus.subscribe("a"), bus.subscribe("a"), bus.subscribe()]
    (event,) = told(bus, "a", "s1")
    for watcher in watchers:
        assert await watcher.__anext__() is event
        watcher.close()


async def test_an_event_is_a_key_to_what_is_made_of_it(bus: ProgressBus) -> None:
    frames: weakref.WeakKeyDictionary[Event, bytes] = weakref.WeakKeyDictionary()
    for event in told(bus, "a", "t1", "t1"):
        frames[event] = b"frame"
    del event
    gc.collect()
    assert len(frames) == 1, "the one that nobody can be given any more is gone"


async def test_a_reader_that_is_cancelled_while_it_waits_has_lost_nothing(bus: ProgressBus) -> None:
    watcher = bus.subscribe("a")
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_next(watcher), 0.001)
    told(bus, "a", "s1")
    assert await heard(watcher) == ["s1"]


async def test_a_watcher_that_leaves_hears_no_more_and_changes_nothing(bus: ProgressBus) -> None:
    leaving, staying = bus.subscribe("a"), bus.subscribe("a")
    told(bus, "a", "s1")
    leaving.close()
    leaving.close()
    told(bus, "a", "s2")
    assert await heard(leaving) == ["."]
    assert await heard(staying) == ["s1", "s2"]


async def test_closing_a_watcher_that_waits_ends_its_wait(bus: ProgressBus) -> None:
    watcher = bus.subscribe("a")
    waiting = asyncio.ensure_future(_next(watcher))
    await asyncio.sleep(0)
    watcher.close()
    with pytest.raises(StopWatching):
        await asyncio.wait_for(waiting, 5)


async def test_closing_the_bus_ends_every_stream_after_what_lies(bus: ProgressBus) -> None:
    watchers = [bus.subscribe("a"), bus.subscribe(), bus.subscribe("b")]
    told(bus, "a", "s1")
    bus.close()
    assert [await heard(watcher) for watcher in watchers] == [["s1", "."], ["s1", "."], ["."]]
    assert await heard(bus.subscribe("a")) == ["s1", "."]
    assert await heard(bus.subscribe("z")) == ["."]


async def test_the_newest(bus: ProgressBus) -> None:
    assert bus.newest("a") is None
    state, tick = told(bus, "a", "s1", "t1")
    assert bus.newest("a") is tick
    (end,) = told(bus, "a", "end")
    assert bus.newest("a") is end
    assert state.kind is STATE


# --- the bus of one process ------------------------------------------------------------------------------------------


async def test_what_is_kept_of_a_run_is_bounded() -> None:
    bus = InProcessBus(kept_states=3)
    told(bus, "a", "s1", "s2", "s3", "s4", "s5")
    assert await heard(bus.subscribe("a")) == ["s3", "s4", "s5"]


async def test_stories_that_have_ended_are_forgotten_in_time() -> None:
    bus = InProcessBus(kept_ended=2)
    told(bus, "runs", "s1")
    for task_id in ("a", "b", "c"):
        told(bus, task_id, "s1", "end")
    assert [bus.newest(task_id) is not None for task_id in ("runs", "a", "b", "c")] == [True, False, True, True]


async def test_a_watcher_that_is_far_behind_is_brought_up_to_date(caplog: pytest.LogCaptureFixture) -> None:
    bus = InProcessBus(pending_limit=3)
    watcher = bus.subscribe()
    told(bus, "a", "s1", "s2")
    told(bus, "b", "s3", "s4")
    assert await heard(watcher) == ["s2", "s4"], "of each download the newest, which says all there is to say"
    assert "brought up to date" in caplog.text
    told(bus, "a", "s5")
    assert await heard(watcher) == ["s5"]


async def test_more_downloads_than_the_limit_are_all_told() -> None:
    bus = InProcessBus(pending_limit=3)
    watcher = bus.subscribe()
    for number in range(10):
        told(bus, f"task-{number}", f"s{number}")
    assert await heard(watcher) == [f"s{number}" for number in range(10)]


async def test_watchers_that_left_leave_nothing_behind() -> None:
    bus = InProcessBus()
    watcher = bus.subscribe("never heard of")
    gone = weakref.ref(watcher)
    watcher.close()
    del watcher
    gc.collect()
    assert gone() is None


async def test_a_thousand_watchers_are_cheap() -> None:
    bus = InProcessBus()
    counts = [0] * 1000

    async def watch(number: int) -> None:
        async for _ in bus.subscribe("a"):
            counts[number] += 1

    watching = [asyncio.create_task(watch(number)) for number in range(1000)]
    await asyncio.sleep(0)
    began = time.process_time()
    for number in range(20):
        snapshot: dict[str, Any] = {"word": f"t{number}"}
        bus.publish("a", TICK, snapshot)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    told(bus, "a", "end")
    await asyncio.wait_for(asyncio.gather(*watching), 30)
    assert time.process_time() - began < 5, "20 events for 1,000 watchers; it takes about 0.2 s"
    assert counts == [21] * 1000
