"""A crowd of watchers, scaled down: everybody sees the end, and the server holds nothing more afterwards."""

from __future__ import annotations

import asyncio
import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_client import ServerProcess, serving
from fakes.hub_server import Blob, HubServer
from torture.census import Census, slope
from torture.crowd import OF_EVERYTHING, run_round, watched

WATCHERS = 60
MODELS = [f"load/Tiny-{n}" for n in range(10)]
PAGES = len(range(0, WATCHERS, OF_EVERYTHING))
ENDS = PAGES * len(MODELS) + WATCHERS - PAGES


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        for seed, model in enumerate(MODELS):
            hub.add_model(model, {"config.json": "{}", "model.safetensors": Blob(100_000, seed)})
        yield hub


def test_everybody_sees_every_end_and_nothing_is_held_afterwards(hub: HubServer, tmp_path: Path) -> None:
    with ServerProcess(tmp_path, hub.url, MLX_MANAGER_LOG_LEVEL="INFO") as server:
        api, pid = server.api(), server.process.pid
        # What is made at the first use and stays.
        idle = run_round(api, pid, MODELS, WATCHERS).after
        shutil.rmtree(tmp_path / "hf" / "hub")
        again = run_round(api, pid, MODELS, WATCHERS, idle)
    assert (again.watchers.connected, again.watchers.missed, len(again.watchers.late_s)) == (WATCHERS, [], ENDS)
    assert again.left == []
    assert again.after.connections == 0
    # To the Hub: no more than questions were asked at once.
    assert again.after.kept <= 4


def test_no_task_is_left_of_watchers_that_came_and_went(hub: HubServer, tmp_path: Path) -> None:
    with serving(tmp_path, hub.url) as api:
        watched(api, MODELS[:2], 10)
        before = _tasks()
        watched(api, MODELS[2:6], 40)
        give_up_at = 200
        while (left := _tasks() - before) > 0 and give_up_at:
            api.get("/health")
            give_up_at -= 1
        assert left <= 0


def _tasks() -> int:
    """Of every loop in this process."""
    gc.collect()
    return sum(isinstance(one, asyncio.Task) and not one.done() for one in gc.get_objects())


def test_what_there_is_more_of_is_said() -> None:
    before = Census(descriptors=20, threads=5, connections=0, children=0, kept=3, rss=10)
    after = Census(descriptors=30, threads=5, connections=1, children=0, kept=4, rss=99)
    assert after.beyond(before) == ["30 descriptors, 20 before", "1 connections, 0 before"]
    assert before.beyond(after) == []


def test_a_slope_is_what_it_grows_by_each_time() -> None:
    assert slope([1.0, 3.0, 5.0, 7.0]) == pytest.approx(2.0)
    assert slope([4.0]) == 0.0
