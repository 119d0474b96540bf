"""How many connections are worth having: more while more is faster, fewer where the source or the line says so."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_WINDOW_S = 0.15
WINDOW_S = 0.6
BETTER = 1.1
COLLAPSED = 0.4
PROBE_AGAIN_S = 15.0
CALM_S = 10.0
MOST_WAY_S = 0.5


@dataclass(frozen=True, slots=True)
class Pace:
    """Bytes and finished requests per second: small files are held up by round trips, not by bytes."""

    bytes_ps: float
    requests_ps: float

    def beats(self, other: Pace, by: float) -> bool:
        return self.bytes_ps > other.bytes_ps * by or self.requests_ps > other.requests_ps * by


class Parallelism:
    """Climbs from ``first`` towards ``most`` while each step pays, doubling at the start and by half later, and takes a
    step back that did not. Fed with running totals; owned by one thread."""

    def __init__(self, first: int, most: int) -> None:
        self.most = most
        self.allowed = min(first, most)
        self._before: tuple[int, Pace] | None = None
        self._best = 0.0
        self._bad_windows = 0
        self._hold_until = 0.0
        self._starting = True
        self._window: tuple[float, int, int] | None = None
        self._way_s = 0.0
        self._settled_at = 0.0

    def note(self, now: float, received: int, requests: int, *, busy: bool) -> None:
        """``busy``: every allowed connection is in use and nothing else holds it back; otherwise the window tells
        nothing. ``now`` in seconds of a steady clock."""
        if not busy or self._window is None or now < self._settled_at:
            self._window = (now, received, requests)
            return
        began, bytes_before, requests_before = self._window
        if now - began < (max(FIRST_WINDOW_S, self._way_s) if self._starting else WINDOW_S):
            return
        pace = Pace((received - bytes_before) / (now - began), (requests - requests_before) / (now - began))
        self._window = (now, received, requests)
        self._judge(now, pace)

    def answered(self, after_s: float) -> None:
        """A request's first byte came so long after the request. For as long nothing is to be seen of a connection
        that is added, least of all on a distant line: to judge it before would take back what pays."""
        self._way_s = min(MOST_WAY_S, max(self._way_s, after_s))

    def refused(self, now: float) -> None:
        """The source said that it is too much: 429, or 503."""
        self._shrink(now)

    def _judge(self, now: float, pace: Pace) -> None:
        if self._before is not None:
            fewer, then = self._before
            if not pace.beats(then, BETTER):
                self.allowed = fewer
                self._before = None
                self._starting = False
                self._hold_until = now + PROBE_AGAIN_S
                return
        self._best = max(self._best, pace.bytes_ps)
        self._bad_windows = self._bad_windows + 1 if pace.bytes_ps < self._best * COLLAPSED else 0
        if self._bad_windows >= 3 and self._before is None:
            self._best = pace.bytes_ps
            self._shrink(now)
        elif now >= self._hold_until and self.allowed < self.most:
            self._before = (self.allowed, pace)
            step = self.allowed if self._starting else max(1, self.allowed // 2)
            self.allowed = min(self.most, self.allowed + step)
            self._settled_at = now + self._way_s
        else:
            self._before = None

    def _shrink(self, now: float) -> None:
        self.allowed = max(1, self.allowed // 2)
        self._starting = False
        self._before = None
        self._bad_windows = 0
        self._hold_until = now + CALM_S
