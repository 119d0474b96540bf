"""A crowd of watchers, scaled down: everybody sees the end, and the server holds nothing more afterwards."""

from __future__ import annotations

import asyncio
import gc
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_client import ServerProcess, serving
from fakes.hub_server import Blob, Fault, HubServer
from mlx_manager.domain.events import Event
from mlx_manager.services.event_bus import _Story
from torture.census import Census, judged, slope
from torture.crowd import OF_EVERYTHING, LetGo, run_round, watched

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


def held(hub: HubServer) -> LetGo:
    """It keeps all bytes of files back until this is called."""
    return hub.fault(Fault.delay(), where="content").clear


def test_everybody_sees_every_end_and_nothing_is_held_afterwards(hub: HubServer, tmp_path: Path) -> None:
    with ServerProcess(tmp_path, hub.url, MLX_MANAGER_LOG_LEVEL="INFO") as server:
        api, pid = server.api(), server.process.pid
        # What is made at the first use and stays.
        idle = run_round(api, pid, MODELS, WATCHERS, held(hub)).after
        shutil.rmtree(tmp_path / "hf" / "hub")
        again = run_round(api, pid, MODELS, WATCHERS, held(hub), idle)
    assert (again.watchers.connected, again.watchers.missed, len(again.watchers.late_s)) == (WATCHERS, [], ENDS)
    assert again.watchers.told_later == 0
    assert again.left == []
    assert again.after.connections == 0
    # To the Hub: no more than questions were asked at once.
    assert again.after.kept <= 4


def test_no_task_is_left_of_watchers_that_came_and_went(hub: HubServer, tmp_path: Path) -> None:
    with serving(tmp_path, hub.url) as api:
        watched(api, MODELS[:2], 10, held(hub))
        before = _tasks()
        watched(api, MODELS[2:6], 40, held(hub))
        give_up_at = 200
        while (left := _tasks() - before) > 0 and give_up_at:
            api.get("/health")
            give_up_at -= 1
        assert left <= 0


def _tasks() -> int:
    """Of every loop in this process."""
    gc.collect()
    return sum(isinstance(one, asyncio.Task) and not one.done() for one in gc.get_objects())


def test_nothing_is_kept_of_downloads_that_have_ended(hub: HubServer, tmp_path: Path) -> None:
    with serving(tmp_path, hub.url) as api:
        # What is made at the first use and stays.
        watched(api, MODELS, 20, held(hub))
        before = _objects()
        for _ in range(2):
            shutil.rmtree(tmp_path / "hf" / "hub")
            watched(api, MODELS, 20, held(hub))
        give_up_at = 50
        while (more := _grown(before)) and give_up_at:
            api.get("/health")
            give_up_at -= 1
    assert more == {}


def _grown(before: Counter[str]) -> dict[str, int]:
    """A few more or less are chance; what is kept of each download is more than there are in a round."""
    return {name: count for name, count in (_objects() - before).items() if count >= len(MODELS)}


def _objects() -> Counter[str]:
    """How many there are of each class of ours in this process, and of locks. Not of events: those of the last 200
    downloads are kept for who comes late."""
    gc.collect()
    found = Counter(f"{type(one).__module__}.{type(one).__name__}" for one in gc.get_objects())
    kept = {f"{kind.__module__}.{kind.__name__}" for kind in (Event, _Story)}
    return Counter(
        {name: n for name, n in found.items() if name.startswith(("mlx_manager", "_thread")) and name not in kept}
    )


def test_what_there_is_more_of_is_said() -> None:
    before = Census(descriptors=20, threads=5, connections=0, children=0, kept=3, rss=10)
    after = Census(descriptors=30, threads=5, connections=1, children=0, kept=4, rss=99)
    assert after.beyond(before) == ["30 descriptors, 20 before", "1 connections, 0 before"]
    assert before.beyond(after) == []


@pytest.mark.parametrize(
    ("memory", "downloads", "ends_well"),
    [
        # As seen: what comes and goes is no leak, and one round that is large is none either.
        ([153, 155, 162, 162, 150, 170, 149, 165, 158, 240], 200, True),
        # Four kilobytes of each of 200 downloads a round, and sixteen.
        ([150 + 0.8 * n for n in range(10)], 200, True),
        ([150 + 3.2 * n for n in range(10)], 200, False),
        # The story of the last 200 fills up first.
        ([60, 75, 90, 100, 101, 100, 102, 101, 100, 101], 50, True),
        ([60, 75, 90, 100, 110, 120, 130, 140, 150, 160], 50, False),
    ],
)
def test_memory_may_come_and_go_but_not_grow(memory: list[float], downloads: int, ends_well: bool) -> None:
    told, wrong = judged(memory, downloads)
    assert (wrong == []) == ends_well
    assert "20 MB are allowed" in told
    assert all("memory" in one and "20 MB are allowed" in one for one in wrong)


def test_too_few_rounds_say_nothing_of_memory() -> None:
    for memory, downloads in (([100.0, 300.0, 500.0], 10), ([100.0, 200.0, 300.0, 400.0, 500.0], 200)):
        told, wrong = judged(memory, downloads)
        assert "not judged" in told
        assert wrong == []


def test_a_slope_is_what_it_grows_by_each_time() -> None:
    assert slope([1.0, 3.0, 5.0, 7.0]) == pytest.approx(2.0)
    assert slope([4.0]) == 0.0
