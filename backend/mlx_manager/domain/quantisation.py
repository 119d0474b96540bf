"""How a model's weights are stored: read out of its config, or out of its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MODES = ("affine", "mxfp4", "nvfp4", "mxfp8")
_MODE_BITS = {"mxfp4": 4, "nvfp4": 4, "mxfp8": 8}
_OVERHEAD = {"mxfp4": 0.25, "nvfp4": 0.5, "mxfp8": 0.25}
_BITS = re.compile(r"(?<![a-z0-9])(\d{1,2})[-_]?bits?(?![a-z])|(?<![a-z0-9])[qw](\d)(?![0-9])", re.IGNORECASE)
_PLAIN = {"bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "float16": "fp16", "fp32": "fp32", "float32": "fp32"}
_PLAIN_BITS = {"bf16": 16, "fp16": 16, "fp32": 32}


@dataclass(frozen=True, slots=True)
class Quant:
    """``label`` is for people: "4-bit", "mxfp4", "4-bit DWQ", "bf16". ``bits`` of one weight without its scales;
    ``mode``: MLX's name of the format, None where the weights are not quantised by MLX."""

    label: str
    bits: float | None
    mode: str | None = None
    group_size: int | None = None

    def shown(self) -> dict[str, Any]:
        return {"label": self.label, "bits": self.bits, "mode": self.mode}

    @property
    def bits_per_weight(self) -> float | None:
        """With scales and biases."""
        if self.bits is None or self.mode is None:
            return self.bits
        return self.bits + _OVERHEAD.get(self.mode, 32 / (self.group_size or 64))

    def answers_to(self, wanted: str) -> bool:
        """Whether somebody who filters for ``wanted`` (a label, or bits) means this one."""
        word = wanted.strip().lower().removesuffix("s")
        label = self.label.lower()
        if word in (label, *label.split(), self.mode or ""):
            return True
        digits = word.removesuffix("bit").rstrip("-_ ")
        return digits.isdecimal() and self.bits == int(digits) and self.mode in (None, "affine")


def quant_of_config(config: Mapping[str, Any], name: str) -> Quant | None:
    """What a ``config.json`` says of it; None where it says nothing, which means plain weights or an unknown format.
    ``name`` of the model tells how the weights were chosen (DWQ)."""
    said = config.get("quantization")
    if not isinstance(said, Mapping):
        said = config.get("quantization_config")
    if not isinstance(said, Mapping):
        return None
    method = said.get("quant_method")
    bits = _number(said.get("bits"))
    mode = said.get("mode")
    if isinstance(method, str) and method.lower() in _MODE_BITS:
        mode = method.lower()
    if mode not in MODES:
        mode = None if isinstance(method, str) else "affine"
    if bits is None:
        bits = _MODE_BITS.get(mode or "")
    group = _number(said.get("group_size"))
    if mode is None and isinstance(method, str):
        word = re.sub(r"[^a-z0-9 -]", "", method.lower())[:20]
        return Quant(f"{bits}-bit {word}" if bits else word, bits) if word else None
    return None if bits is None else _labelled(bits, mode, group, name)


def quant_of_name(name: str) -> Quant | None:
    """What the name of a model, or a tag, promises; None where it says nothing."""
    lowered = name.lower()
    for mode, bits in _MODE_BITS.items():
        if mode in lowered:
            return _labelled(bits, mode, None, name)
    if found := _BITS.search(name):
        bits = int(found[1] or found[2])
        if 1 <= bits <= 8:
            return _labelled(bits, "affine", None, name)
    for word, label in _PLAIN.items():
        if re.search(rf"(?<![a-z0-9]){word}(?![a-z0-9])", lowered):
            return Quant(label, _PLAIN_BITS[label])
    return None


def plain(dtype: str | None) -> Quant | None:
    """Of weights that are not quantised, by the name of their type."""
    label = _PLAIN.get((dtype or "").lower().removeprefix("torch."))
    return None if label is None else Quant(label, _PLAIN_BITS[label])


def _labelled(bits: int, mode: str | None, group: int | None, name: str) -> Quant:
    label = mode if mode in _MODE_BITS else f"{bits}-bit"
    if re.search(r"(?<![a-z0-9])dwq(?![a-z])", name.lower()):
        label = f"{label} DWQ"
    return Quant(str(label), bits, mode, group)


def _number(value: object) -> int | None:
    return value if type(value) is int and 1 <= value <= 1024 else None
