"""What a model's ``config.json`` says of its form. It comes from a Hub that anybody can write to: what is no plausible
figure is not known, and nothing else follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_manager.domain.quantisation import Quant, plain, quant_of_config

KV_STEP = 256
"""mlx-lm makes its cache longer by so many tokens at once."""
# Whose windows mlx-lm keeps to, as measured; and whose config has windows that it does not use.
_WINDOWED = {"gemma3_text", "llama"}
_UNWINDOWED = {"gemma2"}
# Each so many layers one sees everything, where the config does not say so.
_PATTERNS = {"gemma3_text": 6, "cohere2": 4}
_MOST = {"layers": 4096, "heads": 65_536, "size": 4_194_304, "context": 1_000_000_000}


@dataclass(frozen=True, slots=True)
class Attention:
    """What one layer keeps of each token. ``window``: of so many tokens at most; None for all of them."""

    values_per_token: int
    window: int | None = None


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The figures that matter here; None where they are not told. ``attention``: of each layer that keeps tokens.
    ``experts``: how many of a layer work on each token, of ``expert_size`` each; None where it has none. ``exact``: the
    form is one whose memory is known to the byte."""

    model_type: str | None = None
    architecture: str | None = None
    layers: int | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    experts: int | None = None
    expert_size: int | None = None
    heads: int | None = None
    vocab_size: int | None = None
    context_length: int | None = None
    dtype: str | None = None
    quant: Quant | None = None
    attention: tuple[Attention, ...] | None = None
    exact: bool = False
    has_vision: bool = False
    has_audio: bool = False

    @property
    def width(self) -> int | None:
        """Values of one token that the widest layer holds at one time, as measured; None for an unknown form."""
        hidden = self.hidden_size
        if hidden is None:
            return None
        kept = max((layer.values_per_token for layer in self.attention or ()), default=hidden // 2)
        if any(layer.window for layer in self.attention or ()):
            kept += hidden
        if self.experts is not None and self.expert_size is not None:
            # Each of its experts gets the token, and answers.
            return kept + int((5.25 + 2 * self.experts) * hidden + 1.5 * self.experts * self.expert_size)
        return kept + int(3.5 * hidden) + 3 * (self.intermediate_size or 4 * hidden)

    def kv_bytes(self, context: int, dtype_bytes: int) -> int | None:
        """Of the cache of a conversation of so many tokens; None where the form is not known."""
        if self.attention is None:
            return None
        total = 0
        for layer in self.attention:
            if layer.window is None:
                tokens = -(-context // KV_STEP) * KV_STEP
            else:
                # The prompt as it is, and one step for what follows.
                tokens = min(context + KV_STEP - 1, layer.window)
            total += layer.values_per_token * tokens
        return total * dtype_bytes


def read_config(document: object, name: str = "") -> ModelConfig:
    """Of a parsed ``config.json``; anything else is a config that says nothing."""
    if not isinstance(document, Mapping):
        return ModelConfig()
    text: Mapping[str, Any] = next(
        (document[key] for key in ("text_config", "llm_config", "language_config") if _is_config(document, key)), {}
    )

    def said(*names: str) -> Any:
        """The first of these names that is said, by the text model first."""
        for part in (text, document):
            for one in names:
                if part.get(one) is not None:
                    return part[one]
        return None

    layers = _whole(said("num_hidden_layers", "n_layer", "n_layers", "num_layers"), "layers")
    hidden = _whole(said("hidden_size", "n_embd", "d_model", "dim"), "size")
    heads = _whole(said("num_attention_heads", "n_head", "n_heads"), "heads")
    context = _whole(said("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"), "context")
    model_type, dtype = _word(document.get("model_type")), _word(said("torch_dtype", "dtype"))
    attention, exact = _attention(said, layers, hidden, heads)
    inner = _whole(said("intermediate_size", "ffn_dim", "n_inner"), "size")
    has_experts = said("num_experts", "num_local_experts", "n_routed_experts") is not None
    experts = _whole(said("num_experts_per_tok", "num_experts_per_token", "moe_topk"), "heads") if has_experts else None
    quant = quant_of_config(document, name) or quant_of_config(text, name)
    return ModelConfig(
        model_type=model_type,
        architecture=_architecture(document.get("architectures")),
        layers=layers,
        hidden_size=hidden,
        intermediate_size=inner,
        experts=experts,
        expert_size=(_whole(said("moe_intermediate_size"), "size") or inner) if experts else None,
        heads=heads,
        vocab_size=_whole(said("vocab_size"), "size"),
        context_length=context,
        dtype=dtype,
        quant=quant or plain(dtype),
        attention=attention,
        exact=exact,
        has_vision=any(_is_config(document, key) for key in ("vision_config", "vision_tower_config", "vit_config")),
        has_audio=any(_is_config(document, key) for key in ("audio_config", "speech_config")),
    )


def _attention(
    said: Any, layers: int | None, hidden: int | None, heads: int | None
) -> tuple[tuple[Attention, ...] | None, bool]:
    """What the layers keep, and whether that is known to the byte: plain attention is, other forms are near it."""
    if layers is None:
        return None, False
    latent = _whole(said("kv_lora_rank"), "size")
    if latent is not None:
        # Multi-head latent attention keeps one compressed row and the rotary part.
        row = latent + (_whole(said("qk_rope_head_dim"), "size") or 0)
        return (Attention(row),) * layers, False
    kv_heads = (
        _whole(said("num_key_value_heads", "num_kv_heads", "n_kv_heads", "multi_query_group_num"), "heads") or heads
    )
    head_dim = _whole(said("head_dim", "kv_channels"), "size")
    if head_dim is None and hidden and heads:
        head_dim = hidden // heads
    if not kv_heads or not head_dim:
        return None, False
    row = 2 * kv_heads * head_dim
    family = _word(said("model_type")) or ""
    window = None if family in _UNWINDOWED else _whole(said("sliding_window"), "context")
    kinds = None if family in _UNWINDOWED else said("layer_types")
    if isinstance(kinds, Sequence) and not isinstance(kinds, str) and len(kinds) == layers:
        kept = [_of_kind(str(kind), row, window) for kind in kinds]
        known = {"full_attention", "sliding_attention"} if window and family in _WINDOWED else {"full_attention"}
        return tuple(one for one in kept if one is not None), known.issuperset(map(str, kinds))
    if said("ssm_cfg", "mamba_d_state", "full_attention_interval", "linear_num_key_heads") is not None:
        every = _whole(said("full_attention_interval"), "layers") or 4
        return (Attention(row),) * -(-layers // every), False
    pattern = _whole(said("sliding_window_pattern"), "layers") or _PATTERNS.get(family)
    if pattern and window:
        seen = (None if (at + 1) % pattern == 0 else window for at in range(layers))
        return tuple(Attention(row, one) for one in seen), family in _WINDOWED
    return (Attention(row),) * layers, True


def _of_kind(kind: str, row: int, window: int | None) -> Attention | None:
    if "sliding" in kind or "local" in kind or "chunked" in kind:
        return Attention(row, window)
    return Attention(row) if "attention" in kind and "linear" not in kind else None


def _is_config(document: Mapping[str, Any], key: str) -> bool:
    return isinstance(document.get(key), Mapping)


def _whole(value: object, kind: str) -> int | None:
    return value if type(value) is int and 1 <= value <= _MOST[kind] else None


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and 1 <= len(value) <= 80 and value.isprintable() else None


def _architecture(value: object) -> str | None:
    return _word(value[0]) if isinstance(value, list) and value else None
