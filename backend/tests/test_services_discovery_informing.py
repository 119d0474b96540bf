"""One model in full, over a real socket: from the Hub, from what it said before, and from the disk alone."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from discovering import LLAMA, MAC, add, header_of, quantised
from fakes.hub_server import TOKEN, Fault, HubServer
from hub_cache import fetch, plan_of
from mlx_manager.errors import HubBadAnswer, HubError, HubServerError, ModelNotFound, RevisionNotFound
from mlx_manager.services.card import render_card
from mlx_manager.services.discovery import Informer, Searcher
from mlx_manager.services.hf_cache import HfCache
from mlx_manager.services.hf_client import HubClient
from mlx_manager.services.hf_info import HubInfo
from mlx_manager.services.hf_search import HubSearch
from mlx_manager.services.hub_memory import HubMemory

B = 10**9
MODEL = "mlx-community/Llama-8B-4bit"
CARD = "license: apache-2.0\nbase_model: meta/Llama-8B\nlicense_link: https://hub.example/licence"


@pytest.fixture(autouse=True)
def no_connection_left() -> Iterator[None]:
    yield
    huggingface_hub.close_session()


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        add(hub, MODEL, counts=quantised(8 * B, 4), bits=4, card=CARD, template="{{ tools }}",
            files={"original/x.pth": "x", "twin.gguf": "x"})  # fmt: skip
        hub.tag(MODEL, "v1")
        hub.commit(MODEL, {"README.md": "# Old"}, branch="old")
        add(hub, "mlx-community/Llama-8B-8bit", counts=quantised(8 * B, 8), bits=8, card=CARD)
        add(hub, "mlx-community/Llama-8B-bf16", counts={"BF16": 8 * B}, card=CARD)
        yield hub


@dataclass
class Room:
    """An informer with all its neighbours, and a clock and a token in the test's hands."""

    hub: HubServer
    folder: Path
    token: str | None = None
    now: list[float] = field(default_factory=lambda: [1_000_000.0])

    @property
    def cache(self) -> HfCache:
        return HfCache(self.folder / "cache")

    def informer(self) -> Informer:
        async def here() -> dict[str, str]:
            return {}

        client = HubClient(self.hub.url, token=lambda: self.token, timeout_s=5)
        memory = HubMemory(self.folder / "memory", clock=lambda: self.now[0])
        searcher = Searcher(HubSearch(client).page, memory, MAC, here, clock=lambda: self.now[0])
        facts = HubInfo(client).facts
        return Informer(facts, memory, self.cache, searcher, MAC, render_card, self.hub.url, clock=lambda: self.now[0])

    async def info(self, model_id: str = MODEL, **more: Any) -> dict[str, Any]:
        return await self.informer().info(model_id, **more)


@pytest.fixture
def room(hub: HubServer, tmp_path: Path) -> Room:
    return Room(hub, tmp_path)


async def test_everything_about_a_model(room: Room, hub: HubServer) -> None:
    hub.wait_idle()
    hub.clear_log()
    info = await room.info(context=8192)
    assert len(hub.requests()) <= 7
    head = hub.repo(MODEL).head
    assert (info["commit"], info["hub_url"], info["author"]) == (head.sha, f"{hub.url}/{MODEL}", "mlx-community")
    assert (info["params"], info["quant"]["label"], info["context_length"]) == (8 * B, "4-bit", 131072)
    assert (info["architecture"], info["family"], info["capabilities"]) == ("LlamaForCausalLM", "Llama", ["tools"])
    assert (info["licence"], info["licence_url"]) == ("apache-2.0", "https://hub.example/licence")
    assert (info["gated"], info["access"], info["access_url"]) == (False, "open", None)
    assert info["size_bytes"] == sum(file.content.size for file in head.files.values())
    chosen = {file["path"]: file["chosen"] for file in info["files"]}
    assert {path for path, one in chosen.items() if not one} == {"original/x.pth", "twin.gguf"}
    assert not any(file["here"] for file in info["files"])
    assert {(one["name"], one["kind"]) for one in info["revisions"]} == {
        ("main", "branch"),
        ("old", "branch"),
        ("v1", "tag"),
    }
    assert f"<h1>{MODEL}</h1>" in info["card_html"]
    assert (info["fit"]["context"], info["fit"]["kv_bytes"]) == (8192, 2 * 32 * 8 * 128 * 2 * 8192)
    assert [one["model_id"].rpartition("-")[2] for one in info["variants"]] == ["bf16", "8bit"]
    assert [one["fit"]["verdict"] for one in info["variants"]] == ["tight", "fits"]
    assert (info["local"], info["stale"], info["note"], info["age_s"]) == (None, False, None, 0)


async def test_what_is_here_is_marked(room: Room, hub: HubServer) -> None:
    fetch(hub, room.cache, plan_of(hub, MODEL, ignore_patterns=("*.pth",)))
    info = await room.info()
    assert info["local"]["commit"] == info["commit"]
    assert {file["path"] for file in info["files"] if not file["here"]} == {"original/x.pth"}


async def test_weights_are_exact_whoever_tells_them(tmp_path: Path) -> None:
    size = 3_000_000
    head = json.dumps({"a": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    real = struct.pack("<Q", len(head)) + head + bytes(size)
    many = {f"t{n}": {"dtype": "F16", "shape": [2], "data_offsets": [4 * n, 4 * n + 4]} for n in range(4000)}
    long = json.dumps(many).encode()
    lie = {"safetensors": {"parameters": {"F32": 10**12}}}
    metas: dict[str, dict[str, Any]] = {"counted": {}, "uncounted": {"safetensors": None}, "lying": lie}
    with HubServer() as hub:
        for name, meta in metas.items():
            hub.add_model(f"org/{name}", {"model.safetensors": real, "config.json": "{}"}, **meta)
        hub.add_model(
            "org/long", {"model.safetensors": struct.pack("<Q", len(long)) + long + bytes(16_000)}, safetensors=None
        )
        shards = {f"model-0000{n}-of-00005.safetensors": real for n in range(1, 6)}
        index = {"metadata": {"total_size": 5 * size}, "weight_map": {}}
        hub.add_model("org/sharded", {**shards, "model.safetensors.index.json": json.dumps(index)}, safetensors=None)
        index["metadata"] = {"total_size": 10**12}
        hub.add_model("org/badindex", {**shards, "model.safetensors.index.json": json.dumps(index)}, safetensors=None)
        hub.add_model("org/broken", {"model.safetensors": b"\xff" * 5000}, safetensors=None)
        room = Room(hub, tmp_path)
        found = {}
        for name in ("counted", "uncounted", "lying", "long", "sharded", "badindex", "broken"):
            info = await room.info(f"org/{name}")
            found[name] = (info["weights_bytes"], info["fit"]["is_estimate"])
        files = sum(map(len, shards.values()))
        assert {name: size for name, (size, _) in found.items()} == {
            "counted": size, "uncounted": size, "lying": size, "long": 16_000, "sharded": 5 * size,
            "badindex": files, "broken": 5000,
        }  # fmt: skip
        # Of all the bytes of the weights nothing but headers was fetched.
        assert hub.bytes_sent("model.safetensors") < 7 * 110_000 + len(long)


@pytest.mark.parametrize(
    ("config", "note"),
    [(None, "missing"), ("no JSON", "text"), ("[1]", "a list"), ('{"num_hidden_layers": -3, "head_dim": "x"}', "lies"),
     ('{"a": "' + "x" * 3_000_000 + '"}', "huge"), ("[" * 100_000, "deep")],
)  # fmt: skip
async def test_a_config_that_is_no_help(tmp_path: Path, config: str | None, note: str) -> None:
    with HubServer() as hub:
        files: dict[str, Any] = {"model.safetensors": header_of(quantised(8 * B, 4))}
        if config is not None:
            files["config.json"] = config
        hub.add_model("org/Odd-8B-4bit", files)
        info = await Room(hub, tmp_path).info("org/Odd-8B-4bit")
        assert (info["context_length"], info["card_html"]) == (None, None)
        assert info["card_note"] == "This model has no card."
        assert (info["fit"]["verdict"], info["fit"]["is_estimate"]) == ("fits", True)


async def test_gated_models_say_how_to_get_in(tmp_path: Path) -> None:
    with HubServer() as hub:
        add(hub, "org/gated", counts=quantised(8 * B, 4), bits=4, gated=True)
        room = Room(hub, tmp_path)
        seen = []
        for token in (None, TOKEN):
            room.token = token
            room.now[0] += 100
            info = await room.info("org/gated")
            seen.append(info["access"])
            assert (info["gated"], info["access_url"]) == ("manual", f"{hub.url}/org/gated")
            assert info["card_html"] is None and "access" in info["card_note"]
            assert info["fit"]["verdict"] == "fits", "known without the files"
        hub.grant("org/gated")
        room.now[0] += 100
        seen.append((await room.info("org/gated"))["access"])
        assert seen == ["login", "ask", "granted"]


async def test_what_the_hub_said_is_kept_and_what_it_took_back_is_not(
    room: Room, hub: HubServer, tmp_path: Path
) -> None:
    await room.info()
    hub.wait_idle()
    hub.clear_log()
    room.now[0] += 59
    assert (await room.info())["age_s"] == 59
    assert hub.requests() == []
    room.now[0] += 3600
    broken = hub.fault(Fault.status(500), "hub")
    try:
        info = await room.info()
        assert (info["stale"], info["age_s"]) == (True, 3659)
        assert "error of its own (500). This is what the Hub said before." in info["note"]
        with pytest.raises(HubServerError):
            await room.info("org/never-heard-of")
    finally:
        broken.clear()
    with pytest.raises(ModelNotFound):
        await room.info("org/never-heard-of")
    with pytest.raises(RevisionNotFound):
        await room.info(revision="nowhere")


async def test_a_model_that_only_the_disk_knows(tmp_path: Path) -> None:
    with HubServer() as hub:
        weights = struct.pack("<Q", 2) + b"{}"
        head = json.dumps({"a": {"dtype": "F16", "shape": [500], "data_offsets": [0, 1000]}}).encode()
        weights = struct.pack("<Q", len(head)) + head + bytes(1000)
        config = json.dumps({**LLAMA, "quantization": {"bits": 4, "group_size": 64}})
        hub.add_model("org/mine", {"config.json": config, "model.safetensors": weights, "README.md": "# Mine"})
        room = Room(hub, tmp_path)
        commit = plan_of(hub, "org/mine").commit
        fetch(hub, room.cache, plan_of(hub, "org/mine"))
        hub.delete("org/mine")
        for revision in ("main", commit, "other"):
            info = await room.info("org/mine", revision=revision)
            assert (info["commit"], info["weights_bytes"], info["quant"]["label"]) == (commit, 1000, "4-bit")
            assert (info["stale"], info["local"]["complete"], "<h1>Mine</h1>" in info["card_html"]) == (
                True,
                True,
                True,
            )
            assert "The Hub has no model org/mine" in info["note"] and "disk" in info["note"]
            assert all(file["here"] for file in info["files"])
            assert info["fit"]["kv_bytes"] == 2 * 32 * 8 * 128 * 2 * 4096


async def test_fit_is_cheap(room: Room, hub: HubServer) -> None:
    informer = room.informer()
    first = await informer.fit(MODEL, context=1000)
    hub.wait_idle()
    hub.clear_log()
    fits = [await informer.fit(MODEL, context=context) for context in (4096, 65536, 131072)]
    assert hub.requests() == []
    assert first.kv_bytes is not None and first.kv_bytes < (fits[0].kv_bytes or 0) < (fits[2].kv_bytes or 0)
    assert [str(fit.verdict) for fit in fits] == ["fits", "fits", "no"]


async def test_an_answer_that_is_none(tmp_path: Path) -> None:
    """It was an error of our own."""
    with HubServer() as hub:
        add(hub, "org/odd", sha="no commit")
        with pytest.raises(HubBadAnswer):
            await Room(hub, tmp_path).info("org/odd")


async def test_silence_ends(hub: HubServer, tmp_path: Path) -> None:
    room = Room(hub, tmp_path)
    held = hub.fault(Fault.stall(), "info")
    client = HubClient(hub.url, token=lambda: None, timeout_s=0.2, deadline_s=0.5)
    try:
        async with asyncio.timeout(10):
            with pytest.raises(HubError):
                await HubInfo(client).facts(MODEL, "main")
    finally:
        held.clear()
    room.hub.wait_idle()
