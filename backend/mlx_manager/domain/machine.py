"""The machine that a model is to run on: how much of its memory a model may take."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_manager.domain import words

GIB = 1 << 30
# What Metal recommends as the most to be wired down, by the size of the machine.
_SMALL_APPLE, _LARGE_APPLE, _LARGE_FROM = 2 / 3, 3 / 4, 36 * GIB
# Elsewhere the system and its programs keep this much for themselves.
_SYSTEM_SHARE, _SYSTEM_MOST = 0.2, 2 * GIB


@dataclass(frozen=True, slots=True)
class Machine:
    """``usable_bytes``: what a model may take of ``memory_bytes``. ``wired_limit_bytes``: what the person has set by
    ``sysctl iogpu.wired_limit_mb``, where it is set."""

    name: str
    chip: str
    memory_bytes: int
    is_apple_silicon: bool
    wired_limit_bytes: int | None = None

    @property
    def usable_bytes(self) -> int:
        if self.is_apple_silicon:
            if self.wired_limit_bytes:
                return min(self.wired_limit_bytes, self.memory_bytes)
            share = _SMALL_APPLE if self.memory_bytes < _LARGE_FROM else _LARGE_APPLE
            return int(self.memory_bytes * share)
        return self.memory_bytes - int(min(self.memory_bytes * _SYSTEM_SHARE, _SYSTEM_MOST))

    @property
    def text(self) -> str:
        """For people, to go on a sentence with."""
        # Memory is sold in powers of two, everything else here is told in decimal units.
        whole, usable = f"{self.memory_bytes / GIB:.0f} GB", words.size(self.usable_bytes)
        if self.is_apple_silicon:
            return f"this Mac: {whole} unified memory, {usable} usable by the GPU"
        return f"this machine: {whole} memory, {usable} usable for a model"
