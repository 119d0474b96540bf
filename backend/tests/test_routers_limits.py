"""Caps over the API: they hold for bytes that flow already, and are told back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_client import MODELS, Api, serving
from fakes.hub_server import Fault, HubServer, mlx_model_files
from mlx_manager.domain.states import Status

MODEL = "test-org/Tiny-1B-4bit"
OTHER = "test-org/Other-1B-4bit"
RATE = 2 << 20
LEAST = 1024


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(MODEL, mlx_model_files(24 << 20))
        yield hub


@pytest.fixture
def api(tmp_path: Path, hub: HubServer) -> Iterator[Api]:
    with serving(tmp_path, hub.url) as api:
        yield api


def test_a_cap_on_all_holds_and_is_lifted_while_bytes_flow(api: Api) -> None:
    assert api.call("PUT", "/api/limits", {"bandwidth_bps": RATE}).json == {"bandwidth_bps": RATE}
    assert api.get("/api/limits").json == {"bandwidth_bps": RATE}
    begun = time.monotonic()
    task_id = api.download(MODEL)
    with api.progress(task_id) as stream:
        event = stream.until(lambda event: event.data["downloaded_bytes"] >= RATE)[-1]
    assert event.data["downloaded_bytes"] <= RATE * (event.at - begun + 0.5)
    own = f"{MODELS}/download/{task_id}/limit"
    assert api.call("PUT", own, {"bandwidth_bps": 10**12}).status == 200
    assert api.call("PUT", "/api/limits", {"bandwidth_bps": None}).status == 200
    api.wait(task_id, Status.COMPLETED)
    assert api.get(own).json == {"bandwidth_bps": None}, "nothing is kept of it"


def test_a_download_has_a_cap_of_its_own(api: Api) -> None:
    assert api.call("PUT", "/api/limits", {"bandwidth_bps": RATE}).status == 200
    task_id = api.download(MODEL)
    path = f"{MODELS}/download/{task_id}/limit"
    assert api.get(path).json == {"bandwidth_bps": None}
    assert api.call("PUT", path, {"bandwidth_bps": 5000}).json == {"bandwidth_bps": 5000}
    assert api.get(path).json == {"bandwidth_bps": 5000}
    assert api.get("/api/limits").json == {"bandwidth_bps": RATE}
    api.move(task_id, "cancel")
    assert api.get(path).json == {"bandwidth_bps": None}, "nothing is kept of it"
    answer = api.call("PUT", path, {"bandwidth_bps": 5000})
    assert (answer.status, answer.json["code"]) == (409, "move_not_allowed")


def test_a_cap_of_its_own_holds_for_that_download_alone(api: Api, hub: HubServer) -> None:
    """One that may have next to nothing stands while another runs through, and goes on when its cap is lifted."""
    hub.add_model(OTHER, mlx_model_files(24 << 20, seed=9))
    held = hub.fault(Fault.delay(), "cdn")
    capped = api.download(MODEL)
    own = f"{MODELS}/download/{capped}/limit"
    held.wait_hit()
    assert api.call("PUT", own, {"bandwidth_bps": LEAST}).status == 200
    held.clear()
    api.wait(api.download(OTHER), Status.COMPLETED)
    # Only what its connections had read when they were told to wait, each half a megabyte at most.
    assert api.status(capped)["downloaded_bytes"] < 12 << 20
    assert api.call("PUT", own, {"bandwidth_bps": None}).status == 200
    api.wait(capped, Status.COMPLETED)


@pytest.mark.parametrize("body", [{}, {"bandwidth_bps": 0}, {"bandwidth_bps": "fast"}, {"bandwidth_bps": 5000, "x": 1}])
def test_a_cap_that_is_none_is_refused(api: Api, body: dict[str, object]) -> None:
    answer = api.call("PUT", "/api/limits", body)
    assert (answer.status, answer.json["code"]) == (422, "invalid_request")


def test_a_download_that_is_not_there_has_no_cap(api: Api) -> None:
    for answer in (
        api.get(f"{MODELS}/download/nope/limit"),
        api.call("PUT", f"{MODELS}/download/nope/limit", {"bandwidth_bps": 5000}),
    ):
        assert (answer.status, answer.json["code"]) == (404, "download_not_found")
