"""What the watchers are told of a download, when, and what goes into the ledger of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable

from mlx_manager.domain.download import Download, aged, beside
from mlx_manager.domain.events import EventKind
from mlx_manager.domain.snapshot import snapshot
from mlx_manager.domain.states import Status
from mlx_manager.services.downloads.ledger import Ledger
from mlx_manager.services.downloads.live import MOST_EVENTS_A_SECOND, Live
from mlx_manager.services.ports import ProgressBus


class Broadcast:
    """Changes of state go out at once and into the ledger at once. Figures go out at most four times a second and, of a
    download that is active, at least once every ``tick_s``; into the ledger every ``save_every_s``."""

    def __init__(
        self,
        bus: ProgressBus,
        ledger: Ledger,
        *,
        tick_s: float,
        save_every_s: float,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._ledger = ledger
        self._tick_s = tick_s
        self._save_every_s = save_every_s
        self._steady = steady

    @property
    def beat_s(self) -> float:
        """How often `beat` must be called, in seconds."""
        return min(self._tick_s, 1.0) / MOST_EVENTS_A_SECOND

    def heard(self, live: Live, download: Download) -> None:
        """The download as its worker has just told."""
        live.heard_at = self._steady()
        self.tell(live, download)

    def tell(self, live: Live, download: Download) -> None:
        """The download is this now."""
        live.download = download
        now = self._steady()
        if live.told is None or _state(live.told) != _state(download):
            self._publish(live, EventKind.STATE, now)
            self._save(live, now)
        elif self._may_tick(live, now):
            self._tick(live, now)

    def now(self, live: Live) -> Download:
        """The download as of this moment: what its worker said last, what the clock made of it since; where it
        cannot be written down, that too. One that is at its end says no more than how it ended: nobody would ever
        take back what was told beside it."""
        shown = live.download
        if live.run is not None and shown.status.is_active:
            shown = aged(shown, max(0.0, self._steady() - live.heard_at))
        if (trouble := self._ledger.trouble) is not None and not shown.status.is_terminal:
            shown = beside(shown, f"{trouble.detail} It is tried again.", trouble.advice)
        return shown

    def rates(self, lives: Iterable[Live]) -> dict[str, list[int]]:
        """The rate of each that is at work, over the last while; see `domain.progress.RateCurve`."""
        now = self._steady()
        return {live.task_id: live.rates.points(now) for live in lives if live.download.status.is_active}

    def beat(self, lives: Collection[Live]) -> bool:
        """Tell what is due; True while there is anything to watch over."""
        now = self._steady()
        if not any(live.dirty or live.writes for live in lives):
            self._ledger.caught_up()
        busy = self._ledger.trouble is not None
        for live in lives:
            if self._is_news(live):
                # Also one that rests: whoever watches it hears when the trouble begins, and when it is over.
                busy = True
                if self._may_tick(live, now):
                    self._publish(live, EventKind.TICK, now)
            if live.download.status.is_active:
                # One that nobody was told of yet is about to be: the heart must not fall asleep over it.
                busy = True
                # Not only when it is late already: the next beat may come too late.
                due = now - live.told_at + self.beat_s >= self._tick_s
                if live.told and (due or (live.told is not live.download and self._may_tick(live, now))):
                    self._tick(live, now)
            if live.dirty:
                busy = True
                if self._may_save(live, now):
                    live.saved_at = now
                    self._ledger.save_again(live)
        return busy

    def _is_news(self, live: Live) -> bool:
        """Whether the ledger's trouble is another than the one that was told beside it last. One that moves on is
        about to be told of anyway."""
        told = live.told
        if told is None or told.status.is_terminal or _state(told) != _state(live.download):
            return False
        return live.told_beside is not self._ledger.trouble

    def _tick(self, live: Live, now: float) -> None:
        self._publish(live, EventKind.TICK, now)
        if self._may_save(live, now):
            self._save(live, now)

    def _may_save(self, live: Live, now: float) -> bool:
        # One that waits to be written already is enough: a disk that hangs must not pile them up.
        return not live.writes and now - live.saved_at >= self._save_every_s

    def _may_tick(self, live: Live, now: float) -> bool:
        return len(live.recent) < MOST_EVENTS_A_SECOND or now - live.recent[0] >= 1.0

    def _publish(self, live: Live, kind: EventKind, now: float) -> None:
        shown = self.now(live)
        event = self._bus.publish(live.task_id, kind, snapshot(shown), terminal=shown.status.is_terminal)
        live.event_id = event.id
        live.told = live.download
        live.told_beside = self._ledger.trouble
        live.told_at = now
        live.recent.append(now)
        if shown.status is Status.DOWNLOADING:
            live.rates.add(now, shown.speed_bps)

    def _save(self, live: Live, now: float) -> None:
        live.saved_at = now
        self._ledger.save(live)


def _state(download: Download) -> tuple[object, ...]:
    """What makes a change of state, and not just other figures."""
    d = download
    return (d.status, d.phase, d.commit, d.total_bytes, d.total_is_estimate, d.error, d.error_code, d.place)
