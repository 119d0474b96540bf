"""What the tests of Xet share: a bench whose hub has Xet, and both engines with small numbers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fakes.hub_server import TOKEN
from mlx_manager.domain.download import Sample
from mlx_manager.services.ports import FileJob, Transfer, XetSource
from mlx_manager.services.transfer import FailoverTransfer, Policy, TransferLimits, XetOptions, XetTransfer
from mlx_manager.services.transfer.part import xet_part
from mlx_manager.services.transfer.sharing import Throttle
from transferring import FAST, KIB, REPO, Bench, bench

OPTIONS = XetOptions(streams=2, piece_first=64 * KIB, piece_most=256 * KIB, patience_s=20.0)
HASTY = replace(OPTIONS, read_timeout_s=0.4, connect_timeout_s=0.4, patience_s=1.5)
"""For what really stalls."""


class XetBench:
    """A bench for transfers of several kinds."""

    def __init__(self, desk: Bench, scratch: Path) -> None:
        self.desk = desk
        self.scratch = scratch
        self.hub = desk.hub
        self._transfers: list[Transfer] = []

    def add(self, files: dict[str, int | bytes], **options: Any) -> list[FileJob]:
        """Put files on the hub; their jobs, with Xet where the hub has it."""
        return [self.with_xet(job) for job in self.desk.add(files, **options)]

    def with_xet(self, job: FileJob) -> FileJob:
        xet = self.hub.file(REPO, job.path).xet_hash
        url = f"{self.hub.url}/api/models/{REPO}/xet-read-token/main"
        return replace(job, xet=XetSource(xet, url) if xet else None)

    def xet(
        self,
        jobs: Sequence[FileJob],
        options: XetOptions = OPTIONS,
        limits: TransferLimits = FAST,
        throttles: Sequence[Throttle] = (),
    ) -> XetTransfer:
        """By Xet alone, not started yet."""
        made = XetTransfer(
            "test-task",
            jobs,
            limits=limits,
            options=options,
            token_for=lambda url: TOKEN,
            verified=self.desk.verified,
            scratch=self.scratch,
            throttles=throttles,
        )
        self._transfers.append(made)
        return made

    def both(
        self,
        jobs: Sequence[FileJob],
        policy: Policy = Policy(),  # noqa: B008 - it is frozen
        options: XetOptions = OPTIONS,
        limits: TransferLimits = FAST,
    ) -> FailoverTransfer:
        """Both engines behind one, started."""
        made = FailoverTransfer(
            "test-task",
            jobs,
            by_ranges=lambda some: self.desk.transfer(some, limits),
            by_xet=lambda some: self.xet(some, options, limits),
            policy=policy,
        )
        self._transfers.insert(0, made)
        made.start()
        return made

    def by_xet(self) -> int:
        """Bytes of files that went out by Xet."""
        return sum(record.sent for record in self.hub.requests("xorb"))

    def by_ranges(self) -> int:
        return sum(record.sent for record in self.hub.requests("cdn") if record.status in (200, 206))

    def stop(self) -> None:
        for transfer in self._transfers:
            transfer.stop()


@contextlib.contextmanager
def xet_bench(folder: Path, **options: Any) -> Iterator[XetBench]:
    """A bench that leaves no thread, no descriptor and no process behind."""
    with bench(folder, xet=True, xorb_size=256 * KIB, **options) as desk:
        made = XetBench(desk, folder / "scratch")
        try:
            yield made
        finally:
            made.stop()


def parts(job: FileJob) -> set[str]:
    """Which parts there are of a file: of ranges, of xet."""
    return {name for name, path in (("ranges", job.part), ("xet", xet_part(job.part))) if path.exists()}


def finish(transfer: Transfer, timeout: float = 30) -> Sample:
    """Wait for the end of a transfer, raising what it raises."""

    async def wait() -> None:
        async with asyncio.timeout(timeout):
            await transfer.finished()

    asyncio.run(wait())
    transfer.stop()
    return transfer.sample()
