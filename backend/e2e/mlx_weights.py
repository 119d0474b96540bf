"""GGUF tensors of a Llama model, as safetensors shards that mlx-lm loads.

The numbers are the same on every machine: a quantised value is ``q * scale + bias`` with at most 8 bits in ``q`` and
11 in ``scale``, hence the product fits into a float32 and only the addition rounds, with or without a fused
multiply-add, on any CPU or GPU.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import mlx.core as mx

Array = Any  # an mlx.core.array; mlx is not installed where the types are checked

GGUF_GROUP: Final = 32  # GGML's block size, the same for every one of its quantised types
SHARD_BYTES: Final = 128 * 1024 * 1024  # five shards: several files are in flight when a download is interrupted
INDEX_FILE: Final = "model.safetensors.index.json"

_TOP_LEVEL: Final = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_IN_LAYER: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def write_shards(tensors: Mapping[str, Array], folder: Path, *, heads: int, kv_heads: int) -> None:
    """Write ``tensors``, as `mx.load` returns them for a GGUF file, as float32 shards and their index.

    float32 because the CPU build of MLX computes half precision in software, some thirty times slower.
    """
    shards = list(_shards(tensors))
    weight_map: dict[str, str] = {}
    total_bytes = 0
    for number, modules in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        weights: dict[str, Array] = {}
        for module in modules:
            values = _float32(tensors, module)
            if module.endswith("attn_q"):
                values = _rope_halves(values, heads)
            elif module.endswith("attn_k"):
                values = _rope_halves(values, kv_heads)
            weights[f"{_mlx_name(module)}.weight"] = values
            total_bytes += 4 * values.size
        mx.save_safetensors(str(folder / name), weights, metadata={"format": "mlx"})
        weight_map |= dict.fromkeys(weights, name)
    index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _shards(tensors: Mapping[str, Array]) -> Iterator[list[str]]:
    """Group the modules, in the order of the network, so that no group is larger than `SHARD_BYTES`."""
    modules = sorted({name.rpartition(".")[0] for name in tensors}, key=_network_order)
    shard: list[str] = []
    room = SHARD_BYTES
    for module in modules:
        size = 4 * _value_count(tensors, module)
        if shard and size > room:
            yield shard
            shard, room = [], SHARD_BYTES
        shard.append(module)
        room -= size
    yield shard


def _network_order(module: str) -> tuple[int, int, str]:
    parts = module.split(".")
    if parts[0] == "blk":
        return (1, int(parts[1]), parts[2])
    return (0 if module == "token_embd" else 2, 0, module)


def _mlx_name(module: str) -> str:
    parts = module.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{_IN_LAYER[parts[2]]}"
    return _TOP_LEVEL[module]


def _value_count(tensors: Mapping[str, Array], module: str) -> int:
    scales = tensors.get(f"{module}.scales")
    return int(tensors[f"{module}.weight"].size) if scales is None else int(scales.size) * GGUF_GROUP


def _float32(tensors: Mapping[str, Array], module: str) -> Array:
    weight = tensors[f"{module}.weight"]
    scales = tensors.get(f"{module}.scales")
    if scales is None:
        return weight.astype(mx.float32)
    return mx.dequantize(
        weight,
        scales.astype(mx.float32),
        tensors[f"{module}.biases"].astype(mx.float32),
        group_size=GGUF_GROUP,
        bits=32 * int(weight.size) // _value_count(tensors, module),
    )


def _rope_halves(values: Array, heads: int) -> Array:
    """Undo the row order of llama.cpp, which keeps the two numbers that a rotation mixes next to each other.

    The Llama model of transformers and mlx-lm rotates the first half of a head with the second one.
    """
    rows, columns = values.shape
    return values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
