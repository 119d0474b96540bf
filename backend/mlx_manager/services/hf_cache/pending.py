"""Links that are being made. They are noted before the first of them, so that those which a killed process has left of
an unfinished snapshot can be told from all others, and go when the download is cancelled."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path, PurePosixPath

from mlx_manager.domain.plan import Plan, PlanFile
from mlx_manager.services.hf_cache.layout import LINKING, RepoFolders
from mlx_manager.services.hf_cache.reading import read_refs

_guard = threading.Lock()
"""Who looks for what is there already must not meet another who strikes what is whole now."""


def note_links(folders: RepoFolders, plan: Plan) -> None:
    """Before the first: which names the plan is going to add to its snapshot. Raises OSError."""
    note, snapshot = _note(folders, plan), folders.snapshot(plan.commit)
    with _guard:
        missing = {file.path for file in plan.files if not os.path.lexists(snapshot / file.path)}
        if missing:
            _write(folders, note, missing | _read(note))


def settle_links(folders: RepoFolders, plan: Plan) -> None:
    """After the last: they belong to something whole, whoever may have begun with them. Raises OSError."""
    ours, paths = _note(folders, plan), {file.path for file in plan.files}
    with _guard:
        for note in folders.linking(plan.commit):
            _write(folders, note, set() if note == ours else _read(note) - paths)


def undo_links(folders: RepoFolders, plan: Plan) -> None:
    """Remove the links that were added for a snapshot which was never finished. Where another program may have taken
    them for its own since, they stay. Raises OSError."""
    note = _note(folders, plan)
    noted = _read(note)
    if noted and not _is_taken(folders, plan, note):
        for file in plan.files:
            if file.path in noted and _is_linked(folders, plan, file):
                (folders.snapshot(plan.commit) / file.path).unlink(missing_ok=True)
    note.unlink(missing_ok=True)


def _is_taken(folders: RepoFolders, plan: Plan, note: Path) -> bool:
    """Whether the snapshot is whole after all, or somebody has named its commit since."""
    if all(_is_linked(folders, plan, file) for file in plan.files):
        return True
    noted_at = note.stat().st_mtime_ns
    names = read_refs(str(folders.refs), []).get(plan.commit, ())
    return any((folders.refs / name).stat().st_mtime_ns >= noted_at for name in names)


def _is_linked(folders: RepoFolders, plan: Plan, file: PlanFile) -> bool:
    """Whether the file's own name leads to its content, and no link stands for a folder above it."""
    place = folders.snapshot(plan.commit)
    for name in PurePosixPath(file.path).parts:
        if place.is_symlink():
            return False
        place /= name
    return place.is_symlink() and place.readlink().name == file.etag


def _note(folders: RepoFolders, plan: Plan) -> Path:
    """One for each choice of files: downloads of the same commit have each their own."""
    chosen = sha256("\n".join(file.path for file in plan.files).encode()).hexdigest()
    return folders.root / f".{plan.commit}-{chosen[:16]}{LINKING}"


def _read(note: Path) -> set[str]:
    """Nothing where it is not, or where a power cut has left it empty: then no link is known to be ours."""
    try:
        return set(map(str, json.loads(note.read_bytes())))
    except (FileNotFoundError, ValueError, TypeError):
        return set()


def _write(folders: RepoFolders, note: Path, paths: Iterable[str]) -> None:
    if not paths:
        note.unlink(missing_ok=True)
        return
    temporary = folders.temporary()
    try:
        temporary.write_text(json.dumps(sorted(paths)), encoding="utf-8")
        temporary.replace(note)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
