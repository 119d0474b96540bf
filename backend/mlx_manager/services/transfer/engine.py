"""The loop that owns the bytes of one download: one thread, no locks.

Each round it hands missing ranges to free connections, lets libcurl move bytes, looks after the slow ones, and takes
what the hash thread and the disk thread report. Files go through `gathering.Stage`; the answers' judgement is in
`answers`, the words for the watchers in `narrator`.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

from mlx_manager.domain.download import FileProgress, Sample
from mlx_manager.domain.progress import RateWindow
from mlx_manager.domain.states import Phase
from mlx_manager.errors import MlxManagerError
from mlx_manager.services.ports import FileJob, VerifiedBlobs
from mlx_manager.services.transfer.connections import Connections
from mlx_manager.services.transfer.durable import DiskThread
from mlx_manager.services.transfer.gathering import Gathering
from mlx_manager.services.transfer.hashing import HashThread
from mlx_manager.services.transfer.limits import TransferLimits
from mlx_manager.services.transfer.narrator import Moment, narrate
from mlx_manager.services.transfer.outcome import settle
from mlx_manager.services.transfer.sharing import ConnectionPool, Throttle
from mlx_manager.services.transfer.source import Health
from mlx_manager.services.transfer.stages import Stages
from mlx_manager.services.transfer.wire import Wire, WireOptions
from mlx_manager.task_context import in_context

ROUND_S = 0.1
SAMPLE_EVERY_S = 0.1
LATE_S = 1.0

log = logging.getLogger(__name__)


class CurlTransfer:
    """`services.ports.Transfer` over libcurl."""

    def __init__(
        self,
        task_id: str,
        jobs: Sequence[FileJob],
        *,
        limits: TransferLimits,
        wire: WireOptions,
        token_for: Callable[[str], str | None],
        verified: VerifiedBlobs,
        pool: ConnectionPool | None = None,
        throttles: Sequence[Throttle] = (),
        mirrors_of: Callable[[str], Sequence[str]] = lambda url: (),
    ) -> None:
        """``pool``: the connections that all transfers share; ``throttles``: the caps that hold for this one;
        ``mirrors_of(url)``: where else the Hub's file is to be had."""
        self._pool = pool or ConnectionPool(limits.connections)
        self._throttles = throttles
        self._log = logging.LoggerAdapter(log, {"task_id": task_id})
        self._limits = limits
        self._wire_options = wire
        self._verified = verified
        health = Health()
        self._files = [Gathering(job, limits, token_for, mirrors_of(job.url), health) for job in jobs]
        self._total = sum(job.size for job in jobs)
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._result: Future[None] = Future()
        self._thread = threading.Thread(target=in_context(self._main), name=f"transfer-{task_id[:8]}", daemon=True)
        self._wire: Wire | None = None
        self._rate = RateWindow()
        self._progress = {file: _progress(file) for file in self._files}
        self._lately = RateWindow(limits.told_after_s)
        first = Sample(0, 0, 0, 0.0, None, None, 0, Phase.CONNECTING, "Preparing.", time.time(), None)
        # One attribute, so that other threads never see the one without the other.
        self._sampled: tuple[Sample, float] = first, 0.0

    @property
    def files(self) -> Sequence[Gathering]:
        """To look at, from any thread; only the transfer's own may change them."""
        return self._files

    def start(self) -> None:
        self._thread.start()

    def sample(self) -> Sample:
        sample, taken_at = self._sampled
        if sample.last_byte_age_s is None or not self._thread.is_alive():
            return sample
        # The loop may be held up by the disk; the age of the last byte grows all the same.
        return replace(sample, last_byte_age_s=sample.last_byte_age_s + time.monotonic() - taken_at)

    async def finished(self) -> None:
        """As the port says; CancelledError when it was stopped before the end."""
        # Shielded: a watcher that goes away must not cancel the future the thread will set.
        await asyncio.shield(asyncio.wrap_future(self._result))

    def stop(self) -> None:
        self._stopping.set()
        if self._wire is not None:
            self._wire.wake()
        if self._thread.ident is not None:
            self._thread.join()

    def _main(self) -> None:
        settle(self._result, self._run)

    def _run(self) -> bool:
        """True when every file is published, False when it was stopped before."""
        wire = self._wire = Wire(self._wire_options)
        hasher = HashThread("hash", lambda item: self._post(lambda: stages.hashed(item)))
        disk = DiskThread("disk", lambda key, error: self._post(lambda: stages.on_disk(key, error)))
        stages = Stages(self._files, hasher, disk, self._limits, self._verified, self._log)
        connections = Connections(wire, stages, self._limits, self._log, self._pool, self._throttles)
        hasher.start()
        disk.start()
        try:
            while not stages.all_done and not self._stopping.is_set():
                stages.advance(connections.wanted_files())
                connections.fill()
                # Here, where a connection that was replaced has its successor.
                self._look(stages, connections)
                wire.run(connections.due_in(ROUND_S))
                self._take_posts()
                connections.look_after()
                stages.tend()
        finally:
            try:
                connections.close()
                wire.shutdown()
                hasher.stop()
                self._last_posts()
                stages.close_down()
            finally:
                disk.stop()
                self._last_posts()
                stages.release()
                self._look(stages, connections, final=True)
        return stages.all_done

    def _post(self, call: Callable[[], None]) -> None:
        """From another thread: ``call`` runs on this one."""
        self._inbox.put(call)
        if self._wire is not None:
            self._wire.wake()

    def _take_posts(self) -> None:
        while not self._inbox.empty():
            self._inbox.get()()

    def _last_posts(self) -> None:
        """What the disk thread says while all ends: an error now costs received bytes, but must not hide the first."""
        while not self._inbox.empty():
            try:
                self._inbox.get()()
            except MlxManagerError as error:
                self._log.warning("while stopping: %s", error.detail)

    def _look(self, stages: Stages, connections: Connections, *, final: bool = False) -> None:
        """Take the sample that everybody is shown."""
        now = time.monotonic()
        before, sampled_at = self._sampled
        if now - sampled_at < SAMPLE_EVERY_S and not final:
            return
        files = self._files
        done = stages.done_bytes
        # What was found here grows as files are opened; it must not look like speed.
        reused = stages.reused_bytes
        self._rate.add(now, connections.received)
        moment = Moment(
            now=now,
            files=files,
            connections=connections.count,
            received=connections.received,
            silent_s=connections.silent_s(now),
            replace_at=connections.replace_at(now),
            waits_for=connections.waits_for(now),
            crawls_at=self._crawls_at(connections, now, late=now - sampled_at > LATE_S),
            measured_at=connections.measured_at(now),
        )
        saying = narrate(moment, self._limits)
        wall = time.time()
        # Thousands of files may wait or be done: only of those that moved is anything made anew.
        for file in stages.changed.union(stages.open):
            self._progress[file] = _progress(file)
        stages.changed.clear()
        sample = Sample(
            downloaded_bytes=done,
            reused_bytes=reused,
            received_bytes=connections.received,
            speed_bps=self._rate.speed_bps,
            eta_s=self._rate.eta_s(self._total - done),
            last_byte_age_s=now - connections.last_byte_at if connections.due else None,
            files_done=stages.files_done,
            phase=saying.phase,
            message=saying.message,
            since=before.since if before.phase is saying.phase else wall,
            deadline=None if saying.deadline is None else wall + saying.deadline - now,
            advice=saying.advice,
            connections=connections.count,
            files=tuple(self._progress.values()),
        )
        self._sampled = sample, now

    def _crawls_at(self, connections: Connections, now: float, *, late: bool) -> float | None:
        """The rate of all connections together, in bytes per second, where it is none to speak of for as long as
        silence would have to last to be told. ``late``: the machine slept, and that is no crawl of theirs."""
        if late or not connections.count or any(throttle.rate_bps is not None for throttle in self._throttles):
            self._lately = RateWindow(self._limits.told_after_s)
        self._lately.add(now, connections.received)
        rate = self._lately.speed_bps
        slow = rate < self._limits.min_rate_bps * connections.count
        return rate if slow and self._lately.span_s >= self._limits.told_after_s else None


def _progress(file: Gathering) -> FileProgress:
    return FileProgress(file.job.path, file.job.size, file.done_bytes, file.state)
