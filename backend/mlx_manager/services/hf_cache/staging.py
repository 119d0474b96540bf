"""A disk without symbolic links. There a whole content waits among the blobs, under a name of its own with its commit,
and is moved into the snapshot when all are there. As long as it waits it is known to be ours, whoever is killed: what
lies in the snapshot of a download that is cancelled may be anybody's, and stays.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from mlx_manager.domain.plan import Plan
from mlx_manager.services.hf_cache.layout import RepoFolders


def find_contents(folders: RepoFolders, plan: Plan) -> dict[str, Path]:
    """Etag → where that content is, or goes: it waits, or another program has left it as a blob, or it is in the
    snapshot already, under a name that this plan need not want. Raises OSError."""
    found = {}
    shown = places_in_snapshot(folders, plan)
    for file in plan.blobs:
        waiting = folders.staged(file.etag, plan.commit)
        places = [waiting, folders.blob(file.etag), *shown[file.etag]]
        found[file.etag] = next((place for place in places if file_size(place) == file.size), waiting)
    return found


def places_in_snapshot(folders: RepoFolders, plan: Plan) -> dict[str, tuple[Path, ...]]:
    """Etag → wherever in the snapshot that content belongs, the names first that this plan wants."""
    snapshot = folders.snapshot(plan.commit)
    places: dict[str, dict[Path, None]] = {}
    for file in (*plan.files, *plan.tree):
        places.setdefault(file.etag, {})[snapshot / file.path] = None
    return {etag: tuple(found) for etag, found in places.items()}


def firsts(folders: RepoFolders, plan: Plan, contents: Mapping[str, Path]) -> dict[Path, Path]:
    """Where each content that waits is to be moved to: its first name; its others are copies."""
    waiting = {file: folders.staged(file.etag, plan.commit) for file in plan.blobs}
    snapshot = folders.snapshot(plan.commit)
    return {place: snapshot / file.path for file, place in waiting.items() if contents[file.etag] == place}


def file_size(path: Path) -> int | None:
    """None for what is no file."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None
