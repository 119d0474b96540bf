"""/api/models/local: what is here, and how it goes away, over real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from api_client import MODELS, Api, serving
from fakes.hub_server import Blob, Fault, HubServer, mlx_model_files
from mlx_manager.domain.states import Status

TINY = "test-org/Tiny-1B-4bit"
HELD = "test-org/Held-4bit"


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(TINY, mlx_model_files(1 << 18))
        hub.add_model(HELD, {"config.json": "{}", "model.safetensors": Blob(4 << 20)})
        hub.fault(Fault.stall(after=1 << 20), where="cdn", repo=HELD)
        yield hub


@pytest.fixture
def api(hub: HubServer, tmp_path: Path) -> Iterator[Api]:
    with serving(tmp_path, hub.url) as api:
        yield api


def test_a_model_comes_and_goes(api: Api, hub: HubServer) -> None:
    assert api.get(f"{MODELS}/local").json["models"] == []
    task_id = api.download(TINY)
    api.wait(task_id, Status.COMPLETED)
    library = api.get(f"{MODELS}/local").json
    (model,) = library["models"]
    assert (model["model_id"], model["complete"], model["size_bytes"]) == (TINY, True, library["size_bytes"])
    commit = hub.repo(TINY).head.sha
    plan = api.get(f"{MODELS}/local/{TINY}/delete").json
    assert (plan["revisions"], plan["freed_bytes"], plan["blocked"]) == ([commit], model["size_bytes"], None)
    assert api.get(f"{MODELS}/local").json["models"], "a plan removes nothing"
    assert api.call("DELETE", f"{MODELS}/local/{TINY}?revision={commit}").json["whole_model"]
    assert api.get(f"{MODELS}/local").json["models"] == []
    gone = api.call("DELETE", f"{MODELS}/local/{TINY}")
    assert (gone.status, gone.json["code"]) == (404, "not_in_cache")
    # And again: what was deleted can be fetched anew.
    api.wait(api.download(TINY), Status.COMPLETED)
    assert api.get(f"{MODELS}/local").json["models"][0]["complete"]


def test_what_is_being_downloaded_is_not_deleted(api: Api, hub: HubServer) -> None:
    hub.clear_log()
    task_id = api.download(HELD)
    hub.wait_sent(1 << 19, "model.safetensors")
    for verb, state in ((None, "downloading"), ("pause", "paused")):
        if verb:
            api.move(task_id, verb)
        plan = api.get(f"{MODELS}/local/{HELD}/delete").json
        assert state in plan["blocked"]
        for query in ("", "?leftovers=true"):
            refused = api.call("DELETE", f"{MODELS}/local/{HELD}{query}")
            assert (refused.status, refused.json["code"]) == (409, "model_in_use")
            assert "cancel it first" in refused.json["advice"]
    assert api.status(task_id)["status"] == "paused"
    assert api.move(task_id, "cancel").status == 200
    assert api.call("DELETE", f"{MODELS}/local/{HELD}").status == 404


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("nobody/nothing", 404, "not_in_cache"),
        ("nobody/..%2F..%2Fdata", 404, "not_in_cache"),
        ("%F0%9F%A4%97/%E2%80%AE", 404, "not_in_cache"),
        ("x" * 300, 404, "not_in_cache"),
        (f"{TINY}?revision=main&leftovers=true", 422, "invalid_request"),
        (f"{TINY}?revision=..", 422, "invalid_revision"),
    ],
)
def test_what_cannot_be_deleted(api: Api, path: str, status: int, code: str) -> None:
    answer = api.call("DELETE", f"{MODELS}/local/{path}")
    assert (answer.status, answer.json["code"]) == (status, code)
    assert answer.json["advice"]
