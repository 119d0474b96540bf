"""Content of files: made from a seed, given as bytes, or taken from a disk; hashed once, read from anywhere."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from dataclasses import dataclass
from pathlib import Path

BLOCK = 1 << 20
# Every block is the same random mebibyte, turned by this much more than the one before. It is odd, so no two of the
# first 2^20 blocks are alike, and a byte that lands at a wrong offset is always a wrong byte. Turning costs nothing.
TURN = 4099


@dataclass(frozen=True)
class Blob:
    """`size` bytes that look random and depend on nothing but `seed`; the first are `head`, if there is one.

    A gigabyte takes a few seconds, once.
    """

    size: int
    seed: int = 0
    head: bytes = b""

    def slice(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` up to `stop`, so that a test can check a part without making the whole."""
        out = bytearray(self.head[start:stop])
        start += len(out)
        block = _random_block(self.seed)
        while start < min(stop, self.size):
            index, inside = divmod(start, BLOCK)
            n = min(BLOCK - inside, min(stop, self.size) - start)
            at = (index * TURN + inside) % BLOCK
            piece = block[at : at + n]
            out += piece + block[: n - len(piece)]
            start += n
        return bytes(out)


@dataclass(frozen=True)
class Disk:
    """A file that exists already and is served from where it is. It must not change while the hub runs."""

    path: Path


Source = bytes | str | Blob | Disk


@dataclass(frozen=True)
class Content:
    """Bytes ready to be served, in memory (`data`) or in a file (`path`), with the two hashes that the Hub knows."""

    size: int
    sha256: str
    git_sha1: str
    data: bytes | None = None
    path: Path | None = None

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` up to `stop`."""
        if self.data is not None:
            return self.data[start:stop]
        assert self.path is not None
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)


def from_bytes(data: bytes) -> Content:
    """Return `data` as content."""
    return Content(len(data), hashlib.sha256(data).hexdigest(), _git_sha1(data), data=data)


def plain(data: bytes) -> Content:
    """Return `data` as content without hashing it: for answers that are not files."""
    return Content(len(data), "", "", data=data)


class BlobStore:
    """Keeps generated content as files in one folder and remembers hashes. Safe to use from several threads.

    A folder that outlives the hub may be given to several hubs, one after the other: content is made once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[Source, Content] = {}
        self._lock = threading.Lock()

    def content(self, source: Source) -> Content:
        """Return the content of `source`, making and hashing it when it is new."""
        if isinstance(source, str):
            source = source.encode()
        if isinstance(source, bytes):
            return from_bytes(source)
        with self._lock:
            if source not in self._known:
                self._known[source] = _disk(source.path) if isinstance(source, Disk) else self._generate(source)
            return self._known[source]

    def _generate(self, blob: Blob) -> Content:
        name = f"blob-{blob.size}-{blob.seed}-{hashlib.sha256(blob.head).hexdigest()[:8]}"
        path = self._folder / name
        if not path.exists() or path.stat().st_size != blob.size:
            self._write(blob, path)
        # A suite makes the same blobs for one hub after the other: each is hashed once.
        if blob not in _hashes:
            _hashes[blob] = _hashed(path)
        sha256, git_sha1 = _hashes[blob]
        return Content(blob.size, sha256, git_sha1, path=path)

    def _write(self, blob: Blob, path: Path) -> None:
        block = memoryview(_random_block(blob.seed))
        making = path.with_suffix(f".{os.getpid()}")
        with making.open("wb", buffering=0) as file:
            left, turn = blob.size, 0
            while left > 0:
                for piece in (block[turn:], block[:turn]):
                    left -= file.write(piece[:left])
                turn = (turn + TURN) % BLOCK
            file.seek(0)
            file.write(blob.head)
        making.replace(path)


_blocks: dict[int, bytes] = {}
_hashes: dict[Blob, tuple[str, str]] = {}


def _random_block(seed: int) -> bytes:
    if seed not in _blocks:
        _blocks[seed] = random.Random(seed).randbytes(BLOCK)
    return _blocks[seed]


def _git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _disk(path: Path) -> Content:
    sha256, git_sha1 = _hashed(path)
    return Content(path.stat().st_size, sha256, git_sha1, path=path)


def _hashed(path: Path) -> tuple[str, str]:
    """Return a file's SHA-256 and git's hash of it."""
    size = path.stat().st_size
    sha256 = hashlib.sha256()
    git = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    # Git's hash matters only to files that are not LFS; no test has one of this size, and it would double the cost.
    with_git = size <= 64 << 20
    with path.open("rb") as file:
        while data := file.read(BLOCK):
            sha256.update(data)
            if with_git:
                git.update(data)
    return sha256.hexdigest(), git.hexdigest() if with_git else ""
