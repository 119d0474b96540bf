"""What a person may ask of a download: at any moment, twice, several at once, and with somebody who goes away."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fakes.workshop import PATIENCE_S, House, Workshop, come_true, house
from mlx_manager.domain.download import Download, Waiting
from mlx_manager.domain.states import Desire, Phase, Status
from mlx_manager.errors import CacheFailed, DiskFull, GatedModel, MoveNotAllowed

Prepare = Callable[[House], Awaitable[Download]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


async def _queued(home: House) -> Download:
    home.manager.set_capacity(1)
    await home.running("org/before")
    return await home.request()


async def _just_asked(home: House) -> Download:
    return await home.request()


async def _waiting_for_the_hub(home: House) -> Download:
    download, turn = await home.running()
    turn.report(Waiting(time.time(), Phase.LISTING, "Asking the Hub.", None))
    return download


async def _downloading(home: House) -> Download:
    download, turn = await home.running()
    turn.sizes()
    turn.progress(500)
    return download


async def _stalled(home: House) -> Download:
    download, turn = await home.running()
    turn.sizes()
    turn.progress(500, Phase.STALLED, age_s=30.0)
    return download


async def _retrying(home: House) -> Download:
    download, turn = await home.running()
    turn.sizes()
    turn.report(Waiting(time.time(), Phase.RETRYING, "Again in 60 s.", time.time() + 60))
    return download


async def _verifying(home: House) -> Download:
    download, turn = await home.running()
    turn.sizes()
    turn.verify()
    return download


async def _paused(home: House) -> Download:
    download = await _downloading(home)
    return await home.manager.pause(download.task_id)


async def _disk_full(home: House) -> Download:
    download, turn = await home.running()
    turn.fail(DiskFull("Full."))
    await home.until_status(download.task_id, "paused")
    return download


async def _failed(home: House) -> Download:
    download, turn = await home.running()
    turn.fail(GatedModel("No."))
    await home.until_status(download.task_id, "failed")
    return download


async def _completed(home: House) -> Download:
    download, turn = await home.running()
    turn.complete()
    await home.until_status(download.task_id, "completed")
    return download


async def _cancelled(home: House) -> Download:
    download = await _downloading(home)
    return await home.manager.cancel(download.task_id)


RUNNING: list[Prepare] = [_just_asked, _waiting_for_the_hub, _downloading, _stalled, _retrying, _verifying]


def named(prepare: object) -> str:
    return getattr(prepare, "__name__", str(prepare)).strip("_")


# --- pause ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prepare", [_queued, *RUNNING], ids=named)
async def test_pause(file: Path, prepare: Prepare) -> None:
    async with house(file) as home:
        download = await prepare(home)
        before = await home.manager.get(download.task_id)
        paused = await asyncio.wait_for(home.manager.pause(download.task_id), 1)
        assert download.task_id not in home.workshop.at_work, "its bytes have stopped when the answer comes"
        assert (paused.status, paused.desire) == (Status.PAUSED, Desire.PAUSED)
        assert (paused.downloaded_bytes, paused.total_bytes) == (before.downloaded_bytes, before.total_bytes)
        assert (paused.speed_bps, paused.deadline, paused.place) == (0, None, None)
        newest = home.bus.newest(download.task_id)
        assert newest is not None
        assert newest.snapshot["status"] == "paused"
        assert await home.manager.get(download.task_id) == paused
        assert download.task_id not in home.runner.waiting()
    async with house(file) as home:
        assert (await home.manager.get(download.task_id)).status is Status.PAUSED
        assert download.task_id not in home.workshop.at_work


@pytest.mark.parametrize("prepare", [_paused, _disk_full, _failed, _completed, _cancelled], ids=named)
async def test_what_can_not_be_paused(file: Path, prepare: Prepare) -> None:
    async with house(file) as home:
        download = await prepare(home)
        before = await home.manager.get(download.task_id)
        with pytest.raises(MoveNotAllowed, match=str(before.status)):
            await home.manager.pause(download.task_id)
        assert await home.manager.get(download.task_id) == before


async def test_a_pause_frees_the_slot(file: Path) -> None:
    async with house(file, capacity=1) as home:
        download, _ = await home.running()
        following = await home.request("org/next")
        await home.manager.pause(download.task_id)
        await home.workshop.turn(following.task_id)
        again = await home.manager.resume(download.task_id)
        assert (again.status, again.place) == (Status.QUEUED, 1)


# --- resume -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prepare", [_paused, _disk_full, _failed], ids=named)
async def test_resume(file: Path, prepare: Prepare) -> None:
    async with house(file) as home:
        download = await prepare(home)
        before = await home.manager.get(download.task_id)
        resumed = await home.manager.resume(download.task_id)
        assert (resumed.status, resumed.desire, resumed.error) == (Status.STARTING, Desire.RUN, None)
        assert (resumed.epoch, resumed.attempt) == (2, 2)
        assert resumed.downloaded_bytes == before.downloaded_bytes
        turn = await home.workshop.turn(download.task_id, 2)
        assert await home.told(download.task_id) == ["starting"], "a new watcher hears of the new run"
        turn.complete()
        await home.until_status(download.task_id, "completed")


@pytest.mark.parametrize("prepare", [_queued, *RUNNING, _completed, _cancelled], ids=named)
async def test_what_can_not_be_resumed(file: Path, prepare: Prepare) -> None:
    async with house(file) as home:
        download = await prepare(home)
        with pytest.raises(MoveNotAllowed):
            await home.manager.resume(download.task_id)
        assert len([turn for turn in home.workshop.turns if turn.task_id == download.task_id]) <= 1


async def test_a_resume_while_the_pause_still_goes_on(file: Path) -> None:
    workshop = Workshop()
    async with house(file, workshop) as home:
        download, turn = await home.running()
        workshop.slow_stop = asyncio.Event()
        pausing = asyncio.ensure_future(home.manager.pause(download.task_id))
        await turn.stopped.wait()
        resuming = asyncio.ensure_future(home.manager.resume(download.task_id))
        shown = await home.until(download.task_id, lambda shown: shown["message"] == "Pausing.")
        assert shown.snapshot["status"] == "starting", "it is not paused before it is"
        assert not pausing.done()
        workshop.slow_stop.set()
        assert (await pausing).status is Status.PAUSED
        assert (await resuming).status is Status.STARTING
        second = await home.workshop.turn(download.task_id, 2)
        assert (turn.cancellations, second.cancellations) == (1, 0)


# --- cancel -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prepare", [_queued, *RUNNING, _paused, _disk_full, _failed], ids=named)
async def test_cancel(file: Path, prepare: Prepare) -> None:
    async with house(file) as home:
        download = await prepare(home)
        cancelled = await asyncio.wait_for(home.manager.cancel(download.task_id), 1)
        assert download.task_id not in home.workshop.at_work
        assert home.workshop.discarded == [download.task_id]
        assert (cancelled.status, cancelled.downloaded_bytes, cancelled.error) == (Status.CANCELLED, 0, None)
        newest = home.bus.newest(download.task_id)
        assert newest is not None
        assert (newest.terminal, newest.snapshot["status"]) == (True, "cancelled")
    async with house(file) as home:
        assert (await home.manager.get(download.task_id)).status is Status.CANCELLED
        assert download.task_id not in home.workshop.at_work


@pytest.mark.parametrize("prepare", [_completed, _cancelled], ids=named)
async def test_what_can_not_be_cancelled(file: Path, prepare: Prepare) -> None:
    async with house(file) as home:
        download = await prepare(home)
        home.workshop.discarded.clear()
        with pytest.raises(MoveNotAllowed):
            await home.manager.cancel(download.task_id)
        assert home.workshop.discarded == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (CacheFailed("The disk does not answer."), "The disk does not answer."),
        (ZeroDivisionError("oh"), "the log says why"),
    ],
)
async def test_what_could_not_be_deleted_is_not_hidden(file: Path, error: Exception, said: str) -> None:
    async with house(file) as home:
        download = await _downloading(home)
        home.workshop.discard_error = error
        cancelled = await home.manager.cancel(download.task_id)
        assert cancelled.status is Status.CANCELLED
        assert said in cancelled.message


async def test_a_cancel_takes_the_place_of_a_pause_that_goes_on(file: Path) -> None:
    workshop = Workshop()
    async with house(file, workshop) as home:
        download, turn = await home.running()
        workshop.slow_stop = asyncio.Event()
        pausing = asyncio.ensure_future(home.manager.pause(download.task_id))
        await turn.stopped.wait()
        cancelling = asyncio.ensure_future(home.manager.cancel(download.task_id))
        workshop.slow_stop.set()
        assert (await pausing).status is Status.PAUSED
        assert (await cancelling).status is Status.CANCELLED
        assert turn.cancellations == 1


# --- at once, and other meetings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("move", ["pause", "cancel"])
async def test_twice_at_once_is_done_once(file: Path, move: str) -> None:
    async with house(file) as home:
        download, turn = await home.running()
        ask = getattr(home.manager, move)
        answers = await asyncio.gather(*(ask(download.task_id) for _ in range(4)), return_exceptions=True)
        assert sorted(type(answer).__name__ for answer in answers) == ["Download", *["MoveNotAllowed"] * 3]
        assert turn.cancellations == 1


async def test_twice_resumed_at_once_is_one_run(file: Path) -> None:
    async with house(file) as home:
        failed = await _failed(home)
    # In the next life it has to be fetched from the ledger first, by all four of them.
    async with house(file) as home:
        answers = await asyncio.gather(*(home.manager.resume(failed.task_id) for _ in range(4)), return_exceptions=True)
        assert sorted(type(answer).__name__ for answer in answers) == ["Download", *["MoveNotAllowed"] * 3]
        turn = await home.workshop.turn(failed.task_id)
        assert home.workshop.turns == [turn]


@pytest.mark.parametrize("move", ["pause", "cancel"])
async def test_it_was_complete_before_it_could_be_stopped(file: Path, move: str) -> None:
    """The worker had all when it was told to stop, and says so: the truth wins."""
    async with house(file) as home:
        download, turn = await home.running()
        turn.complete()
        with pytest.raises(MoveNotAllowed, match="completed"):
            await getattr(home.manager, move)(download.task_id)
        assert (await home.manager.get(download.task_id)).status is Status.COMPLETED
        assert home.workshop.discarded == []


async def test_an_engine_that_cancels_more_than_once_disturbs_no_cleaning_up(file: Path) -> None:
    workshop = Workshop()
    async with house(file, workshop) as home:
        download, turn = await home.running()
        workshop.slow_stop = asyncio.Event()
        pausing = asyncio.ensure_future(home.manager.pause(download.task_id))
        await turn.stopped.wait()
        (carrier,) = (task for task in asyncio.all_tasks() if task.get_name() == f"download {download.task_id}")
        for _ in range(3):
            carrier.cancel()
            await asyncio.sleep(0)
        workshop.slow_stop.set()
        assert (await pausing).status is Status.PAUSED
        assert turn.cancellations == 1


async def test_whoever_asked_may_go_away_in_the_middle(file: Path) -> None:
    workshop = Workshop()
    async with house(file, workshop) as home:
        download, turn = await home.running()
        workshop.slow_stop = asyncio.Event()
        asking = asyncio.ensure_future(home.manager.cancel(download.task_id))
        await turn.stopped.wait()
        asking.cancel()
        await asyncio.wait([asking])
        workshop.slow_stop.set()
        await home.until_status(download.task_id, "cancelled")
        assert (turn.cancellations, workshop.discarded) == (1, [download.task_id])


async def test_the_slots_are_right_after_any_mix_of_wishes(file: Path) -> None:
    chance = random.Random(20)
    refused = 0
    async with house(file, capacity=2) as home:

        async def person(number: int) -> None:
            nonlocal refused
            download = await home.request(f"org/m{number % 5}")
            for _ in range(12):
                move = chance.choice([home.manager.pause, home.manager.resume, home.manager.cancel])
                try:
                    await move(download.task_id)
                except MoveNotAllowed:
                    refused += 1
                if chance.random() < 0.3:
                    download = await home.request(f"org/m{number % 5}")
                assert len(home.workshop.at_work) <= 2

        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(person(number) for number in range(10)))
        assert refused > 0
        found, _ = await home.manager.page(limit=500)
        unfinished = [one for one in found if one.status.is_in_flight]
        active = [one.task_id for one in unfinished if one.status.is_active]
        await come_true(lambda: sorted(home.workshop.at_work) == sorted(active))
        assert home.manager.active_count == len(active) <= 2
        for one in unfinished:
            await home.manager.cancel(one.task_id)
        assert (home.workshop.at_work, home.manager.active_count, home.manager.waiting_count) == ([], 0, 0)
        assert (await home.request("org/fresh")).status is Status.STARTING
