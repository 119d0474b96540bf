"""What the watchers hear: numbered events, of two kinds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class EventKind(StrEnum):
    STATE = "state"
    """A change of status, phase or size: every watcher gets each one, also after a reconnect."""
    TICK = "tick"
    """Figures: only the newest is of interest."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Event:
    """``id`` grows over the life of the data directory; ``snapshot`` is the download as of this event.

    Every watcher is given the same object, and it compares by identity: what is made of it once (an encoded frame) can
    be kept beside it in a WeakKeyDictionary.
    """

    id: int
    task_id: str
    kind: EventKind
    snapshot: dict[str, Any]
    terminal: bool
