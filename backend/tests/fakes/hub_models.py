"""Files of a plausible small MLX model, with weights that a safetensors reader accepts."""

from __future__ import annotations

import json
import struct

from fakes.hub_blobs import Blob, Source


def mlx_model_files(size: int = 1 << 20, *, shards: int = 1, bits: int = 4, seed: int = 0) -> dict[str, Source]:
    """Return a model whose weights are about `size` bytes in `shards` files, and all that goes with them."""
    files: dict[str, Source] = {
        "README.md": f"---\nlibrary_name: mlx\ntags:\n- mlx\nlicense: mit\n---\n\n# A test model in {bits} bits\n",
        "config.json": _dump(
            {
                "architectures": ["LlamaForCausalLM"],
                "model_type": "llama",
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "num_hidden_layers": 2,
                "vocab_size": 128,
                "max_position_embeddings": 512,
                "rms_norm_eps": 1e-05,
                "tie_word_embeddings": True,
                "quantization": {"group_size": 64, "bits": bits},
                "quantization_config": {"group_size": 64, "bits": bits},
            }
        ),
        "generation_config.json": _dump({"bos_token_id": 1, "eos_token_id": 2}),
        "special_tokens_map.json": _dump({"bos_token": "<s>", "eos_token": "</s>"}),
        "tokenizer_config.json": _dump({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512}),
        "tokenizer.json": _dump(
            {"version": "1.0", "model": {"type": "BPE", "vocab": {"<s>": 1, "</s>": 2}, "merges": []}}
        ),
    }
    weight_map: dict[str, str] = {}
    total = 0
    for shard in range(shards):
        name = "model.safetensors" if shards == 1 else f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        data, tensors, nbytes = safetensors(size // shards, layer=shard, seed=seed + shard)
        files[name] = data
        total += nbytes
        weight_map.update(dict.fromkeys(tensors, name))
    files["model.safetensors.index.json"] = _dump({"metadata": {"total_size": total}, "weight_map": weight_map})
    return files


def safetensors(size: int, *, layer: int = 0, seed: int = 0) -> tuple[Source, list[str], int]:
    """Return a valid safetensors file of about `size` bytes, its tensors' names, and the bytes that these take.

    Up to 8 MiB it is plain bytes, for a test to compare with; beyond that a Blob.
    """
    prefix = f"model.layers.{layer}.mlp.down_proj"
    # One row: eight packed words, and a scale and a bias for each group of 64 weights, as 4 bits are laid out.
    rows = max(1, size // 40)
    shapes = {f"{prefix}.weight": ("U32", 8), f"{prefix}.scales": ("F32", 1), f"{prefix}.biases": ("F32", 1)}
    header: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    at = 0
    for name, (dtype, columns) in shapes.items():
        header[name] = {"dtype": dtype, "shape": [rows, columns], "data_offsets": [at, at + rows * columns * 4]}
        at += rows * columns * 4
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    head = struct.pack("<Q", len(head)) + head
    blob = Blob(len(head) + at, seed, head)
    return blob.slice(0, blob.size) if blob.size <= 8 << 20 else blob, list(shapes), at


def _dump(document: object) -> str:
    return json.dumps(document, indent=2) + "\n"
