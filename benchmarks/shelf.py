"""A large cache, laid out as `hf` does: a thousand models that take no room to speak of."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

SHARDS = 4
# What models of the Hub have beside their shards; the rest of the files are small ones in folders.
NAMES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json", "README.md")


@dataclass(frozen=True, slots=True)
class Shelf:
    """``files`` of each model, its shards included; ``root`` is the cache."""

    root: Path
    models: int = 1000
    files: int = 100

    def make(self) -> int:
        """Make it, unless it is there as it should be. Bytes of all contents, which no two files share."""
        mark = self.root.parent / f"{self.root.name}.made"
        wanted = f"{self.models} {self.files} "
        if mark.is_file() and self.root.is_dir() and (said := mark.read_text()).startswith(wanted):
            return int(said.split()[2])
        shutil.rmtree(self.root, ignore_errors=True)
        total = sum(self._make_model(at) for at in range(self.models))
        mark.write_text(f"{wanted}{total}")
        return total

    def model(self, at: int) -> Path:
        return self.root / f"models--org{at % 37}--Model-{at:04}-4bit"

    def _make_model(self, at: int) -> int:
        root = self.model(at)
        commit = hashlib.sha1(str(at).encode(), usedforsecurity=False).hexdigest()
        snapshot = root / "snapshots" / commit
        for folder in (root / "blobs", root / "refs", root / "trees", snapshot / "sub" / "folder"):
            folder.mkdir(parents=True)
        listing, total = {}, 0
        for path in self._paths():
            content = f"{at} {path}\n".encode()
            blob_id = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
            entry: dict[str, str | int] = {"size": len(content), "blob_id": blob_id}
            etag = blob_id
            if path.endswith(".safetensors"):
                etag = hashlib.sha256(content).hexdigest()
                entry |= {"lfs_sha256": etag, "lfs_size": len(content)}
            listing[path] = entry
            (root / "blobs" / etag).write_bytes(content)
            (snapshot / path).symlink_to("../" * (path.count("/") + 2) + f"blobs/{etag}")
            total += len(content)
        (root / "trees" / f"{commit}.json").write_text(json.dumps({"format_version": 1, "files": listing}, indent=1))
        (root / "refs" / "main").write_text(commit)
        return total

    def _paths(self) -> list[str]:
        shards = [f"model-{at + 1:05}-of-{SHARDS:05}.safetensors" for at in range(SHARDS)]
        small = [f"{'sub/folder/' if at % 3 else ''}part-{at:03}.txt" for at in range(self.files)]
        return [*shards, *NAMES, *small][: self.files]
