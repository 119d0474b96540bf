"""What all running downloads share: connections, and the line itself."""

from __future__ import annotations

import threading
import time
from weakref import WeakValueDictionary

BURST_S = 0.05


class ConnectionPool:
    """So many connections for all downloads together, shared evenly; what one does not want the others may have.
    Callable from any thread."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._wants: dict[object, int] = {}
        self._lock = threading.Lock()

    def share(self, who: object, wanted: int) -> int:
        """How many ``who`` may have now, one at least; remembers how many it would like."""
        with self._lock:
            self._wants[who] = max(1, wanted)
            left = self._total
            for place, (other, want) in enumerate(sorted(self._wants.items(), key=lambda item: item[1])):
                granted = max(1, min(want, left // (len(self._wants) - place)))
                if other == who:
                    return granted
                left -= granted
        raise AssertionError("unreachable: it was put in above")

    def leave(self, who: object) -> None:
        with self._lock:
            self._wants.pop(who, None)


class Caps:
    """The caps in force: one on all downloads together, one on each that was given one. Callable from any thread."""

    def __init__(self, rate_bps: float | None = None) -> None:
        self.all = Throttle(rate_bps)
        # What is in use is kept by its users; only what a person asked for waits for a download that does not run.
        self._used: WeakValueDictionary[str, Throttle] = WeakValueDictionary()
        self._given: dict[str, Throttle] = {}
        self._lock = threading.Lock()

    def of(self, task_id: str) -> Throttle:
        """The download's own; without a cap until it is given one."""
        with self._lock:
            throttle = self._used.get(task_id)
            if throttle is None:
                throttle = self._used[task_id] = Throttle()
            return throttle

    def limit(self, task_id: str, rate_bps: float | None) -> None:
        """Cap a download from now on, also one that does not run yet; None: no more."""
        throttle = self.of(task_id)
        throttle.set_rate(rate_bps)
        with self._lock:
            if rate_bps is None:
                self._given.pop(task_id, None)
            else:
                self._given[task_id] = throttle

    def forget(self, task_id: str) -> None:
        """The download has come to an end that nothing follows."""
        with self._lock:
            self._given.pop(task_id, None)
            self._used.pop(task_id, None)


class Throttle:
    """A cap in bytes per second that may change while it is in use; None: no cap. Callable from any thread.

    Bytes are counted when they have come; who went over waits until the average is right again, so the cap holds over
    any longer time whatever the size of the pieces.
    """

    def __init__(self, rate_bps: float | None = None) -> None:
        self._rate = rate_bps
        self._even_at = 0.0
        self._lock = threading.Lock()

    @property
    def rate_bps(self) -> float | None:
        return self._rate

    def set_rate(self, rate_bps: float | None) -> None:
        with self._lock:
            now = time.monotonic()
            owed = max(0.0, self._even_at - now) * (self._rate or 0.0)
            self._rate = rate_bps
            self._even_at = now + owed / rate_bps if rate_bps else 0.0

    def took(self, count: int) -> float:
        """``count`` bytes came; the seconds to wait before more are wanted, 0 for none."""
        with self._lock:
            if self._rate is None:
                return 0.0
            now = time.monotonic()
            self._even_at = max(self._even_at, now - BURST_S) + count / self._rate
            return max(0.0, self._even_at - now)

    def wait_s(self) -> float:
        """Seconds until bytes are wanted again, 0 for now."""
        return 0.0 if self._rate is None else max(0.0, self._even_at - time.monotonic())
