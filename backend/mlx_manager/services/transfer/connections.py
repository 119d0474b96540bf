"""Who fetches what, over how many connections, and what is done about one that fails, stalls or crawls."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mlx_manager.errors import (
    TLS_ADVICE,
    MlxManagerError,
    SourceBusy,
    SourceRateLimited,
    SourceRefused,
    SourceRejected,
    SourceShort,
    SourceUnreachable,
    TransferError,
)
from mlx_manager.services.transfer.answers import Redirect, Refusal, Verdict
from mlx_manager.services.transfer.extents import Extents, WorkList
from mlx_manager.services.transfer.fetch import Fetch
from mlx_manager.services.transfer.gathering import Gathering, Stage, Trouble
from mlx_manager.services.transfer.limits import TransferLimits
from mlx_manager.services.transfer.parallelism import Parallelism
from mlx_manager.services.transfer.sharing import ConnectionPool, Throttle
from mlx_manager.services.transfer.siblings import Siblings
from mlx_manager.services.transfer.stages import Stages, disk_error
from mlx_manager.services.transfer.wire import Wire, WireFailure

CAPPED_CONNECTION_BPS = 2_000_000
"""Under a cap, so many bytes per second for each connection: more of them would only wait."""
NOT_SERVED_ADVICE = "Not your fault: resume later or from another network, or name mirrors in MLX_MANAGER_MIRRORS."
EARNED_BYTES = 256 * 1024
LATE_S = 0.3
"""The loop comes round every 0.1 s; what goes beyond this was the machine's silence, not the network's."""


class Connections:
    """Lives in the transfer's thread; libcurl calls it through its fetches."""

    def __init__(
        self,
        wire: Wire,
        stages: Stages,
        limits: TransferLimits,
        log: logging.LoggerAdapter[Any],
        pool: ConnectionPool,
        throttles: Sequence[Throttle] = (),
    ) -> None:
        self._wire = wire
        self._stages = stages
        self._limits = limits
        self._log = log
        self._pool = pool
        self._throttles = throttles
        self._parallelism = Parallelism(stages.first_connections, limits.connections)
        self._siblings = Siblings(limits)
        self._fetches: list[Fetch] = []
        self._paused: list[Fetch] = []
        self._finished = 0
        self._allowed = self._parallelism.allowed
        self._limited: dict[str, Trouble] = {}
        self._told_stall = False
        self.capped = False
        self.received = 0
        self.last_byte_at = self._asked_at = self._looked_at = time.monotonic()
        self._patience_s = self._crawl_s = limits.stall_s
        self._lag_patience = 1.0
        self._failure: MlxManagerError | None = None

    @property
    def count(self) -> int:
        return len(self._fetches)

    @property
    def due(self) -> bool:
        """Bytes are owed to us: some file still misses some."""
        return any(file.owed for file in self._stages.open)

    def silent_s(self, now: float) -> float:
        """For how long no byte came, though nothing kept us from asking, and from looking: the disk may have held us
        up, or the machine slept."""
        return now - max(self.last_byte_at, self._asked_at) - self._late_s(now)

    def _late_s(self, now: float) -> float:
        return max(0.0, now - self._looked_at - LATE_S)

    def wanted_files(self) -> int:
        """How many more files should be taken up so that no connection is idle."""
        ready = sum(1 for file in self._stages.open if file.stage is Stage.FETCHING and (file.work or file.active))
        return max(0, self._allowed - ready)

    def replace_at(self, now: float) -> float:
        """When the watchdog will replace a silent connection, on the steady clock."""
        return min((fetch.last_byte_at + self._patience_s for fetch in self._fetches), default=now)

    def measured_at(self, now: float) -> float:
        """When the watchdog will replace the first of the crawling connections, on the steady clock."""
        since = [fetch.measured_since for fetch in self._fetches if fetch.measured_since is not None]
        return min(since, default=now) + self._crawl_s

    def waits_for(self, now: float) -> Trouble | None:
        """What keeps files from being asked for now; of several, what ends first."""
        waits = (self._wait_of(file, now) for file in self._stages.open if file.owed and not file.active)
        return min((wait for wait in waits if wait is not None), key=lambda wait: wait.until, default=None)

    def _wait_of(self, file: Gathering, now: float) -> Trouble | None:
        """What this file waits for before it is asked for again. A rate limit is the host's, not the file's."""
        troubles = (file.trouble, self._limited.get(file.source.address.host))
        waits = [trouble for trouble in troubles if trouble is not None and trouble.until > now]
        return max(waits, key=lambda trouble: trouble.until, default=None)

    def due_in(self, most_s: float) -> float:
        """Seconds, ``most_s`` at most, until something is to be done here."""
        now = time.monotonic()
        wait = self.waits_for(now)
        if wait is not None:
            most_s = min(most_s, wait.until - now)
        return min(most_s, self._throttled_s()) if self._paused else most_s

    def fill(self) -> None:
        """Give every free connection a range: files in order, so that the earliest hashes and publishes first. With
        nothing left to give, it shares the rest of one that has much to do."""
        now = time.monotonic()
        self._allow()
        self._give_work(now)
        busy = self.count >= self._allowed and not self._paused
        self._parallelism.note(now, self.received, self._finished, busy=busy)

    def _give_work(self, now: float) -> None:
        for file in self._stages.open:
            while self.count < self._allowed and file.wants_connection and self._wait_of(file, now) is None:
                self._open(file, *file.work.take(self._limits.piece_bytes))
            if self.count >= self._allowed:
                return
        while self.count < self._allowed and (busy := self._siblings.longest(self._fetches, now)) is not None:
            self._open(busy.file, *busy.share())

    def _allow(self) -> None:
        """How many connections there may be now: what pays, what the pool has for us, what a cap can use."""
        wanted = self._parallelism.allowed if self.due or self.wanted_files() else 1
        caps = [throttle.rate_bps for throttle in self._throttles if throttle.rate_bps is not None]
        self.capped = bool(caps)
        if caps:
            wanted = min(wanted, max(2, int(min(caps) // CAPPED_CONNECTION_BPS)))
        self._allowed = self._pool.share(self, wanted)

    def _throttled_s(self) -> float:
        return max((throttle.wait_s() for throttle in self._throttles), default=0.0)

    def _open(self, file: Gathering, start: int, end: int) -> None:
        file.source.begin()
        fetch = Fetch(file, start, end, self, self._limits)
        if not self._fetches and file.trouble is not None:
            self._asked_at = fetch.last_byte_at
        file.active += 1
        self._fetches.append(fetch)
        fetch.exchange = self._wire.open(fetch.address.url, file.source.headers(), (start, end), fetch)
        self._log.debug("GET %s bytes %d-%d from %s", file.job.path, start, end - 1, fetch.address.host)

    def bytes_came(self, fetch: Fetch, count: int, wanted: int) -> None:
        file = fetch.file
        if fetch.received == count:
            self._parallelism.answered(fetch.last_byte_at - fetch.began_at)
        self.received += count
        waits = [throttle.took(count) for throttle in self._throttles]  # each of them counts it
        if any(waits) and fetch.exchange is not None:
            self._wire.pause(fetch.exchange)
            self._paused.append(fetch)
        self.last_byte_at = fetch.last_byte_at
        self._patience_s = self._limits.stall_s
        if self._told_stall:
            self._told_stall = False
            self._log.info("bytes come again")
        if not wanted:
            return  # only passed over: it gets nobody further
        file.backoff.worked()
        if file.trouble is not None and file.trouble.until <= fetch.last_byte_at:
            self._log.info("%s: going on after: %s", file.job.path, file.trouble.reason)
            host, file.trouble = file.trouble.unreachable, None
            if host is not None:
                self._is_back(host, fetch.last_byte_at)

    def _is_back(self, host: str, now: float) -> None:
        """One file has found it out, so the others need not wait out their time."""
        for other in self._stages.open:
            if other.trouble is not None and other.trouble.unreachable == host and other.trouble.until > now:
                other.trouble = replace(other.trouble, until=now)

    def bytes_written(self, fetch: Fetch) -> None:
        self._stages.wrote(fetch.file)

    def fetch_ended(self, fetch: Fetch, verdict: Verdict | None, failure: WireFailure | None) -> None:
        self._let_go(fetch)
        file = fetch.file
        if fetch.disk_error is not None:
            self._fail(disk_error(fetch.disk_error, file.job.size))
        elif isinstance(verdict, Redirect):
            if not file.source.follow(fetch.address, verdict.url):
                circle = SourceRefused(f"{file.job.path}: redirected in a circle.")
                self._refused(fetch, Refusal(circle, resolve_again=True))
        elif isinstance(verdict, Refusal):
            self._refused(fetch, verdict)
        elif fetch.position >= fetch.end:
            self._finished += 1
            self._siblings.finished(fetch, time.monotonic())
            file.source.worked()
        elif failure is not None:
            self._broken(fetch, failure)
        else:
            missing = fetch.end - fetch.position
            self._trouble(fetch, SourceShort(f"{file.job.path}: the answer ended {missing} bytes early."))

    def _broken(self, fetch: Fetch, failure: WireFailure) -> None:
        path, address = fetch.file.job.path, fetch.address
        if fetch.received:
            self._trouble(
                fetch, SourceShort(f"{path}: {failure.reason} after {fetch.received} bytes ({address.host}).")
            )
        else:
            advice = TLS_ADVICE if failure.untrusted else None
            unreachable = SourceUnreachable(f"{address.host}: {failure.reason}.", advice=advice)
            self._trouble(fetch, unreachable, resolve_again=address.signed)

    def _refused(self, fetch: Fetch, refusal: Refusal) -> None:
        file, error = fetch.file, refusal.error
        if not error.transient:
            if isinstance(error, TransferError):
                error.file = file.job.path
            self._fail(error)
            return
        if isinstance(error, SourceRefused):
            if fetch.address is not file.source.address:
                return  # another connection was refused there before; a fresh address is asked for already
            # Nothing will change by waiting alone: a bounded number of fresh addresses, then an end with the reason.
            if (asked := file.source.refused(self._limits.refusals)) is not None:
                said = f"{file.job.path}: {error.detail} It was asked {asked} times."
                rejected = SourceRejected(said, advice=NOT_SERVED_ADVICE)
                rejected.file = file.job.path
                self._fail(rejected)
                return
        self._trouble(fetch, error, resolve_again=refusal.resolve_again)

    def _trouble(self, fetch: Fetch, error: MlxManagerError, *, resolve_again: bool = False) -> None:
        """A passing fault: wait a little, longer each time that not a byte came in between, and go on."""
        file = fetch.file
        now = time.monotonic()
        limited = isinstance(error, SourceRateLimited)
        asked = error.retry_after_s if isinstance(error, SourceRateLimited) else None
        if fetch.position - fetch.start >= EARNED_BYTES and not limited and not isinstance(error, SourceRefused):
            # It got somewhere: a line that breaks again and again still comes to the end, without a wait.
            self._log.info("%s; asked again at once", error.detail.rstrip("."))
            return
        if resolve_again or file.source.has_mirrors:
            file.source.resolve_again(fetch.address, ailing=not isinstance(error, SourceRefused))
        unreachable = fetch.address.host if isinstance(error, SourceUnreachable) else None
        # To be refused at the door costs nobody anything, and a network that is back should be seen soon. Where the Hub
        # is to be asked for another address first, it does cost.
        near = self._limits.backoff_near_s if unreachable is not None and not resolve_again else None
        # Connections that fail side by side are one failure: the first one's wait covers them.
        wait = 0.0 if file.trouble is not None and file.trouble.until > now else file.backoff.failed(near)
        # Of another place nothing was asked.
        moved = file.source.address.host != fetch.address.host
        limited_until = now + max(wait, asked or 0.0)
        until = now + wait if moved else limited_until
        if file.trouble is not None and file.trouble.until >= until:
            self._log.debug("%s besides", error.detail.rstrip("."))
            return
        file.trouble = Trouble(error.detail, until, file.backoff.failures, limited, error.advice, unreachable)
        if limited:
            self._limited[fetch.address.host] = replace(file.trouble, until=limited_until)
        if limited or isinstance(error, SourceBusy):
            self._parallelism.refused(now)
        self._log.warning(
            "%s; tried again in %.1f s (%d in a row)", error.detail.rstrip("."), until - now, file.backoff.failures
        )

    def look_after(self) -> None:
        """The watchdog: replaces silent and crawling connections. That is no failure of the file and costs no try."""
        for fetch in self._fetches:
            fetch.count_fresh()
        now = time.monotonic()
        self._forgive_lateness(now)
        if not self.due:
            self.last_byte_at = now
        self._go_on(now)
        self._replace_laggard(now)
        patience, crawl = self._patience_s, self._crawl_s
        for fetch in list(self._fetches):
            fetch.flush_if_old(now)
            if fetch.superfluous or fetch.disk_error is not None:
                self._cut(fetch)
            elif fetch.silent_for(now) >= patience:
                self._patience_s = min(patience * 2, self._limits.stall_max_s)
                self._replace(fetch, f"silent for {fetch.silent_for(now):.0f} s")
            elif (rate := fetch.measure(now, crawl)) is not None:
                # Where all crawl, it is the line: the longer the window, the less of it goes into new connections.
                slow = rate < self._limits.min_rate_bps
                self._crawl_s = min(crawl * 2, self._limits.stall_max_s) if slow else self._limits.stall_s
                if slow:
                    self._replace(fetch, f"crawling at {rate:.0f} bytes per second")
        self._tell_silence(now)
        if self._failure is not None:
            raise self._failure

    def _go_on(self, now: float) -> None:
        """A cap held these back; that is no silence of theirs."""
        for fetch in self._paused:
            fetch.forgive(now - fetch.last_byte_at)
        if self._paused and self._throttled_s() <= 0:
            paused, self._paused = self._paused, []
            for fetch in paused:
                if fetch.exchange is not None:
                    self._wire.go_on(fetch.exchange)

    def _replace_laggard(self, now: float) -> None:
        self._siblings.note(self._fetches, now)
        if self._paused or any(throttle.rate_bps is not None for throttle in self._throttles):
            return
        laggard = self._siblings.laggard(self._fetches, now, self._lag_patience)
        if laggard is not None:
            # If it is the file's source that is slow, a new connection will not help: the next time takes longer.
            self._lag_patience = min(self._lag_patience * 1.5, 20.0)
            self._replace(laggard, "far behind its siblings")

    def _forgive_lateness(self, now: float) -> None:
        late = self._late_s(now)
        self._looked_at = now
        if late > 0:
            self._asked_at = min(now, max(self.last_byte_at, self._asked_at) + late)
            for fetch in self._fetches:
                fetch.forgive(late)

    def _tell_silence(self, now: float) -> None:
        silent = self.silent_s(now)
        if self._fetches and silent >= self._limits.told_after_s and not self._told_stall:
            self._told_stall = True
            self._log.warning(
                "no byte for %.0f s; silent connections are replaced after %.0f s", silent, self._patience_s
            )

    def _replace(self, fetch: Fetch, why: str) -> None:
        file, address = fetch.file, fetch.address
        self._cut(fetch)
        self._log.info("%s: a connection to %s is %s; replaced", file.job.path, address.host, why)
        others = (other for other in self._fetches if other.address is address)
        if fetch.verdict is None and not any(other.received for other in others):
            # Not even a head came, to nobody: the address may lead nowhere by now.
            file.source.resolve_again(address, ailing=True)

    def _cut(self, fetch: Fetch) -> None:
        """End a fetch; what it holds is written."""
        if fetch.exchange is not None:
            self._wire.close(fetch.exchange)
        fetch.flush(time.monotonic())
        self._let_go(fetch)
        if fetch.disk_error is not None:
            self._fail(disk_error(fetch.disk_error, fetch.file.job.size))

    def _let_go(self, fetch: Fetch) -> None:
        self._fetches.remove(fetch)
        if fetch in self._paused:
            self._paused.remove(fetch)
        file = fetch.file
        file.active -= 1
        if file.stage is Stage.FETCHING:
            missing = Extents(file.part.have.gaps(file.job.size))
            for other in self._fetches:
                if other.file is file:
                    missing.remove(*other.missing)
            file.work = WorkList(missing)

    def close(self) -> None:
        """Cease at once; what was received is written."""
        known = self._failure
        self._pool.leave(self)
        for fetch in list(self._fetches):
            self._cut(fetch)
        if self._failure is not known and self._failure is not None:
            self._log.warning("while stopping: %s", self._failure.detail)

    def _fail(self, error: MlxManagerError) -> None:
        """Errors must not be raised through libcurl; the loop raises this one in its next round."""
        self._failure = self._failure or error
