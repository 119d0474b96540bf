"""Config, quantisation and memory: the figures of models that are known, and what is made of nonsense."""

from __future__ import annotations

from typing import Any

import pytest

from discovering import LLAMA, MAC
from mlx_manager.domain.fit import Verdict, Weights, judge
from mlx_manager.domain.machine import GIB, Machine
from mlx_manager.domain.model_config import ModelConfig, read_config
from mlx_manager.domain.quantisation import Quant, quant_of_config, quant_of_name


@pytest.mark.parametrize(
    ("memory", "apple", "limit", "usable"),
    [
        (16, True, None, int(16 * GIB * 2 / 3)),
        (64, True, None, 48 * GIB),
        (64, True, 60 * GIB, 60 * GIB),
        (64, True, 600 * GIB, 64 * GIB),
        (64, False, None, 62 * GIB),
        (5, False, None, 4 * GIB),
    ],
)
def test_what_a_model_may_take(memory: int, apple: bool, limit: int | None, usable: int) -> None:
    machine = Machine("m", "c", memory * GIB, apple, limit)
    assert machine.usable_bytes == usable
    assert f"{memory} GB" in machine.text


@pytest.mark.parametrize(
    ("config", "name", "label", "bits", "per_weight"),
    [
        ({"quantization": {"bits": 4, "group_size": 64}}, "x", "4-bit", 4, 4.5),
        ({"quantization": {"bits": 4, "group_size": 32}}, "x", "4-bit", 4, 5.0),
        ({"quantization": {"bits": 8, "group_size": 64, "mode": "affine"}}, "x", "8-bit", 8, 8.5),
        ({"quantization": {"bits": 4, "group_size": 32, "mode": "mxfp4"}}, "x", "mxfp4", 4, 4.25),
        ({"quantization": {"bits": 4, "group_size": 16, "mode": "nvfp4"}}, "x", "nvfp4", 4, 4.5),
        ({"quantization": {"bits": 8, "group_size": 32, "mode": "mxfp8"}}, "x", "mxfp8", 8, 8.25),
        ({"quantization": {"bits": 4, "group_size": 64}}, "Qwen3-8B-4bit-DWQ", "4-bit DWQ", 4, 4.5),
        ({"quantization_config": {"bits": 3}}, "x", "3-bit", 3, 3.5),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "x", "4-bit gptq", 4, 4),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "x", "mxfp4", 4, 4.25),
    ],
)
def test_quantisation(config: dict[str, Any], name: str, label: str, bits: int, per_weight: float) -> None:
    quant = quant_of_config(config, name)
    assert quant is not None
    assert (quant.label, quant.bits, quant.bits_per_weight) == (label, bits, per_weight)


@pytest.mark.parametrize("said", [None, 4, [], {}, {"bits": "4"}, {"bits": -1}, {"bits": True}, {"bits": 10**30}])
def test_quantisation_that_is_none(said: object) -> None:
    assert quant_of_config({"quantization": said}, "x") is None


def test_quantisation_of_names() -> None:
    found = {
        "Qwen3-8B-4bit": "4-bit", "x-6-bit": "6-bit", "gpt-oss-20b-MXFP4-Q8": "mxfp4", "Llama-q8": "8-bit",
        "Foo-bf16": "bf16", "gemma-4bit-DWQ": "4-bit DWQ", "Plain-7B": None, "x-128bit": None,
    }  # fmt: skip
    assert {name: quant.label if (quant := quant_of_name(name)) else None for name in found} == found


@pytest.mark.parametrize(
    ("wanted", "quant", "answers"),
    [
        ("4", Quant("4-bit", 4, "affine"), True),
        ("4-bit", Quant("4-bit DWQ", 4, "affine"), True),
        ("4bit", Quant("4-bit", 4, "affine"), True),
        ("DWQ", Quant("4-bit DWQ", 4, "affine"), True),
        ("mxfp4", Quant("mxfp4", 4, "mxfp4"), True),
        ("4", Quant("mxfp4", 4, "mxfp4"), False),
        ("8", Quant("4-bit", 4, "affine"), False),
        ("bf16", Quant("bf16", 16), True),
        ("", Quant("4-bit", 4, "affine"), False),
    ],
)
def test_who_filters_by_quantisation(wanted: str, quant: Quant, answers: bool) -> None:
    assert quant.answers_to(wanted) is answers


def test_the_cache_of_plain_attention_is_exact() -> None:
    config = read_config(LLAMA)
    assert config.exact
    assert (config.context_length, config.architecture, config.layers) == (131072, "LlamaForCausalLM", 32)
    # 2 · layers · kv_heads · head_dim · bytes · tokens, in steps of 256 tokens.
    assert config.kv_bytes(1, 2) == config.kv_bytes(256, 2) == 2 * 32 * 8 * 128 * 2 * 256
    assert config.kv_bytes(257, 4) == 2 * 32 * 8 * 128 * 4 * 512
    assert read_config({**LLAMA, "head_dim": 64}).kv_bytes(256, 2) == 2 * 32 * 8 * 64 * 2 * 256
    inside = read_config({"model_type": "vlm", "text_config": LLAMA, "vision_config": {}})
    assert (inside.kv_bytes(256, 2), inside.has_vision) == (config.kv_bytes(256, 2), True)


def test_other_forms_are_told_to_be_near() -> None:
    sliding = read_config({**LLAMA, "sliding_window": 512, "layer_types": ["sliding_attention", "full_attention"] * 16})
    assert sliding.kv_bytes(4096, 2) == 2 * 8 * 128 * 2 * (16 * 512 + 16 * 4096)
    latent = read_config({**LLAMA, "kv_lora_rank": 512, "qk_rope_head_dim": 64})
    assert latent.kv_bytes(256, 2) == 32 * 576 * 2 * 256
    linear = read_config({**LLAMA, "layer_types": ["linear_attention"] * 24 + ["full_attention"] * 8})
    assert linear.kv_bytes(256, 2) == 2 * 8 * 8 * 128 * 2 * 256
    assert not (latent.exact or linear.exact)


def windowed(**more: object) -> ModelConfig:
    return read_config({**LLAMA, "num_hidden_layers": 12, "sliding_window": 512, **more})


def test_windows_are_those_that_mlx_lm_keeps_to() -> None:
    row, kinds = 2 * 8 * 128, ["sliding_attention", "full_attention"] * 6
    said = windowed(layer_types=kinds)
    # A prompt shorter than the window, and one step for the answer; never more than the window.
    assert said.kv_bytes(100, 2) == 2 * row * (6 * 355 + 6 * 256)
    assert said.kv_bytes(400, 2) == 2 * row * (6 * 512 + 6 * 512)
    assert said.exact
    # A new family may do it another way.
    assert not windowed(layer_types=kinds, model_type="newest").exact
    # Gemma 3 before its layers were listed: each sixth sees everything.
    gemma = windowed(model_type="gemma3", text_config={"model_type": "gemma3_text"})
    assert gemma.kv_bytes(4096, 2) == 2 * row * (10 * 512 + 2 * 4096)
    assert gemma.exact
    # Gemma 2 tells of windows, and mlx-lm keeps everything.
    assert windowed(model_type="gemma2", layer_types=kinds).kv_bytes(4096, 2) == 2 * row * 12 * 4096
    # A window that is said without saying where is not used either.
    assert windowed(model_type="mistral").kv_bytes(4096, 2) == 2 * row * 12 * 4096


def test_a_prompt_is_read_in_steps() -> None:
    """2,500 tokens took the room of the first 2,048, and were said to take a fifth more."""
    machine, config = Machine("m", "c", 64 * GIB, False), read_config(LLAMA)
    contexts = (1, 600, 2047, 2048, 2500, 3000, 4095, 4096, 4097, 9000)
    works = [judge(machine, Weights(GIB), config, context=context).work_bytes or 0 for context in contexts]
    assert works == sorted(works)
    assert works[3] == works[4] == works[5] < works[6]


def test_experts_work_on_their_tokens_only() -> None:
    machine = Machine("m", "c", 64 * GIB, False)
    dense = judge(machine, Weights(GIB), read_config(LLAMA)).work_bytes
    few = read_config({**LLAMA, "num_experts": 64, "num_experts_per_tok": 2, "moe_intermediate_size": 512})
    many = read_config({**LLAMA, "num_experts": 64, "num_experts_per_tok": 8, "moe_intermediate_size": 512})
    mixtral = read_config({**LLAMA, "num_local_experts": 8, "num_experts_per_tok": 2})
    assert (few.experts, few.expert_size, mixtral.expert_size) == (2, 512, LLAMA["intermediate_size"])
    works = [judge(machine, Weights(GIB), one).work_bytes for one in (few, many)]
    assert works[0] is not None and works[1] is not None and dense is not None
    assert works[0] < dense and works[0] < works[1]
    for nonsense in (-1, "2", 10**30, None):
        assert read_config({**LLAMA, "num_experts": 8, "num_experts_per_tok": nonsense}).experts is None
    assert read_config({**LLAMA, "num_experts_per_tok": 2}).experts is None


@pytest.mark.parametrize(
    "document",
    [None, [], "x", 3, {}, {"num_hidden_layers": -1}, {"num_hidden_layers": 10**40}, {"num_hidden_layers": "32"},
     {"num_hidden_layers": 32, "num_attention_heads": 0}, {"num_hidden_layers": True}, {"text_config": []},
     {"architectures": [{"x": 1}], "model_type": ["a"], "layer_types": "x" * 32, "num_hidden_layers": 32}],
)  # fmt: skip
def test_nonsense_says_nothing(document: object) -> None:
    config = read_config(document)
    assert config.kv_bytes(4096, 2) is None
    assert (config.model_type, config.architecture, config.context_length) == (None, None, None)


def test_the_verdict_and_its_figures() -> None:
    config = read_config(LLAMA)
    fit = judge(MAC, Weights(4_500_000_000), config, context=8192)
    assert (fit.verdict, fit.is_estimate, fit.context) == (Verdict.FITS, False, 8192)
    assert fit.weights_bytes is not None and fit.kv_bytes is not None and fit.work_bytes is not None
    assert fit.kv_bytes == 2 * 32 * 8 * 128 * 2 * 8192
    assert fit.needs_bytes == fit.weights_bytes + fit.kv_bytes + fit.work_bytes
    assert fit.available_bytes == 16 * GIB
    assert "4.5 GB of weights" in fit.why and "8,192 tokens" in fit.why


def test_the_longest_context_is_the_last_that_fits() -> None:
    config = read_config(LLAMA)
    fit = judge(MAC, Weights(10_000_000_000), config)
    assert fit.max_context is not None and fit.max_context % 256 == 0
    assert judge(MAC, Weights(10_000_000_000), config, context=fit.max_context).runs
    assert not judge(MAC, Weights(10_000_000_000), config, context=fit.max_context + 1).runs
    # No more than the model takes, however much memory there is.
    assert judge(Machine("m", "c", 999 * GIB, True), Weights(1), config).max_context == 131072


@pytest.mark.parametrize(
    ("weights", "context", "verdict"),
    [(8, 4096, Verdict.FITS), (14, 4096, Verdict.TIGHT), (15, 131072, Verdict.NO), (17, 4096, Verdict.NO)],
)
def test_verdicts(weights: int, context: int, verdict: Verdict) -> None:
    fit = judge(MAC, Weights(weights * GIB), read_config(LLAMA), context=context)
    assert fit.verdict is verdict
    assert (fit.max_context is None) == (weights == 17)
    if verdict is Verdict.NO:
        assert "more than the" in fit.why
        assert ("up to" in fit.why) == (weights == 15)


def test_without_a_config_it_is_an_estimate_and_without_a_size_nobody_knows() -> None:
    fit = judge(MAC, Weights(4_500_000_000), None, params=8_000_000_000)
    assert (fit.verdict, fit.is_estimate) == (Verdict.FITS, True)
    # Llama's own figure, which the rule of thumb is made of.
    assert fit.kv_bytes == 2 * 32 * 8 * 128 * 2 * 4096
    unknown = judge(MAC, None)
    assert (unknown.verdict, unknown.needs_bytes, unknown.max_context) == (Verdict.UNKNOWN, None, None)
    assert "Nobody can tell" in unknown.why


def test_a_short_model_is_judged_at_its_own_length() -> None:
    assert judge(MAC, Weights(1), read_config({**LLAMA, "max_position_embeddings": 512})).context == 512


@pytest.mark.parametrize(
    ("hidden", "inner", "layers", "heads", "context", "weights", "kv", "peak"),
    [
        (256, 704, 4, 4, 512, 12_829_696, 2_097_152, 28_369_429),
        (256, 704, 4, 4, 1024, 12_829_696, 4_194_304, 52_997_617),
        (256, 704, 8, 4, 2048, 24_634_368, 16_777_216, 149_181_937),
        (512, 1408, 4, 8, 1024, 47_155_200, 4_194_304, 122_000_805),
        (256, 704, 4, 4, 4096, 12_829_696, 16_777_216, 211_525_653),
    ],
)
def test_what_mlx_lm_took(
    hidden: int, inner: int, layers: int, heads: int, context: int, weights: int, kv: int, peak: int
) -> None:
    """Figures of mlx-lm 0.32.2 on a CPU: llama models in float32, a prompt of that length, then eight tokens."""
    config = read_config(
        {
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": 2,
        }
    )
    fit = judge(Machine("m", "c", 16 * GIB, is_apple_silicon=False), Weights(weights, 4), config, context=context)
    assert fit.kv_bytes == kv
    assert fit.needs_bytes == pytest.approx(peak, rel=0.05)
