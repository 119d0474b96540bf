"""The cache's own lock of a blob, as `hf` holds it while it downloads: flock on ``.locks/<repo>/<etag>.lock``.

The same call on the same file as filelock's, which huggingface_hub uses, in a fifth of the time: that counts where a
model has hundreds of small files. What goes beyond flock is left to filelock.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from filelock import SoftFileLock, Timeout

from mlx_manager.errors import CacheFailed

MODE = 0o664
MOST_TRIES = 5
"""Somebody who tidies up may remove the folder once before the file is in it, hardly five times in a row."""
_HELD_BY_ANOTHER = (errno.EAGAIN, errno.EACCES)
_NO_FLOCK_HERE = (errno.ENOSYS, errno.EOPNOTSUPP)


class BlobLock:
    """Owned by one thread. It ends with the process, however that ends. Raises OSError from the disk, and CacheFailed
    where the lock's folder is made and never there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._soft: SoftFileLock | None = None

    def try_acquire(self) -> bool:
        """Whether it is held now; False while another has it, or removes its file. Held already: True."""
        if self._soft is not None:
            return self._try_soft(self._soft)
        if self._fd >= 0:
            return True
        fd = self._open()
        if fd is None:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink == 0:
                # Removed between the two calls: a lock of a name that nobody else can see.
                os.close(fd)
                return False
        except OSError as error:
            os.close(fd)
            if error.errno in _HELD_BY_ANOTHER:
                return False
            if error.errno not in _NO_FLOCK_HERE:
                raise
            # huggingface_hub falls back in the same way.
            self._soft = SoftFileLock(self._path, mode=MODE, thread_local=False)
            return self._try_soft(self._soft)
        self._fd = fd
        return True

    def release(self) -> None:
        """The file stays, as others may be waiting at it. Twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._soft is not None:
            self._soft.release(force=True)
            self._soft = None

    def _open(self) -> int | None:
        """None: somebody removed it between two looks; another try finds how things stand then."""
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        for _ in range(MOST_TRIES):
            try:
                fd = os.open(self._path, flags | os.O_CREAT | os.O_EXCL, MODE)
            except FileExistsError:
                try:
                    return os.open(self._path, flags)
                except FileNotFoundError:
                    return None
            except FileNotFoundError:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            else:
                # For others of the group, whatever our umask says, as hf makes it.
                os.fchmod(fd, MODE)
                return fd
        raise CacheFailed(
            f"The cache's lock {self._path} cannot be made: its folder is made and is not there.",
            advice="See whether another program deletes the cache's folder .locks over and over, then resume.",
        )

    @staticmethod
    def _try_soft(lock: SoftFileLock) -> bool:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        return True
