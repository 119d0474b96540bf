"""One model of the cache, read from the disk: its contents, its commits, and what of them is whole.

Paths are strings here: a cache may hold a hundred thousand files, and each of them is looked at.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mlx_manager.domain.library import MOST_MISSING, WEIGHT_SUFFIXES, LocalModel, LocalRevision, is_complete
from mlx_manager.services.hf_cache.layout import COMMIT
from mlx_manager.services.hf_cache.linking import TREE_FORMAT

log = logging.getLogger(__name__)

ABSENT = -1
"""The time of what is not there."""
INDEX = "model.safetensors.index.json"
# Ours, and the library's: <etag>.incomplete, <etag>.<random>.incomplete.
UNFINISHED = re.compile(
    r"([0-9a-f]{40,64})"
    r"(?:\.part(?:\.xet)?(?:\.journal(?:\.new)?)?|\.([0-9a-f]{40})\.whole|(?:\.[\w-]+)?\.incomplete)"
)
"""Its second group: the commit that a whole content waits for."""

Place = tuple[int, int]
"""Device and inode: two links to one content are one content."""


Trace = tuple[str, int, int, int, int | None]
"""Something that was read: path, time of its content in nanoseconds (ABSENT: it was not there), time of its last change
of any kind, inode, and of a content its size. Unchanged if all of this is the same; the second time and the inode tell
it from another that was put in its place with the time of the first, as a backup does."""


@dataclass(frozen=True, slots=True)
class ReadModel:
    """``own_bytes``: what lies in its own folder; ``shared``: contents outside that its blobs are links to. ``moving``:
    it is being fetched, so that the next look may find more."""

    model: LocalModel
    own_bytes: int
    shared: dict[Place, int]
    traces: tuple[Trace, ...]
    is_moving: bool


@dataclass(slots=True)
class Blobs:
    """The contents of a model. ``whole``: size and place by etag; ``unfinished``: etags of contents that are not whole;
    ``partial_bytes``: what those take."""

    whole: dict[str, tuple[int, Place]] = field(default_factory=dict)
    unfinished: set[str] = field(default_factory=set)
    partial_bytes: int = 0
    staged: dict[tuple[str, str], int] = field(default_factory=dict)
    """Etag and commit of each content that waits for a snapshot, and its size."""
    own: dict[Place, int] = field(default_factory=dict)
    shared: dict[Place, int] = field(default_factory=dict)
    traces: dict[str, Trace] = field(default_factory=dict)
    """Of each whole content in its own folder, by its etag."""
    used_at: float = 0.0

    def size_of(self, etag: str, commit: str) -> int | None:
        """Of a whole content that the commit can have; None where it is not here."""
        return self.whole[etag][0] if etag in self.whole else self.staged.get((etag, commit))


def read_model(root: str, model_id: str) -> ReadModel | None:
    """None for a folder without content. Raises OSError for one that cannot be read."""
    if not os.path.isdir(root):
        return None
    traces = [trace_of(root)]
    blobs = read_blobs(f"{root}/blobs", traces)
    refs = read_refs(f"{root}/refs", traces)
    found: list[tuple[float, LocalRevision]] = []
    traces += [trace_of(f"{root}/snapshots"), trace_of(f"{root}/trees")]
    for entry in scan(f"{root}/snapshots"):
        if entry.is_dir(follow_symlinks=False) and COMMIT.fullmatch(entry.name):
            revision = _read_revision(root, entry.name, tuple(sorted(refs.get(entry.name, ()))), blobs, traces)
            found.append((entry.stat(follow_symlinks=False).st_mtime, revision))
    seen = {revision.commit for _, revision in found}
    for entry in scan(f"{root}/trees"):
        traces.append(trace_of(entry.path))
        commit = entry.name.removesuffix(".json")
        if COMMIT.fullmatch(commit) and commit not in seen and (begun := _read_begun(entry.path, commit, blobs)):
            found.append((entry.stat(follow_symlinks=False).st_mtime, begun))
    if not found and not blobs.own and not blobs.shared:
        return None
    found.sort(key=lambda pair: pair[0], reverse=True)
    own = sum(blobs.own.values())
    model = LocalModel(
        model_id=model_id,
        path=root,
        size_bytes=own + sum(blobs.shared.values()),
        partial_bytes=blobs.partial_bytes,
        modified_at=found[0][0] if found else os.stat(root).st_mtime,
        revisions=tuple(revision for _, revision in found),
        last_used_at=blobs.used_at or None,
    )
    return ReadModel(model, own, blobs.shared, tuple(traces), bool(blobs.partial_bytes or blobs.unfinished))


def read_blobs(folder: str, traces: list[Trace]) -> Blobs:
    """All contents of a model. Raises OSError."""
    blobs = Blobs()
    traces.append(trace_of(folder))
    begun: set[str] = set()
    for entry in scan(folder):
        try:
            is_link = entry.is_symlink()
            stat = entry.stat()
        except OSError:
            traces.append(_absent(entry.path))  # a link into the shared store whose content was pruned
            continue
        place = (stat.st_dev, stat.st_ino)
        if unfinished := UNFINISHED.fullmatch(entry.name):
            begun.add(unfinished[1])
            if unfinished[2] is not None:
                blobs.staged[unfinished[1], unfinished[2]] = stat.st_size
            # What a preallocated file really takes, not what it will.
            blobs.own[place] = min(stat.st_size, stat.st_blocks * 512)
            blobs.partial_bytes += blobs.own[place]
        elif entry.is_file():
            blobs.whole[entry.name] = (stat.st_size, place)
            trace = _content_trace(entry.path, stat)
            if is_link:
                # What becomes of it changes no folder of this model.
                blobs.shared[place] = stat.st_size
                traces.append(trace)
            else:
                blobs.own[place] = stat.st_size
                blobs.traces[entry.name] = trace
            blobs.used_at = max(blobs.used_at, stat.st_atime)
    blobs.unfinished = begun - blobs.whole.keys()
    return blobs


def read_refs(folder: str, traces: list[Trace]) -> dict[str, set[str]]:
    """Commit → the names that stand for it. Raises OSError."""
    refs: dict[str, set[str]] = {}
    for path, entry in walk(folder, traces):
        traces.append(trace_of(entry.path))
        try:
            with open(entry.path, "rb") as file:
                commit = file.read(64).strip().decode("ascii", "replace")
        except OSError:
            continue
        if COMMIT.fullmatch(commit):
            refs.setdefault(commit, set()).add(path)
    return refs


def read_snapshot(folder: str, blobs: Blobs, traces: list[Trace]) -> tuple[dict[str, tuple[int, Place]], set[str]]:
    """Path → size and place of what is there, and the paths of links that lead nowhere. Raises OSError."""
    present: dict[str, tuple[int, Place]] = {}
    broken: set[str] = set()
    for path, entry in walk(folder, traces):
        try:
            whole = _blob_of(path, entry, blobs) if entry.is_symlink() else None
            if whole is None:
                stat = entry.stat()
                whole = (stat.st_size, (stat.st_dev, stat.st_ino))
                blobs.used_at = max(blobs.used_at, stat.st_atime)
                # Without symbolic links the content lies here.
                if not entry.is_symlink():
                    blobs.own[whole[1]] = stat.st_size
                if entry.is_symlink() or path.endswith(WEIGHT_SUFFIXES):
                    traces.append(_content_trace(entry.path, stat))
        except OSError:
            broken.add(path)
            traces.append(_absent(entry.path))
            continue
        present[path] = whole
    return present, broken


def _blob_of(path: str, entry: os.DirEntry[str], blobs: Blobs) -> tuple[int, Place] | None:
    """The model's own blob that a link of a snapshot leads to, without another look at the disk."""
    up, _, etag = os.readlink(entry.path).rpartition("/")
    return blobs.whole.get(etag) if up == "../" * (2 + path.count("/")) + "blobs" else None


def _read_revision(root: str, commit: str, refs: tuple[str, ...], blobs: Blobs, traces: list[Trace]) -> LocalRevision:
    snapshot = f"{root}/snapshots/{commit}"
    present, broken = read_snapshot(snapshot, blobs, traces)
    for path in present.keys() | broken:
        # A weight file that is cut short in its place changes no folder.
        if path.endswith(WEIGHT_SUFFIXES) and (etag := _link_name(f"{snapshot}/{path}")) in blobs.traces:
            traces.append(blobs.traces[etag])
    listing = read_tree(f"{root}/trees/{commit}.json")
    if listing is None:
        missing = broken | {path for path in _shards(snapshot, present) if path not in present}
        interrupted = bool(blobs.unfinished)
    else:
        missing = {path for path, (size, _) in listing.items() if path not in present or present[path][0] != size}
        interrupted = any(listing[path][1] in blobs.unfinished for path in missing)
    whole = present.keys() - missing
    return LocalRevision(
        commit=commit,
        refs=refs,
        files=len(whole),
        files_total=None if listing is None else len(listing),
        size_bytes=sum({place: size for size, place in present.values()}.values()),
        complete=is_complete(whole, missing, listed=listing is not None, interrupted=interrupted),
        missing=tuple(sorted(missing)[:MOST_MISSING]),
        missing_files=len(missing),
        missing_bytes=None if listing is None else sum(listing[path][0] for path in missing),
    )


def _read_begun(tree: str, commit: str, blobs: Blobs) -> LocalRevision | None:
    """A commit that is being fetched, or was: listed, without a snapshot yet. None when nothing of it is here."""
    listing = read_tree(tree) or {}
    etags = {etag for _, etag in listing.values()}
    if etags.isdisjoint(blobs.whole) and etags.isdisjoint(blobs.unfinished):
        return None
    here = {etag: size for etag in etags if (size := blobs.size_of(etag, commit)) is not None}
    missing = sorted(path for path, (size, etag) in listing.items() if here.get(etag) != size)
    return LocalRevision(
        commit=commit,
        refs=(),
        files=len(listing) - len(missing),
        files_total=len(listing),
        size_bytes=sum(here.values()),
        complete=False,
        missing=tuple(missing[:MOST_MISSING]),
        missing_files=len(missing),
        missing_bytes=sum(listing[path][0] for path in missing),
    )


def read_tree(path: str) -> dict[str, tuple[int, str]] | None:
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


def _shards(snapshot: str, present: dict[str, tuple[int, Place]]) -> set[str]:
    """The weight files that a model's own index names."""
    if INDEX not in present:
        return set()
    document = _read_json(f"{snapshot}/{INDEX}")
    names = document.get("weight_map") if isinstance(document, dict) else None
    return {name for name in names.values() if isinstance(name, str)} if isinstance(names, dict) else set()


def _read_json(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            return json.loads(file.read())
    except (OSError, ValueError, RecursionError):
        return None


def read_files(root: str, commit: str) -> dict[str, int]:
    """Path → size of what is here of a commit, whole or with a wrong size. Raises OSError."""
    present, _ = read_snapshot(f"{root}/snapshots/{commit}", read_blobs(f"{root}/blobs", []), [])
    return {path: size for path, (size, _) in present.items()}


def trace_of(path: str) -> Trace:
    try:
        stat = os.stat(path)
    except OSError:
        return _absent(path)
    return path, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, None


def _absent(path: str) -> Trace:
    return path, ABSENT, 0, 0, None


def _content_trace(path: str, stat: os.stat_result) -> Trace:
    return path, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_size


def _link_name(path: str) -> str:
    try:
        return os.readlink(path).rpartition("/")[2]
    except OSError:
        return ""


def scan(folder: str) -> list[os.DirEntry[str]]:
    """The entries of a folder that may not be there."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def walk(folder: str, traces: list[Trace] | None = None) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything below a folder but folders, with its path from there. Links to folders are not followed. ``traces``
    gets each folder."""
    waiting = [("", folder)]
    while waiting:
        prefix, place = waiting.pop()
        if traces is not None:
            traces.append(trace_of(place))
        for entry in scan(place):
            path = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append((f"{path}/", entry.path))
            else:
                yield path, entry
