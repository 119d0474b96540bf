"""What a cancelled download leaves: nothing that was only its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mlx_manager.domain.plan import Plan
from mlx_manager.services.hf_cache.layout import RepoFolders, remove
from mlx_manager.services.hf_cache.linking import sweep
from mlx_manager.services.hf_cache.pending import undo_links


def discard(folders: RepoFolders, plan: Plan, keep: Collection[str]) -> int:
    """Remove parts and journals, the files of a snapshot that was never finished, then the whole contents that no
    snapshot links to or got, then what is empty. Bytes freed.

    Untouched: etags in ``keep``, and blobs that another process holds the lock of. As long as anybody else works on
    this model, its links, its whole contents and its folders stay too: they may be what the other has just finished.
    """
    freed = 0
    alone = True
    mine: list[str] = []
    for file in plan.blobs:
        if file.etag in keep:
            alone = False
            continue
        with _held(folders.lock(file.etag)) as ours:
            if not ours:
                alone = False
                continue
            mine.append(file.etag)
            freed += sum(map(remove, folders.unfinished(file.etag)))
    if alone and not _anybody_else(folders, mine):
        freed += undo_links(folders, plan)
        linked = _linked(folders)
        for etag in mine:
            with _held(folders.lock(etag)) as ours:
                if ours and etag not in linked:
                    freed += sum(map(remove, [folders.blob(etag), *folders.all_staged(etag)]))
                    # While it is held: whoever waits for it sees that it guards no name any more, and makes a new one.
                    folders.lock(etag).unlink(missing_ok=True)
        sweep(folders, age_s=1.0)
        _remove_empty(folders, plan.commit)
    return freed


@contextmanager
def _held(lock: Path) -> Iterator[bool]:
    """Whether the lock is ours while this lasts. Where there is no folder of locks, nobody can hold one."""
    if not lock.parent.is_dir():
        yield True
        return
    guard = FileLock(lock, timeout=0, mode=0o664)
    try:
        guard.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        guard.release()


def _anybody_else(folders: RepoFolders, mine: Collection[str]) -> bool:
    """Whether somebody holds the lock of a content that is not ``mine``: of another commit of this model."""
    if not folders.locks.is_dir():
        return False
    for lock in folders.locks.glob("*.lock"):
        if lock.stem not in mine:
            with _held(lock) as free:
                if not free:
                    return True
    return False


def _linked(folders: RepoFolders) -> set[str]:
    """The etags that any snapshot of the model links to."""
    if not folders.snapshots.is_dir():
        return set()
    return {path.readlink().name for path in folders.snapshots.rglob("*") if path.is_symlink()}


def _remove_empty(folders: RepoFolders, commit: str) -> None:
    snapshot = folders.snapshot(commit)
    if snapshot.is_dir() and not snapshot.is_symlink():
        for folder in sorted((path for path in snapshot.rglob("*") if _is_folder(path)), reverse=True):
            _remove_folder(folder)
        _remove_folder(snapshot)
    if not snapshot.exists():
        folders.tree(commit).unlink(missing_ok=True)
    for folder in (folders.snapshots, folders.refs, folders.trees, folders.blobs, folders.root, folders.locks):
        _remove_folder(folder)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_empty(folder: Path) -> bool:
    return not folder.is_dir() or next(folder.iterdir(), None) is None


def _remove_folder(folder: Path) -> None:
    """Remove it if it is empty; somebody may have put something into it since it was looked at."""
    if not _is_folder(folder):
        return
    try:
        folder.rmdir()
    except OSError:
        if _is_empty(folder):
            raise
