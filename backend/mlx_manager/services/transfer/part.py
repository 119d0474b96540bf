"""A file while it gathers: ``<blob>.part``, its journal, and what of it is here."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

from mlx_manager.services.transfer.extents import Extents
from mlx_manager.services.transfer.journal import Journal

JOURNAL_AT_ONCE = 4 << 20
"""Smaller files are mostly whole before a journal would be written."""
F_PREALLOCATE = 42
"""macOS' fcntl that reserves room; Python does not name it."""
MAX_VIEWS = 1024
"""The most that one system call takes (IOV_MAX on Linux and macOS)."""


class Part:
    """The transfer's thread opens and writes it; ``sync`` may run on another. Raises OSError from the disk."""

    def __init__(self, path: Path, etag: str, size: int) -> None:
        self.path = path
        self.size = size
        self.have = Extents()
        self.resumed_bytes = 0
        self.journal = Journal(path, etag, size)
        self.fd = -1
        self.differs = False
        """What came once more was not what had come before."""
        self._comparing = False
        self._changes = self._synced = 0

    def open(self) -> None:
        """Take up what a former run left, or make room for the whole file."""
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            found = os.fstat(self.fd).st_size
            if found == self.size:
                self.have = self.journal.load()
                reserve(self.fd, self.size)
            else:
                self._begin_anew(found)
        except OSError:
            self.close()
            raise
        self.resumed_bytes = self.have.total
        self._synced = self._changes

    def _begin_anew(self, found: int) -> None:
        """An old journal goes first: beside a part that is full of zeros it would be believed."""
        self.have = Extents()
        self.journal.remove()
        if found:
            os.ftruncate(self.fd, 0)
        try:
            reserve(self.fd, self.size)
        except OSError:
            os.ftruncate(self.fd, 0)  # what room was found is of no use here, and others may need it
            raise
        if self.size >= JOURNAL_AT_ONCE:
            self.journal.begin()

    def write(self, chunks: Sequence[bytes], offset: int) -> None:
        """Write and count the bytes that are not here yet. What is here is never written again: it may be hashed."""
        end = offset + sum(map(len, chunks))
        for start, stop in self.have.holes(offset, end):
            views = _cut(chunks, start - offset, stop - offset)
            if self._comparing and not self.differs:
                self.differs = self._read(start, stop) != b"".join(views)
            self._write(views, start)
            self.have.add(start, stop)
            self._changes += 1

    def _write(self, views: list[memoryview], offset: int) -> None:
        """All of ``views``; a short write goes on."""
        while views:
            done = os.pwritev(self.fd, views[:MAX_VIEWS], offset)
            offset += done
            while views and done >= len(views[0]):
                done -= len(views.pop(0))
            if done:
                views[0] = views[0][done:]

    def wrote(self, start: int, end: int) -> None:
        """Another process has written these bytes into the file."""
        self.have.add(start, end)
        self._changes += 1

    @property
    def dirty(self) -> bool:
        return self._changes != self._synced

    def settle(self) -> None:
        """Before a ``sync``: what is not in the file yet is written to it."""

    def sync(self, have: list[tuple[int, int]], changes: int) -> None:
        """Make ``have``, the truth after ``changes``, durable, then say so in the journal: in this order, or the
        journal would lie after a crash."""
        data_sync(self.fd)
        self.journal.append(have)
        self._synced = changes

    def forget(self) -> None:
        """None of the bytes count any more. The journal still says otherwise until it is removed."""
        self.have = Extents()
        self._changes += 1

    def doubt(self, start: int, end: int) -> None:
        """These bytes are to come once more. What is there stays until then, to be compared."""
        self._comparing, self.differs = True, False
        self.have.remove(start, end)
        self._changes += 1

    def _read(self, start: int, end: int) -> bytes:
        return os.pread(self.fd, end - start, start)

    @property
    def changes(self) -> int:
        """How often something was written or forgotten."""
        return self._changes

    def content(self) -> bytes:
        """All of a small file."""
        return self._read(0, self.size)

    def make_durable(self) -> None:
        data_sync(self.fd)

    def publish(self, target: Path) -> None:
        """Put the file in its place in one step. The caller has made its bytes durable, and does so with the folder."""
        self.path.replace(target)

    def remove(self) -> None:
        remove_part(self.path)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class SmallPart(Part):
    """A part that is kept in memory until it is whole, so that it is made, written and synced away from the transfer's
    thread; one that takes longer than a moment is settled, and from then on like any other."""

    _memory: bytearray | None = None

    def open(self) -> None:
        if self.path.exists():
            super().open()
        else:
            self._memory = bytearray(self.size)

    def _write(self, views: list[memoryview], offset: int) -> None:
        if self._memory is None:
            super()._write(views, offset)
            return
        for view in views:
            self._memory[offset : offset + len(view)] = view
            offset += len(view)

    def settle(self) -> None:
        if self._memory is not None:
            self._make()

    def _read(self, start: int, end: int) -> bytes:
        return super()._read(start, end) if self._memory is None else bytes(self._memory[start:end])

    def make_durable(self) -> None:
        self.settle()
        super().make_durable()

    def _make(self) -> None:
        """Into the file, under the same name as any part: what ends here in the middle is taken up as one."""
        memory = self._memory
        assert memory is not None
        self.journal.remove()
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        super()._write([memoryview(memory)], 0)
        self._memory = None


def xet_part(part: Path) -> Path:
    """Where Xet gathers a file, beside the ``part`` that ranges are gathered in: neither spoils the other's bytes."""
    return part.with_name(part.name + ".xet")


def remove_part(path: Path) -> None:
    """A part and its journal, where they are."""
    path.unlink(missing_ok=True)
    Journal(path, "", 0).remove()


def _cut(chunks: Sequence[bytes], start: int, stop: int) -> list[memoryview]:
    """Bytes ``[start, stop)`` of the chunks put together."""
    views = []
    for chunk in chunks:
        if start < len(chunk) and stop > 0:
            views.append(memoryview(chunk)[max(start, 0) : stop])
        start -= len(chunk)
        stop -= len(chunk)
    return views


def reserve(fd: int, size: int) -> None:
    """Give the file its size, with its room on the disk where the platform can: a full disk shows now, not at 99 %."""
    if sys.platform == "linux" and size:
        try:
            os.posix_fallocate(fd, 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
    # Counted from the end of the file's room: what is taken up again has its own already.
    if sys.platform == "darwin" and size and not os.fstat(fd).st_size:
        try:
            fcntl.fcntl(fd, F_PREALLOCATE, macos_room(size))
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
                raise
    os.ftruncate(fd, size)


def macos_room(size: int) -> bytes:
    """The order for so much room, as macOS' ``struct fstore``: all of it or none (F_ALLOCATEALL), from the end of the
    file's room (F_PEOFPOSMODE), offset, length, and place for what was given."""
    return struct.pack("=Iiqqq", 0x4, 3, 0, size, 0)


def data_sync(fd: int) -> None:
    """To the medium. macOS' fsync stops at the drive's cache; F_FULLFSYNC does not."""
    if sys.platform == "darwin":
        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
                raise
        os.fsync(fd)
        return
    os.fdatasync(fd)
