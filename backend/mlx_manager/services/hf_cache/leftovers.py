"""What lies in the cache that nobody is going to use: seen, told, and left where it is."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from mlx_manager.domain.library import Leftover
from mlx_manager.services.hf_cache.layout import DRAFT, DRAFT_AGE_S, RepoFolders
from mlx_manager.services.hf_cache.library import model_id_of
from mlx_manager.services.hf_cache.reading import UNFINISHED, scan
from mlx_manager.services.locks import is_locked


def find_leftovers(cache_dir: Path, wanted: Collection[tuple[str, str]]) -> list[Leftover]:
    """Unfinished files that no download wants (``wanted``: model and etag) and nobody is writing, drafts that a crash
    has left, and the locks of models that are gone. Raises OSError when the cache cannot be read."""
    found: list[Leftover] = []
    models: set[str] = set()
    busy = {model_id for model_id, _ in wanted}
    for folder in scan(str(cache_dir)):
        model_id = model_id_of(folder.name)
        if model_id is not None and folder.is_dir(follow_symlinks=False):
            models.add(folder.name)
            folders = RepoFolders(Path(folder.path), cache_dir / ".locks" / folder.name)
            # A model that something is wanted of is not to be tidied as a whole.
            found += _of_model(folders, model_id, wanted, None if model_id in busy else model_id)
    for folder in scan(str(cache_dir / ".locks")):
        if folder.name in models or not folder.is_dir(follow_symlinks=False):
            continue
        if not any(_is_held(Path(lock.path)) for lock in scan(folder.path)):
            found.append(Leftover(folder.path, 0))
    return found


def _of_model(
    folders: RepoFolders, model_id: str, wanted: Collection[tuple[str, str]], tidied: str | None
) -> Iterator[Leftover]:
    blobs = scan(str(folders.blobs))
    for entry in blobs:
        unfinished = UNFINISHED.fullmatch(entry.name)
        if unfinished is None or (model_id, unfinished[1]) in wanted or _is_held(folders.lock(unfinished[1])):
            continue
        yield Leftover(entry.path, _taken(entry), tidied)
    for entry in (*scan(str(folders.root)), *blobs):
        if DRAFT.fullmatch(entry.name) and time.time() - entry.stat(follow_symlinks=False).st_mtime > DRAFT_AGE_S:
            yield Leftover(entry.path, _taken(entry))


def _taken(entry: os.DirEntry[str]) -> int:
    """What a file really takes, holes left out."""
    stat = entry.stat(follow_symlinks=False)
    return min(stat.st_size, stat.st_blocks * 512)


def _is_held(lock: Path) -> bool:
    try:
        return is_locked(lock)
    except OSError:
        return True
