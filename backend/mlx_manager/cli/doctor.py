"""`mlx-manager doctor`: a line for each check, and the next step below what is not well. It changes nothing."""

from __future__ import annotations

import json
import platform
import sys
import textwrap
from collections.abc import Collection
from typing import Any

from rich.console import Console
from rich.text import Text

from mlx_manager import __version__
from mlx_manager.checkup import check_up
from mlx_manager.cli.exits import ExitCode
from mlx_manager.cli.terminal import PLAIN_GLYPHS, clean, glyphs_for, is_live
from mlx_manager.domain.diagnosis import Finding, Level, conclusion
from mlx_manager.services.doctor import Check, Result
from mlx_manager.settings import Settings

TITLE_CELLS = 13
INDENT = 4 + TITLE_CELLS
STYLES = {Level.WELL: "green", Level.NOTE: "yellow", Level.WRONG: "red", Level.SKIPPED: "dim"}
_ERASE_LINE = "\r\x1b[2K"


def doctor(settings: Settings, *, as_json: bool) -> ExitCode:
    """0 when nothing is wrong, notes or not; 1 otherwise."""
    levels = _tell_json(settings) if as_json else _tell(settings)
    return ExitCode.FAILED if Level.WRONG in levels else ExitCode.OK


def _tell_json(settings: Settings) -> Collection[Level]:
    results = [pending.result() for _, pending in check_up(settings)]
    levels = [result.finding.level for result in results]
    document: dict[str, Any] = {
        "version": __version__,
        "python": platform.python_version(),
        "platform": _platform(),
        "well": Level.WRONG not in levels,
        "conclusion": conclusion(levels),
        "checks": [_as_json(result) for result in results],
    }
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
    return levels


def _as_json(result: Result) -> dict[str, Any]:
    finding = result.finding
    return {
        "name": result.check.name,
        "title": result.check.title,
        "level": finding.level,
        "said": finding.said,
        "advice": finding.advice,
        "fix": finding.fix,
        "took_ms": None if finding.level is Level.SKIPPED else round(result.took_s * 1000, 1),
    }


def _tell(settings: Settings) -> Collection[Level]:
    picture = _Picture()
    picture.line(f"MLX Manager {__version__}, Python {platform.python_version()}, {_platform()}")
    levels: list[Level] = []
    before = ""
    for heading, pending in check_up(settings):
        if heading != before:
            picture.line("")
            picture.line(heading, style="bold")
            before = heading
        picture.wait_for(pending.check)
        result = pending.result()
        picture.tell(result)
        levels.append(result.finding.level)
    picture.line("")
    picture.line(conclusion(levels), style="red" if Level.WRONG in levels else "bold")
    return levels


def _platform() -> str:
    return f"{platform.system()} {platform.machine()}"


class _Picture:
    """Lines on stdout; on a screen the check that is waited for stands below them until its line is there."""

    def __init__(self) -> None:
        self._stream = sys.stdout
        self._glyphs = glyphs_for(self._stream)
        self._live = is_live(self._stream)
        self._console = Console(file=self._stream, markup=False, emoji=False, highlight=False)
        self._marks = {
            Level.WELL: self._glyphs.done,
            Level.NOTE: "!",
            Level.WRONG: "x" if self._glyphs is PLAIN_GLYPHS else "✗",
            Level.SKIPPED: self._glyphs.dot,
        }

    def line(self, text: str, style: str = "") -> None:
        self._console.print(Text(clean(text, self._glyphs), style=style), soft_wrap=True)

    def wait_for(self, check: Check) -> None:
        if self._live:
            self._stream.write(f"  {self._glyphs.waiting} {check.title} {self._glyphs.cut}")
            self._stream.flush()

    def tell(self, result: Result) -> None:
        if self._live:
            self._stream.write(_ERASE_LINE)
        finding = result.finding
        first, *more = self._wrapped(finding.said + self._took(result))
        line = Text("  ").append(self._marks[finding.level], STYLES[finding.level])
        line.append(f" {result.check.title:<{TITLE_CELLS}}{first}", "dim" if finding.level is Level.SKIPPED else "")
        self._console.print(line, soft_wrap=True)
        for text in more:
            self.line(" " * INDENT + text)
        self._next_step(finding)
        self._stream.flush()

    def _next_step(self, finding: Finding) -> None:
        if finding.advice is not None:
            first, *more = self._wrapped(finding.advice, room=len(self._glyphs.arrow) + 1)
            self.line(f"{' ' * INDENT}{self._glyphs.arrow} {first}")
            for text in more:
                self.line(" " * (INDENT + len(self._glyphs.arrow) + 1) + text)
        if finding.fix is not None:
            # To be copied: never broken by us.
            self.line(f"{' ' * INDENT}  {finding.fix}", style="bold")

    def _took(self, result: Result) -> str:
        """Where time is of interest: on the way to the Hub and back."""
        if result.finding.level is Level.SKIPPED or not result.check.timed:
            return ""
        ms = result.took_s * 1000
        return f" ({ms:.0f} ms)" if ms >= 1 else " (less than 1 ms)"

    def _wrapped(self, text: str, room: int = 0) -> list[str]:
        said = clean(text, self._glyphs)
        if not self._live:
            return [said]
        width = max(24, self._console.width - 1 - INDENT - room)
        return textwrap.wrap(said, width, break_long_words=False, break_on_hyphens=False) or [""]
