"""A search over a real socket: what is found, with how few questions, and what is left when the Hub is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from discovering import add, find, names, quantised, searcher
from fakes.hub_server import Fault, HubServer
from mlx_manager.domain.machine import Machine
from mlx_manager.domain.search import Place, Sort, Wish
from mlx_manager.errors import HubUnreachable, InvalidRequest

B = 10**9


@pytest.fixture(autouse=True)
def no_connection_left() -> Iterator[None]:
    yield
    huggingface_hub.close_session()


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        add(hub, "mlx-community/Llama-8B-4bit", counts=quantised(8 * B, 4), bits=4, downloads=50, likes=1)
        add(hub, "mlx-community/Llama-8B-8bit", counts=quantised(8 * B, 8), bits=8, downloads=40, likes=2)
        add(hub, "mlx-community/Llama-70B-4bit", counts=quantised(70 * B, 4), bits=4, downloads=30, likes=9)
        qwen = {"model_type": "qwen3_moe", "quantization": {"mode": "mxfp4", "group_size": 32, "bits": 4}}
        add(hub, "mlx-community/Qwen3-30B-mxfp4", config=qwen, downloads=20, template="{% if tools %}<think>")
        add(hub, "mlx-community/Whisper-mlx", config={"model_type": "whisper"}, card="license: mit",
            pipeline_tag="automatic-speech-recognition", downloads=5)  # fmt: skip
        add(hub, "org/Gemma-VL-4bit", config={"model_type": "gemma3"}, gated=True, downloads=3,
            pipeline_tag="image-text-to-text")  # fmt: skip
        add(
            hub,
            "org/Plain",
            config="no JSON at all",
            counts={"BF16": B},
            tags=["pytorch"],
            library_name="x",
            downloads=2,
        )
        yield hub


async def test_everything_that_decides_is_in_one_answer(hub: HubServer, tmp_path: Path) -> None:
    hub.wait_idle()
    hub.clear_log()
    here = {"mlx-community/Llama-8B-4bit": "complete"}
    result = await searcher(hub, tmp_path, here=here).search(Wish(text="8b 4bit"), 30)
    assert len(hub.requests()) == 1
    (hit,) = result.hits
    shown = hit.shown()
    assert (shown["model_id"], shown["author"], shown["local"]) == (next(iter(here)), "mlx-community", "complete")
    assert (shown["params"], shown["quant"]) == (8 * B, {"label": "4-bit", "bits": 4, "mode": "affine"})
    assert (shown["size_bytes"], shown["size_is_estimate"]) == (int(8 * B * 4.5 / 8), False)
    assert (shown["family"], shown["task"], shown["licence"], shown["gated"]) == (
        "Llama",
        "text-generation",
        "apache-2.0",
        False,
    )
    assert shown["fit"]["verdict"] == "fits"
    assert shown["fit"]["weights_bytes"] == shown["size_bytes"]
    assert (result.stale, result.note, result.next_cursor) == (False, None, None)


@pytest.mark.parametrize(
    ("wish", "found"),
    [
        ({"sort": Sort.DOWNLOADS}, ["Llama-8B-4bit", "Llama-8B-8bit", "Llama-70B-4bit", "Qwen3-30B-mxfp4",
                                    "Whisper-mlx", "Gemma-VL-4bit"]),
        ({"sort": Sort.LIKES, "text": "llama"}, ["Llama-70B-4bit", "Llama-8B-8bit", "Llama-8B-4bit"]),
        ({"sort": Sort.SIZE, "text": "llama"}, ["Llama-8B-4bit", "Llama-8B-8bit", "Llama-70B-4bit"]),
        ({"mlx": False, "author": "org", "sort": Sort.DOWNLOADS}, ["Gemma-VL-4bit", "Plain"]),
        ({"quants": ("4",), "family": "llama", "sort": Sort.SIZE}, ["Llama-8B-4bit", "Llama-70B-4bit"]),
        ({"quants": ("mxfp4", "8-bit"), "sort": Sort.DOWNLOADS}, ["Llama-8B-8bit", "Qwen3-30B-mxfp4"]),
        ({"family": "qwen"}, ["Qwen3-30B-mxfp4"]),
        ({"family": "qwen3_moe"}, ["Qwen3-30B-mxfp4"]),
        ({"min_params": 20 * B, "max_params": 40 * B}, ["Qwen3-30B-mxfp4"]),
        ({"max_size_bytes": 5 * B}, ["Llama-8B-4bit"]),
        ({"fits": True, "text": "llama", "sort": Sort.SIZE}, ["Llama-8B-4bit", "Llama-8B-8bit"]),
        ({"licence": "MIT"}, ["Whisper-mlx"]),
        ({"gated": True}, ["Gemma-VL-4bit"]),
        ({"gated": False, "author": "org"}, []),
        ({"capabilities": ("vision",)}, ["Gemma-VL-4bit"]),
        ({"capabilities": ("audio",)}, ["Whisper-mlx"]),
        ({"capabilities": ("tools", "thinking")}, ["Qwen3-30B-mxfp4"]),
        ({"task": "automatic-speech-recognition"}, ["Whisper-mlx"]),
        ({"text": "🤗"}, []),
        ({"text": "no such model"}, []),
    ],
)  # fmt: skip
async def test_wishes(hub: HubServer, tmp_path: Path, wish: dict[str, Any], found: list[str]) -> None:
    one = searcher(hub, tmp_path)
    assert await find(one, **wish) == found
    # And the same out of what was kept, when there is no Hub: by the same rules.
    await find(one, mlx=False)
    broken = hub.fault(Fault.status(503), "search")
    try:
        assert sorted(await find(one, **{**wish, "limit": 99})) == sorted(found)
    finally:
        broken.clear()


async def test_no_hit_says_what_to_do(hub: HubServer, tmp_path: Path) -> None:
    one = searcher(hub, tmp_path)
    for wish, said in (
        (Wish("zzz"), "beyond MLX"),
        (Wish("zzz", mlx=False), "fewer words"),
        (Wish(family="x"), "filters"),
    ):
        result = await one.search(wish, 10)
        assert (result.hits, result.next_cursor) == ((), None)
        assert said in (result.note or "")


async def test_pages_hold_each_model_once(tmp_path: Path) -> None:
    with HubServer(page_size=7) as hub:
        for number in range(40):
            add(hub, f"org/m{number:02}", bits=4 if number % 2 else 8, counts=quantised(B, 4), downloads=number)
        one = searcher(hub, tmp_path)
        for wish in (Wish(sort=Sort.DOWNLOADS), Wish(sort=Sort.DOWNLOADS, quants=("4",)), Wish(sort=Sort.SIZE)):
            found: list[str] = []
            place: Place | None = None
            while True:
                result = await one.search(wish, 6, place)
                found += names(result)
                if result.next_cursor is None:
                    break
                place = Place.from_text(result.next_cursor)
            assert len(found) == len(set(found)) == (20 if wish.quants else 35 if wish.sort is Sort.SIZE else 40)


async def test_a_rare_wish_is_looked_for_a_while_and_goes_on(tmp_path: Path) -> None:
    """Ten thousand models are not walked through for one answer."""
    with HubServer(page_size=10) as hub:
        for number in range(80):
            add(hub, f"org/m{number:02}", bits=6 if number == 3 else 4, downloads=number)
        hub.clear_log()
        one = searcher(hub, tmp_path)
        result = await one.search(Wish(sort=Sort.DOWNLOADS, quants=("6-bit",)), 10)
        assert len(hub.requests("search")) == 5
        assert (names(result), "50 models were looked through" in (result.note or "")) == ([], True)
        assert result.next_cursor is not None
        result = await one.search(Wish(sort=Sort.DOWNLOADS, quants=("6-bit",)), 10, Place.from_text(result.next_cursor))
        assert (names(result), result.next_cursor) == (["m03"], None)


async def test_an_answer_is_kept_for_a_while_and_for_bad_times(hub: HubServer, tmp_path: Path) -> None:
    now = [1_000_000.0]
    one = searcher(hub, tmp_path, clock=lambda: now[0])
    await find(one, text="llama")
    hub.wait_idle()
    hub.clear_log()
    now[0] += 299
    assert len(await find(one, text="llama")) == 3
    assert hub.requests() == []
    now[0] += 2
    assert len(await find(one, text="llama")) == 3
    assert len(hub.requests()) == 1
    now[0] += 10_000
    broken = hub.fault(Fault.status(503), "search")
    try:
        result = await one.search(Wish(text="llama"), 30)
        assert (len(result.hits), result.stale, now[0] - result.as_of) == (3, True, 10_000)
        assert "error of its own (503)" in (result.note or "") and "before" in (result.note or "")
        # Never asked before: looked for in everything that was told.
        result = await one.search(Wish(text="70B", sort=Sort.LIKES), 30)
        assert (names(result), result.stale) == (["Llama-70B-4bit"], True)
        assert "in the 3 models that the Hub told of before" in (result.note or "")
    finally:
        broken.clear()


async def test_without_hub_and_memory_it_says_why(hub: HubServer, tmp_path: Path) -> None:
    one = searcher(hub, tmp_path)
    broken = hub.fault(Fault.drop(), "search")
    try:
        with pytest.raises(HubUnreachable):
            await find(one)
    finally:
        broken.clear()


async def test_a_hub_that_hangs_is_not_waited_for(hub: HubServer, tmp_path: Path) -> None:
    one = searcher(hub, tmp_path, timeout_s=0.3)
    await find(one)
    held = hub.fault(Fault.stall(), "search")
    try:
        result = await one.search(Wish(text="8bit"), 30)
        assert (names(result), result.stale) == (["Llama-8B-8bit"], True)
    finally:
        held.clear()


async def test_hostile_entries_are_read_or_passed_over(tmp_path: Path) -> None:
    with HubServer() as hub:
        add(hub, "org/lies", config='{"num_hidden_layers": -1, "model_type": 7, "quantization": {"bits": 10e300}}',
            counts={"U32": B}, safetensors={"parameters": {"U32": -5}}, downloads=-3, likes="many",
            lastModified=["x"], cardData="no card", tags=["mlx", 3, None, "license:" + "x" * 900])  # fmt: skip
        add(hub, "org/deep", config="[" * 10_000, tags=["mlx"], downloads=10**40)
        add(hub, "org/‮gnp.exe", tags=["mlx"])
        add(hub, "org/" + "n" * 300, tags=["mlx"])
        add(hub, "org/<script>alert(1)<", tags=["mlx"])
        add(hub, "org/good", tags=["mlx"])
        result = await searcher(hub, tmp_path).search(Wish(sort=Sort.DOWNLOADS), 30)
        assert sorted(names(result)) == ["deep", "good", "lies"]
        lies = next(hit for hit in result.hits if hit.entry.name == "lies").shown()
        assert (lies["params"], lies["size_bytes"], lies["quant"], lies["downloads"]) == (None, None, None, 0)
        assert lies["fit"]["verdict"] == "unknown"


@pytest.mark.parametrize("text", ["x", "", "W10", "bnVsbA", "WzEsIC0xXQ", "WyJhIiwgdHJ1ZV0", "é", "[" * 3000])
def test_a_cursor_of_somebody_else(text: str) -> None:
    with pytest.raises(InvalidRequest):
        Place.from_text(text)


async def test_searches_at_once_do_not_disturb_one_another(hub: HubServer, tmp_path: Path) -> None:
    one = searcher(hub, tmp_path, machine=Machine("m", "c", 1 << 20, is_apple_silicon=False))
    found = await asyncio.gather(*(find(one, text=text) for text in ("llama", "qwen", "gemma", "llama", "none") * 3))
    assert [len(names) for names in found] == [3, 1, 1, 3, 0] * 3
    assert await find(one, fits=True) == []
