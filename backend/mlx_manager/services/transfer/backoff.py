"""When to try again: longer after each failure in a row, with jitter, never forever."""

from __future__ import annotations

import random
from dataclasses import dataclass

NEAR_FAILURES = 40


@dataclass(slots=True)
class Backoff:
    """Failures since the last byte. A transfer that gets bytes through never waits, however often it breaks."""

    first_s: float
    max_s: float
    failures: int = 0

    def failed(self, near_s: float | None = None) -> float:
        """Count one more failure; the seconds to wait, half to the whole of a step that grows by half: a network that
        is back is noticed before as much time again has passed. ``near_s``: the most that a step may be at first, for
        some forty failures in a row, and five times as much after them."""
        self.failures += 1
        step: float = min(self.max_s, self.first_s * 1.5 ** min(self.failures - 1, 40))
        if near_s is not None:
            step = min(step, near_s if self.failures <= NEAR_FAILURES else near_s * 5)
        return step * random.uniform(0.5, 1.0)

    def worked(self) -> None:
        self.failures = 0
