"""Before the download: the plan, the preset, the account and the first models, over real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from api_client import DEAD_HUB, MODELS, Api, ServerProcess, serving
from discovering import LLAMA, add, quantised
from fakes.hub_server import TOKEN, Blob, Fault, HubServer, mlx_model_files
from mlx_manager.domain.presets import Preset, ignored_by, is_chosen
from mlx_manager.domain.states import Status

MODEL = "test-org/Tiny-1B-4bit"
HELD = "test-org/Held-4bit"
SIZE = 4 << 20


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        twins = {"original/consolidated.00.pth": b"x" * 5000, "tiny-Q4.gguf": b"x" * 3000, "logo.png": b"x" * 700}
        hub.add_model(MODEL, {**mlx_model_files(2 << 20), **twins})
        hub.add_model(HELD, {"config.json": "{}", "model.safetensors": Blob(SIZE)})
        add(hub, "mlx-community/Qwen3-0.6B-4bit", config={**LLAMA, "model_type": "qwen3"}, bits=4)
        yield hub


@pytest.fixture
def api(hub: HubServer, tmp_path: Path) -> Iterator[Api]:
    with serving(tmp_path, hub.url) as api:
        yield api


def test_a_plan_is_what_the_download_then_does(api: Api, hub: HubServer) -> None:
    plan = api.post(f"{MODELS}/plan", {"model_id": MODEL}).json
    assert {file["path"] for file in plan["left_out"]} == {"original/consolidated.00.pth", "tiny-Q4.gguf", "logo.png"}
    assert {file["action"] for file in plan["files"]} == {"fetch"}
    assert (plan["here_bytes"], plan["fetch_bytes"], plan["rate_bps"]) == (0, plan["total_bytes"], None)
    assert plan["disk_after_bytes"] == plan["disk_free_bytes"] - plan["fetch_bytes"]
    assert (plan["enough_room"], plan["note"]) == (True, None)
    assert api.get(f"{MODELS}/downloads").json["downloads"] == [], "a plan starts nothing"
    done = api.wait(api.download(MODEL, preset="mlx"), Status.COMPLETED)
    assert (done["total_bytes"], done["received_bytes"]) == (plan["total_bytes"], plan["fetch_bytes"])
    plan = api.post(f"{MODELS}/plan", {"model_id": MODEL, "preset": "mlx"}).json
    assert (plan["fetch_bytes"], plan["eta_s"], plan["note"]) == (0, 0.0, "All of it is here already.")
    assert plan["rate_bps"] > 0
    assert {file["action"] for file in plan["files"]} == {"here"}
    everything = api.post(f"{MODELS}/plan", {"model_id": MODEL, "preset": "all"}).json
    assert (everything["fetch_bytes"], everything["left_out"]) == (8700, [])
    some = api.post(f"{MODELS}/plan", {"model_id": MODEL, "allow_patterns": ["*.gguf"]}).json
    assert [file["path"] for file in some["files"]] == ["tiny-Q4.gguf"], (
        "patterns go before a preset that was not named"
    )


def test_a_part_counts_what_is_durable_and_the_room_that_it_owns(api: Api, hub: HubServer, tmp_path: Path) -> None:
    held = hub.fault(Fault.stall(after=1 << 20), where="cdn", repo=HELD)
    try:
        task_id = api.download(HELD)
        held.wait_hit()
        with api.progress(task_id) as progress:
            # Sent is not received yet.
            progress.until(lambda event: event.data["downloaded_bytes"] > 2)
        assert api.move(task_id, "pause").json["status"] == "paused"
        status = api.status(task_id)
        plan = api.post(f"{MODELS}/plan", {"model_id": HELD, "preset": "all"}).json
        weights = next(file for file in plan["files"] if file["path"] == "model.safetensors")
        assert weights["action"] == "resume"
        assert 0 < weights["here_bytes"] < SIZE
        # The two bytes of the config may lie in no file of the cache yet: small ones are published together.
        assert status["downloaded_bytes"] - plan["here_bytes"] in (0, 2)
        part = next((tmp_path / "hf").rglob("*.part"))
        # The part owns its room already, where the disk gives it beforehand; the two bytes of the config may come yet.
        assert plan["queue_bytes"] - max(0, SIZE - part.stat().st_blocks * 512) in (0, 2)
        # It is in flight itself: that counts once, and what its part owns is out of the free room already.
        assert plan["disk_free_bytes"] - plan["disk_after_bytes"] == plan["queue_bytes"]
        api.move(task_id, "cancel")
    finally:
        held.clear()


def test_a_file_in_place_of_a_link_is_fetched_again_and_the_plan_says_so(api: Api, tmp_path: Path) -> None:
    """As a copy of the cache has it that was made without its links."""
    api.wait(api.download(MODEL, preset="mlx"), Status.COMPLETED)
    link = next((tmp_path / "hf").rglob("snapshots/*/model.safetensors"))
    size = link.stat().st_size
    link.resolve().replace(link)
    plan = api.post(f"{MODELS}/plan", {"model_id": MODEL, "preset": "mlx"}).json
    assert (plan["fetch_bytes"], plan["queue_bytes"]) == (size, 0)
    assert plan["disk_free_bytes"] - plan["disk_after_bytes"] == size
    assert {file["path"] for file in plan["files"] if file["action"] == "fetch"} == {link.name}
    done = api.wait(api.download(MODEL, preset="mlx"), Status.COMPLETED)
    assert done["received_bytes"] == size
    assert link.is_symlink()


def test_the_room_that_the_queue_still_takes(api: Api, hub: HubServer, tmp_path: Path) -> None:
    """What two downloads share counts once, and what they already own of the disk not at all."""

    def queue() -> int:
        cache = api.get("/api/system").json["cache"]
        assert cache["error"] is None
        return int(cache["queue_bytes"])

    assert queue() == 0
    held = hub.fault(Fault.stall(after=1 << 20), where="cdn", repo=HELD)
    try:
        tasks = [api.download(HELD), api.download(HELD, allow_patterns=["*.safetensors"])]
        held.wait_hit()
        for task in tasks:
            api.wait(task, Status.DOWNLOADING)
            api.move(task, "pause")
        for part in (tmp_path / "hf").rglob("*.part"):
            part.unlink()
        assert queue() - SIZE in (0, 2)
        api.move(tasks[0], "cancel")
        assert queue() == SIZE
        api.move(tasks[1], "cancel")
        assert queue() == 0
    finally:
        held.clear()


def test_the_preset_leaves_out_what_mlx_cannot_read() -> None:
    kept = [
        *("model.safetensors", "model-00001-of-00002.safetensors", "weights.npz", "config.json", "tokenizer.model"),
        *("chat_template.jinja", "README.md", "vocab.txt", "modeling_x.py", "adapters/adapters.safetensors"),
    ]
    left = [
        *("original/params.json", "consolidated.safetensors", "a.gguf", "sub/b.gguf", "pytorch_model.bin", "x.pth"),
        *("onnx/model.onnx", "tf_model.h5", "flax_model.msgpack", "rust_model.ot", "pic.png"),
    ]
    assert [path for path in kept + left if is_chosen(path)] == kept
    assert ignored_by(Preset.ALL) is None


def test_the_first_models_run_here_and_come_without_the_hub(hub: HubServer, tmp_path: Path) -> None:
    with serving(tmp_path / "a", DEAD_HUB) as api:
        models = api.get("/api/starters").json["models"]
    assert 1 <= len(models) <= 3
    assert all(one["fit"]["verdict"] == "fits" or len(models) == 1 for one in models)
    sizes = [one["size_bytes"] for one in models]
    assert sizes == sorted(sizes)
    # A Hub that has only one of them.
    with serving(tmp_path / "b", hub.url) as api:
        assert [one["model_id"] for one in api.get("/api/starters").json["models"]] == ["mlx-community/Qwen3-0.6B-4bit"]


def test_first_models_of_a_hub_that_has_none_of_ours(tmp_path: Path) -> None:
    with HubServer() as hub:
        add(hub, "corp/Small-1B-4bit", counts=quantised(10**9, 4), bits=4)
        with serving(tmp_path, hub.url) as api:
            assert [one["model_id"] for one in api.get("/api/starters").json["models"]] == ["corp/Small-1B-4bit"]


def test_a_token_is_tested_kept_and_forgotten(hub: HubServer, tmp_path: Path) -> None:
    kept = tmp_path / "hf" / "token"
    with ServerProcess(tmp_path, hub.url) as server:
        api = server.api()
        assert api.get("/api/hub/account").json == dict.fromkeys(
            ("name", "kind", "token_source", "can_read_gated", "error", "advice")
        ) | {"logged_in": False}
        for wrong in ("hf_WrongWrongWrong", "", "two words", "ümlaut", "x" * 600):
            refused = api.call("PUT", "/api/hub/token", {"token": wrong})
            assert (refused.status, refused.json["code"]) == (422, "token_rejected"), wrong
            assert "WrongWrong" not in refused.body.decode()
        assert not kept.exists()
        answer = api.call("PUT", "/api/hub/token", {"token": f" {TOKEN}\n"})
        assert TOKEN not in answer.body.decode()
        account = {"logged_in": True, "name": "tester", "kind": "user", "token_source": "file", "can_read_gated": True}
        assert answer.json == account | {"error": None, "advice": None} == api.get("/api/hub/account").json
        assert (kept.read_text(), kept.stat().st_mode & 0o777) == (TOKEN, 0o600)
        assert not api.call("DELETE", "/api/hub/token").json["logged_in"]
        assert not kept.exists()
        # A token that went bad later, and a Hub that does not answer.
        kept.write_text("hf_OldOldOldOld")
        bad = api.get("/api/hub/account").json
        assert (bad["logged_in"], bad["token_source"]) == (False, "file")
        assert "does not accept the token" in bad["error"] and bad["advice"]
        broken = hub.fault(Fault.status(503), "whoami")
        assert "503" in api.get("/api/hub/account").json["error"]
        broken.clear()
        assert TOKEN not in (tmp_path / "data" / "logs" / "mlx-manager.log").read_text()


def test_a_token_of_the_environment_is_told_as_such(hub: HubServer, tmp_path: Path) -> None:
    with ServerProcess(tmp_path, hub.url, HF_TOKEN=TOKEN) as server:
        assert server.api().get("/api/hub/account").json["token_source"] == "HF_TOKEN"
        assert server.api().call("DELETE", "/api/hub/token").json["logged_in"], "it is not ours to unset"
