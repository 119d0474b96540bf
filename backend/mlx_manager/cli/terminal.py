"""What a terminal can show, and words made safe for it.

Names and messages come from a Hub that anybody can write to: everything passes `clean`, and no text is read as markup.
"""

from __future__ import annotations

import sys
import textwrap
import unicodedata
from dataclasses import dataclass
from typing import TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from mlx_manager.errors import MlxManagerError


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The signs of the display, each one cell wide."""

    done: str
    active: str
    checking: str
    waiting: str
    arrow: str
    dot: str
    cut: str
    here: str
    received: str
    rest: str


RICH_GLYPHS = Glyphs("✓", "↓", "≡", "·", "→", "·", "…", "╍", "━", "─")
PLAIN_GLYPHS = Glyphs("+", ">", "=", ".", "->", "-", "~", "=", "#", ".")
# What our own messages use beyond ASCII, for a terminal that knows nothing else.
_ASCII = str.maketrans({"…": "...", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "·": "-", "×": "x"})


def is_utf8(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().replace("-", "") in ("utf8", "utf8sig")


def glyphs_for(stream: TextIO) -> Glyphs:
    return RICH_GLYPHS if is_utf8(stream) else PLAIN_GLYPHS


class Teller:
    """Prints lines that were made safe, wrapped between words on a terminal and left whole elsewhere. No markup, no
    emoji codes, no guessed highlights."""

    def __init__(self, stream: TextIO) -> None:
        self.glyphs = glyphs_for(stream)
        self._is_screen = stream.isatty()
        self._console = Console(file=stream, markup=False, emoji=False, highlight=False)

    @property
    def width(self) -> int | None:
        """Cells of a line; None where lines have no end."""
        return self._console.width if self._is_screen else None

    def fact(self, name: str, value: str, indent: int) -> None:
        """``value`` beside its name; on a screen, its further lines beneath its first. No word is broken, so that an
        address can be copied."""
        if self.width is None:
            self.line(f"{name:<{indent}}{value}")
            return
        room = max(20, self.width - indent)
        said = textwrap.wrap(clean(value, self.glyphs), room, break_long_words=False, break_on_hyphens=False) or [""]
        for at, line in enumerate(said):
            self.line(f"{'' if at else name:<{indent}}{line}", whole=True)

    def line(self, text: str, *, mark: str | None = None, style: str = "", whole: bool = False) -> None:
        """``mark`` names a glyph to put before it; ``whole``: something to copy, never broken by us."""
        said = clean(text, self.glyphs)
        if mark is not None:
            said = f"{getattr(self.glyphs, mark)} {said}"
        self._console.print(Text(said, style=style), soft_wrap=whole or not self._is_screen)


def is_live(stream: TextIO) -> bool:
    """The stream is a screen on which lines can be written again. Asked of the stream itself: rich takes FORCE_COLOR
    for a terminal, and a log of a build would fill with pictures."""
    return stream.isatty() and not Console(file=stream).is_dumb_terminal


def clean(text: str, glyphs: Glyphs = RICH_GLYPHS) -> str:
    """One line without control characters, and without those that turn the direction of writing.

    For a terminal of plain glyphs, what our own messages use beyond ASCII is spelled out.
    """
    kept = []
    for char in text:
        kind = unicodedata.category(char)
        if kind in ("Zl", "Zp") or char in "\t\n\r":
            kept.append(" ")
        elif kind not in ("Cc", "Cf", "Cs"):
            kept.append(char)
    line = "".join(kept)
    return line.translate(_ASCII) if glyphs is PLAIN_GLYPHS else line


def fit(text: str, width: int, cut: str) -> str:
    """``text`` in at most ``width`` cells, shortened in the middle: both ends of a file's name tell it from others."""
    if cell_len(text) <= width:
        return text
    if width <= 1:
        return cut[:width]
    head = (width - 1) // 2
    tail = width - 1 - head
    end = ""
    for char in reversed(text):
        if cell_len(char + end) > tail:
            break
        end = char + end
    return set_cell_size(text, head).rstrip() + cut + end


def show_error(error: MlxManagerError) -> None:
    """What happened, then the next step; on stderr."""
    err = Teller(sys.stderr)
    err.line(f"Error: {error.detail}", style="red")
    err.line(error.advice, mark="arrow")
