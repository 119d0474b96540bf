"""/api/events: one stream that tells of every download."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_client import Api, Event, serving
from fakes.hub_server import Fault, HubServer, mlx_model_files
from mlx_manager.domain.states import Status

ONE, TWO, MISSING = "test-org/One-1B-4bit", "test-org/Two-1B-4bit", "test-org/missing"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        for model in (ONE, TWO):
            hub.add_model(model, mlx_model_files(1 << 20))
        yield hub


@pytest.fixture
def api(tmp_path: Path, hub: HubServer) -> Iterator[Api]:
    with serving(tmp_path, hub.url) as api:
        yield api


def _task(event: Event) -> str:
    return str(event.data["task_id"])


def test_it_tells_of_every_download_from_its_beginning_to_its_end(api: Api) -> None:
    with api.events() as stream:
        assert stream.headers["content-type"].partition(";")[0] == "text/event-stream"
        first, second = api.download(ONE), api.download(MISSING)
        ends: dict[str, str] = {}
        told = []
        for event in stream:
            told.append(event)
            if Status(event.status).is_terminal:
                ends[_task(event)] = event.status
            if len(ends) == 2:
                break
    assert ends == {first: "completed", second: "failed"}
    assert [event.id for event in told] == sorted({event.id for event in told})
    for task_id in ends:
        story = [event for event in told if _task(event) == task_id]
        assert (story[0].status, story[0].data["total_bytes"]) == ("starting", 0)
        assert story[-1].data == api.status(task_id)


def test_a_new_watcher_first_hears_how_each_one_stands(api: Api, hub: HubServer) -> None:
    hub.fault(Fault.black_hole(), where="info", repo=TWO)
    done = api.download(ONE)
    api.wait(done, Status.COMPLETED)
    hangs = api.download(TWO)
    paused = api.download(TWO, revision="other")
    api.move(paused, "pause")
    with api.events() as stream:
        first = [stream.next() for _ in range(3)]
    assert {_task(event): event.status for event in first} == {done: "completed", hangs: "starting", paused: "paused"}


def test_also_after_a_restart_and_without_telling_anything_twice(tmp_path: Path, hub: HubServer) -> None:
    with serving(tmp_path, hub.url) as api:
        ended = [api.download(ONE), api.download(MISSING)]
        for task_id in ended:
            api.wait(task_id, Status.COMPLETED, Status.FAILED)
        with api.events() as stream:
            known = {_task(event): event.id for event in (stream.next(), stream.next())}
    with serving(tmp_path, hub.url) as api:
        with api.events() as stream:
            told = [stream.next(), stream.next()]
            assert {_task(event): event.id for event in told} == known, "the same events, under the same numbers"
            assert [event.id for event in told] == sorted(known.values())
            live = api.download(TWO)
            after = stream.until(lambda event: event.status == "completed")
            assert {_task(event) for event in after} == {live}
        with api.events(min(known.values())) as stream:
            assert _task(stream.next()) == max(known, key=lambda task_id: known[task_id])
        with api.events(after[-1].id) as stream:
            again = api.download(MISSING, revision="v2")
            assert _task(stream.next()) == again, "nothing that was heard already"


def test_what_was_missed_is_told(api: Api, hub: HubServer) -> None:
    hang = hub.fault(Fault.black_hole(), where="info")
    with api.events() as stream, api.events() as faithful:
        task_id = api.download(ONE)
        last = stream.until(lambda event: event.data["phase"] == "listing")[-1]
        stream.close()
        hang.clear()
        whole = faithful.until(lambda event: event.status == "completed")
    with api.events(last.id) as back:
        got = back.until(lambda event: event.status == "completed")
    assert {_task(event) for event in got} == {task_id}
    missed = [event for event in whole if event.id > last.id]
    changes = [
        event
        for before, event in itertools.pairwise(whole)
        if event in missed and (before.status, before.data["phase"]) != (event.status, event.data["phase"])
    ]
    assert [event for event in got if event in changes] == changes
    assert all(event in missed for event in got)
