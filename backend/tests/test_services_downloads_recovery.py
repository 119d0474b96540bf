"""After a restart: what was interrupted goes on, what the person wanted is done, nothing is lost or runs twice."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.workshop import TOTAL, Workshop, house
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.download import Download
from mlx_manager.domain.states import Desire, Phase, Status
from mlx_manager.services.downloads.recovery import Next, recover
from mlx_manager.storage import SqlDownloadStore, open_database, sqlite_url

ACTIVE = [Status.STARTING, Status.DOWNLOADING, Status.VERIFYING]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def left_behind(file: Path, *downloads: Download, event_id: int = 41) -> None:
    """Rows as a process leaves them that was killed."""
    engine = open_database(sqlite_url(file))
    store = SqlDownloadStore(engine)
    for download in downloads:
        store.insert(download)
        store.save(download, event_id)
    engine.dispose()


def row(number: int, status: Status, desire: Desire = Desire.RUN) -> Download:
    return Download(
        f"t{number}",
        ModelRequest(f"org/m{number}"),
        created_at=100.0,
        status=status,
        desire=desire,
        epoch=3,
        attempt=3,
        total_bytes=TOTAL,
        downloaded_bytes=400,
        started_at=101.0,
    )


@pytest.mark.parametrize("status", [Status.QUEUED, *ACTIVE])
async def test_what_was_interrupted_goes_on_by_itself(file: Path, status: Status) -> None:
    left_behind(file, row(1, status))
    async with house(file) as home:
        turn = await home.workshop.turn("t1")
        assert turn.epoch == 4, "a worker of before is told apart"
        found = await home.manager.get("t1")
        assert (found.status, found.attempt, found.downloaded_bytes) == (Status.STARTING, 4, 400)
        assert await home.told("t1") == ["starting"], "the history is this one event"
        turn.complete()
        last = await home.until_status("t1", "completed")
        assert last.id > 41


@pytest.mark.parametrize("status", [Status.QUEUED, *ACTIVE, Status.PAUSED])
async def test_what_the_person_paused_stays_paused(file: Path, status: Status) -> None:
    left_behind(file, row(1, status, Desire.PAUSED))
    async with house(file) as home:
        found = await home.manager.get("t1")
        assert (found.status, found.downloaded_bytes) == (Status.PAUSED, 400)
        assert await home.told("t1") == ["paused"]
        assert home.manager.active_count == 0
        assert (await home.manager.resume("t1")).status is Status.STARTING


@pytest.mark.parametrize("status", [Status.QUEUED, *ACTIVE, Status.PAUSED])
async def test_a_cancel_that_was_asked_for_is_carried_out(file: Path, status: Status) -> None:
    left_behind(file, row(1, status, Desire.CANCELLED))
    async with house(file) as home:
        await home.until_status("t1", "cancelled")
        assert (home.workshop.discarded, home.workshop.turns) == (["t1"], [])
    async with house(file) as home:
        assert home.store.unfinished() == []
        assert home.workshop.discarded == []


async def test_a_resume_that_was_asked_for_is_carried_out(file: Path) -> None:
    left_behind(file, row(1, Status.PAUSED, Desire.RUN))
    async with house(file) as home:
        await home.workshop.turn("t1")


async def test_the_line_is_as_it_was(file: Path) -> None:
    rows = [row(1, Status.QUEUED), row(2, Status.DOWNLOADING), replace(row(3, Status.QUEUED), priority=9)]
    left_behind(file, *rows)
    async with house(file, capacity=1) as home:
        await home.workshop.turn("t3")
        assert home.runner.waiting() == ("t1", "t2")
        assert [(await home.manager.get(task_id)).place for task_id in ("t1", "t2")] == [1, 2]
        assert await home.told("t2") == ["queued"]


async def test_what_is_finished_is_left_alone(file: Path) -> None:
    left_behind(file, row(1, Status.COMPLETED), row(2, Status.FAILED), row(3, Status.CANCELLED, Desire.CANCELLED))
    async with house(file) as home:
        page, _ = await home.manager.page()
        assert {one.status for one in page} == {Status.COMPLETED, Status.FAILED, Status.CANCELLED}
        assert (home.workshop.turns, home.workshop.discarded) == ([], [])
        assert (await home.manager.resume("t2")).status is Status.STARTING


async def test_without_recovery_they_wait_until_they_are_asked_for(file: Path) -> None:
    left_behind(file, row(1, Status.DOWNLOADING), row(2, Status.QUEUED), row(3, Status.PAUSED, Desire.PAUSED))
    async with house(file, recover=False) as home:
        assert home.workshop.turns == []
        found = await home.manager.get("t1")
        assert (found.status, found.place) == (Status.QUEUED, None)
        assert "Interrupted" in found.message
        again, created = await home.manager.request(ModelRequest("org/m1"))
        assert (again.task_id, created, again.status) == ("t1", False, Status.STARTING)
        assert (await home.manager.resume("t2")).status is Status.STARTING
        assert (await home.manager.get("t3")).status is Status.PAUSED
    async with house(file) as home:
        await home.workshop.turn("t1")
        await home.workshop.turn("t2")


async def test_one_that_waits_to_be_asked_for_can_be_cancelled_or_paused(file: Path) -> None:
    left_behind(file, row(1, Status.DOWNLOADING), row(2, Status.DOWNLOADING))
    async with house(file, recover=False) as home:
        assert (await home.manager.cancel("t1")).status is Status.CANCELLED
        assert (await home.manager.pause("t2")).status is Status.PAUSED


async def test_a_stop_loses_nothing_and_the_next_life_goes_on(file: Path) -> None:
    workshop = Workshop()
    async with house(file, workshop, capacity=2) as home:
        runs, turn = await home.running("org/a")
        turn.sizes()
        turn.progress(640)
        starts, _ = await home.running("org/b")
        waits = await home.request("org/c")
        began = time.perf_counter()
        await home.manager.stop()
        assert time.perf_counter() - began < 1.5
        assert [one.cancellations for one in workshop.turns] == [1, 1]
        assert home.row(runs.task_id).downloaded_bytes == 640, "the newest figures too"
    async with house(file, capacity=2) as home:
        for download in (runs, starts):
            await home.workshop.turn(download.task_id)
        assert (await home.manager.get(runs.task_id)).downloaded_bytes == 640
        assert (await home.manager.get(waits.task_id)).place == 1


async def test_a_stop_waits_for_the_workers_to_be_still(file: Path) -> None:
    workshop = Workshop()
    async with house(file, workshop) as home:
        _, turn = await home.running()
        workshop.slow_stop = asyncio.Event()
        stopping = [asyncio.ensure_future(home.manager.stop()) for _ in range(2)]
        await turn.stopped.wait()
        assert not any(stop.done() for stop in stopping)
        workshop.slow_stop.set()
        await asyncio.gather(*stopping)
        assert (turn.over, turn.cancellations) == (True, 1)


async def test_a_stop_in_the_middle_of_a_cancel_leaves_it_to_the_next_life(file: Path) -> None:
    workshop = Workshop()
    async with house(file, workshop) as home:
        download, turn = await home.running()
        turn.sizes()
        workshop.discarding = asyncio.Event()
        cancelling = asyncio.ensure_future(home.manager.cancel(download.task_id))
        await turn.still.wait()
        began = time.perf_counter()
        await home.manager.stop()
        assert time.perf_counter() - began < 1.5
        with pytest.raises(asyncio.CancelledError):
            await cancelling
        assert home.row(download.task_id).desire is Desire.CANCELLED
    async with house(file) as home:
        await home.until_status(download.task_id, "cancelled")
        assert home.workshop.discarded == [download.task_id]


async def test_numbers_of_events_grow_over_restarts_though_ticks_are_not_kept(file: Path) -> None:
    highest = 0
    for _ in range(3):
        async with house(file, tick_s=0.01) as home:
            download = await home.request()
            event = await home.until(download.task_id, lambda shown: True)
            assert event.id > highest
            highest = home.bus.publish("other", event.kind, {}).id


@given(
    st.sampled_from([status for status in Status if not status.is_terminal]),
    st.sampled_from(Desire),
    st.booleans(),
)
def test_every_row_that_can_be_left_behind_has_a_way_on(status: Status, desire: Desire, go_on: bool) -> None:
    found = recover(row(1, status, desire), 500.0, go_on=go_on)
    assert not found.download.status.is_active, "nobody is at work on it yet"
    assert found.download.downloaded_bytes == 400
    match desire:
        case Desire.CANCELLED:
            assert found.next is Next.CANCEL
        case Desire.PAUSED:
            assert (found.next, found.download.status) == (Next.REST, Status.PAUSED)
        case Desire.RUN:
            assert found.download.status is Status.QUEUED
            assert found.download.phase is Phase.WAITING_FOR_SLOT
            assert found.next is (Next.RUN if go_on else Next.REST)
