"""Judging a connection by its siblings: what is slow for one alone is that connection's fault, not the line's."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from statistics import median

from mlx_manager.services.transfer.answers import Range
from mlx_manager.services.transfer.fetch import Fetch
from mlx_manager.services.transfer.limits import TransferLimits

PACE_S = 0.6
LEAST_PACE_S = 0.15
MOVING_WITHIN_S = 0.3
TELLING_BYTES = 512 * 1024
"""A shorter fetch says more about round trips than about bytes."""


class Siblings:
    """Remembers what a connection of this download usually brings, for the time when the last one is alone."""

    def __init__(self, limits: TransferLimits) -> None:
        self._limits = limits
        self._finished: deque[float] = deque(maxlen=12)
        self.typical_bps: float | None = None

    def note(self, fetches: Sequence[Fetch], now: float) -> None:
        for fetch in fetches:
            fetch.note_pace(now)
        running = [pace for fetch in fetches if (pace := fetch.pace_bps(now, PACE_S)) is not None]
        paces = [*self._finished, *running]
        if len(paces) >= 2:
            self.typical_bps = median(paces)

    def finished(self, fetch: Fetch, now: float) -> None:
        """It brought its whole range."""
        if fetch.received >= TELLING_BYTES and now > fetch.began_at:
            self._finished.append(fetch.received / (now - fetch.began_at))

    def laggard(self, fetches: Sequence[Fetch], now: float, patience: float) -> Fetch | None:
        """One that brings next to nothing while others, or it alone until lately, bring much. ``patience`` stretches
        the time that it is given."""
        if not self.typical_bps:
            return None
        limits = self._limits
        piece_s = limits.piece_bytes / self.typical_bps
        window = min(max(piece_s, limits.lag_least_s), limits.lag_most_s) * patience
        for fetch in fetches:
            others = [other for other in fetches if other is not fetch]
            if others and not any(other.silent_for(now) < MOVING_WITHIN_S for other in others):
                continue  # all are silent: it is the line
            pace = fetch.pace_bps(now, min(window, 3.5))
            if pace is None or now - fetch.began_at < window or pace >= self.typical_bps * limits.lag_share:
                continue
            rest = fetch.end - fetch.position
            if pace == 0 or rest / pace > window:
                return fetch
        return None

    def longest(self, fetches: Sequence[Fetch], now: float) -> Fetch | None:
        """The fetch whose rest takes longest, if sharing that rest is worth a request."""
        best, best_s = None, self._limits.split_worth_s
        for fetch in fetches:
            rest = fetch.end - fetch.position
            if rest < self._limits.split_bytes or not isinstance(fetch.verdict, Range) or fetch.superfluous:
                continue
            # A young one is judged by its life so far: on a capped line half of it would be over before it has an age.
            window = min(PACE_S, max(LEAST_PACE_S, 0.99 * (now - fetch.began_at)))
            pace = fetch.pace_bps(now, window) or self.typical_bps
            if pace and rest / pace > best_s:
                best, best_s = fetch, rest / pace
        return best
