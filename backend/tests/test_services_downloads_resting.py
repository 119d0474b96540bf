"""A model's files may only be removed while nobody downloads it, and nobody begins to meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fakes.workshop import House, Workshop, house
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.states import Status
from mlx_manager.errors import HubError, ModelInUse


async def a_while(one: House) -> None:
    """Other downloads, one after the other: whatever else was asked for has all its turns before the last of them ends,
    if nothing holds it."""
    for number in range(4):
        other, turn = await one.running(f"org/other-{number}")
        turn.complete()
        await one.until_status(other.task_id, "completed")


async def test_a_request_waits_until_the_files_are_gone(tmp_path: Path) -> None:
    async with house(tmp_path / "db") as one:
        async with one.manager.at_rest("Org/Model"):
            asked = asyncio.create_task(one.request("org/model"))
            await a_while(one)
            assert not asked.done()
            assert one.workshop.at_work == []
            with pytest.raises(ModelInUse):
                async with one.manager.at_rest("org/model"):
                    pytest.fail("twice at once")
        download = await asked
        (await one.workshop.turn(download.task_id)).complete()
        await one.until_status(download.task_id, "completed")


async def test_two_that_waited_for_the_same_are_one_download(tmp_path: Path) -> None:
    async with house(tmp_path / "db") as one:
        async with one.manager.at_rest("org/model"):
            asked = [asyncio.create_task(one.request("org/model")) for _ in range(2)]
            await a_while(one)
        first, second = await asyncio.gather(*asked)
        assert first.task_id == second.task_id


async def test_what_failed_is_resumed_after_the_files_are_gone(tmp_path: Path) -> None:
    async with house(tmp_path / "db") as one:
        download, turn = await one.running()
        turn.fail(HubError("no"))
        await one.until_status(download.task_id, "failed")
        async with one.manager.at_rest("org/model"):
            resumed = asyncio.create_task(one.manager.resume(download.task_id))
            await a_while(one)
            assert not resumed.done()
        assert (await resumed).status is not Status.FAILED
        (await one.workshop.turn(download.task_id, 2)).complete()
        await one.until_status(download.task_id, "completed")


async def test_what_is_in_flight_is_in_use(tmp_path: Path) -> None:
    workshop = Workshop()
    async with house(tmp_path / "db", workshop) as one:
        download, _ = await one.manager.request(ModelRequest("org/model", "other"))
        turn = await workshop.turn(download.task_id)
        for state in ("starting", "paused"):
            if state == "paused":
                await one.manager.pause(download.task_id)
            with pytest.raises(ModelInUse, match=f"org/model is being downloaded .{state}"):
                async with one.manager.at_rest("ORG/model"):
                    pytest.fail("it is in flight")
        assert turn.over
        await one.manager.cancel(download.task_id)
        async with one.manager.at_rest("org/model"):
            pass
