"""The header of a safetensors file: 8 bytes of length, then JSON with type, shape and place of each tensor."""

from __future__ import annotations

import json

from mlx_manager.domain.discovery import DTYPE_BYTES

PREFIX = 8
FIRST_LOOK = 100_000
"""Bytes that hold nearly every header."""
LONGEST = 16 << 20


def header_length(start: bytes) -> int | None:
    """Bytes of the JSON, read from the first 8; None for what is no such file."""
    length = int.from_bytes(start[:PREFIX], "little")
    return length if len(start) >= PREFIX and 2 <= length <= LONGEST else None


def tensor_bytes(header: bytes, file_size: int | None = None) -> tuple[int, frozenset[str]] | None:
    """Bytes of all tensors and their types; None where the header is none, or tells of more than the file holds."""
    try:
        told = json.loads(header)
        tensors = [one for name, one in told.items() if name != "__metadata__"]
        spans = [(one["data_offsets"][0], one["data_offsets"][1], one["dtype"]) for one in tensors]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return None
    if any(type(a) is not int or type(b) is not int or not 0 <= a <= b or d not in DTYPE_BYTES for a, b, d in spans):
        return None
    total = sum(b - a for a, b, _ in spans)
    if file_size is not None and total > file_size - PREFIX - len(header):
        return None
    return total, frozenset(dtype for _, _, dtype in spans)


def dtype_bytes_of(dtypes: frozenset[str]) -> int:
    """Bytes of a value that is computed with: that of scales and norms, which nobody packs."""
    return 4 if "F32" in dtypes and not dtypes & {"F16", "BF16"} else 2
