"""The second engine: files from the Hub's Xet store, in ranges, by a child process with hf_xet in it.

Whatever way the bytes came, they go through the same stages: a part of its own with a journal, the hash that follows,
publication under the cache's lock. So a file that is stopped goes on where it stood, and Xet is believed no more than
any other source: it checks no hash of ours.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlx_manager.domain import words
from mlx_manager.domain.download import FileProgress, Sample
from mlx_manager.domain.progress import RateWindow
from mlx_manager.domain.states import Phase
from mlx_manager.errors import MlxManagerError, SourceStalled, SourceTrouble, TransferError
from mlx_manager.services.ports import FileJob, VerifiedBlobs
from mlx_manager.services.transfer.durable import DiskThread
from mlx_manager.services.transfer.gathering import Gathering, Stage
from mlx_manager.services.transfer.hashing import HashThread
from mlx_manager.services.transfer.limits import TransferLimits
from mlx_manager.services.transfer.narrator import Saying
from mlx_manager.services.transfer.outcome import settle
from mlx_manager.services.transfer.part import xet_part
from mlx_manager.services.transfer.sharing import Throttle
from mlx_manager.services.transfer.stages import Stages, disk_error
from mlx_manager.services.transfer.xet_process import XetEnd, XetOrder, XetProcess
from mlx_manager.task_context import in_context

ROUND_S = 0.1
LATE_S = 1.0
FAST_S, SLOW_S = 0.5, 2.0
MIB = 1 << 20

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class XetOptions:
    """``streams`` ranges at a time, from ``piece_first`` bytes up to ``piece_most``, as the line gives: each one takes
    about a second, so that all hear of it and little is lost by a stop. ``read_timeout_s``: hf_xet's own patience with
    one connection; ``patience_s``: ours, with all of them. ``telemetry``: hf_xet may tell the store how it went."""

    streams: int = 4
    piece_first: int = 256 * 1024
    piece_most: int = 8 * MIB
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 5.0
    patience_s: float = 15.0
    buffer_bytes: int = 64 * MIB
    telemetry: bool = False

    def config(self) -> dict[str, Any]:
        """hf_xet's settings. Its own wait for 300 s and take gigabytes."""
        return {
            "client.connect_timeout": f"{int(self.connect_timeout_s * 1000)}ms",
            "client.read_timeout": f"{int(self.read_timeout_s * 1000)}ms",
            "client.retry_max_attempts": 1,
            "client.retry_base_delay": "250ms",
            "client.retry_max_duration": f"{int(self.patience_s * 1000)}ms",
            "client.ac_max_download_concurrency": self.streams,
            "reconstruction.download_buffer_size": f"{self.buffer_bytes}b",
            "reconstruction.download_buffer_perfile_size": f"{self.buffer_bytes // self.streams}b",
            "reconstruction.download_buffer_limit": f"{self.buffer_bytes * 2}b",
            "reconstruction.min_prefetch_buffer": f"{self.buffer_bytes // self.streams}b",
        }


class XetTransfer:
    """`services.ports.Transfer` over hf_xet, for jobs that have a ``xet``; one file after the other. The TransferError
    that ends it names its file."""

    def __init__(
        self,
        task_id: str,
        jobs: Sequence[FileJob],
        *,
        limits: TransferLimits,
        options: XetOptions,
        token_for: Callable[[str], str | None],
        verified: VerifiedBlobs,
        scratch: Path,
        throttles: Sequence[Throttle] = (),
    ) -> None:
        """``scratch``: a folder for hf_xet's own use, see `xet_process`; made when it is needed."""
        self._scratch = scratch
        self._log = logging.LoggerAdapter(log, {"task_id": task_id})
        # One wrong hash is enough here: there is another way to the file.
        self._limits = replace(limits, hash_attempts=1)
        self._options = options
        self._token_for = token_for
        self._verified = verified
        self._throttles = throttles
        self._files = [
            Gathering(replace(job, part=xet_part(job.part)), limits, token_for, by_others=True) for job in jobs
        ]
        self._total = sum(job.size for job in jobs)
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._result: Future[None] = Future()
        self._thread = threading.Thread(target=in_context(self._main), name=f"xet-{task_id[:8]}", daemon=True)
        self._rate = RateWindow()
        self._received = 0
        self._streams = 0
        self._last_at = time.monotonic()
        first = Sample(0, 0, 0, 0.0, None, None, 0, Phase.CONNECTING, "Preparing.", time.time(), None)
        self._sample = first

    def start(self) -> None:
        self._thread.start()

    def sample(self) -> Sample:
        return self._sample

    async def finished(self) -> None:
        """As the port says; CancelledError when it was stopped before the end."""
        await asyncio.shield(asyncio.wrap_future(self._result))

    def stop(self) -> None:
        self._stopping.set()
        self._inbox.put(lambda: None)
        if self._thread.ident is not None:
            self._thread.join()

    def _main(self) -> None:
        settle(self._result, self._run)

    def _run(self) -> bool:
        """True when every file is published, False when it was stopped before."""
        hasher = HashThread("xet-hash", lambda item: self._inbox.put(lambda: stages.hashed(item)))
        disk = DiskThread("xet-disk", lambda key, error: self._inbox.put(lambda: stages.on_disk(key, error)))
        stages = Stages(self._files, hasher, disk, self._limits, self._verified, self._log)
        fetching: _Fetching | None = None
        hasher.start()
        disk.start()
        try:
            while not stages.all_done and not self._stopping.is_set():
                if fetching is None or fetching.done:
                    fetching = self._next(stages, fetching)
                if fetching is not None:
                    fetching.feed(self._wait_s())
                self._look(stages, fetching)
                self._take_posts(ROUND_S)
                if fetching is not None:
                    fetching.look_after()
                stages.tend()
            if fetching is not None and stages.all_done:
                fetching.finish()
        finally:
            try:
                if fetching is not None:
                    fetching.close()
                hasher.stop()
                self._last_posts()
                stages.close_down()
            finally:
                disk.stop()
                self._last_posts()
                stages.release()
                self._look(stages, None)
        return stages.all_done

    def _next(self, stages: Stages, before: _Fetching | None) -> _Fetching | None:
        if before is not None:
            before.finish()
        stages.advance(1)
        file = next((file for file in self._files if file.work and file.stage is Stage.FETCHING), None)
        if file is None:
            return None
        assert file.job.xet is not None
        headers = {}
        if token := self._token_for(file.job.xet.token_url):
            headers["Authorization"] = f"Bearer {token}"
        order = XetOrder(
            url=file.job.xet.token_url,
            headers=headers,
            hash=file.job.xet.hash,
            size=file.job.size,
            path=file.part.path,
            streams=self._options.streams,
            config=self._options.config(),
            scratch=self._scratch,
            telemetry=self._options.telemetry,
        )
        self._log.info("%s: fetched by Xet, %s", file.job.path, words.size(file.job.size - file.part.have.total))
        self._last_at = time.monotonic()

        def came(count: int) -> None:
            self._received += count
            self._last_at = time.monotonic()
            for throttle in self._throttles:
                throttle.took(count)
            stages.wrote(file)

        try:
            return _Fetching(file, order, self._options, self._inbox.put, came)
        except OSError as error:
            raise _about(file, SourceTrouble, f"hf_xet could not be started: {error.strerror or error}.") from error

    def _wait_s(self) -> float:
        return max((throttle.wait_s() for throttle in self._throttles), default=0.0)

    def _take_posts(self, wait_s: float) -> None:
        try:
            call = self._inbox.get(timeout=wait_s)
        except queue.Empty:
            return
        call()
        while not self._inbox.empty():
            self._inbox.get()()

    def _last_posts(self) -> None:
        """What comes while all ends: an error now costs received bytes, but must not hide the first."""
        while not self._inbox.empty():
            try:
                self._inbox.get()()
            except MlxManagerError as error:
                self._log.warning("while stopping: %s", error.detail)

    def _look(self, stages: Stages, fetching: _Fetching | None) -> None:
        """Take the sample that everybody is shown."""
        now, wall, before = time.monotonic(), time.time(), self._sample
        owed = any(file.owed for file in self._files)
        self._rate.add(now, self._received)
        saying = self._say(now, fetching)
        done = sum(file.done_bytes for file in self._files)
        self._sample = Sample(
            downloaded_bytes=done,
            reused_bytes=stages.reused_bytes,
            received_bytes=self._received,
            speed_bps=self._rate.speed_bps,
            eta_s=self._rate.eta_s(self._total - done),
            last_byte_age_s=now - self._last_at if owed else None,
            files_done=stages.files_done,
            phase=saying.phase,
            message=saying.message,
            since=before.since if before.phase is saying.phase else wall,
            deadline=None if saying.deadline is None else wall + saying.deadline - now,
            connections=0 if fetching is None else fetching.streams,
            files=tuple(FileProgress(f.job.path, f.job.size, f.done_bytes, f.state) for f in self._files),
        )

    def _say(self, now: float, fetching: _Fetching | None) -> Saying:
        if fetching is None or fetching.done:
            locked = {file.stage for file in self._files if file.stage is not Stage.DONE} == {Stage.LOCKED_OUT}
            if locked:
                return Saying(Phase.WAITING_FOR_LOCK, "Another program is fetching the same; waiting until it is done.")
            return Saying(Phase.HASHING, "Checking and putting away what was received.")
        path = fetching.path
        silent = fetching.silent_s(now)
        if silent >= self._limits.told_after_s:
            until = now - silent + self._options.patience_s
            left = words.duration(max(0.0, until - now))
            return Saying(
                Phase.STALLED, f"No byte of {path} by Xet for {words.duration(silent)}; given up in {left}.", until
            )
        if not fetching.received:
            return Saying(Phase.CONNECTING, f"Connecting to fetch {path} by Xet.")
        return Saying(Phase.TRANSFERRING, f"Receiving {path} by Xet.")


class _Fetching:
    """One file and its child process. ``post`` brings a call to the transfer's thread, on which all else is called."""

    def __init__(
        self,
        file: Gathering,
        order: XetOrder,
        options: XetOptions,
        post: Callable[[Callable[[], None]], None],
        came: Callable[[int], None],
    ) -> None:
        self.path = file.job.path
        self.received = 0
        self._file = file
        self._options = options
        self._came = came
        self._piece = options.piece_first
        self._under_way: dict[tuple[int, int], float] = {}
        self._last_at = self._looked_at = time.monotonic()
        self._process = XetProcess(
            order,
            lambda start, end: post(lambda: self._have(start, end)),
            lambda end: post(lambda: self._ended(end)),
        )

    @property
    def done(self) -> bool:
        """Every byte of the file is here."""
        return not self._file.owed

    @property
    def streams(self) -> int:
        return len(self._under_way)

    def feed(self, wait_s: float) -> None:
        """Ask for more ranges, unless a cap says to wait for ``wait_s``."""
        if wait_s > 0:
            if not self._under_way:
                self._last_at = time.monotonic()  # silence that we asked for
            return
        while self._file.work and len(self._under_way) < self._options.streams:
            start, end = self._file.work.take(self._piece)
            self._under_way[start, end] = time.monotonic()
            self._process.fetch(start, end)

    def silent_s(self, now: float) -> float:
        return now - self._last_at

    def look_after(self) -> None:
        """Raises SourceStalled when nothing came for too long."""
        now = time.monotonic()
        if now - self._looked_at > LATE_S:
            self._last_at += now - self._looked_at  # this machine was held up, or asleep
        self._looked_at = now
        if not self.done and self.silent_s(now) >= self._options.patience_s:
            silent = words.duration(self.silent_s(now))
            raise _about(self._file, SourceStalled, f"nothing came by Xet for {silent}.")

    def finish(self) -> None:
        self._process.finish()

    def close(self) -> None:
        self._process.kill()

    def _have(self, start: int, end: int) -> None:
        now = time.monotonic()
        took = now - self._under_way.pop((start, end))
        if took < FAST_S:
            self._piece = min(self._piece * 2, self._options.piece_most)
        elif took > SLOW_S:
            self._piece = max(self._piece // 2, self._options.piece_first)
        self._last_at = now
        self.received += end - start
        self._file.part.wrote(start, end)
        self._came(end - start)

    def _ended(self, end: XetEnd) -> None:
        if self.done:
            return
        if end.kind == "disk":
            raise disk_error(OSError(end.errno, end.detail), self._file.job.size)
        said = {
            "auth": "the Hub gives no access to the Xet store",
            "not_found": "the Xet store does not have it",
            "died": "hf_xet failed",
        }.get(end.kind, "the Xet store failed")
        raise _about(self._file, SourceTrouble, f"{said} ({end.detail}).")


def _about(file: Gathering, kind: type[TransferError], detail: str) -> TransferError:
    error = kind(f"{file.job.path}: {detail}")
    error.file = file.job.path
    return error
