"""What a check-up finds, one line a check, and what all of it comes to."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    WELL = "well"
    NOTE = "note"
    """Worth knowing; it works all the same."""
    WRONG = "wrong"
    SKIPPED = "skipped"
    """Could not be looked at, because of something that stands above it, or because it is switched off."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``said``: what was found, in a sentence or less. ``advice``: the next step in words; ``fix``: the command that
    takes it, ready to be copied; nobody runs it but the person."""

    level: Level
    said: str
    advice: str | None = None
    fix: str | None = None


def well(said: str) -> Finding:
    return Finding(Level.WELL, said)


def note(said: str, advice: str | None = None, fix: str | None = None) -> Finding:
    return Finding(Level.NOTE, said, advice, fix)


def wrong(said: str, advice: str | None = None, fix: str | None = None) -> Finding:
    return Finding(Level.WRONG, said, advice, fix)


def skipped(said: str) -> Finding:
    return Finding(Level.SKIPPED, said)


def conclusion(levels: Collection[Level]) -> str:
    """The last line, for people."""
    counts = {level: sum(one is level for one in levels) for level in Level}
    parts = []
    if counts[Level.WRONG]:
        parts.append(f"{_are(counts[Level.WRONG])} wrong")
    else:
        parts.append("nothing is wrong" if counts[Level.NOTE] or counts[Level.SKIPPED] else "all is well")
    if counts[Level.NOTE]:
        parts.append(f"{_are(counts[Level.NOTE])} worth knowing")
    if counts[Level.SKIPPED]:
        parts.append(f"{_are(counts[Level.SKIPPED])} not looked at")
    said = ", ".join(parts)
    return f"{said[0].upper()}{said[1:]}."


def _are(number: int) -> str:
    return "one thing is" if number == 1 else f"{number} things are"
