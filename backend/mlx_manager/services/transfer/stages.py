"""A file's way from waiting to published: locks, what is here already, hashes, and the move into the cache."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mlx_manager.domain import words
from mlx_manager.errors import (
    READ_ONLY_ADVICE,
    CacheFailed,
    CacheGone,
    CacheNotWritable,
    DiskError,
    DiskFull,
    HashMismatch,
    TooManyFiles,
)
from mlx_manager.services.ports import VerifiedBlobs
from mlx_manager.services.transfer.durable import DiskThread
from mlx_manager.services.transfer.extents import WorkList
from mlx_manager.services.transfer.gathering import Gathering, Stage
from mlx_manager.services.transfer.hashing import FrontHash, HashThread
from mlx_manager.services.transfer.limits import TransferLimits
from mlx_manager.services.transfer.publishing import Publisher
from mlx_manager.services.transfer.repair import Repair

WORTH_A_LINE = 1 << 20
"""Bytes. Of hundreds of smaller files a line for all that came together is enough of a story."""


class Stages:
    """Lives in the transfer's thread; ``hashed`` and ``on_disk`` are posted to it from the helpers' threads."""

    def __init__(
        self,
        files: Sequence[Gathering],
        hasher: HashThread,
        disk: DiskThread,
        limits: TransferLimits,
        verified: VerifiedBlobs,
        log: logging.LoggerAdapter[Any],
    ) -> None:
        self._files = files
        self._hasher = hasher
        self._disk = disk
        self._limits = limits
        self._verified = verified
        self._log = log
        self._publisher = Publisher(disk, verified)
        self._waiting = deque(files)
        self._locked_out: list[Gathering] = []
        self._ripe: list[Gathering] = []
        self._ask_locks_at = 0.0
        self._sync_at = time.monotonic() + limits.first_sync_s
        self._finished_bytes = 0
        self.open: list[Gathering] = []
        """Those that hold descriptors, in the order that they were taken up. All others wait or are done."""
        self.changed: set[Gathering] = set()
        """Whose progress is another than before; whoever shows it empties this."""
        self.files_done = 0

    @property
    def all_done(self) -> bool:
        return self.files_done == len(self._files)

    @property
    def first_connections(self) -> int:
        """How many to begin with. Small files wait for round trips and not for the line, and ask little of anybody."""
        mostly_small = sum(file.is_small for file in self._files) * 2 > len(self._files)
        return self._limits.first_connections * (2 if mostly_small else 1)

    @property
    def reused_bytes(self) -> int:
        return sum(file.reused for file in self._files)

    @property
    def done_bytes(self) -> int:
        return self._finished_bytes + sum(file.done_bytes for file in self.open)

    def advance(self, wanted: int) -> None:
        """Take up files, in order, until ``wanted`` more have something to fetch, or too many are open."""
        if not (self._waiting or self._locked_out):
            return
        now = time.monotonic()
        if self._locked_out and now >= self._ask_locks_at:
            self._ask_locks_at = now + self._limits.lock_poll_s
            self._waiting.extendleft(reversed(self._locked_out))
            self._locked_out = []
        while self._waiting and wanted > 0 and len(self.open) < self._limits.open_files:
            file = self._waiting.popleft()
            self._take_up(file)
            self.changed.add(file)
            if file.is_open:
                self.open.append(file)
            wanted -= bool(file.work)

    def _take_up(self, file: Gathering) -> None:
        try:
            if not file.try_lock():
                if file.stage is not Stage.LOCKED_OUT:
                    self._log.info("%s: another program is fetching it; waiting for that", file.job.path)
                file.stage = Stage.LOCKED_OUT
                self._locked_out.append(file)
                return
            found = next((place for place in (file.job.target, *file.job.elsewhere) if place.exists()), None)
            if found is not None:
                self._check_present(file, found)
            else:
                self._begin(file)
        except OSError as error:
            raise disk_error(error, file.job.size) from error

    def _check_present(self, file: Gathering, target: Path) -> None:
        file.found = target
        if target.stat().st_size != file.job.size:
            self._log.warning("%s: the cache holds it with a wrong size; it is fetched again", file.job.path)
            self._begin(file)
        elif self._verified.is_verified(target):
            self._use_present(file, known=True)
        else:
            self._log.info("%s: is here already; checking its bytes", file.job.path)
            file.stage = Stage.CHECKING
            file.part.fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
            self._hash(file)

    def _begin(self, file: Gathering) -> None:
        file.begin()
        kept = f", {words.size(file.reused)} of it kept from before" if file.reused else ""
        level = logging.INFO if file.job.size >= WORTH_A_LINE else logging.DEBUG
        self._log.log(level, "%s: begun, %s%s", file.job.path, words.size(file.job.size), kept)
        self._hash(file)

    def _hash(self, file: Gathering) -> None:
        file.hash = FrontHash(file, file.part.fd, file.job.digest, file.job.size)
        self.wrote(file)

    def wrote(self, file: Gathering) -> None:
        """More bytes of a file are in place: let the hash follow."""
        if file.hash is None:
            return
        front = file.job.size if file.stage is Stage.CHECKING else file.part.have.front
        if file.is_small:
            # Cheaper done than handed to another thread; but not here, in the middle of libcurl's call.
            if front == file.job.size:
                self._ripe.append(file)
        elif front > file.hash.front:
            self._hasher.advance(file.hash, front)

    def hashed(self, item: FrontHash) -> None:
        """The hash thread came to the end of a file, or could not read on."""
        file = item.owner
        if not isinstance(file, Gathering) or file.hash is not item:
            return
        if item.error is not None:
            raise disk_error(item.error, file.job.size)
        right = item.hash.hexdigest() == file.job.digest.hex
        if file.stage is Stage.CHECKING:
            self._checked(file, right)
        elif right:
            file.stage = Stage.PUBLISHING
            self._publisher.add(file, time.monotonic())
        else:
            self._wrong(file)

    def _checked(self, file: Gathering, right: bool) -> None:
        self._drop_hash(file)
        file.part.close()
        if right:
            self._use_present(file, known=False)
            return
        self._log.warning("%s: the bytes in the cache are not what the Hub says; fetched again", file.job.path)
        try:
            self._begin(file)
        except OSError as error:
            raise disk_error(error, file.job.size) from error

    def _wrong(self, file: Gathering) -> None:
        """All bytes came and the hash is wrong. They are read once more, and compared, to find those that lie."""
        self._drop_hash(file)
        if not self._read_next_share(file):
            self._read_again(file)

    def _read_next_share(self, file: Gathering) -> bool:
        """False when the reading has come to its end."""
        share = file.repair.next_share() if file.repair is not None else None
        if share is None:
            return False
        file.part.doubt(*share)
        file.reused = min(file.reused, file.part.have.total)
        file.work = WorkList(file.part.have.gaps(file.job.size))
        return True

    def _share_came(self, file: Gathering) -> None:
        """Bytes that were doubted are all here again."""
        if file.part.differs:
            self._log.info("%s: some bytes were not what had come before; hashed again", file.job.path)
            self._hash(file)
        elif not self._read_next_share(file):
            self._read_again(file)

    def _read_again(self, file: Gathering) -> None:
        """A whole reading, the first or a later one, left the hash wrong."""
        file.hash_failures += 1
        path = file.job.path
        if file.hash_failures >= self._limits.hash_attempts:
            file.stage = Stage.WAITING
            file.part.forget()
            self._disk.submit((file, "drop"), file.part.remove)
            mismatch = HashMismatch(
                f"{path} came {words.count(file.hash_failures, 'time')} with wrong bytes; none were kept."
            )
            mismatch.file = path
            raise mismatch
        self._log.warning("%s: the bytes do not have the hash that the Hub names; read again to find which", path)
        file.source.resolve_again(file.source.address)
        file.repair = Repair(file.job.size, self._limits.piece_bytes)
        if not self._read_next_share(file):
            self._hash(file)  # of no bytes: no reading can make that right, and it ends after as many tries

    def _published(self) -> None:
        files = self._publisher.done()
        together = len(files) > 1
        for file in files:
            self._drop_hash(file)
            file.part.close()
            how = f"verified ({file.job.digest.algorithm}) and in place"
            self._finish(file, how, told=not together or file.job.size >= WORTH_A_LINE)
        small = sum(file.job.size < WORTH_A_LINE for file in files)
        if together and small:
            said = words.count(small, "small file")
            self._log.info("%s verified and in place (%d of %d)", said, self.files_done, len(self._files))

    def _use_present(self, file: Gathering, *, known: bool) -> None:
        """The blob is here and right; ``known``: not just found out. A part of ours that is left over from before is
        of no use any more."""
        file.reused = file.job.size
        file.stage = Stage.PUBLISHING
        self._disk.submit((file, "tidy"), lambda: self._tidy(file, known))

    def _tidy(self, file: Gathering, known: bool) -> None:
        file.part.remove()
        if not known:
            self._verified.remember([file.found])

    def _finish(self, file: Gathering, how: str, *, told: bool = True) -> None:
        file.stage = Stage.DONE
        file.unlock()
        self.open.remove(file)
        self.changed.add(file)
        self.files_done += 1
        self._finished_bytes += file.job.size
        level = logging.INFO if told else logging.DEBUG
        self._log.log(level, "%s: %s (%d of %d)", file.job.path, how, self.files_done, len(self._files))

    def on_disk(self, key: tuple[Gathering, str], error: Exception | None) -> None:
        """The disk thread did a job for a file."""
        file, what = key
        if what == "sync":
            file.syncing = False
        if isinstance(error, OSError):
            raise disk_error(error, file.job.size) from error
        if error is not None:
            raise error
        if what == "publish":
            self._published()
        elif what == "tidy":
            self._finish(file, "was in place already")

    def tend(self) -> None:
        """Once a round: what came is hashed, put away, or made durable."""
        # Once each, although the last bytes of a file may have come over two connections.
        ripe, self._ripe = dict.fromkeys(self._ripe), []
        for file in ripe:
            if file.hash is not None and file.stage in (Stage.CHECKING, Stage.FETCHING):
                file.hash.take(file.part.content())
                self.hashed(file.hash)
        for file in self.open:
            if file.repair is not None and file.hash is None and file.stage is Stage.FETCHING and not file.owed:
                self._share_came(file)
        now = time.monotonic()
        self._publisher.tend(now, last=not self._waiting and all(f.stage is Stage.PUBLISHING for f in self.open))
        if now >= self._sync_at:
            self._sync_at = now + self._limits.sync_every_s
            self._sync()

    def _sync(self) -> None:
        """Have what came since the last time made durable: this is the most that a crash can cost."""
        for file in self.open:
            if file.stage is Stage.FETCHING and file.part.dirty and not file.syncing:
                file.syncing = True
                try:
                    file.part.settle()
                except OSError as error:
                    raise disk_error(error, file.job.size) from error
                self._disk.submit((file, "sync"), partial(file.part.sync, list(file.part.have), file.part.changes))

    def close_down(self) -> None:
        """No more bytes come: journal what is here. What a sync under way leaves out, the next one takes."""
        for file in self.open:
            file.syncing = False
        self._sync()

    def release(self) -> None:
        """Both helper threads have ended."""
        self._publisher.close()
        for file in self._files:
            file.part.close()
            file.unlock()

    def _drop_hash(self, file: Gathering) -> None:
        if file.hash is not None:
            self._hasher.cancel(file.hash)
            file.hash = None


def disk_error(error: OSError, needed: int) -> DiskError:
    """What the disk said, for people."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"The disk is full: a file of {words.size(needed)} does not fit. What was received is kept.")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return TooManyFiles(f"No more files can be opened here: {error.strerror}. What was received is kept.")
    if error.errno == errno.ENOENT:
        return CacheGone("The model's folder was deleted from the cache while files were fetched into it.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = READ_ONLY_ADVICE if error.errno == errno.EROFS else None
        return CacheNotWritable(f"The cache cannot be written to: {error.strerror}.", advice=advice)
    return CacheFailed(f"The cache's disk failed: {error.strerror or error}.")
