"""Two engines behind one port: ranges over HTTP, and Xet where a file has it; when one fails, the other takes over.

The work goes in legs, one engine at a time, each over the files that are its to fetch. Every leg keeps its bytes in
parts of its own, so what one engine gathered is there when its turn comes again, and goes when the file is published.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from mlx_manager.domain import words
from mlx_manager.domain.download import FileProgress, Sample
from mlx_manager.domain.progress import calm
from mlx_manager.domain.states import Phase
from mlx_manager.errors import HashMismatch, MlxManagerError, SourceRejected, TransferError
from mlx_manager.services.ports import FileJob, Transfer
from mlx_manager.services.transfer.part import remove_part, xet_part
from mlx_manager.task_context import in_context

LOOK_EVERY_S = 0.1
# Silence with a cause of its own, told as such, which another engine would not end.
PATIENT_PHASES = (Phase.RATE_LIMITED, Phase.WAITING_FOR_LOCK, Phase.HASHING)

log = logging.getLogger(__name__)

MakeLeg = Callable[[Sequence[FileJob]], Transfer]


@dataclass(frozen=True, slots=True)
class Policy:
    """``xet_first``: what Xet has is fetched by Xet. Otherwise ranges come first, and Xet when a file cannot be had by
    them, or when not a byte came for ``trouble_s``; after Xet has failed too, for twice as long each time, up to
    ``trouble_max_s``. ``xet``: False leaves Xet out."""

    xet: bool = True
    xet_first: bool = False
    trouble_s: float = 60.0
    trouble_max_s: float = 900.0


class NothingCame(TransferError):
    """By ranges, for too long; what it is about is all that was being fetched."""


@dataclass(slots=True)
class Tally:
    """What all legs did together. ``ranges`` and ``xet``: bytes of each file in the one part and in the other; the
    larger one counts, since it is what the way to the end is measured from."""

    sizes: dict[str, int]
    ranges: dict[str, int] = field(default_factory=dict)
    xet: dict[str, int] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    reused: int = 0
    received: int = 0
    why: str = ""
    before: int = 0
    """Of the leg that runs: bytes of its files that were known when it began."""

    def begin(self, paths: set[str], by_xet: bool) -> None:
        kept = self.xet if by_xet else self.ranges
        self.before = sum(kept.get(path, 0) for path in paths)

    def end(self, leg: Sample, by_xet: bool) -> None:
        self.reused += max(0, leg.reused_bytes - self.before)
        self.received += leg.received_bytes
        kept = self.xet if by_xet else self.ranges
        kept.update({file.path: file.done_bytes for file in leg.files})

    def whole(self, leg: Sample) -> Sample:
        """The leg's sample as that of the whole download."""
        if len(leg.files) == len(self.sizes) and not (self.why or self.ranges or self.xet):
            return leg  # it is the first one, and all there is
        theirs = {file.path: file for file in leg.files}
        files = tuple(self._progress(path, theirs.get(path)) for path in self.sizes)
        downloaded = sum(file.done_bytes for file in files)
        remaining = sum(self.sizes.values()) - downloaded
        eta = leg.eta_s if leg.eta_s is None or leg.speed_bps <= 0 else calm(remaining / leg.speed_bps)
        return replace(
            leg,
            downloaded_bytes=downloaded,
            reused_bytes=self.reused + max(0, leg.reused_bytes - self.before),
            received_bytes=self.received + leg.received_bytes,
            eta_s=eta,
            files_done=sum(file.state == "done" for file in files),
            message=f"{leg.message} {self.why}".rstrip(),
            files=files,
        )

    def _progress(self, path: str, leg: FileProgress | None) -> FileProgress:
        size = self.sizes[path]
        if path in self.done:
            return FileProgress(path, size, size, "done")
        here = max(self.ranges.get(path, 0), self.xet.get(path, 0), leg.done_bytes if leg else 0)
        return FileProgress(path, size, here, leg.state if leg else "waiting")


class FailoverTransfer:
    """`services.ports.Transfer` over two makers of such, each for the jobs it is given."""

    def __init__(
        self, task_id: str, jobs: Sequence[FileJob], *, by_ranges: MakeLeg, by_xet: MakeLeg, policy: Policy
    ) -> None:
        self._log = logging.LoggerAdapter(log, {"task_id": task_id})
        self._jobs = {job.path: job for job in jobs}
        self._makers = {False: by_ranges, True: by_xet}
        self._policy = policy
        self._trouble_s = policy.trouble_s
        self._todo = set(self._jobs)
        self._can_xet = {job.path for job in jobs if job.xet is not None and policy.xet}
        # Whose turn by Xet it is.
        self._xet = set(self._can_xet) if policy.xet_first else set()
        self._tally = Tally({job.path: job.size for job in jobs})
        self._leg: Transfer | None = None
        self._last = Sample(0, 0, 0, 0.0, None, None, 0, Phase.CONNECTING, "Preparing.", time.time(), None)
        self._guard = threading.Lock()
        self._stopping = threading.Event()
        self._result: Future[None] = Future()
        self._thread = threading.Thread(target=in_context(self._main), name=f"legs-{task_id[:8]}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def sample(self) -> Sample:
        with self._guard:
            return self._last if self._leg is None else self._tally.whole(self._leg.sample())

    async def finished(self) -> None:
        """As the port says; CancelledError when it was stopped before the end."""
        await asyncio.shield(asyncio.wrap_future(self._result))

    def stop(self) -> None:
        self._stopping.set()
        with self._guard:
            leg = self._leg
        if leg is not None:
            leg.stop()
        if self._thread.ident is not None:
            self._thread.join()

    def _main(self) -> None:
        error: BaseException | None = None
        try:
            asyncio.run(self._legs())
        except BaseException as ended:  # noqa: BLE001 - it ends in the future, and there in the log
            error = ended
        if error is not None:
            self._result.set_exception(error)
        elif self._todo:
            self._result.cancel()
        else:
            self._result.set_result(None)

    async def _legs(self) -> None:
        """Leg after leg until every file is here, or until it is told to stop."""
        while self._todo and not self._stopping.is_set():
            by_xet = bool(self._xet)
            error = await self._run(self._xet or self._todo, by_xet)
            if error is None or not self._todo or self._stopping.is_set():
                continue
            if by_xet:
                self._xet_failed(error)
            else:
                self._ranges_failed(error)

    async def _run(self, paths: set[str], by_xet: bool) -> MlxManagerError | None:
        """One leg, to its end; what it published is done."""
        leg = self._makers[by_xet]([job for job in self._jobs.values() if job.path in paths])
        with self._guard:
            self._tally.begin(paths, by_xet)
            self._leg = leg
        try:
            leg.start()
            if self._stopping.is_set():
                leg.stop()  # made while stop() had none to tell
            return await (self._to_the_end(leg) if by_xet else self._while_bytes_come(leg))
        finally:
            leg.stop()
            last = leg.sample()
            arrived = {file.path for file in last.files if file.state == "done"}
            with self._guard:
                self._arrived(arrived)
                self._last = self._tally.whole(last)
                self._tally.end(last, by_xet)
                self._leg = None
            self._tidy(arrived, by_xet)

    async def _to_the_end(self, leg: Transfer) -> MlxManagerError | None:
        """What ended it; None when it is complete or was stopped."""
        try:
            await leg.finished()
        except asyncio.CancelledError:
            return None
        except MlxManagerError as error:
            return error
        return None

    async def _while_bytes_come(self, leg: Transfer) -> MlxManagerError | None:
        end = asyncio.ensure_future(self._to_the_end(leg))
        had, since = -1, time.monotonic()
        while not (await asyncio.wait({end}, timeout=LOOK_EVERY_S))[0]:
            sample, now = leg.sample(), time.monotonic()
            if sample.downloaded_bytes != had or sample.last_byte_age_s is None or sample.phase in PATIENT_PHASES:
                had, since = sample.downloaded_bytes, now
            elif now - since >= self._trouble_s and self._stuck(sample):
                leg.stop()
                await end
                return NothingCame(f"not a byte for {words.duration(now - since)}.")
        return await end

    def _stuck(self, sample: Sample) -> set[str]:
        """What was being fetched, and could be by Xet."""
        return {file.path for file in sample.files if file.state == "transferring"} & self._can_xet

    def _arrived(self, paths: set[str]) -> None:
        self._todo -= paths
        self._xet -= paths
        self._tally.done |= paths
        if not self._xet:
            self._tally.why = ""

    def _tidy(self, paths: set[str], by_xet: bool) -> None:
        """They are published, so nobody gathers them; what the other engine left is of no use any more."""
        for path in paths:
            job = self._jobs[path]
            if job.xet is None:
                continue
            try:
                remove_part(job.part if by_xet else xet_part(job.part))
            except OSError as error:
                self._log.warning("%s: what is left of it cannot be removed: %s", path, error)

    def _ranges_failed(self, error: MlxManagerError) -> None:
        """Hand over to Xet what it can have. Raises the error when there is no other way."""
        if isinstance(error, NothingCame):
            self._xet = self._stuck(self._last) & self._todo
        elif isinstance(error, SourceRejected | HashMismatch) and error.file in self._can_xet:
            # For once: what Xet cannot do either is at its end when ranges fail again.
            self._can_xet.discard(error.file)
            self._xet = {error.file}
            if isinstance(error, HashMismatch):
                self._tally.ranges[error.file] = 0
        else:
            raise error
        self._tell("ranges", error)

    def _xet_failed(self, error: MlxManagerError) -> None:
        """By ranges from now on: the one file, where only that one was wrong, else all."""
        self._trouble_s = min(self._trouble_s * 2, self._policy.trouble_max_s)
        if isinstance(error, HashMismatch) and error.file is not None:
            self._xet.discard(error.file)
            self._can_xet.discard(error.file)
            self._tally.xet[error.file] = 0
        else:
            self._xet = set()
        self._tell("Xet", error)

    def _tell(self, way: str, error: MlxManagerError) -> None:
        """The watchers hear why the other way is gone now."""
        with self._guard:
            self._tally.why = f"Before that, by {way}: {error.detail}"
        self._log.warning("by %s: %s The other way is tried", way, error.detail)
