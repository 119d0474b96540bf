"""Looking at a lock without taking it."""

from __future__ import annotations

import fcntl
from pathlib import Path


def is_locked(lock: Path) -> bool:
    """Whether a process holds this lock of ``flock``. Who looks stands in the way of one who takes it, for an instant,
    but not of others who look. Raises OSError when it cannot be looked at."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
