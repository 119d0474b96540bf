"""Which bytes of a ``.part`` are durable: a small append-only file beside it.

The first line names what is gathered (format, etag, size), each later line is the whole truth at one moment: the
ranges that had been synced before the line was written. Every line carries a CRC, and the last line that is whole
counts, so a crash in the middle of a write costs one line and never lies. A line that is lost only means that some
bytes are fetched again, so lines need no sync of their own.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import zlib
from pathlib import Path

from mlx_manager.services.transfer.extents import Extents

FORMAT = 1
COMPACT_ABOVE = 256 * 1024

log = logging.getLogger(__name__)


def journal_path(part: Path) -> Path:
    return part.with_name(part.name + ".journal")


class Journal:
    """Owned by one thread. Raises OSError from the disk."""

    def __init__(self, part: Path, etag: str, size: int) -> None:
        self.path = journal_path(part)
        self._size = size
        self._head = {"format": FORMAT, "etag": etag, "size": size}
        self._written = 0
        self._may_be_there = True

    def load(self) -> Extents:
        """The durable ranges; none when there is no journal, or one that is not of this content."""
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return Extents()
        records = [record for record in map(_decode, lines) if record is not None]
        if not records or records[0] != self._head:
            if lines:
                log.warning(
                    "The journal %s is not one that this version can use; its bytes are fetched again.", self.path
                )
            return Extents()
        have: list[list[int]] = next((record["have"] for record in reversed(records) if "have" in record), [])
        return Extents((a, b) for a, b in have if 0 <= a < b <= self._size)

    def append(self, have: list[tuple[int, int]]) -> None:
        """Tell that exactly these ranges are durable. The caller has synced them."""
        line = _encode({"have": have})
        if self._written == 0 or self._written + len(line) > COMPACT_ABOVE:
            try:
                self._rewrite(line)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self.path.exists():
                    raise
                # No room for a new file; the old one's last block has some. The line break ends a torn line before it.
                self._append(b"\n" + line)
            return
        self._append(line)

    def begin(self) -> None:
        """Make the file now, while there is room for it: on a disk that is full later a line still fits into it."""
        if not self.path.exists():
            self._rewrite(b"")
            self._written = 0

    def _append(self, line: bytes) -> None:
        self._may_be_there = True
        before, self._written = self._written, 0  # if this goes wrong, the next line begins a new file
        with self.path.open("ab", buffering=0) as file:
            if file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._written = before + len(line)

    def _rewrite(self, line: bytes) -> None:
        text = _encode(self._head) + line
        self._may_be_there = True
        fresh = self.path.with_name(self.path.name + ".new")
        with fresh.open("wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)
        self._written = len(text)

    def remove(self) -> None:
        if not self._may_be_there:
            return  # most small files never had one, and there are hundreds of them
        self._written = 0
        self.path.unlink(missing_ok=True)
        self.path.with_name(self.path.name + ".new").unlink(missing_ok=True)
        self._may_be_there = False


def _encode(record: object) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _decode(line: bytes) -> dict[str, list[list[int]]] | None:
    crc, _, text = line.partition(b" ")
    try:
        if int(crc, 16) != zlib.crc32(text):
            return None
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def durable_bytes(part: Path, etag: str, size: int) -> int:
    """Bytes of a part that a transfer would go on from. Raises OSError."""
    return sum(end - start for start, end in Journal(part, etag, size).load())
