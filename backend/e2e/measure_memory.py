"""Build small models of random weights with mlx-lm, and measure what it takes to run each.

    python measure_memory.py FOLDER CONTEXT

writes each model into FOLDER/<name> and prints one JSON object: by name the bytes of `weights`, of the `cache` of a
conversation of CONTEXT tokens, and of the `peak`. In a process of its own, as `generate.py`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

LAYERS: Final = 2
RUNS = 4
"""The peak of one is lower at times, by chance of what is freed when; the most is what it takes."""
COMMON: Final[dict[str, Any]] = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
# Name → config, type of the values, bits (None: not quantised).
MODELS: Final[dict[str, tuple[dict[str, Any], str, int | None]]] = {
    "llama-float32": ({"model_type": "llama"}, "float32", None),
    "llama-4bit": ({"model_type": "llama"}, "float32", 4),
    "llama-wide-8bit": (
        {"model_type": "llama", "num_key_value_heads": 8, "tie_word_embeddings": True},
        "float32",
        8,
    ),
    "qwen3-bf16": ({"model_type": "qwen3", "tie_word_embeddings": True}, "bfloat16", None),
    "qwen3-moe-4bit": (
        {
            "model_type": "qwen3_moe",
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 256,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "norm_topk_prob": True,
        },
        "float32",
        4,
    ),
    "mixtral": (
        {
            "model_type": "mixtral",
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "intermediate_size": 700,
        },
        "float32",
        None,
    ),
    "llama-sliding": (
        {
            "model_type": "llama",
            "sliding_window": 300,
            "layer_types": ["sliding_attention", "full_attention"] * (LAYERS // 2),
        },
        "float32",
        None,
    ),
    "gemma2": (
        {
            "model_type": "gemma2",
            "sliding_window": 256,
            "layer_types": ["sliding_attention", "full_attention"] * (LAYERS // 2),
            "query_pre_attn_scalar": 64,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
        "float32",
        None,
    ),
    "gemma3": (
        {
            "model_type": "gemma3_text",
            "sliding_window": 2000,
            "sliding_window_pattern": 2,
            "rope_local_base_freq": 10000.0,
            "query_pre_attn_scalar": 64,
            "rope_global_base_freq": 1000000.0,
        },
        "float32",
        None,
    ),
}


def main(folder: Path, context: int) -> None:
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten
    from mlx_lm.generate import generate_step
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.utils import _get_classes, load_model, quantize_model

    told: dict[str, dict[str, int]] = {}
    for name, (more, dtype, bits) in MODELS.items():
        config = {**COMMON, **more, "torch_dtype": dtype}
        place = folder / name
        place.mkdir(parents=True)
        kind, arguments = _get_classes(config)
        mx.random.seed(1)
        model: nn.Module = kind(arguments.from_dict(config))
        model.set_dtype(getattr(mx, dtype))
        if bits is not None:
            model, config = quantize_model(model, config, 64, bits)
        mx.save_safetensors(str(place / "model.safetensors"), dict(tree_flatten(model.parameters())), {"format": "mlx"})
        (place / "config.json").write_text(json.dumps(config), encoding="utf-8")
        del model
        mx.clear_cache()
        begin = mx.get_active_memory()
        model, _ = load_model(place)
        weights = sum(one.nbytes for _, one in tree_flatten(model.parameters()))
        kept = peak = 0
        for _ in range(RUNS):
            mx.clear_cache()
            cache = make_prompt_cache(model)
            mx.reset_peak_memory()
            prompt = mx.array([at % COMMON["vocab_size"] for at in range(context)])
            for _ in generate_step(prompt, model, max_tokens=0, prompt_cache=cache):
                pass
            kept = sum(one.nbytes for one in cache)
            peak = max(peak, mx.get_peak_memory() - begin)
            del cache, prompt
        told[name] = {"weights": weights, "cache": kept, "peak": peak}
        del model
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
