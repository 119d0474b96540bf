"""When the first bytes of a model are on the disk, whoever writes them and however room was made for them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NOTES = (".journal", ".aria2", ".lock", ".log")
"""What programs keep beside the bytes: not bytes of a model."""


@dataclass(frozen=True, slots=True)
class Landing:
    """Folders in which a program gathers a model's files."""

    folders: Sequence[Path]

    def has_bytes(self) -> bool:
        """Whether any file there holds data that was written, in contrast to room that was only reserved."""
        return any(_any_data(folder) for folder in self.folders)


def hub_cache(cache: Path, repo: str) -> Landing:
    """The standard Hugging Face cache; its shared `blobs` is where Xet files go."""
    return Landing([cache / f"models--{repo.replace('/', '--')}" / "blobs", cache / "blobs"])


def _any_data(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if _any_data(Path(entry.path)):
                        return True
                elif not entry.name.endswith(NOTES) and _holds_data(entry.path):
                    return True
    except FileNotFoundError:
        # Not made yet, or renamed under our eyes: the next look will tell.
        return False
    return False


def _holds_data(file: str) -> bool:
    fd = os.open(file, os.O_RDONLY)
    try:
        if os.fstat(fd).st_size == 0:
            return False
        # A file that was only given its room has size and blocks, but no data.
        os.lseek(fd, 0, os.SEEK_DATA)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
