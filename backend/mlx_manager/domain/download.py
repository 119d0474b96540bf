"""A download and everything that may happen to it.

``apply(download, change)`` is the only way from one state to the next: a pure function over frozen values. A change
says what happened and when (``at``: seconds since 1970, from the caller's clock); `states.MOVES` says what may follow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mlx_manager.domain import words
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.progress import WINDOW_S
from mlx_manager.domain.states import Desire, Move, Phase, Status, after
from mlx_manager.errors import MoveNotAllowed


@dataclass(frozen=True, slots=True)
class FileProgress:
    """One file of a download. ``state``: waiting, transferring, hashing, done (verified and in the cache)."""

    path: str
    size: int
    done_bytes: int
    state: str


@dataclass(frozen=True, slots=True)
class Sample:
    """What a running download says of itself at one moment. Bytes are totals of the whole download.

    ``reused_bytes`` were here already when this run began (finished files and the journal's); ``received_bytes`` came
    over the wire in this run. ``last_byte_age_s`` is None while no byte is due.
    """

    downloaded_bytes: int
    reused_bytes: int
    received_bytes: int
    speed_bps: float
    eta_s: float | None
    last_byte_age_s: float | None
    files_done: int
    phase: Phase
    message: str
    since: float
    deadline: float | None
    advice: str | None = None
    connections: int = 0
    files: tuple[FileProgress, ...] = ()


@dataclass(frozen=True, slots=True)
class Download:
    """All that is known of one download. ``epoch`` grows each time a worker takes it up; ``attempt`` each time the
    person or a restart had it begin anew. ``transfer_began_at``: when this run could begin to fetch; what it waited for
    before, a slot or the Hub, has nothing to do with how fast the bytes came."""

    task_id: str
    request: ModelRequest
    created_at: float
    priority: int = 0
    status: Status = Status.QUEUED
    desire: Desire = Desire.RUN
    epoch: int = 0
    attempt: int = 0
    commit: str | None = None
    total_bytes: int = 0
    total_is_estimate: bool = False
    downloaded_bytes: int = 0
    reused_bytes: int = 0
    received_bytes: int = 0
    speed_bps: float = 0.0
    eta_s: float | None = None
    last_byte_age_s: float | None = None
    connections: int = 0
    files_done: int = 0
    files_total: int = 0
    files: tuple[FileProgress, ...] = ()
    phase: Phase | None = Phase.WAITING_FOR_SLOT
    message: str = "Accepted."
    since: float = 0.0
    deadline: float | None = None
    place: int | None = None
    error: str | None = None
    error_code: str | None = None
    advice: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    transfer_began_at: float | None = None

    @property
    def model_id(self) -> str:
        return self.request.model_id


@dataclass(frozen=True, slots=True)
class Started:
    """A worker took it up in a new epoch."""

    at: float
    epoch: int


@dataclass(frozen=True, slots=True)
class SizeEstimated:
    """The Hub did not answer in time: the size by the model's name, in bytes; None where the name says nothing."""

    at: float
    total_bytes: int | None


@dataclass(frozen=True, slots=True)
class SizesKnown:
    at: float
    commit: str
    total_bytes: int
    files_total: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nothing moves and this is why: what it waits for, and until when (``deadline``), if that is known. ``advice``:
    what the person can do about it meanwhile."""

    at: float
    phase: Phase
    message: str
    deadline: float | None = None
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class InLine:
    """``place`` in the queue, from 1."""

    at: float
    place: int


@dataclass(frozen=True, slots=True)
class Progressed:
    at: float
    sample: Sample


@dataclass(frozen=True, slots=True)
class Verifying:
    """``sample``: what the worker says of itself at that moment, in the same breath."""

    at: float
    sample: Sample | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    at: float


@dataclass(frozen=True, slots=True)
class Failed:
    at: float
    error: str
    code: str
    advice: str


@dataclass(frozen=True, slots=True)
class Paused:
    """``error``, ``code``, ``advice`` are there when the machine asked for the pause (a full disk), not the person."""

    at: float
    error: str | None = None
    code: str | None = None
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class Resumed:
    at: float


@dataclass(frozen=True, slots=True)
class Requeued:
    """The server stopped or died under it; it goes on by itself."""

    at: float


@dataclass(frozen=True, slots=True)
class Cancelled:
    """``leftover``: why something partial had to stay on the disk; None when all of it is gone."""

    at: float
    leftover: str | None = None


Change = (
    Started
    | SizeEstimated
    | SizesKnown
    | Waiting
    | InLine
    | Progressed
    | Verifying
    | Completed
    | Failed
    | Paused
    | Resumed
    | Requeued
    | Cancelled
)

_STILL = {"speed_bps": 0.0, "eta_s": None, "last_byte_age_s": None, "connections": 0, "deadline": None, "place": None}
_NO_ERROR = {"error": None, "error_code": None, "advice": None}


def apply(download: Download, change: Change) -> Download:
    """The download after ``change``. Raises MoveNotAllowed where the state does not allow it."""
    d = download
    match change:
        case Started(at, epoch):
            said = {"phase": Phase.WAITING_FOR_HUB, "message": "Starting.", "since": at}
            begun = d.started_at if d.started_at is not None else at
            run = {"epoch": epoch, "attempt": d.attempt + 1, "started_at": begun}
            fresh = {"received_bytes": 0, "transfer_began_at": None}
            return _moved(d, Move.START, **run, **fresh, **said, **_STILL, **_NO_ERROR)
        case SizeEstimated(_, total):
            if d.status is not Status.STARTING:
                return d
            return replace(d, total_bytes=total or 0, total_is_estimate=total is not None)
        case SizesKnown(at, commit, total, files_total):
            sizes = {"commit": commit, "total_bytes": total, "total_is_estimate": False, "files_total": files_total}
            said = {"phase": Phase.CONNECTING, "message": "Sizes known.", "since": at, "deadline": None, "advice": None}
            began = at if d.transfer_began_at is None else d.transfer_began_at
            return _moved(d, Move.TRANSFER, transfer_began_at=began, **sizes, **said)
        case Waiting(at, phase, message, deadline, advice):
            _only(d, d.status.is_active or d.status is Status.QUEUED, "wait")
            since = d.since if phase is d.phase else at
            return replace(d, phase=phase, message=message, since=since, deadline=deadline, advice=advice)
        case InLine(at, place):
            _only(d, d.status is Status.QUEUED, "stand in line")
            message = f"Waiting for a free slot, {words.ordinal(place)} in line."
            since = d.since if d.place is not None else at
            return replace(d, phase=Phase.WAITING_FOR_SLOT, message=message, place=place, since=since)
        case Progressed(_, s):
            _only(d, d.status.is_active, "get on")
            return replace(d, **{name: getattr(s, name) for name in Sample.__dataclass_fields__})
        case Verifying(at, s):
            message = s.message if s else "Checking the last bytes."
            said = {"phase": Phase.HASHING, "message": message, "since": at, "deadline": None}
            told = apply(d, Progressed(at, s)) if s else d
            return _moved(told, Move.VERIFY, **{"last_byte_age_s": None, **said})
        case Completed(at):
            said = {"phase": None, "message": _how_it_came(d, at), "since": at}
            done = {"downloaded_bytes": d.total_bytes, "files_done": d.files_total, "files": (), "finished_at": at}
            return _moved(d, Move.COMPLETE, **done, **said, **_STILL, **_NO_ERROR)
        case Failed(at, error, code, advice):
            trouble = {"error": error, "error_code": code, "advice": advice, "message": error}
            return _moved(d, Move.FAIL, phase=None, since=at, finished_at=at, **trouble, **_STILL)
        case Paused(at, error, code, advice):
            said = {
                "error": error,
                "error_code": code,
                "advice": advice,
                "phase": Phase.DISK_FULL if code == "disk_full" else None,
                "message": error or "Paused. All that was received is kept.",
                "since": at,
            }
            return _moved(d, Move.PAUSE, desire=Desire.PAUSED, **said, **_STILL)
        case Resumed(at):
            return _moved(d, Move.RESUME, desire=Desire.RUN, finished_at=None, **_in_line(at), **_NO_ERROR)
        case Requeued(at):
            return _moved(d, Move.REQUEUE, **_in_line(at), **_NO_ERROR)
        case Cancelled(at, leftover):
            message = f"Cancelled. {leftover or 'Nothing partial was kept.'}"
            said = {"phase": None, "message": message, "since": at, "finished_at": at}
            gone = {"downloaded_bytes": 0, "reused_bytes": 0, "files_done": 0, "files": ()}
            return _moved(d, Move.CANCEL, desire=Desire.CANCELLED, **said, **gone, **_STILL, **_NO_ERROR)


def aged(download: Download, by_s: float) -> Download:
    """An active download after ``by_s`` seconds without a word from its worker: what the clock alone makes of it."""
    if download.last_byte_age_s is None:
        return download
    age = download.last_byte_age_s + by_s
    if age <= WINDOW_S:
        return replace(download, last_byte_age_s=age)
    # No byte within the window that the rate is taken over: the old rate, and all that follows from it, is over.
    return replace(download, last_byte_age_s=age, speed_bps=0.0, eta_s=None)


def beside(download: Download, trouble: str, advice: str) -> Download:
    """The same with a trouble that is not its own, told beside what it says itself."""
    return replace(download, message=f"{download.message} {trouble}", advice=download.advice or advice)


def _how_it_came(d: Download, at: float) -> str:
    """153.4 MB received in 14 s, 11.0 MB/s; 46.6 MB more were here already; every byte verified."""
    if not d.received_bytes:
        return f"All {words.size(d.total_bytes)} were here already; every byte verified."
    took = None if d.transfer_began_at is None else max(0.0, at - d.transfer_began_at)
    told = f"{words.size(d.received_bytes)} received"
    if took is not None:
        told += f" in {words.duration(took)}"
        # Of less than a second the rate says nothing.
        told += f", {words.size(d.received_bytes / took)}/s" if took >= 1 else ""
    here = d.total_bytes - d.received_bytes
    kept = f"; {words.size(here)} more were here already" if here > 0 else ""
    return f"{told}{kept}; every byte verified."


def _only(download: Download, allowed: bool, what: str) -> None:
    if not allowed:
        raise MoveNotAllowed(f"A download that is {download.status} cannot {what}.")


def _in_line(at: float) -> dict[str, object]:
    return {**_STILL, "phase": Phase.WAITING_FOR_SLOT, "message": "Waiting for a free slot.", "since": at}


def _moved(download: Download, move: Move, **fields: object) -> Download:
    return replace(download, status=after(download.status, move), **fields)  # type: ignore[arg-type]
