"""Watching one download to its end, whatever happens to the stream or to the server.

A thread follows the download and puts what it learns into a queue; the main thread takes it out, draws, and hears the
signals. The stream is read first; when it breaks it is taken up again where it stood (`Last-Event-ID`); when it does
not get through, the status is asked instead; when the server is gone, the next one is found or made, and asked for
the same model again.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mlx_manager.cli.client import Accepted, ApiClient, Refused, Snapshot, StreamLost
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.states import Status
from mlx_manager.errors import MlxManagerError, ServerUnreachable

logger = logging.getLogger(__name__)

POLL_S = 0.5
POLLS_BEFORE_STREAM = 30
"""So many polls until the stream gets another chance."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The download as of now."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class FilesSeen:
    """The download as of now, with its files."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Noted:
    """Something about the connection that the person should know; None when all is well again."""

    text: str | None


@dataclass(frozen=True, slots=True)
class Broken:
    """It cannot be watched any longer."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Signalled:
    number: int


Message = Seen | FilesSeen | Noted | Broken | Signalled
Inbox = queue.SimpleQueue[Message]
"""A SimpleQueue, because a signal handler may put into it at any moment."""


class Servers(Protocol):
    """Where a server comes from."""

    def connect(self, tell: Callable[[str], None]) -> ApiClient:
        """The server that runs, or one run by this process; ``tell``: is told what it waits for, if that takes long.
        Raises MlxManagerError."""

    @property
    def is_embedded(self) -> bool:
        """This process runs it."""


@dataclass(slots=True)
class Watched:
    """What is watched and through which server; both can change when a server dies. One writer: the follower."""

    api: ApiClient
    task_id: str


class Follower(threading.Thread):
    """Puts Seen, Noted and Broken into the inbox until the download is at rest."""

    def __init__(
        self, servers: Servers, wanted: ModelRequest, priority: int, first: tuple[ApiClient, Accepted], inbox: Inbox
    ) -> None:
        super().__init__(name="follower", daemon=True)
        api, accepted = first
        self.watched = Watched(api, accepted.task_id)
        self._servers = servers
        self._wanted = wanted
        self._priority = priority
        self._inbox = inbox
        self._last_id: str | None = None
        self._stopping = threading.Event()
        self._active = True

    def stop(self) -> None:
        """Say no more. Does not wait."""
        self._stopping.set()

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    if self._follow():
                        return
                except ServerUnreachable as error:
                    self._find_again(error)
        except MlxManagerError as error:
            self._tell(Broken(error))
        except Exception as error:  # noqa: BLE001 - the main thread raises it; here nobody would hear of it
            self._tell(Broken(error))

    def _tell(self, message: Message) -> None:
        if not self._stopping.is_set():
            self._inbox.put(message)

    def _follow(self) -> bool:
        """True when the download is at rest. Raises ServerUnreachable and Refused."""
        fruitless = 0
        while not self._stopping.is_set():
            heard, at_rest = self._read_stream()
            if at_rest:
                return True
            fruitless = 0 if heard or not self._active else fruitless + 1
            if fruitless < 2:
                # Between two streams: is the server there, and where does the download stand?
                if self._poll():
                    return True
                self._stopping.wait(POLL_S / 2)
                continue
            self._tell(Noted("The event stream does not get through; asking for the status instead."))
            for _ in range(POLLS_BEFORE_STREAM):
                if self._poll():
                    return True
                if self._stopping.wait(POLL_S):
                    return False
        return False

    def _read_stream(self) -> tuple[bool, bool]:
        """(an event came, the download is at rest)."""
        heard = False
        try:
            with self.watched.api.stream(self.watched.task_id, self._last_id) as events:
                for event_id, snapshot in events:
                    if self._stopping.is_set():
                        return True, True
                    if not heard:
                        self._tell(Noted(None))
                    heard = True
                    self._last_id = event_id or self._last_id
                    if snapshot["status"] == Status.PAUSED:
                        # It may be history, from before this command had it go on: the status knows.
                        return True, self._poll()
                    if self._see(snapshot):
                        return True, True
        except StreamLost:
            # The poll that follows finds out what it was.
            pass
        return heard, False

    def _poll(self) -> bool:
        return self._see(self.watched.api.status(self.watched.task_id))

    def _see(self, snapshot: Snapshot) -> bool:
        status = Status(snapshot["status"])
        self._active = status.is_active
        self._tell(Seen(snapshot))
        return status.is_terminal or status is Status.PAUSED

    def _find_again(self, lost: ServerUnreachable) -> None:
        """Another server, asked for the same again. Raises MlxManagerError when there is none to be had."""
        logger.info("%s Looking for another.", lost.detail)
        self._tell(Noted("The server is gone; looking for another …"))
        api = self._servers.connect(lambda text: self._tell(Noted(text)))
        try:
            known: Snapshot | None = api.status(self.watched.task_id)
        except Refused:
            known = None
        if known is None or _goes_on(known):
            # The same request means the same download, and has it begin at once where the new server waits to be asked.
            task_id = api.request(self._wanted, self._priority).task_id
        else:
            task_id = self.watched.task_id
        self.watched.api, self.watched.task_id = api, task_id
        # A stream of an older id goes on with the same numbers: they grow over restarts.
        self._tell(
            Noted("This command runs the download itself now." if self._servers.is_embedded else "Connected again.")
        )


def _goes_on(snapshot: Snapshot) -> bool:
    status = Status(snapshot["status"])
    return not status.is_terminal and status is not Status.PAUSED


class FilesPoller(threading.Thread):
    """Asks for the files twice a second."""

    def __init__(self, watched: Watched, inbox: Inbox) -> None:
        super().__init__(name="files", daemon=True)
        self._watched = watched
        self._inbox = inbox
        self._stopping = threading.Event()

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        while not self._stopping.wait(POLL_S):
            try:
                snapshot = self._watched.api.status(self._watched.task_id, files=True)
            except MlxManagerError:
                # The follower finds out what it is; the files are a detail.
                continue
            if not self._stopping.is_set():
                self._inbox.put(FilesSeen(snapshot))
