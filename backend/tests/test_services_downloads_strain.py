"""The manager under strain: workers that were replaced or say nothing, a ledger that fails."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.event import listens_for

from fakes.workshop import PATIENCE_S, TOTAL, House, come_true, house
from mlx_manager.domain.events import Event, EventKind
from mlx_manager.domain.states import Desire, Phase, Status
from mlx_manager.errors import (
    DownloadInFlight,
    DownloadSuperseded,
    GatedModel,
    LedgerFailed,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


# --- epochs -----------------------------------------------------------------------------------------------------------


async def test_each_run_has_an_epoch_of_its_own_and_an_older_one_is_not_heard(file: Path) -> None:
    async with house(file) as home:
        download, first = await home.running()
        first.sizes()
        await home.manager.pause(download.task_id)
        with pytest.raises(DownloadSuperseded):
            first.progress(900)
        await home.manager.resume(download.task_id)
        second = await home.workshop.turn(download.task_id, 2)
        assert (first.epoch, second.epoch) == (1, 2)
        with pytest.raises(DownloadSuperseded):
            first.progress(900)
        assert (await home.manager.get(download.task_id)).downloaded_bytes == 0
        second.progress(10)
        assert (await home.manager.get(download.task_id)).downloaded_bytes == 10


async def test_a_worker_that_slept_finds_out_that_it_was_replaced(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with house(file) as home:
        download, turn = await home.running()
        assert home.store.claim(download.task_id, "elsewhere") == 2
        turn.sizes()
        async with asyncio.timeout(PATIENCE_S):
            await turn.still.wait()
        with pytest.raises(DownloadSuperseded):
            turn.progress(5)
        assert "Another worker has taken over" in caplog.text
        assert home.row(download.task_id).status is Status.STARTING, "nothing of ours was written"
        assert home.manager.active_count == 0


async def test_a_worker_that_is_told_so_itself_ends_quietly(file: Path) -> None:
    async with house(file) as home:
        download, turn = await home.running()
        home.store.claim(download.task_id, "elsewhere")
        turn.fail(DownloadSuperseded("Another one has it."))
        async with asyncio.timeout(PATIENCE_S):
            await turn.still.wait()
        assert (await home.manager.get(download.task_id)).status is Status.STARTING


# --- ticks ------------------------------------------------------------------------------------------------------------


async def test_a_silent_worker_is_spoken_for_and_the_age_is_true(file: Path) -> None:
    async with house(file, tick_s=0.1) as home:
        download, turn = await home.running()
        turn.sizes()
        turn.progress(5, age_s=0.0)
        heard: list[tuple[float, float]] = []
        async with asyncio.timeout(PATIENCE_S):
            async for event in _events(home, download.task_id):
                if event.kind is EventKind.TICK and event.snapshot["last_byte_age_s"]:
                    heard.append((time.monotonic(), event.snapshot["last_byte_age_s"]))
                if len(heard) == 5:
                    break
        (began, first), *_, (ended, last) = heard
        assert last - first == pytest.approx(ended - began, abs=0.15)
        assert (await home.manager.get(download.task_id)).last_byte_age_s == pytest.approx(last, abs=0.5)


async def test_also_while_it_is_starting(file: Path) -> None:
    async with house(file, tick_s=0.05) as home:
        download = await home.request()
        ticks = 0
        async with asyncio.timeout(PATIENCE_S):
            async for event in _events(home, download.task_id):
                ticks += event.kind is EventKind.TICK
                if ticks == 3:
                    break


async def test_at_most_four_ticks_a_second_and_the_newest_is_not_lost(file: Path) -> None:
    async with house(file) as home:
        download, turn = await home.running()
        turn.sizes()
        turn.progress(0)
        before = home.bus.newest(download.task_id)
        assert before is not None
        for done in range(1, 200):
            turn.progress(done)
        burst = home.bus.newest(download.task_id)
        assert burst is not None
        assert burst.id - before.id <= 4
        assert (await home.manager.get(download.task_id)).downloaded_bytes == 199, "polling has it at once"
        last = await home.until(download.task_id, lambda shown: shown["downloaded_bytes"] == 199)
        assert last.kind is EventKind.TICK


async def test_a_state_is_never_held_back(file: Path) -> None:
    async with house(file) as home:
        download, turn = await home.running()
        turn.sizes()
        for n in range(20):
            turn.progress(n, Phase.STALLED if n % 2 else Phase.TRANSFERRING)
        assert len(await home.told(download.task_id)) == 2 + 20


async def test_at_rest_nothing_is_said(file: Path) -> None:
    async with house(file, tick_s=0.02) as home:
        download, _ = await home.running()
        await home.manager.pause(download.task_id)
        newest = home.bus.newest(download.task_id)
        other, _ = await home.running("org/other")
        async with asyncio.timeout(PATIENCE_S):
            async for event in _events(home, other.task_id):
                if event.kind is EventKind.TICK:
                    break
        assert home.bus.newest(download.task_id) is newest


async def test_figures_go_into_the_ledger_now_and_then(file: Path) -> None:
    async with house(file, tick_s=0.02, save_every_s=0.05) as home:
        download, turn = await home.running()
        turn.sizes()
        turn.progress(123)
        async with asyncio.timeout(PATIENCE_S):
            async for _ in _events(home, download.task_id):
                if home.row(download.task_id).downloaded_bytes == 123:
                    break


# --- a ledger that fails ----------------------------------------------------------------------------------------------


async def test_a_ledger_that_fails_stops_no_download(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with house(file, tick_s=0.02, save_every_s=0.02) as home:
        download, turn = await home.running()
        with _locked(home):
            turn.sizes()
            turn.progress(7)
            await home.until_status(download.task_id, "downloading")
            async with asyncio.timeout(PATIENCE_S):
                async for _ in _events(home, download.task_id):
                    if "tried again" in caplog.text:
                        break
            assert home.manager.trouble is not None
            said = (await home.manager.get(download.task_id)).message
            assert said.endswith("The list of downloads could not be written: database is locked. It is tried again.")
            paused = await home.manager.pause(download.task_id)
            assert paused.status is Status.PAUSED, "what the person asked for is done all the same"
            assert home.row(download.task_id).status is Status.STARTING
        await come_true(lambda: home.row(download.task_id).desire is Desire.PAUSED)
        await come_true(lambda: home.row(download.task_id).status is Status.PAUSED)
        await come_true(lambda: "can be written again" in caplog.text)
        await come_true(lambda: home.manager.trouble is None)
        assert (await home.manager.get(download.task_id)).message == "Paused. All that was received is kept."
        levels = [record.levelname for record in caplog.records if "tried again" in record.getMessage()]
        assert levels.count("ERROR") == 1, "told once"


async def test_each_says_so_from_the_beginning_of_the_trouble_to_its_end_also_at_rest(file: Path) -> None:
    async with house(file, capacity=1, tick_s=0.02, save_every_s=0.02) as home:
        paused, _ = await home.running("org/paused")
        await home.manager.pause(paused.task_id)
        running, turn = await home.running("org/running")
        queued = await home.request("org/queued")
        everyone = [one.task_id for one in (paused, running, queued)]

        def say_so() -> list[bool]:
            newest = [home.bus.newest(task_id) for task_id in everyone]
            return [event is not None and "could not be written" in event.snapshot["message"] for event in newest]

        assert say_so() == [False] * 3
        with _locked(home):
            turn.sizes()
            await come_true(lambda: all(say_so()))
            assert home.manager.trouble is not None
        await come_true(lambda: not any(say_so()))
        assert home.manager.trouble is None


async def test_one_that_ends_meanwhile_says_how_and_nothing_that_would_stay(file: Path) -> None:
    async with house(file, tick_s=0.02, save_every_s=0.02) as home:
        download, turn = await home.running()
        with _locked(home):
            turn.sizes()
            await come_true(lambda: home.manager.trouble is not None)
            turn.progress(TOTAL)
            turn.verify()
            turn.finish()
            end = await home.until_status(download.task_id, "completed")
            assert end.snapshot["message"].endswith("every byte verified.")
            assert (await home.manager.last_event(download.task_id)).snapshot == end.snapshot
        await come_true(lambda: home.row(download.task_id).status is Status.COMPLETED)


async def test_the_trouble_ends_with_the_last_that_it_was_about(file: Path) -> None:
    """Another worker had taken over what could not be written, and nobody was left to find out that it can be."""
    async with house(file, tick_s=0.02, save_every_s=0.02) as home:
        paused, _ = await home.running("org/paused")
        await home.manager.pause(paused.task_id)
        _, turn = await home.running("org/lost")
        with _locked(home):
            turn.sizes()
            await come_true(lambda: home.manager.trouble is not None)
            turn.fail(DownloadSuperseded("Another one has it."))
            await come_true(lambda: home.manager.trouble is None)
            assert (await home.manager.get(paused.task_id)).message == "Paused. All that was received is kept."
            await home.until(paused.task_id, lambda shown: shown["message"] == "Paused. All that was received is kept.")


async def test_what_the_ledger_can_not_take_is_not_accepted(file: Path) -> None:
    async with house(file, capacity=1) as home:
        with _locked(home), pytest.raises(LedgerFailed):
            await home.request()
        assert home.workshop.turns == []
        assert home.manager.active_count == 0
        download = await home.request()
        assert download.status is Status.STARTING
        assert len(home.store.unfinished()) == 1


async def test_the_same_asked_for_twice_while_the_ledger_fails(file: Path) -> None:
    async with house(file) as home:
        with _locked(home):
            answers = await asyncio.gather(home.request(), home.request(), return_exceptions=True)
        assert [type(answer) for answer in answers] == [LedgerFailed, LedgerFailed]


async def test_a_failed_one_is_not_resumed_beside_a_newer_one(file: Path) -> None:
    async with house(file) as home:
        download, turn = await home.running()
        turn.fail(GatedModel("No."))
        await home.until_status(download.task_id, "failed")
        newer = await home.request()
        with pytest.raises(DownloadInFlight, match=newer.task_id):
            await home.manager.resume(download.task_id)
        assert (await home.manager.get(download.task_id)).status is Status.FAILED


@contextmanager
def _locked(home: House) -> Iterator[None]:
    """Another program holds the ledger's write lock, and we lose patience at once."""

    @listens_for(home.engine, "checkout")
    def on_checkout(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("PRAGMA busy_timeout = 1")

    lock = sqlite3.connect(home.file, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        lock.rollback()
        lock.close()


async def _events(home: House, task_id: str) -> AsyncIterator[Event]:
    subscription = home.bus.subscribe(task_id)
    try:
        async for event in subscription:
            yield event
    finally:
        subscription.close()
