"""The four ways to show a download: a live picture, calm lines, JSON lines, and nothing but the result."""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from mlx_manager.cli import picture
from mlx_manager.cli.client import Snapshot
from mlx_manager.cli.terminal import clean, glyphs_for
from mlx_manager.domain.states import Phase, Status

REDRAW_S = 0.25
NOTE_STAYS_S = 5.0
"""A note that is over is still there to be read for a while."""
LINE_EVERY_S = 10.0


class View(Protocol):
    """Shows what it is given. Entered before the first snapshot, left before the result is told."""

    redraw_s: float | None
    """How often it wants `tick`; None: never."""
    shows_files: bool

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, snapshot: Snapshot) -> None: ...

    def show_files(self, snapshot: Snapshot) -> None: ...

    def note(self, text: str | None) -> None: ...

    def tick(self) -> None: ...


class _Still:
    """What most views do with what they do not show: nothing."""

    redraw_s: float | None = None
    shows_files = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def show(self, snapshot: Snapshot) -> None:
        return None

    def show_files(self, snapshot: Snapshot) -> None:
        return None

    def note(self, text: str | None) -> None:
        return None

    def tick(self) -> None:
        return None


class QuietView(_Still):
    """Nothing until the end."""


class JsonView(_Still):
    """Each snapshot as a line of JSON on ``stream``; notes go to ``aside``."""

    def __init__(self, stream: TextIO, aside: TextIO) -> None:
        self._stream = stream
        self._aside = aside

    def show(self, snapshot: Snapshot) -> None:
        self._stream.write(json.dumps(snapshot) + "\n")
        self._stream.flush()

    def note(self, text: str | None) -> None:
        if text is not None:
            self._aside.write(clean(text, glyphs_for(self._aside)) + "\n")
            self._aside.flush()


class LinesView(_Still):
    """A line for each change of state, and one about every ten seconds: for logs, pipes and dumb terminals."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._named = False
        self._state: tuple[object, ...] = ()
        self._said = ""
        self._quiet_until = 0.0

    def show(self, snapshot: Snapshot) -> None:
        if not self._named:
            self._named = True
            self._print(f"Pulling {picture.name_of(snapshot)}.")
            if snapshot["status"] == Status.STARTING:
                return
        now = time.monotonic()
        # The message holds figures that count; these say when it means something else.
        state = (snapshot["status"], snapshot["phase"], snapshot["total_bytes"], snapshot["place"])
        if state == self._state and now < self._quiet_until:
            return
        self._state = state
        self._quiet_until = now + LINE_EVERY_S
        said = line_of(snapshot)
        if said != self._said:
            self._said = said
            self._print(said)

    def note(self, text: str | None) -> None:
        if text is not None:
            self._print(text)

    def _print(self, text: str) -> None:
        self._stream.write(clean(text, glyphs_for(self._stream)) + "\n")
        self._stream.flush()


def line_of(snapshot: Snapshot) -> str:
    """``downloading   62.4 %  219.3 MB of 351.4 MB, 12.1 MB/s, 11 s left``, or why nothing moves."""
    status = str(snapshot["status"])
    known = bool(snapshot["total_bytes"]) and not snapshot["total_is_estimate"]
    said = picture.message(snapshot, now=time.time())
    if known and snapshot["phase"] == Phase.TRANSFERRING:
        said = picture.figures(snapshot, ",").replace(" ,", ",")
    percent = f"{snapshot['progress']:5.1f} %  " if known else ""
    return f"{status:<11} {percent}{said}"


class LiveView(_Still):
    """The picture, drawn again in place four times a second at most; wiped off at the end."""

    redraw_s: float | None = REDRAW_S
    shows_files = True

    def __init__(self, stream: TextIO, opening: str, hint: str) -> None:
        """``opening`` stands there until the first snapshot comes."""
        self._glyphs = glyphs_for(stream)
        self._hint = hint
        self._snapshot: Snapshot | None = None
        self._seen_at = 0.0
        self._files: tuple[dict[str, object], ...] = ()
        self._note: str | None = opening
        self._note_goes_at = float("inf")
        self._drawn_at = float("-inf")
        # It measures the terminal at each drawing, because people resize theirs.
        self._console = Console(file=stream, markup=False, emoji=False, highlight=False)
        self._live = Live(
            get_renderable=self._picture,
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._snapshot = self._note = None
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        if self._snapshot is None:
            self._note = None
        self._snapshot = snapshot
        self._seen_at = time.monotonic()
        if not snapshot["files_total"]:
            self._files = ()
        self.tick()

    def show_files(self, snapshot: Snapshot) -> None:
        # The head is left to the stream: two sources of different age would make it tremble.
        self._files = tuple(snapshot.get("files") or ())
        self.tick()

    def note(self, text: str | None) -> None:
        if text is None:
            self._note_goes_at = min(self._note_goes_at, time.monotonic() + NOTE_STAYS_S)
        else:
            self._note, self._note_goes_at = text, float("inf")
            self._draw()

    def tick(self) -> None:
        if time.monotonic() - self._drawn_at >= REDRAW_S * 0.9:
            self._draw()

    def _draw(self) -> None:
        self._drawn_at = time.monotonic()
        self._live.refresh()

    def _picture(self) -> Group:
        if self._snapshot is None:
            return Group(*([Text(clean(self._note, self._glyphs))] if self._note else []))
        if time.monotonic() >= self._note_goes_at:
            self._note = None
        width, height = self._console.size
        # The last column and the last row stay free: some terminals scroll when they are written.
        frame = picture.Frame(width - 1, height - 1, self._glyphs)
        scene = picture.Scene(
            snapshot=self._snapshot,
            files=self._files,
            note=self._note,
            age_s=time.monotonic() - self._seen_at,
            now=time.time(),
            hint=self._hint,
        )
        return Group(*picture.draw(scene, frame))


def make_view(*, as_json: bool, quiet: bool, live: bool, opening: str, hint: str) -> View:
    if as_json:
        return JsonView(sys.stdout, sys.stderr)
    if quiet:
        return QuietView()
    return LiveView(sys.stdout, opening, hint) if live else LinesView(sys.stdout)
