"""The files that the hub serves, made once and kept for the next run, and what they are: the truth for the verdicts."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.workloads import Shape

BLOCK = 1 << 20


@dataclass
class Corpus:
    """Models below `kept`, as ORG/NAME/FILE, and below `served` those of this run. `sums`: SHA-256 by repo and file."""

    kept: Path
    served: Path
    sums: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, shape: Shape) -> None:
        """Make a model's files unless they are there, and hash them, which brings them into the page cache too."""
        if shape.repo in self.sums:
            return
        home, shown = self.kept / shape.repo, self.served / shape.repo
        home.mkdir(parents=True, exist_ok=True)
        shown.parent.mkdir(parents=True, exist_ok=True)
        shown.symlink_to(home)
        for stranger in {entry.name for entry in home.iterdir()} - set(shape.paths):
            (home / stranger).unlink()
        sums = {}
        for path in shape.paths:
            file = home / path
            if not file.exists() or file.stat().st_size != shape.size:
                _make(file, shape.size, f"{shape.repo}/{path}")
            sums[path] = sha256_of(file)
        self.sums[shape.repo] = sums


def complaints(root: Path, sums: Mapping[str, str]) -> list[str]:
    """What is wrong with a model that somebody downloaded into `root`: files that are missing or are other bytes."""
    found = []
    for path, wanted in sums.items():
        file = root / path
        if not file.is_file():
            found.append(f"{path} is missing")
        elif sha256_of(file) != wanted:
            found.append(f"{path} has other bytes")
    return found


def sha256_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _make(file: Path, size: int, seed: str) -> None:
    """Bytes that nothing compresses and no two files share; each block is turned, so none repeats within a file."""
    block = random.Random(seed).randbytes(min(BLOCK, size))
    making = file.with_suffix(f".{os.getpid()}")
    with making.open("wb") as opened:
        for number in range(-(-size // BLOCK)):
            turn = number * 4099 % len(block)
            opened.write((block[turn:] + block[:turn])[: size - number * BLOCK])
    making.replace(file)
