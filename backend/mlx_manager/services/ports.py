"""What the rooms of `services` and `storage` promise one another.

Rooms do not import one another; each keeps to one of these contracts, `wiring` introduces them. Everything named here
has one conformance suite in the tests, so that another engine (a job queue, another database) can take a place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.download import Change, Download, Sample
from mlx_manager.domain.events import Event, EventKind
from mlx_manager.domain.library import Library
from mlx_manager.domain.plan import Digest, Plan, PlanFile
from mlx_manager.domain.states import Desire, Status

Report = Callable[[Change], None]
"""Called by a worker on the manager's loop. Raises DownloadSuperseded when its epoch is over."""

Execute = Callable[[str, int, Report], Awaitable[None]]
"""``execute(download_id, epoch, report)``: the whole work of one download. Returns when it is complete; raises a
MlxManagerError when it failed, CancelledError when it was told to stop (all bytes kept)."""


class Hub(Protocol):
    async def plan(self, request: ModelRequest) -> Plan:
        """One bounded question for commit, files, sizes and hashes. Raises HubError and its kinds."""

    def resolve_url(self, model_id: str, commit: str, path: str) -> str:
        """Where the bytes of a file are asked for."""

    def xet_token_url(self, model_id: str, commit: str) -> str:
        """Where the Hub gives out the token for the store of what it keeps with Xet."""

    def token(self) -> str | None:
        """The person's token, for the Hub's own host alone."""


@dataclass(frozen=True, slots=True)
class BlobPlace:
    """Where one content of a plan belongs on the disk. ``elsewhere``: where another download of the same commit may
    have put it by the time that its lock is free."""

    file: PlanFile
    blob: Path
    part: Path
    lock: Path
    elsewhere: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """What the Hub said once, as JSON has it; ``at``: when, in seconds since 1970."""

    at: float
    document: Any


class Memory(Protocol):
    """What the Hub has said, kept for later. All calls block for a small file, from any thread, and never fail: what
    cannot be kept or read is as if it had never been said."""

    def get(self, kind: str, key: str) -> Kept | None: ...

    def put(self, kind: str, key: str, document: Any) -> Kept: ...

    def all(self, kind: str) -> Iterator[Kept]:
        """Everything of a kind, newest first."""

    def clear(self) -> None:
        """Forget everything: what one account was told is not for the next."""


class Cache(Protocol):
    """The standard Hugging Face cache. All calls block: call them from a thread. Raise DiskError and its kinds."""

    def prepare(self, plan: Plan) -> list[BlobPlace]:
        """Make the model's folders, prove them writable, and name the place of each of ``plan.blobs``, in order."""

    def places(self, plan: Plan) -> list[BlobPlace]:
        """The place of each of ``plan.blobs``, in order; nothing is made."""

    def free_bytes(self) -> int:
        """Room on the cache's disk for this user, in bytes."""

    def link(self, plan: Plan) -> Path:
        """With every blob in place: snapshot, ref and tree listing as huggingface_hub makes them. The snapshot."""

    def discard(self, plan: Plan, *, keep: Collection[str] = ()) -> int:
        """Remove partial files and their journals, not those with an etag in ``keep`` or held by another process;
        folders left empty go too. Bytes freed."""


class LocalModels(Protocol):
    """What is in the cache, for those who only look. All calls block. Raise DiskError."""

    def library(self) -> Library: ...

    def files(self, model_id: str, commit: str) -> dict[str, int]:
        """Path → size of what is here of a commit."""

    def content(self, model_id: str, commit: str, path: str, most: int) -> bytes | None:
        """The first ``most`` bytes of a file that is here; None where it is not."""


@dataclass(frozen=True, slots=True)
class XetSource:
    """The other way to a file: ``hash`` is what Xet knows the content by, at ``token_url`` the Hub says where the store
    is and gives a token for it."""

    hash: str
    token_url: str


@dataclass(frozen=True, slots=True)
class FileJob:
    """One verified file to get: ``size`` bytes with ``digest`` from ``url``, gathered in ``part``, published at
    ``target`` while ``lock`` is held. ``path`` is its name for people. ``xet``: where it is to be had by Xet too.
    ``elsewhere``: as of `BlobPlace`."""

    path: str
    url: str
    size: int
    digest: Digest
    target: Path
    part: Path
    lock: Path
    xet: XetSource | None = None
    elsewhere: tuple[Path, ...] = ()


class VerifiedBlobs(Protocol):
    """Memory of blobs that were hashed and found right, so that nobody hashes 200 GB twice. Any thread may call."""

    def is_verified(self, path: Path) -> bool:
        """The file's size and mtime are those it had when it was found right."""

    def remember(self, paths: Sequence[Path]) -> None:
        """They were just found right, as they are now."""


class Transfer(Protocol):
    """The bytes of one download, in threads of its own."""

    def start(self) -> None: ...

    def sample(self) -> Sample:
        """Where it stands now. From any thread, costs microseconds."""

    async def finished(self) -> None:
        """Returns when every file is published; raises what ended it otherwise."""

    def stop(self) -> None:
        """Cease at once and keep every byte; blocks until the journal is safe. Twice is fine."""


MakeTransfer = Callable[[str, Sequence[FileJob]], Transfer]
"""``make_transfer(task_id, jobs)``."""


class DownloadStore(Protocol):
    """The ledger. All calls block; the manager calls them one at a time from one thread. Raise LedgerFailed when the
    ledger cannot be read or written."""

    def insert(self, download: Download, node: str | None = None) -> None:
        """A new row; ``node`` where it starts at once. Raises DownloadInFlight when the same request is in flight."""

    def save(self, download: Download, event_id: int) -> bool:
        """Write the row as it is, but for the desire, ``WHERE task_id = ? AND epoch = ?``; False when a newer epoch
        owns it. Raises DownloadInFlight when it would be the second in flight of the same request."""

    def set_desire(self, task_id: str, desire: Desire) -> None:
        """What the person wants, written before anything is signalled."""

    def claim(self, task_id: str, node: str) -> int:
        """Take the row up in a new epoch, and say which."""

    def get(self, task_id: str) -> tuple[Download, int] | None:
        """The download and the id of the last event that told of it."""

    def find_in_flight(self, request: ModelRequest) -> Download | None: ...

    def unfinished(self) -> list[tuple[Download, int]]:
        """Every row that is not terminal, oldest first."""

    def page(
        self, states: Collection[Status] | None, limit: int, before: str | None
    ) -> tuple[list[tuple[Download, int]], str | None]:
        """Newest first, with the cursor of the next page, None after the last. Raises InvalidRequest for a ``before``
        that is no cursor."""

    def save_plan(self, task_id: str, plan: Plan) -> None: ...

    def plan(self, task_id: str) -> Plan | None: ...

    def last_event_id(self) -> int:
        """The highest event id ever written; 0 in a new ledger."""


class Subscription(Protocol):
    """An async iterator of events for one watcher; slow readers get every state change and the newest tick."""

    def __aiter__(self) -> AsyncIterator[Event]: ...

    async def __anext__(self) -> Event: ...

    def close(self) -> None: ...


class ProgressBus(Protocol):
    """Numbered events from the one writer to many watchers. Used on the manager's loop only."""

    def publish(self, task_id: str, kind: EventKind, snapshot: dict[str, Any], *, terminal: bool = False) -> Event: ...

    def advance(self, event_id: int) -> None:
        """Number the coming events above ``event_id``."""

    def begin(self, task_id: str) -> None:
        """A new run of a download: new watchers hear nothing of what was before."""

    def subscribe(self, task_id: str | None = None, after: int | None = None) -> Subscription:
        """``task_id`` None: every download. ``after``: only what is newer than this id."""

    def newest(self, task_id: str) -> Event | None:
        """The newest event that is kept of a download; None when nothing is."""

    def close(self) -> None:
        """End every subscription."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A place in the line: higher ``priority`` first, then the order of submission."""

    download_id: str
    priority: int = 0


class Runner(Protocol):
    """Runs tickets, ``capacity`` at once. It knows ids and nothing of what they mean."""

    async def start(self, run: Callable[[str], Awaitable[None]]) -> None: ...

    async def stop(self) -> None:
        """Interrupt everything that runs and forget the line; returns when all is still."""

    def submit(self, ticket: Ticket) -> None:
        """Twice the same id: once."""

    async def cancel(self, download_id: str) -> None:
        """Out of the line, or interrupted; returns when it is still. Unknown ids are fine."""

    def set_capacity(self, capacity: int) -> None: ...

    def waiting(self) -> tuple[str, ...]:
        """Ids in the order of the line."""
