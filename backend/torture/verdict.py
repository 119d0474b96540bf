"""What must be true when the last blow has fallen: looked at from outside, by the hub's own words and the disk."""

from __future__ import annotations

import fcntl
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from fakes.hub_client import fetch, follow

# What a server that has ended leaves in its own folder.
DATA_LEFT = {"library.json", "lock", "logs", "mlx-manager.db", "mlx-manager.db-shm", "mlx-manager.db-wal"}


@dataclass(frozen=True, slots=True)
class Truth:
    """A model as the hub has it: etag and size of each path."""

    model: str
    commit: str
    files: dict[str, tuple[str, int]]

    @property
    def size(self) -> int:
        """Bytes to fetch: a content that stands under two names comes once."""
        return sum(dict(self.files.values()).values())

    @property
    def folder(self) -> str:
        return f"models--{self.model.replace('/', '--')}"


def ask_truth(hub_url: str, model: str) -> Truth:
    """Ask a hub without faults."""
    api = f"{hub_url}/api/models/{model}"
    commit = str(json.loads(fetch(f"{api}/revision/main").body)["sha"])
    tree = json.loads(fetch(f"{api}/tree/{commit}?recursive=true").body)
    files = {
        entry["path"]: (entry["lfs"]["oid"] if "lfs" in entry else entry["oid"], entry["size"])
        for entry in tree
        if entry["type"] == "file"
    }
    return Truth(model, commit, files)


def wrong_bytes(hub_url: str, cache: Path, truth: Truth) -> Iterator[str]:
    """Each file of the snapshot, byte for byte against what the hub sends."""
    snapshot = cache / truth.folder / "snapshots" / truth.commit
    for path in truth.files:
        place = snapshot / path
        if not place.is_file():
            yield f"{truth.model}: {path} is not in the snapshot"
        elif place.read_bytes() != follow(f"{hub_url}/{truth.model}/resolve/{truth.commit}/{quote(path)}").body:
            yield f"{truth.model}: {path} has other bytes than the hub"
    ref = cache / truth.folder / "refs" / "main"
    if not ref.is_file() or ref.read_text() != truth.commit:
        yield f"{truth.model}: refs/main does not name its commit"


def orphans(cache: Path, truths: Iterable[Truth]) -> Iterator[str]:
    """Whatever the cache holds beyond the whole models, and locks that somebody still holds."""
    expected: set[Path] = set()
    for truth in truths:
        root, locks = cache / truth.folder, cache / ".locks" / truth.folder
        expected |= {root / "refs" / "main", root / "trees" / f"{truth.commit}.json"}
        for name, (etag, _) in truth.files.items():
            expected |= {root / "blobs" / etag, root / "snapshots" / truth.commit / name, locks / f"{etag}.lock"}
    # Folders count when they are empty.
    folders = {folder for path in expected for folder in path.parents}
    for path in sorted(cache.rglob("*")):
        if path not in expected and path not in folders:
            yield f"left in the cache: {path.relative_to(cache)}"
        elif path.suffix == ".lock" and _is_held(path):
            yield f"still locked: {path.relative_to(cache)}"


def _is_held(lock: Path) -> bool:
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def left_by_server(data: Path, temporary: Path) -> Iterator[str]:
    """After an orderly end: its own folder, and the system's for what is temporary."""
    for name in sorted({entry.name for entry in data.iterdir()} - DATA_LEFT):
        yield f"left in the data folder: {name}"
    for entry in sorted(temporary.iterdir()):
        yield f"left in the temporary folder: {entry.name}"
    with closing(sqlite3.connect(data / "mlx-manager.db")) as database:
        for (word,) in database.execute("PRAGMA integrity_check"):
            if word != "ok":
                yield f"the database is damaged: {word}"
