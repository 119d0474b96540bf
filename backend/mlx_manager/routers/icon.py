"""The icon of the page: a stack of layers that fills up from below as downloads come in."""

from __future__ import annotations

from enum import StrEnum


class Mood(StrEnum):
    """What the icon tells beside the progress."""

    IDLE = "idle"
    ACTIVE = "active"
    WAITING = "waiting"
    TROUBLE = "trouble"
    LOST = "lost"


_COLOURS = {
    Mood.IDLE: "#0f6b5c",
    Mood.ACTIVE: "#0f6b5c",
    Mood.WAITING: "#b7791f",
    Mood.TROUBLE: "#c0362c",
    Mood.LOST: "#8b877e",
}
_LAYERS = (21.5, 13.5, 5.5)
"""The top edge of each layer, from the lowest one; 32 units are the whole."""
_LEFT, _WIDTH, _HEIGHT = 6.0, 20.0, 5.0


def icon(progress: int, mood: Mood) -> str:
    """An SVG. ``progress``: 0 to 100 percent of the layers are full."""
    filled = max(0.0, min(1.0, progress / 100)) * len(_LAYERS)
    bars = []
    for number, top in enumerate(_LAYERS):
        part = max(0.0, min(1.0, filled - number))
        place = f'x="{_LEFT:g}" y="{top:g}" height="{_HEIGHT:g}" rx="1.6"'
        bars.append(f'<rect {place} width="{_WIDTH:g}" fill="#fff" fill-opacity=".32"/>')
        if part > 0:
            bars.append(f'<rect {place} width="{_WIDTH * part:.3g}" fill="#fff"/>')
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
        f'<rect width="32" height="32" rx="8" fill="{_COLOURS[mood]}"/>{"".join(bars)}</svg>'
    )
