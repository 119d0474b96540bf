"""Links slower than loopback."""

from __future__ import annotations

import threading
import time


class Trickle:
    """A few bytes, a pause, a few bytes."""

    def __init__(self, nbytes: int, every: float) -> None:
        self.step = nbytes
        self._every = every

    def reserve(self, nbytes: int) -> float:
        """Take the next turn and return the seconds to wait for it."""
        return self._every


class Line:
    """A line with a fixed rate. Shared by several responses, it gives each its turn."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        # Steps of about a hundredth of a second: smooth for who measures, cheap for the processor.
        self.step = int(min(max(bytes_per_second / 100, 1), 256 << 10))
        self._free_at = time.monotonic()
        self._lock = threading.Lock()

    def reserve(self, nbytes: int) -> float:
        """Take the next turn and return the seconds to wait for it."""
        with self._lock:
            now = time.monotonic()
            # A line that was idle does not save up; a sleep that overshot by a little is made good.
            begin = max(self._free_at, now - 0.05)
            self._free_at = begin + nbytes / self._rate
            return self._free_at - now
