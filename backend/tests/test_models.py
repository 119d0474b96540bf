"""The downloads' API over real sockets, against a real hub: ask, watch, poll, and what is refused."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_client import DEAD_HUB, MODELS, Api, Event, ServerProcess, serving
from fakes.hub_server import Fault, HubServer, mlx_model_files
from mlx_manager.domain.states import Status

MODEL = "test-org/Tiny-1B-4bit"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(MODEL, mlx_model_files(1 << 20))
        yield hub


@pytest.fixture
def api(tmp_path: Path, hub: HubServer) -> Iterator[Api]:
    with serving(tmp_path, hub.url) as api:
        yield api


# --- asking ----------------------------------------------------------------------------------------------------------


def test_a_request_is_accepted_and_says_where_to_look(api: Api, hub: HubServer) -> None:
    hub.fault(Fault.black_hole(), where="info")
    answer = api.post(f"{MODELS}/download", {"model_id": MODEL})
    assert answer.status == 202
    assert set(answer.json) == {"task_id", "model_id"}
    assert answer.json["model_id"] == MODEL
    assert answer.headers["location"] == f"{MODELS}/download/{answer.json['task_id']}/status"
    assert api.get(answer.headers["location"]).json["task_id"] == answer.json["task_id"]


def test_the_same_in_flight_is_one_download(api: Api, hub: HubServer) -> None:
    hub.fault(Fault.black_hole(), where="info")
    asked = {"model_id": MODEL, "allow_patterns": ["*.json", "*.safetensors"]}
    first = api.post(f"{MODELS}/download", asked)
    again = api.post(f"{MODELS}/download", {**asked, "allow_patterns": ["*.safetensors", "*.json"]})
    assert (first.status, again.status) == (202, 200)
    assert again.json == first.json
    assert again.headers["location"] == first.headers["location"]
    others = [
        api.download(MODEL),
        api.download(MODEL, revision="other"),
        api.download(MODEL, ignore_patterns=["*.json"]),
    ]
    assert len({first.json["task_id"], *others}) == 4


def test_nobody_has_to_watch(api: Api, hub: HubServer, tmp_path: Path) -> None:
    task_id = api.download(MODEL)
    done = api.wait(task_id, Status.COMPLETED)
    assert (done["progress"], done["phase"], done["error"]) == (100.0, None, None)
    assert done["downloaded_bytes"] == done["total_bytes"] > 1 << 20
    assert done["files_done"] == done["files_total"] > 1
    commit = hub.repo(MODEL).head
    assert done["commit"] == commit.sha
    snapshot = tmp_path / "hf" / "hub" / "models--test-org--Tiny-1B-4bit" / "snapshots" / commit.sha
    for path in commit.files:
        assert (snapshot / path).read_bytes() == hub.content(MODEL, path)


def test_patterns_choose_the_files(api: Api) -> None:
    done = api.wait(api.download(MODEL, allow_patterns=["*.safetensors"]), Status.COMPLETED)
    assert (done["files_total"], done["allow_patterns"]) == (1, ["*.safetensors"])


# --- watching --------------------------------------------------------------------------------------------------------


def test_the_first_event_comes_at_once_while_the_hub_hangs(tmp_path: Path, hub: HubServer) -> None:
    hub.fault(Fault.black_hole(), where="info")
    took = []
    with serving(tmp_path, hub.url, MLX_MANAGER_MAX_DOWNLOADS="8") as api:
        for number in range(5):
            begun = time.monotonic()
            task_id = api.download(MODEL, revision=f"v{number}")
            with api.progress(task_id) as stream:
                first = stream.next()
            took.append(first.at - begun)
            assert (first.status, first.data["total_bytes"], first.data["downloaded_bytes"]) == ("starting", 0, 0)
    # From the request to the event; the machine that runs this may be busy with other things for a moment.
    assert sorted(took)[2] < 0.05, took


def test_while_the_hub_hangs_an_event_each_second_says_what_it_waits_for(api: Api, hub: HubServer) -> None:
    hub.fault(Fault.black_hole(), where="info")
    with api.progress(api.download(MODEL)) as stream:
        told = [stream.next()]
        while told[-1].at < told[0].at + 3.2:
            told.append(stream.next())
    silences = [later.at - earlier.at for earlier, later in itertools.pairwise(told)]
    assert max(silences) < 1.4, "never silent"
    assert len(told) <= 3.2 * 4 + 4, "and never more than four a second"
    waiting = told[-1].data
    assert waiting["phase"] == "listing"
    assert "Asking the Hub" in waiting["message"]
    assert waiting["deadline"] > waiting["since"]


def test_at_the_size_checks_limit_an_estimate_and_then_the_truth(tmp_path: Path, hub: HubServer) -> None:
    hang = hub.fault(Fault.black_hole(), where="info")
    with serving(tmp_path, hub.url, MLX_MANAGER_SIZE_CHECK_S="1") as api, api.progress(api.download(MODEL)) as stream:
        estimated = stream.until(lambda event: event.data["total_bytes"] > 0)[-1].data
        assert (estimated["status"], estimated["total_is_estimate"]) == ("starting", True)
        assert estimated["total_bytes"] == int(1e9 * 4.5 / 8)
        hang.clear()
        known = stream.until(lambda event: event.status == "downloading")[-1].data
        assert (known["total_is_estimate"], known["commit"]) == (False, hub.repo(MODEL).head.sha)
        assert known["total_bytes"] < 2 << 20
        assert stream.until(lambda event: event.status == "completed")


def test_a_stream_tells_the_whole_story_and_closes_with_its_end(api: Api, hub: HubServer) -> None:
    gate = hub.fault(Fault.delay(), where="info")
    task_id = api.download(MODEL)
    with api.progress(task_id) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"].partition(";")[0] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-store"
        assert stream.headers["x-accel-buffering"] == "no"
        gate.clear()
        told = list(stream)
        closed = time.monotonic()
        assert stream.retry == 1000
    states = list(dict.fromkeys(event.status for event in told))
    assert states == ["starting", "downloading", "verifying", "completed"]
    assert told[0].data["total_bytes"] == 0
    assert [event.id for event in told] == sorted({event.id for event in told})
    assert closed - told[-1].at < 0.2, "closed at once"
    assert told[-1].data == api.status(task_id), "the same object"


def test_twenty_watchers_hear_the_same_truth(api: Api, hub: HubServer) -> None:
    gate = hub.fault(Fault.delay(), where="info")
    hub.fault(Fault.rate(1 << 20), where="cdn")
    task_id = api.download(MODEL)
    heard: list[list[Event]] = []

    def watch() -> None:
        with api.progress(task_id) as stream:
            opened.wait()
            heard.append(list(stream))

    opened = threading.Barrier(21)
    watchers = [threading.Thread(target=watch) for _ in range(20)]
    for watcher in watchers:
        watcher.start()
    opened.wait()
    gate.clear()
    for watcher in watchers:
        watcher.join()
    assert len(heard) == 20
    by_id: dict[int, Event] = {}
    for events in heard:
        assert events[-1].data == api.status(task_id)
        assert events[0].data["status"] == "starting"
        for event in events:
            assert by_id.setdefault(event.id, event) == event
    changes = [[event.id for event in events if _is_change(event)] for events in heard]
    assert all(each == changes[0] for each in changes)


def _is_change(event: Event) -> bool:
    """One that every watcher must hear of: the phase began with it, so its message's time is new."""
    return event.status in ("completed", "verifying") or event.data["phase"] == "connecting"


def test_what_a_watcher_missed_it_gets_when_it_comes_back(api: Api, hub: HubServer) -> None:
    gate = hub.fault(Fault.delay(), where="info")
    slow = hub.fault(Fault.stall(after=64 << 10), where="cdn")
    task_id = api.download(MODEL)
    with api.progress(task_id) as stream, api.progress(task_id) as faithful:
        last = stream.until(lambda event: event.data["phase"] == "listing")[-1]
        stream.close()
        gate.clear()
        whole = faithful.until(lambda event: event.data["phase"] == "stalled")
        missed = [event for event in whole if event.id > last.id]
        with api.progress(task_id, last.id) as back:
            got = back.until(lambda event: event.id >= missed[-1].id)
        assert [event.id for event in got] == sorted({event.id for event in got})
        assert all(event.id > last.id for event in got)
        states = [event for event in missed if _is_state_change(event, whole)]
        assert [event for event in got if event in states] == states, "every change of state"
        assert len([event for event in got if event not in states]) <= 1, "and of the ticks the newest"
        slow.clear()
        api.wait(task_id, Status.COMPLETED)


def _is_state_change(event: Event, whole: list[Event]) -> bool:
    at = whole.index(event)
    before = whole[at - 1].data
    return any(before[name] != event.data[name] for name in ("status", "phase", "commit", "total_bytes", "error"))


def test_a_last_event_id_that_is_none_of_ours_gets_everything(api: Api, hub: HubServer) -> None:
    hub.fault(Fault.black_hole(), where="info")
    task_id = api.download(MODEL)
    for strange in ("999999999999", "abc", "-1", "1" * 400):
        with api.progress(task_id, strange) as stream:
            assert stream.next().status == "starting"


def test_a_finished_download_is_told_once_and_then_no_more(api: Api) -> None:
    task_id = api.download(MODEL)
    with api.progress(task_id) as stream:
        story = list(stream)
    last = story[-1]
    with api.progress(task_id) as stream:
        assert list(stream) == [last]
    with api.progress(task_id, story[0].id) as stream:
        rest = list(stream)
        assert rest[-1] == last
        assert [event.id for event in rest] == sorted({event.id for event in rest})
        assert rest[0].id > story[0].id
    for known in (last.id, last.id + 1):
        answer = api.get(f"{MODELS}/download/{task_id}/progress", **{"Last-Event-ID": str(known)})
        assert (answer.status, answer.body) == (204, b"")


def test_the_same_after_a_restart(tmp_path: Path, hub: HubServer) -> None:
    with serving(tmp_path, hub.url) as api:
        task_id = api.download(MODEL)
        with api.progress(task_id) as stream:
            last = list(stream)[-1]
    with serving(tmp_path, hub.url) as api:
        with api.progress(task_id) as stream:
            (told,) = list(stream)
        assert told.id == last.id
        assert told.data["status"] == "completed"
        assert told.data == api.status(task_id)
        with api.progress(task_id, last.id - 1) as stream:
            assert list(stream) == [told]
        assert api.get(f"{MODELS}/download/{task_id}/progress", **{"Last-Event-ID": str(last.id)}).status == 204


def test_watching_changes_nothing(api: Api, hub: HubServer) -> None:
    slow = hub.fault(Fault.rate(1 << 20, shared=True), where="cdn")
    task_id = api.download(MODEL)
    with api.progress(task_id) as stream:
        before = stream.until(lambda event: event.data["downloaded_bytes"] > 0)[-1]
    for _ in range(10):
        with api.progress(task_id) as stream:
            stream.next()
    assert api.status(task_id)["attempt"] == before.data["attempt"] == 1
    slow.clear()
    assert api.wait(task_id, Status.COMPLETED)["attempt"] == 1


def test_a_failure_is_told_with_its_code_and_the_next_step(api: Api) -> None:
    task_id = api.download("test-org/missing")
    with api.progress(task_id) as stream:
        last = list(stream)[-1].data
    assert (last["status"], last["error_code"]) == ("failed", "model_not_found")
    assert "test-org/missing" in last["error"]
    assert last["advice"]
    assert last == api.status(task_id)


def test_files_are_told_on_request(api: Api, hub: HubServer) -> None:
    slow = hub.fault(Fault.stall(after=64 << 10), where="cdn")
    task_id = api.download(MODEL)
    with api.progress(task_id) as stream:
        stream.until(lambda event: event.data["downloaded_bytes"] > 64 << 10)
        assert "files" not in api.status(task_id)
        files = api.get(f"{MODELS}/download/{task_id}/status?files=true").json["files"]
    assert {file["path"] for file in files} == set(hub.repo(MODEL).head.files)
    (weights,) = (file for file in files if file["path"] == "model.safetensors")
    assert weights["state"] == "transferring"
    assert 0 < weights["done_bytes"] < weights["size"]
    slow.clear()


# --- the list -------------------------------------------------------------------------------------------------------


def test_the_list_has_every_download_newest_first_in_pages(api: Api, hub: HubServer) -> None:
    hub.fault(Fault.black_hole(), where="info", repo="test-org/hangs")
    done = api.download(MODEL)
    api.wait(done, Status.COMPLETED)
    failed = api.download("test-org/missing")
    api.wait(failed, Status.FAILED)
    hangs = api.download("test-org/hangs")
    path = f"{MODELS}/downloads"
    whole = api.get(path).json
    assert [one["task_id"] for one in whole["downloads"]] == [hangs, failed, done]
    assert whole["next_cursor"] is None
    assert whole["downloads"][2] == api.status(done)
    paged, cursor = [], ""
    while True:
        page = api.get(f"{path}?limit=1{cursor}").json
        paged += [one["task_id"] for one in page["downloads"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert paged == [hangs, failed, done]
    chosen = api.get(f"{path}?state=failed&state=completed").json["downloads"]
    assert [one["task_id"] for one in chosen] == [failed, done]
    assert api.get(f"{path}?state=paused").json == {"downloads": [], "next_cursor": None}


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def any_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One server for all that are refused before the Hub is asked."""
    with ServerProcess(tmp_path_factory.mktemp("home"), DEAD_HUB) as server:
        yield server.api()


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ({}, "invalid_request", "body.model_id"),
        ({"model_id": 7}, "invalid_request", "body.model_id"),
        ({"model_id": None}, "invalid_request", "body.model_id"),
        ([], "invalid_request", "body"),
        ({"model_id": MODEL, "priority": 101}, "invalid_request", "body.priority"),
        ({"model_id": MODEL, "priority": "5"}, "invalid_request", "body.priority"),
        ({"model_id": MODEL, "priority": True}, "invalid_request", "body.priority"),
        ({"model_id": MODEL, "allow_patterns": "*.json"}, "invalid_request", "body.allow_patterns"),
        ({"model_id": MODEL, "alow_patterns": ["*.json"]}, "invalid_request", "body.alow_patterns"),
        ({"model_id": ""}, "invalid_model_id", "empty"),
        ({"model_id": "no-slash"}, "invalid_model_id", "ORG/MODEL"),
        ({"model_id": "a/b/c"}, "invalid_model_id", "ORG/MODEL"),
        ({"model_id": "../../etc/passwd"}, "invalid_model_id", "ORG/MODEL"),
        ({"model_id": "org/" + "x" * 200}, "invalid_model_id", "characters"),
        ({"model_id": "org/na me"}, "invalid_model_id", "name"),
        ({"model_id": "org/модель"}, "invalid_model_id", "name"),
        ({"model_id": MODEL, "revision": ""}, "invalid_revision", "branch"),
        ({"model_id": MODEL, "revision": "../main"}, "invalid_revision", "branch"),
        ({"model_id": MODEL, "allow_patterns": [""]}, "invalid_patterns", "allow_patterns"),
        # Once such a one was accepted, neither the list nor a stream could be written any more.
        ({"model_id": MODEL, "allow_patterns": ["\ud800"]}, "invalid_patterns", "allow_patterns"),
        ({"model_id": MODEL, "ignore_patterns": ["x"] * 101}, "invalid_patterns", "ignore_patterns"),
    ],
)
def test_a_wrong_request_is_refused_with_the_reason(any_api: Api, body: object, code: str, said: str) -> None:
    answer = any_api.post(f"{MODELS}/download", body)
    assert answer.status == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json["code"], answer.json["status"]) == (code, 422)
    assert said in answer.json["detail"]
    assert answer.json["advice"]
    assert any_api.get(f"{MODELS}/downloads").json["downloads"] == [], "nothing was begun"


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b'{"model_id": "\xff"}', b'{"model_id": "\\ud800/x"}'])
def test_a_body_that_is_no_json_is_refused(any_api: Api, raw: bytes) -> None:
    answer = any_api.call("POST", f"{MODELS}/download", raw=raw)
    assert (answer.status, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json["code"] in ("invalid_request", "invalid_model_id")


def test_an_unknown_download_is_404_everywhere(any_api: Api) -> None:
    unknown = f"{MODELS}/download/0123456789abcdef"
    calls = [("GET", "status"), ("GET", "progress"), ("POST", "pause"), ("POST", "resume"), ("POST", "cancel")]
    for method, name in calls:
        answer = any_api.call(method, f"{unknown}/{name}")
        assert (answer.status, answer.json["code"]) == (404, "download_not_found"), name
        assert "0123456789abcdef" in answer.json["detail"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("state=lost", "state"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=x", "limit"),
        ("cursor=x", "cursor"),
    ],
)
def test_a_wrong_question_for_the_list_is_refused(any_api: Api, query: str, said: str) -> None:
    answer = any_api.get(f"{MODELS}/downloads?{query}")
    assert (answer.status, answer.json["code"]) == (422, "invalid_request")
    assert said in answer.json["detail"]


def test_models_on_this_machine(api: Api, hub: HubServer) -> None:
    assert api.get(f"{MODELS}/local").json["models"] == []
    api.wait(api.download(MODEL), Status.COMPLETED)
    (model,) = api.get(f"{MODELS}/local").json["models"]
    assert model["model_id"] == MODEL
