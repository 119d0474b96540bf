"""`mlx-manager pull`: ask for a model, watch it to its end, say where it is."""

from __future__ import annotations

import os
import queue
import signal
import sys
import time
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Self

from mlx_manager.cli import stay, views
from mlx_manager.cli.client import Refused, Snapshot
from mlx_manager.cli.connect import Connector, tell_aside
from mlx_manager.cli.ending import End, tell_end
from mlx_manager.cli.exits import ExitCode
from mlx_manager.cli.terminal import Teller, is_live
from mlx_manager.cli.watch import Broken, FilesPoller, FilesSeen, Follower, Inbox, Noted, Seen, Signalled, Watched
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.states import Status
from mlx_manager.errors import ServerUnreachable
from mlx_manager.settings import Settings

HINT = "Ctrl-C pauses; nothing is lost."
ONE_PRESS_S = 0.5
"""What comes so soon after a Ctrl-C is its echo: `timeout`, `make` and others pass on what the terminal sends too."""
_SHOW_CURSOR = b"\x1b[?25h\n"


@dataclass(frozen=True, slots=True)
class PullOptions:
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    priority: int = 0


def pull(settings: Settings, wanted: ModelRequest, options: PullOptions) -> int:
    """The exit code. Raises MlxManagerError when it cannot even be asked for, or no longer be watched, and
    KeyboardInterrupt when Ctrl-C came before anything was asked for."""
    inbox: Inbox = queue.SimpleQueue()
    # The signals are ours until everything has stopped.
    with Signals(inbox) as signals, Connector(settings, verbose=options.verbose, comes_for=wanted) as servers:
        with _view(wanted, options) as view:
            # Also who wants no picture is told why nothing begins.
            api = servers.connect(tell_aside if options.quiet else view.note)
            if options.verbose and not servers.is_embedded:
                Teller(sys.stderr).line(f"The server at {api.url} does the work; its log: {api.system()['log_file']}")
            # From here on there is something to pause.
            signals.has_begun = True
            accepted = api.request(wanted, options.priority)
            stay()
            follower = Follower(servers, wanted, options.priority, (api, accepted), inbox)
            end = _watch(inbox, view, follower)

        def cache() -> str:
            # A server that runs on its own may have another one than this environment says.
            own = servers.is_embedded
            return str(settings.hf_hub_cache if own else follower.watched.api.system()["cache"]["path"])

        return tell_end(end, wanted, cache, as_json=options.as_json, quiet=options.quiet)


def _view(wanted: ModelRequest, options: PullOptions) -> views.View:
    # Debug lines and a picture cannot share a screen.
    live = is_live(sys.stdout) and not options.verbose
    opening = f"{wanted.model_id}: starting …"
    return views.make_view(as_json=options.as_json, quiet=options.quiet, live=live, opening=opening, hint=HINT)


def _watch(inbox: Inbox, view: views.View, follower: Follower) -> End:
    files = FilesPoller(follower.watched, inbox)
    follower.start()
    if view.shows_files:
        files.start()
    try:
        snapshot, number, is_at_rest = _until_end(inbox, view, follower.watched)
    finally:
        follower.stop()
        files.stop()
    return End(snapshot, number, is_at_rest)


def _until_end(inbox: Inbox, view: views.View, watched: Watched) -> tuple[Snapshot | None, int | None, bool]:
    """The last snapshot, the signal that ended it, and whether the download is at rest."""
    last: Snapshot | None = None
    while True:
        try:
            message = inbox.get(timeout=view.redraw_s)
        except queue.Empty:
            view.tick()
            continue
        match message:
            case Seen(snapshot):
                last = snapshot
                view.show(snapshot)
                status = Status(snapshot["status"])
                if status.is_terminal or status is Status.PAUSED:
                    return snapshot, None, True
            case FilesSeen(snapshot):
                view.show_files(snapshot)
            case Noted(text):
                view.note(text)
            case Broken(error):
                raise error
            case Signalled(signal.SIGINT):
                view.note("Pausing; Ctrl-C again leaves at once.")
                paused = _pause(watched)
                if paused is not None:
                    view.show(paused)
                return paused or last, signal.SIGINT, paused is not None
            case Signalled(number):
                return last, number, False


def _pause(watched: Watched) -> Snapshot | None:
    """The download, paused or at its end; None when nobody is there who could pause it."""
    try:
        return watched.api.move(watched.task_id, "pause")
    except Refused:
        # It came to its end, or somebody else was faster.
        return watched.api.status(watched.task_id)
    except ServerUnreachable:
        return None


class Signals:
    """The first signal becomes a message in the inbox; a second Ctrl-C ends the process as it stands, which is safe:
    what is journaled at any moment stays. Before anything has begun, a signal simply ends the command."""

    def __init__(self, inbox: Inbox) -> None:
        self.has_begun = False
        self._inbox = inbox
        self._pressed_at: float | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Ignored by whoever started us, by nohup for example: that stays.
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self._is_pressed_again():
            return
        if self.has_begun:
            self._inbox.put(Signalled(number))
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise SystemExit(128 + number)

    def _is_pressed_again(self) -> bool:
        """Does not return at the second press."""
        now = time.monotonic()
        if self._pressed_at is None:
            self._pressed_at = now
            return False
        if now - self._pressed_at >= ONE_PRESS_S:
            if sys.stdout.isatty():
                os.write(sys.stdout.fileno(), _SHOW_CURSOR)
            os._exit(ExitCode.INTERRUPTED)
        return True
