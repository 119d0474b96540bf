"""The manager: what it accepts, how it queues, what watchers hear, how a run may end, what the ledger then holds."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

import pytest

from fakes.workshop import TOTAL, house
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.download import Waiting
from mlx_manager.domain.events import EventKind
from mlx_manager.domain.states import Desire, Phase, Status
from mlx_manager.errors import (
    DiskFull,
    DownloadNotFound,
    GatedModel,
    LedgerFailed,
    MoveNotAllowed,
    ServerUnreachable,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


# --- accepting --------------------------------------------------------------------------------------------------------


async def test_with_a_free_slot_the_first_word_is_starting(file: Path) -> None:
    async with house(file) as home:
        began = time.perf_counter()
        download, created = await home.manager.request(ModelRequest("org/model"))
        took = time.perf_counter() - began
        assert created
        assert download.status is Status.STARTING
        first = home.bus.newest(download.task_id)
        assert first is not None, "told before the answer"
        assert (first.snapshot["status"], first.snapshot["total_bytes"]) == ("starting", 0)
        assert first.kind is EventKind.STATE
        assert home.row(download.task_id).status is Status.STARTING
        assert took < 0.5, "about 3 ms"


async def test_with_no_free_slot_it_is_queued_with_its_place(file: Path) -> None:
    async with house(file, capacity=1) as home:
        first = await home.request("org/a")
        second = await home.request("org/b")
        third = await home.request("org/c")
        assert (second.status, second.place) == (Status.QUEUED, 1)
        assert (third.status, third.place) == (Status.QUEUED, 2)
        assert third.message == "Waiting for a free slot, 2nd in line."
        (await home.workshop.turn(first.task_id)).complete()
        await home.until_status(second.task_id, "starting")
        moved = await home.until(third.task_id, lambda shown: shown["place"] == 1)
        assert moved.kind is EventKind.STATE
        assert await home.told(second.task_id) == ["queued", "starting"]


async def test_a_higher_priority_overtakes_and_the_others_hear_of_it(file: Path) -> None:
    async with house(file, capacity=1) as home:
        await home.request("org/a")
        patient = await home.request("org/b")
        urgent = await home.request("org/c", priority=5)
        assert urgent.place == 1
        assert (await home.manager.get(patient.task_id)).place == 2


async def test_many_at_once_never_run_more_than_allowed(file: Path) -> None:
    async with house(file, capacity=2) as home:
        asked = await asyncio.gather(*(home.request(f"org/m{n}") for n in range(8)))
        assert [one.status for one in asked].count(Status.STARTING) == 2
        assert sorted(one.place for one in asked if one.place) == [1, 2, 3, 4, 5, 6]
        for one in asked:
            (await home.workshop.turn(one.task_id)).complete()
            assert len(home.workshop.at_work) <= 2
            await home.until_status(one.task_id, "completed")


async def test_the_same_in_flight_is_one_download(file: Path) -> None:
    async with house(file) as home:
        answers = await asyncio.gather(*(home.manager.request(ModelRequest("org/model")) for _ in range(10)))
        assert len({download.task_id for download, _ in answers}) == 1
        assert [created for _, created in answers].count(True) == 1
        assert len(home.store.unfinished()) == 1
        other, created = await home.manager.request(ModelRequest("org/model", "v1"))
        assert created
        assert other.task_id != answers[0][0].task_id


async def test_asking_for_a_paused_one_sets_it_going(file: Path) -> None:
    async with house(file) as home:
        download, _ = await home.running()
        await home.manager.pause(download.task_id)
        again, created = await home.manager.request(ModelRequest("org/model"))
        assert (again.task_id, created, again.status) == (download.task_id, False, Status.STARTING)
        await home.workshop.turn(download.task_id, 2)


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
async def test_after_the_end_the_same_is_a_new_download(file: Path, end: str) -> None:
    async with house(file) as home:
        download, turn = await home.running()
        if end == "completed":
            turn.complete()
        elif end == "failed":
            turn.fail(GatedModel("No."))
        else:
            await home.manager.cancel(download.task_id)
        await home.until_status(download.task_id, end)
        again, created = await home.manager.request(ModelRequest("org/model"))
        assert created
        assert again.task_id != download.task_id


async def test_another_process_that_was_faster_has_it(file: Path) -> None:
    async with house(file) as home, house(file) as other:
        theirs = await other.request()
        ours, created = await home.manager.request(ModelRequest("org/model"))
        assert (ours.task_id, created) == (theirs.task_id, False)
        assert home.workshop.turns == []
        assert home.manager.active_count == 0
        assert (await home.request("org/other")).status is Status.STARTING, "the slot is free"


# --- asking -----------------------------------------------------------------------------------------------------------


async def test_what_there_is_not(file: Path) -> None:
    async with house(file) as home:
        for ask in (home.manager.get, home.manager.last_event, home.manager.pause, home.manager.resume):
            with pytest.raises(DownloadNotFound):
                await ask("none")
        with pytest.raises(DownloadNotFound):
            await home.manager.cancel("none")


async def test_a_page_shows_live_figures_and_finished_ones(file: Path) -> None:
    async with house(file) as home:
        done, turn = await home.running("org/done")
        turn.complete()
        await home.until_status(done.task_id, "completed")
        live, turn = await home.running("org/live")
        turn.sizes()
        turn.progress(321)
        page, following = await home.manager.page()
        assert [(one.task_id, one.downloaded_bytes) for one in page] == [(live.task_id, 321), (done.task_id, TOTAL)]
        assert following is None
        page, _ = await home.manager.page([Status.COMPLETED])
        assert [one.task_id for one in page] == [done.task_id]
        page, following = await home.manager.page(limit=1)
        page, _ = await home.manager.page(limit=1, before=following)
        assert [one.task_id for one in page] == [done.task_id]


async def test_the_terminal_event_can_be_had_at_any_time(file: Path) -> None:
    async with house(file) as home:
        download, turn = await home.running()
        turn.complete()
        told = await home.until_status(download.task_id, "completed")
    async with house(file) as home:
        event = await home.manager.last_event(download.task_id)
        assert (event.id, event.terminal, event.snapshot) == (told.id, True, told.snapshot)
        fresh = home.bus.newest((await home.request("org/next")).task_id)
        assert fresh is not None
        assert fresh.id > told.id


async def test_a_stopped_manager_accepts_nothing(file: Path) -> None:
    async with house(file) as home:
        download = await home.request()
        await home.manager.stop()
        with pytest.raises(ServerUnreachable):
            await home.request("org/late")
        with pytest.raises(ServerUnreachable):
            await home.manager.pause(download.task_id)
        with pytest.raises(LedgerFailed):
            await home.manager.get("none")


# --- a run, and how it may end ----------------------------------------------------------------------------------------


async def test_the_whole_way(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with house(file) as home:
        download, turn = await home.running()
        turn.report(Waiting(time.time(), Phase.LISTING, "Asking the Hub.", time.time() + 10))
        turn.sizes()
        turn.progress(500)
        turn.progress(500, Phase.STALLED)
        turn.progress(TOTAL)
        turn.verify()
        turn.finish()
        last = await home.until_status(download.task_id, "completed")
        assert last.terminal
        assert last.snapshot["progress"] == 100
        told = [
            "starting",
            "starting",
            "downloading",
            "downloading",
            "downloading",
            "downloading",
            "verifying",
            "completed",
        ]
        assert await home.told(download.task_id) == told
    row = _row(file, download.task_id)
    assert (row["status"], row["downloaded_bytes"], row["last_event_id"]) == ("completed", TOTAL, last.id)
    lines = [record.getMessage() for record in caplog.records if record.name == "mlx_manager.services.downloads"]
    assert lines[0] == "Accepted: org/model at main."
    assert lines[-1].startswith("Done: org/model, 1.0 kB: 1.0 kB received in less than a second")
    assert {record.__dict__.get("task_id") for record in caplog.records if record.name.endswith("downloads")} == {
        download.task_id
    }


async def test_an_error_fails_it_with_the_next_step(file: Path) -> None:
    async with house(file) as home:
        download, turn = await home.running()
        turn.fail(GatedModel("You may not.", advice="Ask."))
        shown = (await home.until_status(download.task_id, "failed")).snapshot
        assert (shown["error"], shown["error_code"], shown["advice"]) == ("You may not.", "gated_model", "Ask.")
    assert _row(file, download.task_id)["error_code"] == "gated_model"


async def test_a_full_disk_pauses_it_and_stays_over_a_restart(file: Path) -> None:
    async with house(file) as home:
        download, turn = await home.running()
        turn.sizes()
        turn.fail(DiskFull("2 GB are missing."))
        shown = (await home.until_status(download.task_id, "paused")).snapshot
        assert (shown["phase"], shown["error_code"]) == ("disk_full", "disk_full")
    async with house(file) as home:
        found = await home.manager.get(download.task_id)
        assert (found.status, found.desire, found.error) == (Status.PAUSED, Desire.PAUSED, "2 GB are missing.")
        assert home.workshop.turns == []
        assert (await home.manager.resume(download.task_id)).error is None


async def test_a_worker_that_breaks_is_told_as_our_fault(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with house(file) as home:
        download, turn = await home.running()
        turn.fail(ZeroDivisionError("oh"))
        shown = (await home.until_status(download.task_id, "failed")).snapshot
        assert shown["error_code"] == "internal_error"
        assert "ZeroDivisionError: oh" in caplog.text
        assert (await home.request("org/next")).status is Status.STARTING


async def test_a_worker_that_returns_too_early_is_not_complete(file: Path) -> None:
    async with house(file) as home:
        download, turn = await home.running()
        turn.sizes()
        turn.finish()
        assert (await home.until_status(download.task_id, "failed")).snapshot["error_code"] == "internal_error"


async def test_a_worker_that_interrupts_itself_is_not_forgotten(file: Path) -> None:
    async with house(file) as home:
        download, turn = await home.running()
        turn.end.cancel()
        assert (await home.until_status(download.task_id, "failed")).snapshot["error_code"] == "internal_error"


async def test_a_report_that_the_state_does_not_allow_is_the_workers_error(file: Path) -> None:
    async with house(file) as home:
        download, turn = await home.running()
        with pytest.raises(MoveNotAllowed):
            turn.verify()
        assert (await home.manager.get(download.task_id)).status is Status.STARTING


def _row(file: Path, task_id: str) -> sqlite3.Row:
    connection = sqlite3.connect(file)
    connection.row_factory = sqlite3.Row
    row = connection.execute("SELECT * FROM downloads WHERE task_id = ?", (task_id,)).fetchone()
    connection.close()
    assert isinstance(row, sqlite3.Row)
    return row
