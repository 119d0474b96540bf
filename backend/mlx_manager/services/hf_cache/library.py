"""What models the cache holds: read from the disk each time, so that other tools' work is seen and none is trusted."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_manager.domain.library import LocalModel, LocalRevision, is_complete
from mlx_manager.services.hf_cache.layout import COMMIT
from mlx_manager.services.hf_cache.linking import TREE_FORMAT

log = logging.getLogger(__name__)

PREFIX = "models--"
INDEX = "model.safetensors.index.json"
# `org--name`, or the name alone for models from the Hub's first years.
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*", re.ASCII)
# Ours, and the library's: <etag>.incomplete, <etag>.<random>.incomplete.
_UNFINISHED = re.compile(r"([0-9a-f]{40,64})(?:\.part(?:\.xet)?(?:\.journal(?:\.new)?)?|(?:\.[\w-]+)?\.incomplete)")


@dataclass(slots=True)
class _Disk:
    """Contents by their place on the disk: two links to one blob are one content."""

    sizes: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, stat: os.stat_result) -> int:
        """Count a file, and return its size."""
        self.sizes[stat.st_dev, stat.st_ino] = stat.st_size
        return stat.st_size

    @property
    def total(self) -> int:
        return sum(self.sizes.values())


@dataclass(slots=True)
class _Blobs:
    """``whole``: size by etag; ``unfinished``: etags of contents that are not whole; ``partial_bytes``: what those
    take."""

    disk: _Disk
    whole: dict[str, int]
    unfinished: set[str]
    partial_bytes: int


def read_library(cache_dir: Path) -> list[LocalModel]:
    """Every model in the cache, by name. Raises OSError when the cache cannot be read; none is an empty one."""
    models = []
    try:
        with os.scandir(cache_dir) as found:
            entries = [entry for entry in found if entry.name.startswith(PREFIX)]
    except FileNotFoundError:
        return []
    for entry in entries:
        parts = entry.name.removeprefix(PREFIX).split("--")
        if len(parts) > 2 or not all(_NAME.fullmatch(part) for part in parts):
            log.debug("not the folder of a model: %r", entry.name)
            continue
        try:
            model = _read_model(Path(entry.path), "/".join(parts))
        except OSError as error:
            log.warning("%s in the cache cannot be read: %s", "/".join(parts), error.strerror)
            continue
        if model is not None:
            models.append(model)
    return sorted(models, key=lambda model: model.model_id.casefold())


def _read_model(root: Path, model_id: str) -> LocalModel | None:
    """None for a folder without content. Raises OSError for one that cannot be read."""
    if not root.is_dir():
        return None
    blobs = _read_blobs(root / "blobs")
    refs = _read_refs(root / "refs")
    found: list[tuple[float, LocalRevision]] = []
    for entry in _scan(root / "snapshots"):
        if entry.is_dir(follow_symlinks=False) and COMMIT.fullmatch(entry.name):
            revision = _read_revision(root, entry.name, tuple(sorted(refs.get(entry.name, ()))), blobs)
            found.append((entry.stat(follow_symlinks=False).st_mtime, revision))
    seen = {revision.commit for _, revision in found}
    for entry in _scan(root / "trees"):
        commit = entry.name.removesuffix(".json")
        if COMMIT.fullmatch(commit) and commit not in seen and (begun := _read_begun(Path(entry.path), commit, blobs)):
            found.append((entry.stat(follow_symlinks=False).st_mtime, begun))
    if not found and not blobs.disk.sizes:
        return None
    found.sort(key=lambda pair: pair[0], reverse=True)
    return LocalModel(
        model_id=model_id,
        path=str(root),
        size_bytes=blobs.disk.total,
        partial_bytes=blobs.partial_bytes,
        modified_at=found[0][0] if found else root.stat().st_mtime,
        revisions=tuple(revision for _, revision in found),
    )


def _read_blobs(folder: Path) -> _Blobs:
    disk = _Disk()
    whole: dict[str, int] = {}
    begun: set[str] = set()
    partial = 0
    for entry in _scan(folder):
        try:
            stat = entry.stat()
        except OSError:
            continue  # a link into the shared store whose content was pruned
        if unfinished := _UNFINISHED.fullmatch(entry.name):
            begun.add(unfinished[1])
            # What a preallocated file really takes, not what it will.
            taken = min(stat.st_size, stat.st_blocks * 512)
            disk.sizes[stat.st_dev, stat.st_ino] = taken
            partial += taken
        elif entry.is_file():
            whole[entry.name] = disk.add(stat)
    return _Blobs(disk, whole, begun - whole.keys(), partial)


def _read_refs(folder: Path) -> dict[str, set[str]]:
    """Commit → the names that stand for it."""
    refs: dict[str, set[str]] = {}
    for path, entry in _walk(folder):
        try:
            with Path(entry.path).open("rb") as file:
                commit = file.read(64).strip().decode("ascii", "replace")
        except OSError:
            continue
        if COMMIT.fullmatch(commit):
            refs.setdefault(commit, set()).add(path)
    return refs


def _read_revision(root: Path, commit: str, refs: tuple[str, ...], blobs: _Blobs) -> LocalRevision:
    snapshot = root / "snapshots" / commit
    disk = _Disk()
    present: dict[str, int] = {}
    broken: set[str] = set()
    for path, entry in _walk(snapshot):
        try:
            stat = entry.stat()
        except OSError:
            broken.add(path)
            continue
        present[path] = disk.add(stat)
        # Without symbolic links the content lies here.
        blobs.disk.add(stat)
    listing = _read_tree(root / "trees" / f"{commit}.json")
    if listing is None:
        missing = broken | {path for path in _shards(snapshot, present) if path not in present}
        interrupted = bool(blobs.unfinished)
    else:
        missing = {path for path, (size, _) in listing.items() if present.get(path) != size}
        interrupted = any(listing[path][1] in blobs.unfinished for path in missing)
    whole = present.keys() - missing
    return LocalRevision(
        commit=commit,
        refs=refs,
        files=len(whole),
        files_total=None if listing is None else len(listing),
        size_bytes=disk.total,
        complete=is_complete(whole, missing, listed=listing is not None, interrupted=interrupted),
    )


def _read_begun(tree: Path, commit: str, blobs: _Blobs) -> LocalRevision | None:
    """A commit that is being fetched, or was: listed, without a snapshot yet. None when nothing of it is here."""
    listing = _read_tree(tree) or {}
    etags = {etag for _, etag in listing.values()}
    if etags.isdisjoint(blobs.whole) and etags.isdisjoint(blobs.unfinished):
        return None
    return LocalRevision(
        commit=commit,
        refs=(),
        files=sum(blobs.whole.get(etag) == size for size, etag in listing.values()),
        files_total=len(listing),
        size_bytes=sum(blobs.whole.get(etag, 0) for etag in etags),
        complete=False,
    )


def _read_tree(path: Path) -> dict[str, tuple[int, str]] | None:
    """Path → size and etag of every file of a commit; None where that is not known."""
    document = _read_json(path)
    if not isinstance(document, dict) or document.get("format_version") != TREE_FORMAT:
        return None
    try:
        return {
            str(name): (int(info.get("lfs_size") or info["size"]), str(info.get("lfs_sha256") or info["blob_id"]))
            for name, info in document["files"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        log.debug("not a listing: %s", path)
        return None


def _shards(snapshot: Path, present: dict[str, int]) -> set[str]:
    """The weight files that a model's own index names."""
    if INDEX not in present:
        return set()
    document = _read_json(snapshot / INDEX)
    names = document.get("weight_map") if isinstance(document, dict) else None
    return {name for name in names.values() if isinstance(name, str)} if isinstance(names, dict) else set()


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder that may not be there."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _walk(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything below a folder but folders, with its path from there. Links to folders are not followed."""
    waiting = [("", folder)]
    while waiting:
        prefix, place = waiting.pop()
        for entry in _scan(place):
            path = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append((f"{path}/", Path(entry.path)))
            else:
                yield path, entry
