"""Rows in columns that fit the terminal, or that are as wide as they must be where nobody looks at the width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from mlx_manager.cli.terminal import Glyphs, clean, fit

_GAP = 2
_NARROWEST = 12
_ROOMY = 48
"""What is wider is shortened before another column is left out."""


@dataclass(frozen=True, slots=True)
class Column:
    """In a narrow terminal ``shrinks`` has its cells shortened in the middle, ``yields`` the whole column left out."""

    head: str
    shrinks: bool = False
    yields: bool = False
    right: bool = False


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None, glyphs: Glyphs) -> list[str]:
    """Lines, the heads first. ``width`` None: nothing is shortened. Columns without any text are left out."""
    cells = [[column.head for column in columns], *([clean(cell, glyphs) for cell in row] for row in rows)]
    used = [at for at in range(len(columns)) if any(row[at] for row in cells[1:])]
    widths = {at: max(cell_len(row[at]) for row in cells) for at in used}
    if width is not None:
        over = sum(widths.values()) + _GAP * (len(used) - 1) - width
        over = _shrink(columns, used, widths, over, _ROOMY)
        for at in [at for at in reversed(used) if columns[at].yields]:
            if over > 0:
                used.remove(at)
                over -= widths[at] + _GAP
        _shrink(columns, used, widths, over, _NARROWEST)
    return [_line(row, used, columns, widths, glyphs) for row in cells]


def _shrink(columns: Sequence[Column], used: Sequence[int], widths: dict[int, int], over: int, least: int) -> int:
    """Take what is ``over`` from the columns that may shrink, down to ``least``; what is over then."""
    for at in used:
        if columns[at].shrinks and over > 0:
            less = min(over, max(0, widths[at] - least))
            widths[at] -= less
            over -= less
    return over


def _line(
    row: Sequence[str], used: Sequence[int], columns: Sequence[Column], widths: dict[int, int], glyphs: Glyphs
) -> str:
    parts = []
    for at in used:
        text = fit(row[at], widths[at], glyphs.cut)
        blank = " " * (widths[at] - cell_len(text))
        parts.append(blank + text if columns[at].right else text + blank)
    return (" " * _GAP).join(parts).rstrip()
