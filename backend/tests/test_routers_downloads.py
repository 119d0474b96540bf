"""Pause, resume, cancel over the API: what was asked for is true when it is answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_client import MODELS, Api, serving
from fakes.hub_server import Blob, Fault, HubServer, mlx_model_files
from mlx_manager.domain.states import Status

MODEL = "test-org/Tiny-1B-4bit"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(MODEL, mlx_model_files(4 << 20))
        yield hub


@pytest.fixture
def api(tmp_path: Path, hub: HubServer) -> Iterator[Api]:
    with serving(tmp_path, hub.url) as api:
        yield api


def _half_way(api: Api, hub: HubServer) -> str:
    """A download whose weights come slowly, and of which some are here."""
    hub.fault(Fault.rate(1 << 20, shared=True), where="cdn")
    task_id = api.download(MODEL)
    with api.progress(task_id) as stream:
        stream.until(lambda event: event.data["downloaded_bytes"] >= 512 << 10)
    return task_id


def test_pause_keeps_everything_and_resume_goes_on(api: Api, hub: HubServer) -> None:
    task_id = _half_way(api, hub)
    begun = time.monotonic()
    paused = api.move(task_id, "pause")
    assert time.monotonic() - begun < 1.0
    assert (paused.status, paused.json["status"]) == (200, "paused")
    assert paused.json["downloaded_bytes"] >= 512 << 10
    hub.wait_idle(1.0)
    assert api.status(task_id) == paused.json, "nothing moves any more"
    hub.clear_faults()
    resumed = api.move(task_id, "resume")
    assert (resumed.status, resumed.json["status"]) == (200, "starting")
    done = api.wait(task_id, Status.COMPLETED)
    assert done["reused_bytes"] > 0
    assert done["attempt"] == 2


def test_asking_for_a_paused_model_again_has_it_go_on(api: Api, hub: HubServer) -> None:
    task_id = _half_way(api, hub)
    api.move(task_id, "pause")
    hub.clear_faults()
    answer = api.post(f"{MODELS}/download", {"model_id": MODEL})
    assert (answer.status, answer.json["task_id"]) == (200, task_id)
    api.wait(task_id, Status.COMPLETED)


def test_a_watcher_of_a_paused_download_stays_and_hears_the_rest(api: Api, hub: HubServer) -> None:
    task_id = _half_way(api, hub)
    with api.progress(task_id) as stream:
        api.move(task_id, "pause")
        stream.until(lambda event: event.status == "paused")
        hub.clear_faults()
        api.move(task_id, "resume")
        assert [event.status for event in stream][-1] == "completed"


def test_cancel_keeps_nothing_partial(api: Api, hub: HubServer, tmp_path: Path) -> None:
    task_id = _half_way(api, hub)
    assert list((tmp_path / "hf").rglob("*.part"))
    begun = time.monotonic()
    with api.progress(task_id) as stream:
        cancelled = api.move(task_id, "cancel")
        assert time.monotonic() - begun < 1.0
        assert list(stream)[-1].data == cancelled.json == api.status(task_id)
    assert (cancelled.status, cancelled.json["status"]) == (200, "cancelled")
    hub.wait_idle(1.0)
    left = [path.name for path in (tmp_path / "hf").rglob("*") if path.is_file() and ".part" in path.name]
    assert left == []
    again = api.post(f"{MODELS}/download", {"model_id": MODEL})
    assert again.status == 202, "a new one"
    assert again.json["task_id"] != task_id


def test_a_failed_one_can_be_resumed(api: Api, hub: HubServer) -> None:
    task_id = api.download("test-org/late")
    api.wait(task_id, Status.FAILED)
    hub.add_model("test-org/late", mlx_model_files(1 << 20))
    resumed = api.move(task_id, "resume").json
    assert (resumed["error"], resumed["error_code"], resumed["finished_at"]) == (None, None, None)
    api.wait(task_id, Status.COMPLETED)


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel"])
def test_what_the_state_does_not_allow_is_refused_with_the_state(api: Api, verb: str) -> None:
    task_id = api.download(MODEL)
    done = api.wait(task_id, Status.COMPLETED)
    refused = api.move(task_id, verb)
    assert (refused.status, refused.json["code"]) == (409, "move_not_allowed")
    assert refused.headers["content-type"] == "application/problem+json"
    assert "completed" in refused.json["detail"]
    assert refused.json["download"] == done == api.status(task_id)


def test_the_same_move_twice_is_refused_the_second_time(api: Api, hub: HubServer) -> None:
    hub.fault(Fault.black_hole(), where="info")
    task_id = api.download(MODEL)
    assert api.move(task_id, "resume").json["download"]["status"] == "starting"
    for verb, state in (("pause", "paused"), ("cancel", "cancelled")):
        assert api.move(task_id, verb).json["status"] == state
        refused = api.move(task_id, verb)
        assert (refused.status, refused.json["download"]["status"]) == (409, state)


def test_of_many_at_once_one_wins(api: Api, hub: HubServer) -> None:
    hub.fault(Fault.black_hole(), where="info")
    task_id = api.download(MODEL)
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(api.move(task_id, "pause").status)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, *[409] * 7]


def test_all_who_ask_are_told_the_same_rates(tmp_path: Path, hub: HubServer) -> None:
    hub.add_model("test-org/Slow", {"model.safetensors": Blob(200 << 20)})
    hub.fault(Fault.rate(4 << 20), where="cdn", repo="test-org/Slow")
    with serving(tmp_path, hub.url) as api:
        task_id = api.download("test-org/Slow")
        with api.progress(task_id) as stream:
            stream.until(lambda event: event.data["speed_bps"] > 0)
        told = api.get(f"{MODELS}/downloads/rates").json
        assert list(told["rates"]) == [task_id]
        assert max(told["rates"][task_id]) > 0
        api.move(task_id, "pause")
        assert api.get(f"{MODELS}/downloads/rates").json == {"step_s": told["step_s"], "rates": {}}


def test_those_without_a_slot_say_their_place(tmp_path: Path, hub: HubServer) -> None:
    hub.fault(Fault.black_hole(), where="info")
    with serving(tmp_path, hub.url, MLX_MANAGER_MAX_DOWNLOADS="1") as api:
        first = api.download("test-org/a")
        second = api.download("test-org/b")
        urgent = api.download("test-org/c", priority=5)
        told = {task_id: api.status(task_id) for task_id in (first, second, urgent)}
        assert [told[task_id]["status"] for task_id in told] == ["starting", "queued", "queued"]
        assert [told[task_id]["place"] for task_id in told] == [None, 2, 1]
        assert api.get("/api/system").json["downloads"] == {"active": 1, "waiting": 2}
        with api.progress(second) as stream:
            api.move(first, "cancel")
            assert stream.until(lambda event: event.data["place"] == 1)
            api.move(urgent, "cancel")
            assert stream.until(lambda event: event.status == "starting")
