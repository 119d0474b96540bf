"""Models to be found, a hub that has them, and the room that finds them: what the tests of discovery share."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fakes.hub_server import HubServer
from mlx_manager.domain.machine import GIB, Machine
from mlx_manager.domain.search import SearchResult, Wish
from mlx_manager.services.discovery import Searcher
from mlx_manager.services.hf_client import HubClient
from mlx_manager.services.hf_search import HubSearch
from mlx_manager.services.hub_memory import HubMemory

MAC = Machine("Mac15,3", "Apple M3", 24 * GIB, is_apple_silicon=True)
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}


def header_of(counts: Mapping[str, int]) -> bytes:
    """A safetensors file with its header alone: so many values of each type, whose bytes nobody fetches here."""
    width = {"U32": 4, "F32": 4, "BF16": 2, "F16": 2, "U8": 1}
    header, at = {}, 0
    for dtype, count in counts.items():
        header[f"model.{dtype}"] = {"dtype": dtype, "shape": [count], "data_offsets": [at, at + count * width[dtype]]}
        at += count * width[dtype]
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head


def quantised(params: int, bits: int, group: int = 64) -> dict[str, int]:
    """How MLX lays so many weights out: words of 32 bits, a scale and a bias for each group."""
    return {"U32": params * bits // 32, "BF16": 2 * params // group}


def add(
    hub: HubServer,
    model_id: str,
    *,
    config: object = None,
    counts: Mapping[str, int] | None = None,
    bits: int | None = None,
    card: str = "license: apache-2.0",
    files: Mapping[str, Any] | None = None,
    template: str = "{{ messages }}",
    **meta: Any,
) -> str:
    """A model with what decides about it and next to no bytes."""
    said: object = {**LLAMA} if config is None else config
    if bits and isinstance(said, dict):
        said = {**said, "quantization": {"bits": bits, "group_size": 64}}
        said["quantization_config"] = said["quantization"]
    made: dict[str, Any] = {
        "README.md": f"---\n{card}\n---\n\n# {model_id}\n",
        "config.json": said if isinstance(said, (str, bytes)) else json.dumps(said),
        "tokenizer_config.json": json.dumps({"chat_template": template}),
        **(files or {}),
    }
    if counts:
        made["model.safetensors"] = header_of(counts)
    return hub.add_model(model_id, made, **meta)


def searcher(
    hub: HubServer,
    folder: Path,
    *,
    machine: Machine = MAC,
    here: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.time,
    **options: Any,
) -> Searcher:
    async def found() -> Mapping[str, str]:
        return here or {}

    client = HubClient(hub.url, token=lambda: None, **options)
    return Searcher(HubSearch(client).page, HubMemory(folder, clock=clock), machine, found, clock=clock)


def names(result: SearchResult) -> list[str]:
    return [hit.entry.name for hit in result.hits]


async def find(one: Searcher, *, limit: int = 30, **wish: Any) -> list[str]:
    """The names of what is found, in order."""
    return names(await one.search(Wish(**wish), limit))
