"""Links that are being made. They are noted before the first of them, so that those which a killed process has left of
an unfinished snapshot can be told from all others, and go when the download is cancelled.

Where a disk has no symbolic links, they are the files themselves. Each is noted with the time of its content, which it
keeps when it is moved: what another program has put in its place since has another.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path, PurePosixPath

from mlx_manager.domain.plan import Plan, PlanFile
from mlx_manager.services.hf_cache.layout import LINKING, RepoFolders, remove
from mlx_manager.services.hf_cache.reading import read_refs
from mlx_manager.services.hf_cache.staging import file_size

_guard = threading.Lock()
"""Who looks for what is there already must not meet another who strikes what is whole now."""


def note_links(folders: RepoFolders, plan: Plan, contents: Mapping[str, Path]) -> None:
    """Before the first: which names the plan is going to add to its snapshot. ``contents``: etag → the file that will
    stand there itself, or a copy of it; a link where there is none. Raises OSError."""
    note, snapshot = _note(folders, plan), folders.snapshot(plan.commit)
    with _guard:
        missing = [file for file in plan.files if not os.path.lexists(snapshot / file.path)]
        if missing:
            times = {etag: _time(place) for etag, place in contents.items()}
            _write(folders, note, _read(note) | {file.path: times.get(file.etag) for file in missing})


def settle_links(folders: RepoFolders, plan: Plan) -> None:
    """After the last: they belong to something whole, whoever may have begun with them. Raises OSError."""
    ours, paths = _note(folders, plan), {file.path for file in plan.files}
    with _guard:
        for note in folders.linking(plan.commit):
            left = {} if note == ours else _read(note)
            _write(folders, note, {path: at for path, at in left.items() if path not in paths})


def undo_links(folders: RepoFolders, plan: Plan) -> int:
    """Remove the links that were added for a snapshot which was never finished. Where another program may have taken
    them for its own since, they stay. Bytes freed. Raises OSError."""
    note = _note(folders, plan)
    noted = _read(note)
    freed = 0
    if noted and not _is_taken(folders, plan):
        for file in plan.files:
            if file.path not in noted or not _is_there(folders, plan, file):
                continue
            place = folders.snapshot(plan.commit) / file.path
            # What still waits was not moved, however alike the times are: some disks count them in seconds.
            if _is_ours(place, noted[file.path]) and not folders.staged(file.etag, plan.commit).exists():
                freed += remove(place)
    note.unlink(missing_ok=True)
    return freed


def _is_taken(folders: RepoFolders, plan: Plan) -> bool:
    """Whether the snapshot is whole after all, or a ref names its commit: no ref of ours does before the last link, so
    somebody has been here whose files may be among these."""
    if plan.commit in read_refs(str(folders.refs), []):
        return True
    return all(_is_there(folders, plan, file) for file in plan.files)


def _is_there(folders: RepoFolders, plan: Plan, file: PlanFile) -> bool:
    """Whether the file's own name leads to its content or is that itself, and no link stands for a folder above it."""
    place = folders.snapshot(plan.commit)
    for name in PurePosixPath(file.path).parts:
        if place.is_symlink():
            return False
        place /= name
    return place.readlink().name == file.etag if place.is_symlink() else file_size(place) == file.size


def _is_ours(place: Path, noted: int | None) -> bool:
    """Whether what is there is what was noted: a link, or the very content of that time."""
    return noted is None if place.is_symlink() else _time(place) == noted


def _time(place: Path) -> int | None:
    """Nanoseconds; None where nothing is."""
    try:
        return place.stat().st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return None


def _note(folders: RepoFolders, plan: Plan) -> Path:
    """One for each choice of files: downloads of the same commit have each their own."""
    chosen = sha256("\n".join(file.path for file in plan.files).encode()).hexdigest()
    return folders.root / f".{plan.commit}-{chosen[:16]}{LINKING}"


def _read(note: Path) -> dict[str, int | None]:
    """Nothing where it is not, or where a power cut has left it empty: then no link is known to be ours."""
    try:
        return dict(json.loads(note.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return {}


def _write(folders: RepoFolders, note: Path, noted: Mapping[str, int | None]) -> None:
    if not noted:
        note.unlink(missing_ok=True)
        return
    temporary = folders.temporary()
    try:
        temporary.write_text(json.dumps(noted, sort_keys=True), encoding="utf-8")
        temporary.replace(note)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
