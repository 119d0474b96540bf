"""Will it run here? Weights, the cache of the conversation and room to work in, against the memory of this machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from mlx_manager.domain import words
from mlx_manager.domain.machine import Machine
from mlx_manager.domain.model_config import KV_STEP, ModelConfig

DEFAULT_CONTEXT = 4096
MOST_CONTEXT = 10_000_000
TIGHT_FROM = 0.85
"""From this share of the usable memory on, other programs will feel it."""
# No token's memory is near this; whoever says so says nothing of use.
_ABSURD = 1 << 40
# mlx-lm reads a prompt in steps of so many tokens.
_PREFILL_STEP = 2048
_BASE_WORK = 64 << 20
# Measured with mlx-lm 0.32 on a CPU: within 5 % of its peak, see docs/performance.md.
_LAYER_SHARE, _SCORES_SHARE = 1.386, 1.083
# A CPU multiplies half values as whole ones, for which it needs room beside them.
_HALVES_ON_CPU = 1.5
# Where the form of a model is not known: KV bytes of a token, from models of today with grouped attention.
_KV_OF_8B, _KV_GROWTH = 131_072, 0.42


class Verdict(StrEnum):
    FITS = "fits"
    TIGHT = "tight"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Weights:
    """``dtype_bytes``: of the values that are computed with. ``exact``: ``size`` comes out of the files themselves."""

    size: int
    dtype_bytes: int = 2
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Fit:
    """The verdict with its figures; sizes in bytes, None where they are not known. ``max_context``: the most tokens
    that still fit. ``is_estimate``: one of the figures comes from a rule of thumb."""

    verdict: Verdict
    needs_bytes: int | None
    weights_bytes: int | None
    kv_bytes: int | None
    work_bytes: int | None
    context: int
    max_context: int | None
    available_bytes: int
    machine: str
    is_estimate: bool
    why: str

    def shown(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def runs(self) -> bool:
        return self.verdict in (Verdict.FITS, Verdict.TIGHT)


def judge(
    machine: Machine,
    weights: Weights | None,
    config: ModelConfig | None = None,
    *,
    params: int | None = None,
    context: int | None = None,
) -> Fit:
    """``config`` None or without its form: the cache is estimated from the number of parameters. ``context``: tokens;
    by default 4096, or all that the model takes if that is less."""
    if config is not None and (config.kv_bytes(KV_STEP, 1) or 0) > _ABSURD:
        config = None
    most = config.context_length if config else None
    if context is None:
        context = min(DEFAULT_CONTEXT, most or DEFAULT_CONTEXT)
    available, name = machine.usable_bytes, machine.text
    if weights is None:
        why = "Nobody can tell: neither the Hub nor the model's name says how large its weights are."
        return Fit(Verdict.UNKNOWN, None, None, None, None, context, None, available, name, True, why)

    kv, known = _kv_bytes(config, params, weights, context)
    work = _work_bytes(machine, config, params, weights, context)
    needs = weights.size + kv + work
    verdict = Verdict.NO if needs > available else Verdict.TIGHT if needs > TIGHT_FROM * available else Verdict.FITS
    longest = _longest(machine, config, params, weights, most)
    return Fit(
        verdict=verdict,
        needs_bytes=needs,
        weights_bytes=weights.size,
        kv_bytes=kv,
        work_bytes=work,
        context=context,
        max_context=longest,
        available_bytes=available,
        machine=name,
        is_estimate=not (weights.exact and known),
        why=_why(verdict, needs, weights.size, kv, work, context, longest, machine),
    )


def _kv_bytes(config: ModelConfig | None, params: int | None, weights: Weights, context: int) -> tuple[int, bool]:
    told = config.kv_bytes(context, weights.dtype_bytes) if config else None
    if config is not None and told is not None:
        return told, config.exact
    tokens = -(-context // KV_STEP) * KV_STEP
    size = params or weights.size * 2
    return int(_KV_OF_8B * (size / 8e9) ** _KV_GROWTH * tokens * weights.dtype_bytes / 2), False


def _work_bytes(
    machine: Machine, config: ModelConfig | None, params: int | None, weights: Weights, context: int
) -> int:
    """What the steps of a prompt need beside weights and cache: the widest layer for all tokens of one step, and where
    attention is not fused (anywhere but on Apple's GPU) the scores of each token of the step with all before it."""
    step = min(context, _PREFILL_STEP)
    hidden = (config.hidden_size if config else None) or int(((params or weights.size * 2) / 8e9) ** 0.4 * 4096)
    width = (config.width if config else None) or 16 * hidden
    layer = int(_LAYER_SHARE * step * width * weights.dtype_bytes)
    if machine.is_apple_silicon:
        return _BASE_WORK + layer
    if weights.dtype_bytes < 4:
        layer = int(_HALVES_ON_CPU * layer)
    heads = (config.heads if config else None) or max(1, hidden // 128)
    # The last full step sees all before it, and so do the tokens that are left for one more.
    full, left = divmod(context, _PREFILL_STEP)
    scores = max(full * _PREFILL_STEP**2, left * context)
    return layer + int(_SCORES_SHARE * heads * scores * weights.dtype_bytes)


def _longest(
    machine: Machine, config: ModelConfig | None, params: int | None, weights: Weights, most: int | None
) -> int | None:
    """The most tokens that fit, in steps of the cache, no more than the model takes; None when not even the first."""
    low, high = 0, -(-(most or MOST_CONTEXT) // KV_STEP)

    def fits(steps: int) -> bool:
        tokens = steps * KV_STEP
        kv, _ = _kv_bytes(config, params, weights, tokens)
        return weights.size + kv + _work_bytes(machine, config, params, weights, tokens) <= machine.usable_bytes

    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    if low == 0:
        return None
    return min(low * KV_STEP, most or MOST_CONTEXT)


def _why(
    verdict: Verdict, needs: int, weights: int, kv: int, work: int, context: int, longest: int | None, machine: Machine
) -> str:
    parts = f"{words.size(weights)} of weights, {words.size(kv)} for {context:,} tokens, {words.size(work)} to work in"
    usable = words.size(machine.usable_bytes)
    if verdict is Verdict.NO:
        short = words.size(needs - machine.usable_bytes)
        last = f"; up to {longest:,} tokens it does" if longest else ""
        return f"It needs {words.size(needs)} ({parts}), {short} more than the {usable} that can be used here{last}."
    if verdict is Verdict.TIGHT:
        return f"It needs {words.size(needs)} of {usable} ({parts}): close other programs first."
    return f"It needs {words.size(needs)} of {usable}: {parts}."
