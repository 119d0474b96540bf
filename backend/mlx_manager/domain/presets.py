"""Which files of a repository a purpose needs. The patterns are fixed, so that the same wish is the same download."""

from __future__ import annotations

from enum import StrEnum

from mlx_manager.domain.plan import is_wanted


class Preset(StrEnum):
    """``mlx``: weights, tokenizer, config and papers; ``all``: everything."""

    MLX = "mlx"
    ALL = "all"


# Twins of the weights in other programs' formats, and pictures: MLX reads none of them.
_NOT_FOR_MLX = (
    "original/*",
    "onnx/*",
    "openvino/*",
    "coreml/*",
    "metal/*",
    "consolidated*.safetensors",
    "*.gguf",
    "*.pth",
    "*.pt",
    "*.bin",
    "*.onnx",
    "*.onnx_data",
    "*.h5",
    "*.msgpack",
    "*.ot",
    "*.tflite",
    "*.mlpackage/*",
    "*.mlmodel",
    "*.png",
    "*.jpg",
    "*.jpeg",
    "*.gif",
    "*.webp",
    "*.mp4",
    "*.pdf",
)


def ignored_by(preset: Preset) -> tuple[str, ...] | None:
    """``ignore_patterns`` for a download, in the order in which requests are compared."""
    return tuple(sorted(_NOT_FOR_MLX)) if preset is Preset.MLX else None


def is_chosen(path: str, preset: Preset = Preset.MLX) -> bool:
    return is_wanted(path, None, ignored_by(preset))
