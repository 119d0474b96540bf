"""One file on its way: what of it is here, who fetches what, and what is to be done next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mlx_manager.services.ports import FileJob
from mlx_manager.services.transfer.backoff import Backoff
from mlx_manager.services.transfer.blob_lock import BlobLock
from mlx_manager.services.transfer.extents import WorkList
from mlx_manager.services.transfer.hashing import FrontHash
from mlx_manager.services.transfer.limits import TransferLimits
from mlx_manager.services.transfer.part import Part, SmallPart
from mlx_manager.services.transfer.repair import Repair
from mlx_manager.services.transfer.source import Health, Source

SMALL = 256 * 1024
"""Bytes. Such files come in hundreds: what is done for each one costs more than its bytes."""


class Stage(StrEnum):
    WAITING = "waiting"
    LOCKED_OUT = "locked_out"
    """Another process gathers the same blob; when it is done, the file is simply there."""
    CHECKING = "checking"
    """A blob is here already and is hashed before it is believed."""
    FETCHING = "fetching"
    PUBLISHING = "publishing"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong and has not been made good by a byte since; ``until`` on the steady clock: not asked before.
    ``unreachable``: the host that could not be reached."""

    reason: str
    until: float
    tries: int
    rate_limited: bool
    advice: str | None = None
    unreachable: str | None = None


class Gathering:
    """Plain state, owned by the transfer's thread; the engine moves it from stage to stage."""

    def __init__(
        self,
        job: FileJob,
        limits: TransferLimits,
        token_for: Callable[[str], str | None],
        mirrors: Sequence[str] = (),
        health: Health | None = None,
        *,
        by_others: bool = False,
    ) -> None:
        """``by_others``: another process writes the part, so it must be a file from the start."""
        self.job = job
        self.stage = Stage.WAITING
        self.source = Source(job.url, token_for, mirrors, health)
        kind = SmallPart if self.is_small and not by_others else Part
        self.part = kind(job.part, job.digest.hex, job.size)
        self.found = job.target
        """Where it was here already."""
        self.work = WorkList([])
        self.active = 0
        self.backoff = Backoff(limits.backoff_first_s, limits.backoff_max_s)
        self.hash_failures = 0
        self.repair: Repair | None = None
        self.trouble: Trouble | None = None
        self.hash: FrontHash | None = None
        self.syncing = False
        self.reused = 0
        self._lock = BlobLock(job.lock)

    @property
    def done_bytes(self) -> int:
        if self.stage is Stage.DONE:
            return self.job.size
        if self.stage is Stage.CHECKING:
            return self.hash.hashed if self.hash else 0
        if self.stage is Stage.PUBLISHING:
            return self.job.size
        return self.part.have.total

    @property
    def state(self) -> str:
        """For people, as `domain.download.FileProgress` has it."""
        if self.stage is Stage.DONE:
            return "done"
        if self.stage in (Stage.CHECKING, Stage.PUBLISHING):
            return "hashing"
        if self.stage is Stage.FETCHING:
            return "transferring" if self.owed else "hashing"
        return "waiting"

    @property
    def is_open(self) -> bool:
        """It holds descriptors."""
        return self.stage in (Stage.CHECKING, Stage.FETCHING, Stage.PUBLISHING)

    @property
    def owed(self) -> bool:
        """Bytes of it are still to come."""
        return self.stage is Stage.FETCHING and self.part.have.total < self.job.size

    @property
    def is_small(self) -> bool:
        """It takes a round trip and no time."""
        return self.job.size <= SMALL

    @property
    def wants_connection(self) -> bool:
        """There is a range to ask for, and asking now makes sense: the first answer shows where the bytes are, and
        until it came one request is enough."""
        if self.stage is not Stage.FETCHING or not self.work:
            return False
        address = self.source.address
        return self.active == 0 or (address.resolved and not address.ignores_ranges)

    def begin(self) -> None:
        """Open the part and see what is missing. Raises OSError."""
        self.part.open()
        self.work = WorkList(self.part.have.gaps(self.job.size))
        self.reused = self.part.resumed_bytes
        self.stage = Stage.FETCHING

    def try_lock(self) -> bool:
        """Hold the cache's own lock of this blob. Raises OSError."""
        return self._lock.try_acquire()

    def unlock(self) -> None:
        self._lock.release()
