"""The data directory of one running MLX Manager: who holds it, and where the others find it.

The lock is the truth: ``flock`` on ``<home>/lock``, which the kernel lets go of when its holder dies, however it dies.
``<home>/server.json`` only says where the holder can be reached; without the lock's holder it means nothing.
"""

from __future__ import annotations

import errno
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from mlx_manager.errors import DataDirInUse, DataDirNotWritable
from mlx_manager.services import drafts
from mlx_manager.services.locks import is_locked

_LOCK, _SERVER = "lock", "server.json"


@dataclass(frozen=True, slots=True)
class RunningServer:
    """How to reach the server that holds a data directory. ``others``: how other machines reach it. No URL has a slash
    at its end."""

    url: str
    pid: int
    version: str
    token_needed: bool = False
    others: tuple[str, ...] = ()


class DataDir:
    """The directory as its one holder sees it. All calls block for the time of a small file operation. ``folders``:
    those in it where drafts are written too."""

    def __init__(self, home: Path, *folders: Path) -> None:
        self.home = home
        self._folders = (home, *folders)
        # Shared by threads: an embedded server is started by one thread and ended by another.
        self._lock = FileLock(home / _LOCK, thread_local=False)

    def acquire(self) -> None:
        """Make the folder and take the lock, or raise at once: DataDirInUse (with the holder's address, if it is known
        already) or DataDirNotWritable."""
        try:
            # Downloads and their errors are the person's own business on a shared machine.
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise _in_use(self.home) from None
        except OSError as error:
            raise _not_writable(self.home, error) from error
        try:
            # Left behind by one that was killed: nobody may take it for ours.
            (self.home / _SERVER).unlink(missing_ok=True)
        except OSError as error:
            self.release()
            raise _not_writable(self.home, error) from error
        for folder in self._folders:
            drafts.sweep(folder)

    def announce(self, server: RunningServer) -> None:
        """Tell the others where this server is; they see the whole file or none. Raises DataDirNotWritable."""
        try:
            drafts.replace_whole(self.home / _SERVER, (json.dumps(asdict(server)) + "\n").encode())
        except OSError as error:
            raise _not_writable(self.home, error) from error

    def withdraw(self) -> None:
        """Take the announcement back; the lock stays. Twice is fine. Raises DataDirNotWritable."""
        try:
            (self.home / _SERVER).unlink(missing_ok=True)
        except OSError as error:
            raise _not_writable(self.home, error) from error

    def release(self) -> None:
        """Take the announcement back and let the lock go. Twice is fine. Raises DataDirNotWritable after letting go."""
        if not self._lock.is_locked:
            return
        try:
            self.withdraw()
        finally:
            self._lock.release()


def is_held(home: Path) -> bool:
    """Whether a process holds the data directory. Raises DataDirNotWritable when the lock cannot be looked at."""
    try:
        return is_locked(home / _LOCK)
    except OSError as error:
        raise _not_writable(home, error) from error


def running_server(home: Path) -> RunningServer | None:
    """What the holder of a data directory announced; None when nothing usable is there. It may have died since.

    Raises DataDirNotWritable when the file cannot be read.
    """
    try:
        said = json.loads((home / _SERVER).read_text(encoding="utf-8"))
        return RunningServer(
            url=str(said["url"]),
            pid=int(said["pid"]),
            version=str(said["version"]),
            token_needed=bool(said.get("token_needed")),
            others=tuple(map(str, said.get("others", ()))),
        )
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        # Not ours, then: the file is only ever replaced as a whole.
        return None
    except OSError as error:
        raise _not_writable(home, error) from error


def _in_use(home: Path) -> DataDirInUse:
    server = running_server(home)
    if server is None:
        return DataDirInUse(f"Another MLX Manager holds {home} and is just starting or ending.")
    return DataDirInUse(f"MLX Manager runs already at {server.url} (process {server.pid}) and holds {home}.")


def _not_writable(home: Path, error: OSError) -> DataDirNotWritable:
    reason, advice = error.strerror or str(error), None
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        reason, advice = (
            "there is a file in its place",
            "Move the file away, or set MLX_MANAGER_HOME to another folder.",
        )
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "Free some space on its disk, or set MLX_MANAGER_HOME to a folder on another one."
    return DataDirNotWritable(f"The data directory {home} cannot be used: {reason}.", advice=advice)
