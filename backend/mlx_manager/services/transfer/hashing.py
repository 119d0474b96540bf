"""Hashing beside the download: a thread that follows the contiguous front of each file.

It reads back what was written (from the page cache), so the hash covers what the file holds, not what was meant to be
written. hashlib lets go of the GIL for blocks of this size.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

from mlx_manager.domain.plan import Digest
from mlx_manager.task_context import in_context

BLOCK = 512 * 1024


def new_hash(digest: Digest, size: int) -> Any:
    """A hash object that gives ``digest.hex`` after ``size`` bytes of the right content."""
    if digest.algorithm == "sha256":
        return hashlib.sha256()
    if digest.algorithm == "git-sha1":
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    raise ValueError(f"unknown hash algorithm {digest.algorithm}")


class FrontHash:
    """The running hash of one file, read through ``fd``. ``front`` is the owner's to set, ``hashed`` the thread's."""

    __slots__ = ("cancelled", "error", "fd", "front", "guard", "hash", "hashed", "owner", "queued", "size")

    def __init__(self, owner: object, fd: int, digest: Digest, size: int) -> None:
        self.owner = owner
        self.fd = fd
        self.size = size
        self.hash = new_hash(digest, size)
        self.front = 0
        self.hashed = 0
        self.queued = False
        self.cancelled = False
        self.guard = threading.Lock()
        self.error: OSError | None = None

    @property
    def complete(self) -> bool:
        return self.hashed == self.size

    def read_on(self, buffer: memoryview) -> bool:
        """Hash the next block, where there is one before the front. False: cancelled, or it went wrong (``error``)."""
        # The guard spans the read, so that a cancelled item's descriptor is never read after it was closed.
        with self.guard:
            if self.cancelled:
                return False
            try:
                got = os.preadv(self.fd, [buffer[: min(len(buffer), self.front - self.hashed)]], self.hashed)
            except OSError as error:
                self.error = error
                return False
        if got == 0:
            self.error = OSError("the file ended before its size")
            return False
        self.hash.update(buffer[:got])
        self.hashed += got
        return True

    def take(self, content: bytes) -> None:
        """Hash the whole of a small file at once, on the caller's thread."""
        self.hash.update(content)
        self.hashed = self.front = len(content)
        if self.hashed < self.size:
            self.error = OSError("the file ended before its size")


class HashThread:
    """One thread for all files of a download. ``on_complete`` is called on it when a file's last byte was hashed."""

    def __init__(self, name: str, on_complete: Callable[[FrontHash], None]) -> None:
        self._on_complete = on_complete
        self._queue: queue.SimpleQueue[FrontHash | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=in_context(self._run), name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def advance(self, item: FrontHash, front: int) -> None:
        """Bytes before ``front`` are written. From the owner's thread."""
        item.front = front
        self._enqueue(item)

    def stop(self) -> None:
        """Ends after the block at hand; joins."""
        self._queue.put(None)
        self._thread.join()

    def cancel(self, item: FrontHash) -> None:
        """Forget an item; its ``fd`` may be closed when this returns."""
        with item.guard:
            item.cancelled = True

    def _enqueue(self, item: FrontHash) -> None:
        with self._lock:
            if item.queued:
                return
            item.queued = True
        self._queue.put(item)

    def _run(self) -> None:
        buffer = memoryview(bytearray(BLOCK))
        while (item := self._queue.get()) is not None:
            with self._lock:
                item.queued = False
            self._follow(item, buffer)

    def _follow(self, item: FrontHash, buffer: memoryview) -> None:
        while item.hashed < item.front and item.read_on(buffer) and self._queue.empty():
            pass
        if item.cancelled:
            return
        if item.error is not None or item.complete:
            self._on_complete(item)
        elif item.hashed < item.front:
            self._enqueue(item)  # others wait: take turns; the front stays the owner's to set
