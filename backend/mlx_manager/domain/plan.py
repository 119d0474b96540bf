"""What a download will fetch: a commit and its files, each with its size and the hash the Hub says it has."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from mlx_manager.errors import EmptyRepository, NoFileMatches, UnsafeFileName

ROOM_TO_LEAVE = 64 * 1024 * 1024
"""Bytes of the disk that no download takes."""


@dataclass(frozen=True, slots=True)
class Digest:
    """``algorithm`` is "sha256" (LFS and Xet files) or "git-sha1" (git's blob hash: ``blob <size>\\0`` + content)."""

    algorithm: str
    hex: str


@dataclass(frozen=True, slots=True)
class PlanFile:
    """One file of a commit. ``size`` in bytes; ``blob_id`` is git's SHA-1; ``sha256`` only for LFS and Xet files."""

    path: str
    size: int
    blob_id: str
    sha256: str | None = None
    xet_hash: str | None = None

    @property
    def etag(self) -> str:
        """The name of the blob in the Hugging Face cache."""
        return self.sha256 or self.blob_id

    @property
    def digest(self) -> Digest:
        return Digest("sha256", self.sha256) if self.sha256 else Digest("git-sha1", self.blob_id)


@dataclass(frozen=True, slots=True)
class Plan:
    """``files`` are those to have; ``tree`` is everything the commit holds (the cache keeps the whole listing)."""

    model_id: str
    revision: str
    commit: str
    files: tuple[PlanFile, ...]
    tree: tuple[PlanFile, ...]

    @property
    def blobs(self) -> tuple[PlanFile, ...]:
        """The files with each content once: two paths of the same bytes are one blob."""
        return tuple({file.etag: file for file in reversed(self.files)}.values())[::-1]

    @property
    def total_bytes(self) -> int:
        """Bytes of all blobs."""
        return sum(file.size for file in self.blobs)

    def to_json(self) -> dict[str, Any]:
        chosen = {file.path for file in self.files}
        return {
            "model_id": self.model_id,
            "revision": self.revision,
            "commit": self.commit,
            "tree": [[f.path, f.size, f.blob_id, f.sha256, f.xet_hash, f.path in chosen] for f in self.tree],
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> Plan:
        rows = [(PlanFile(*row[:5]), bool(row[5])) for row in data["tree"]]
        return Plan(
            model_id=data["model_id"],
            revision=data["revision"],
            commit=data["commit"],
            files=tuple(file for file, chosen in rows if chosen),
            tree=tuple(file for file, _ in rows),
        )


def make_plan(
    model_id: str,
    revision: str,
    commit: str,
    tree: Iterable[PlanFile],
    allow_patterns: tuple[str, ...] | None = None,
    ignore_patterns: tuple[str, ...] | None = None,
) -> Plan:
    """Choose the files as `hf download --include/--exclude` does, and refuse a listing that would leave its folder.

    Raises EmptyRepository, NoFileMatches, UnsafeFileName.
    """
    entries = tuple(sorted(tree, key=lambda file: file.path))
    if not entries:
        raise EmptyRepository(f"{model_id} at {revision} holds no file.")
    for file in entries:
        check_path(file.path)
    check_tree(entries)
    files = tuple(file for file in entries if is_wanted(file.path, allow_patterns, ignore_patterns))
    if not files:
        raise NoFileMatches(f"None of the {len(entries)} files of {model_id} at {revision} matches the patterns.")
    return Plan(model_id=model_id, revision=revision, commit=commit, files=files, tree=entries)


def is_wanted(path: str, allow: tuple[str, ...] | None, ignore: tuple[str, ...] | None) -> bool:
    """huggingface_hub's rule: shell patterns on the whole path, a pattern that ends in / means all below it."""

    def matches(patterns: tuple[str, ...]) -> bool:
        return any(fnmatchcase(path, pattern + "*" if pattern.endswith("/") else pattern) for pattern in patterns)

    return (allow is None or matches(allow)) and not (ignore is not None and matches(ignore))


def check_path(path: str) -> None:
    """A file name from a hub is hostile until it passed here. Raises UnsafeFileName."""
    parts = PurePosixPath(path).parts
    reason = ""
    if not path or path.startswith("/") or path != "/".join(parts):
        reason = "it is not a plain relative path"
    elif any(part in (".", "..") for part in parts):
        reason = "it climbs out of its folder"
    elif any(unicodedata.category(char) in ("Cc", "Cs") for char in path):
        reason = "it holds control characters"
    elif "\\" in path:
        reason = "it holds a backslash"
    elif any(len(part.encode()) > 255 for part in parts) or len(path.encode()) > 1024:
        reason = "it is too long for a file system"
    if reason:
        raise UnsafeFileName(f"The repository names a file {path[:80]!r}: {reason}.")


def check_tree(files: Iterable[PlanFile]) -> None:
    """No file twice, and none that is also the folder of another. Raises UnsafeFileName."""
    seen: set[str] = set()
    folders: set[str] = set()
    for file in files:
        if file.path in seen:
            raise UnsafeFileName(f"The repository names the file {file.path[:80]!r} twice.")
        seen.add(file.path)
        folders.update(str(parent) for parent in PurePosixPath(file.path).parents)
    if clash := seen & folders:
        raise UnsafeFileName(f"The repository names {min(clash)[:80]!r} both as a file and as a folder.")


def case_collisions(files: Iterable[PlanFile]) -> list[str]:
    """Paths that are the same file on a file system that ignores case or Unicode form (macOS by default)."""
    folded: dict[str, str] = {}
    clashes = []
    for file in files:
        key = unicodedata.normalize("NFC", file.path).casefold()
        if folded.setdefault(key, file.path) != file.path:
            clashes.append(file.path)
    return clashes
