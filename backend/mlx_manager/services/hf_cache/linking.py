"""The last step of a download: snapshot, listing and ref, each complete or not there at all.

Nothing here follows a link that it finds: the library keeps some blobs as links into a store that models share, and
writing through one would change them all.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from mlx_manager.domain.plan import Plan
from mlx_manager.errors import CacheFailed
from mlx_manager.services.drafts import sync_folder
from mlx_manager.services.hf_cache.layout import DRAFT, DRAFT_AGE_S, RepoFolders
from mlx_manager.services.hf_cache.staging import file_size, firsts

TREE_FORMAT = 1


def write_tree(folders: RepoFolders, plan: Plan) -> None:
    """``trees/<commit>.json`` as huggingface_hub writes it: every file of the commit, fetched or not."""
    files: dict[str, dict[str, Any]] = {}
    for file in sorted(plan.tree, key=lambda file: file.path):
        entry: dict[str, Any] = {"size": file.size, "blob_id": file.blob_id}
        if file.sha256 is not None:
            entry |= {"lfs_sha256": file.sha256, "lfs_size": file.size}
        if file.xet_hash is not None:
            entry["xet_hash"] = file.xet_hash
        files[file.path] = entry
    text = json.dumps({"format_version": TREE_FORMAT, "files": files}, indent=1)
    _write(folders, folders.tree(plan.commit), text)


def write_ref(folders: RepoFolders, revision: str, commit: str) -> None:
    """``refs/<revision>``; a commit's own hash needs none."""
    if revision != commit:
        _write(folders, folders.refs / revision, commit)


def link_files(folders: RepoFolders, plan: Plan, contents: Mapping[str, Path], *, symlinks: bool) -> Path:
    """Put every file of the plan into its snapshot, from the place of its etag. Raises OSError, CacheFailed."""
    snapshot = folders.snapshot(plan.commit)
    to_move = {} if symlinks else firsts(folders, plan, contents)
    moved: dict[Path, Path] = {}
    made: dict[str, Path] = {}
    ways: dict[tuple[str, str], str] = {}
    for file in plan.files:
        source = contents[file.etag]
        source = moved.get(source, source)
        if file_size(source) != file.size:
            raise CacheFailed(f"The content of {file.path} is not there: {source} is missing or of a wrong size.")
        above, _, name = file.path.rpartition("/")
        if above not in made:
            made[above] = make_parents(folders, plan.commit, file.path).parent
        target = made[above] / name
        if symlinks:
            ends = str(source.parent), str(target.parent)
            if ends not in ways:
                ways[ends] = os.path.relpath(*ends)
            _symlink(folders, Path(ways[ends], source.name), target)
        elif source in to_move:
            _put(source, target)
            moved[source] = target
        elif source != target:
            _copy(folders, source, target, file.size)
    if moved:
        to_top = {above for folder in made.values() for above in (folder, *folder.parents) if snapshot in above.parents}
        # What was moved has its new name for good before it loses the old one.
        for folder in (*to_top, snapshot, folders.snapshots, folders.blobs):
            sync_folder(folder)
    return snapshot


def make_parents(folders: RepoFolders, commit: str, path: str) -> Path:
    """The place of a file in its snapshot, with real folders above it: a link among them is replaced, not followed."""
    folder = folders.snapshots
    for name in (commit, *PurePosixPath(path).parent.parts):
        folder /= name
        try:
            folder.mkdir()
        except FileExistsError:
            if folder.is_symlink() or not folder.is_dir():
                folder.unlink()
                folder.mkdir()
    return folder / PurePosixPath(path).name


def _symlink(folders: RepoFolders, way: Path, target: Path) -> None:
    try:
        target.symlink_to(way)
    except FileExistsError:
        if target.is_symlink() and target.readlink() == way:
            return
    else:
        return
    temporary = folders.temporary()
    temporary.symlink_to(way)
    _publish(temporary, target)


def _copy(folders: RepoFolders, source: Path, target: Path, size: int) -> None:
    if not target.is_symlink() and target.is_file() and target.stat().st_size == size:
        return
    temporary = folders.temporary()
    try:
        shutil.copyfile(source, temporary)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _publish(temporary, target)
    # By its time it is told from what others put there; see `pending`. Not before: an old draft would be swept away.
    found = source.stat()
    with suppress(OSError):  # some disks let nobody but an owner do this; such a copy stays when it is cancelled
        os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _write(folders: RepoFolders, target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_symlink() and target.is_file() and target.read_text(encoding="utf-8", errors="replace") == text:
        return
    temporary = folders.temporary()
    try:
        temporary.write_text(text, encoding="utf-8")
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _publish(temporary, target)


def _publish(temporary: Path, target: Path) -> None:
    try:
        _put(temporary, target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _put(source: Path, target: Path) -> None:
    """Rename over whatever file or link is there; an empty folder in the way goes, one that holds something stays."""
    if target.is_dir() and not target.is_symlink():
        target.rmdir()
    source.replace(target)


def sweep(folders: RepoFolders, age_s: float = DRAFT_AGE_S) -> None:
    """Remove what a crash has left of files that were about to be put in their place."""
    for folder in (folders.root, folders.blobs):
        for path in folder.glob(".*.tmp"):
            # One that is put in its place at this moment is none any more.
            with suppress(FileNotFoundError):
                if not DRAFT.fullmatch(path.name) or time.time() - path.lstat().st_mtime < age_s:
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)  # of a deletion that was killed
                else:
                    path.unlink()
