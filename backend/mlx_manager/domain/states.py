"""The states of a download and the one table of moves between them."""

from __future__ import annotations

from enum import StrEnum

from mlx_manager.errors import MoveNotAllowed


class Status(StrEnum):
    QUEUED = "queued"
    STARTING = "starting"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    COMPLETED = "completed"
    PAUSED = "paused"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_active(self) -> bool:
        """A worker is busy with it."""
        return self in (Status.STARTING, Status.DOWNLOADING, Status.VERIFYING)

    @property
    def is_terminal(self) -> bool:
        """Nothing comes after it on its own; a watcher's stream ends here."""
        return self in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)

    @property
    def is_final(self) -> bool:
        """Nothing follows; one that failed may be set going again."""
        return self in (Status.COMPLETED, Status.CANCELLED)

    @property
    def is_in_flight(self) -> bool:
        """Asking for the same thing again means this one."""
        return not self.is_terminal


class Phase(StrEnum):
    """The finer truth inside a status; its words for people are in the message beside it."""

    WAITING_FOR_SLOT = "waiting_for_slot"
    WAITING_FOR_HUB = "waiting_for_hub"
    LISTING = "listing"
    WAITING_FOR_LOCK = "waiting_for_lock"
    CONNECTING = "connecting"
    TRANSFERRING = "transferring"
    STALLED = "stalled"
    RETRYING = "retrying"
    RATE_LIMITED = "rate_limited"
    DISK_FULL = "disk_full"
    HASHING = "hashing"
    LINKING = "linking"


class Desire(StrEnum):
    """What the person wants of it, written down before anything is signalled."""

    RUN = "run"
    PAUSED = "paused"
    CANCELLED = "cancelled"


class Move(StrEnum):
    START = "start"
    TRANSFER = "transfer"
    VERIFY = "verify"
    COMPLETE = "complete"
    PAUSE = "pause"
    RESUME = "resume"
    REQUEUE = "requeue"
    FAIL = "fail"
    CANCEL = "cancel"


_S, _M = Status, Move
_RUNNING = (_S.STARTING, _S.DOWNLOADING, _S.VERIFYING)

MOVES: dict[tuple[Status, Move], Status] = {
    (_S.QUEUED, _M.START): _S.STARTING,
    (_S.STARTING, _M.TRANSFER): _S.DOWNLOADING,
    (_S.VERIFYING, _M.TRANSFER): _S.DOWNLOADING,  # a file turned out wrong and is fetched again
    (_S.DOWNLOADING, _M.VERIFY): _S.VERIFYING,
    (_S.VERIFYING, _M.COMPLETE): _S.COMPLETED,
    **{(s, _M.PAUSE): _S.PAUSED for s in (_S.QUEUED, *_RUNNING)},
    (_S.PAUSED, _M.RESUME): _S.QUEUED,
    (_S.FAILED, _M.RESUME): _S.QUEUED,
    **{(s, _M.REQUEUE): _S.QUEUED for s in _RUNNING},  # the server stopped or died under it
    **{(s, _M.FAIL): _S.FAILED for s in (_S.QUEUED, *_RUNNING)},
    **{(s, _M.CANCEL): _S.CANCELLED for s in (_S.QUEUED, *_RUNNING, _S.PAUSED, _S.FAILED)},
}


def after(status: Status, move: Move) -> Status:
    """The status that ``move`` leads to. Raises MoveNotAllowed where the table has no such move."""
    try:
        return MOVES[status, move]
    except KeyError:
        raise MoveNotAllowed(f"A download that is {status} cannot be asked to {move}.") from None
