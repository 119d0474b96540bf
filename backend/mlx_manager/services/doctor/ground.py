"""Folders and disks, tried for real: what is written for that is removed at once."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mlx_manager.domain.machine_checks import CacheFacts, DiskFacts, FolderFacts

MODELS_LOOKED_INTO = 2000


def look_at_folder(folder: Path) -> FolderFacts:
    """Whether a file can be written there. A folder that is not there yet is not made: its parent is looked at."""
    there = _nearest(folder)
    problem: str | None = None
    full = False
    try:
        if not there.is_dir():
            problem = "there is a file in its place"
        elif there == folder:
            with tempfile.TemporaryFile(dir=folder) as file:
                # More than a file system keeps beside its file's name.
                file.write(bytes(8192))
        elif not os.access(there, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            problem = f"no write access to {there}"
    except OSError as error:
        problem = error.strerror or type(error).__name__
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return FolderFacts(str(folder), there == folder, problem, full)


def look_at_cache(folder: Path) -> CacheFacts:
    """The same, and what its disk can do. Nothing is tried in a cache that is not there yet."""
    facts = look_at_folder(folder)
    if facts.problem is not None or not facts.exists:
        return CacheFacts(facts)
    # A dot: neither `hf` nor we look at such a name.
    with tempfile.TemporaryDirectory(prefix=".mlx-manager-doctor-", dir=folder) as made:
        place = Path(made)
        return CacheFacts(facts, _symlinks_work(place), _locks_work(place), tuple(_elsewhere(folder)))


def look_at_disk(folder: Path, owed: int, owing: int) -> DiskFacts:
    """``owed``: bytes that ``owing`` unfinished downloads still have to get."""
    there = _nearest(folder)
    usage = shutil.disk_usage(there)
    table = os.statvfs(there)
    # Some file systems have no table of files, and say 0.
    files_free = table.f_favail if table.f_files else None
    return DiskFacts(usage.free, usage.total, files_free, owed, owing)


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _symlinks_work(place: Path) -> bool:
    target, link = place / "target", place / "link"
    target.write_text("there")
    try:
        link.symlink_to("target")
    except OSError:
        return False
    return link.read_text() == "there"


def _locks_work(place: Path) -> bool:
    """Whether a lock that one holds keeps another out. flock, as the library and we lock."""
    lock = place / "lock"
    with lock.open("w") as one, lock.open("w") as other:
        try:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _elsewhere(cache: Path) -> Iterator[str]:
    """Places in the cache on another disk than its own: a folder that was mounted or linked there to have more room."""
    own = cache.stat().st_dev
    places = [cache / ".locks", *sorted(cache.glob("models--*"))[:MODELS_LOOKED_INTO]]
    for place in places:
        for folder in (place, place / "blobs", place / "snapshots"):
            if folder.is_dir() and folder.stat().st_dev != own:
                yield str(folder.relative_to(cache))
                break
