"""How fast, how long: a rate over a window and an ETA that stays calm."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

WINDOW_S = 8.0
MEANINGFUL_AFTER_S = 2.0


@dataclass(slots=True)
class RateWindow:
    """Bytes per second over the last seconds. Feed it the running total; a total that falls starts it anew.

    ``at`` is any steady clock, in seconds.
    """

    window_s: float = WINDOW_S
    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, at: float, total: int) -> None:
        if self._samples and (total < self._samples[-1][1] or at < self._samples[-1][0]):
            self._samples.clear()
        self._samples.append((at, total))
        while len(self._samples) > 2 and self._samples[1][0] <= at - self.window_s:
            self._samples.popleft()

    @property
    def speed_bps(self) -> float:
        """Bytes per second; 0 until two samples stand apart."""
        if len(self._samples) < 2:
            return 0.0
        (start, first), (end, last) = self._samples[0], self._samples[-1]
        return (last - first) / (end - start) if end > start else 0.0

    @property
    def span_s(self) -> float:
        return self._samples[-1][0] - self._samples[0][0] if self._samples else 0.0

    def eta_s(self, remaining: int) -> float | None:
        """Seconds to go, in steps that a person would say; None while it would be a guess."""
        if remaining <= 0:
            return 0.0
        if self.span_s < MEANINGFUL_AFTER_S or self.speed_bps <= 0:
            return None
        return calm(remaining / self.speed_bps)


RATE_STEP_S = 2
RATE_POINTS = 45


@dataclass(slots=True)
class RateCurve:
    """The rate over the last minute and a half: a point for each two seconds, the newest last; a step of which nobody
    told is one without bytes. ``at`` as above."""

    _points: deque[int] = field(default_factory=lambda: deque(maxlen=RATE_POINTS))
    _step: int = 0

    def add(self, at: float, speed_bps: float) -> None:
        """The last of a step is the one that stays."""
        step = int(at // RATE_STEP_S)
        if self._points and step == self._step:
            self._points.pop()
        else:
            self._points.extend(self._untold(step))
        self._points.append(round(speed_bps))
        self._step = step

    def points(self, at: float) -> list[int]:
        """Bytes per second, as of ``at``."""
        return [*self._points, *self._untold(int(at // RATE_STEP_S))][-RATE_POINTS:]

    def _untold(self, step: int) -> list[int]:
        """Of the steps that went by before this one; itself it may still be told of."""
        return [0] * min(step - self._step - 1, RATE_POINTS) if self._points else []


def calm(seconds: float) -> float:
    """Round up to a step in proportion to the length, so that the figure does not flicker."""
    for limit, step in ((20, 1), (90, 5), (600, 15), (3600, 60), (6 * 3600, 300)):
        if seconds <= limit:
            return float(-(-seconds // step) * step)
    return float(-(-seconds // 1800) * 1800)


def percent(done: int, total: int, *, finished: bool = False) -> float:
    """0 to 100 with one decimal; 100 only when it is finished, so that a bar never lies full."""
    if finished:
        return 100.0
    if total <= 0:
        return 0.0
    return min(int(done * 1000 / total) / 10, 99.9)
