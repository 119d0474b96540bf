"""What the tests of the transfer engine share: a hub, a folder like the cache's, transfers with small numbers.

As a program, `python -m transferring ORDER` runs one transfer in a process of its own: ORDER is JSON, see `order`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fakes.hub_server import TOKEN, Blob, HubServer
from mlx_manager.domain.download import Sample
from mlx_manager.domain.plan import Digest
from mlx_manager.domain.states import Phase
from mlx_manager.errors import MlxManagerError
from mlx_manager.services.ports import FileJob
from mlx_manager.services.transfer import CurlTransfer, TransferLimits, WireOptions
from mlx_manager.services.transfer.extents import Extents
from mlx_manager.services.transfer.journal import Journal

REPO = "org/model"
KIB, MIB = 1 << 10, 1 << 20

FAST = TransferLimits(
    connections=4,
    piece_bytes=64 * KIB,
    write_bytes=32 * KIB,
    flush_every_s=0.02,
    told_after_s=0.1,
    stall_s=3.0,
    stall_max_s=6.0,
    backoff_first_s=0.02,
    backoff_max_s=0.2,
    sync_every_s=0.05,
    lock_poll_s=0.02,
)
QUICK = replace(FAST, stall_s=0.3, stall_max_s=0.6)
"""For what really stalls. A busy machine may be silent for so long, which costs bytes: say no exact figures with it."""
ONE = replace(FAST, connections=1)
PATIENT = replace(FAST, stall_s=30.0, stall_max_s=60.0)
WIRE = WireOptions("tests/1", 5.0)


class Memory:
    """A `VerifiedBlobs` that lasts as long as the test."""

    def __init__(self, known: Sequence[Path] = ()) -> None:
        self.known = list(known)

    def is_verified(self, path: Path) -> bool:
        return path in self.known

    def remember(self, paths: Sequence[Path]) -> None:
        self.known.extend(paths)


class Bench:
    """A hub, a folder, and the transfers between them."""

    def __init__(self, hub: HubServer, folder: Path) -> None:
        self.hub = hub
        self.folder = folder
        self.verified = Memory()
        self._transfers: list[CurlTransfer] = []
        (folder / "blobs").mkdir(parents=True)

    def close(self) -> None:
        for transfer in self._transfers:
            transfer.stop()

    def add(self, files: Mapping[str, int | bytes], *, lfs: bool | Mapping[str, bool] = True) -> list[FileJob]:
        """Put files on the hub, by their size or content; their jobs in the given order."""
        sources = {
            path: Blob(what, seed) if isinstance(what, int) else what
            for seed, (path, what) in enumerate(files.items(), 1)
        }
        commit = self.hub.add_model(REPO, sources, lfs=dict.fromkeys(files, lfs) if isinstance(lfs, bool) else lfs)
        return [self.job(path, commit) for path in files]

    def job(self, path: str, commit: str = "main") -> FileJob:
        file = self.hub.file(REPO, path)
        blob = self.folder / "blobs" / file.etag
        return FileJob(
            path=path,
            url=f"{self.hub.url}/{REPO}/resolve/{commit}/{path}",
            size=file.content.size,
            digest=Digest("sha256" if file.lfs else "git-sha1", file.etag),
            target=blob,
            part=blob.with_name(blob.name + ".part"),
            lock=self.folder / "locks" / f"{file.etag}.lock",
        )

    def token_for(self, url: str) -> str | None:
        """A careless one: the engine itself must keep the token from others."""
        return TOKEN

    def transfer(
        self, jobs: Sequence[FileJob], limits: TransferLimits = FAST, wire: WireOptions = WIRE, token: str | None = None
    ) -> CurlTransfer:
        transfer = CurlTransfer(
            "test-task",
            jobs,
            limits=limits,
            wire=wire,
            token_for=(lambda url: token) if token else (lambda url: None),
            verified=self.verified,
        )
        self.keep(transfer)
        return transfer

    def keep(self, transfer: CurlTransfer) -> None:
        """Stop it at the end, whatever happens."""
        self._transfers.append(transfer)

    def start(self, jobs: Sequence[FileJob], limits: TransferLimits = FAST, **options: Any) -> CurlTransfer:
        transfer = self.transfer(jobs, limits, **options)
        transfer.start()
        return transfer

    def pull(self, jobs: Sequence[FileJob], limits: TransferLimits = FAST, **options: Any) -> Sample:
        """The whole way, to the end; what is left is as it should be."""
        sample = finish(self.start(jobs, limits, **options))
        self.check(jobs)
        return sample

    def check(self, jobs: Sequence[FileJob]) -> None:
        """Every byte is right and nothing else is left in the folder."""
        for job in jobs:
            assert digest(job, job.target.read_bytes()) == job.digest.hex, job.path
        assert {path.name for path in (self.folder / "blobs").iterdir()} == {job.target.name for job in jobs}

    def left(self) -> list[str]:
        """Names in the folder of blobs, with the ends of the names only."""
        return sorted("".join(path.suffixes) or "blob" for path in (self.folder / "blobs").iterdir())

    def sent_beyond(self, jobs: Sequence[FileJob]) -> int:
        """How many bytes of files went out more than were needed."""
        return self.hub.bytes_sent() - sum(job.size for job in jobs)


@contextlib.contextmanager
def bench(folder: Path, **options: Any) -> Iterator[Bench]:
    """A bench that leaves no thread and no descriptor behind."""
    threads, descriptors = set(threading.enumerate()), _descriptors()
    with HubServer(**options) as hub:
        made = Bench(hub, folder)
        try:
            yield made
        finally:
            made.close()
    assert set(threading.enumerate()) == threads
    assert _descriptors() == descriptors


def _descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def digest(job: FileJob, data: bytes) -> str:
    if job.digest.algorithm == "sha256":
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def finish(transfer: CurlTransfer, timeout: float = 20) -> Sample:
    """Wait for the end of a transfer, raising what it raises."""

    async def wait() -> None:
        async with asyncio.timeout(timeout):
            await transfer.finished()

    asyncio.run(wait())
    transfer.stop()
    return transfer.sample()


def until(what: Callable[[], bool], timeout: float = 10) -> None:
    """Look again and again until it is true."""
    end = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.002)


def told(transfer: CurlTransfer, phase: Phase, timeout: float = 10) -> Sample:
    """The first sample that tells of a phase."""
    found: list[Sample] = []

    def look() -> bool:
        sample = transfer.sample()
        if sample.phase is phase:
            found.append(sample)
        return bool(found)

    try:
        until(look, timeout)
    except AssertionError:
        raise AssertionError(f"never {phase}; now {transfer.sample()}") from None
    return found[0]


def journaled(job: FileJob) -> Extents:
    """What the journal of a file calls durable."""
    return Journal(job.part, job.target.name, job.size).load()


def order(jobs: Sequence[FileJob], limits: TransferLimits = FAST) -> str:
    """What a process of its own is told."""
    return json.dumps({"jobs": [asdict(job) for job in jobs], "limits": asdict(limits)}, default=str)


@contextlib.contextmanager
def in_a_process(jobs: Sequence[FileJob], limits: TransferLimits = FAST) -> Iterator[subprocess.Popen[str]]:
    """A transfer in a process of its own. It prints the error's code, or an empty line, when it is through."""
    command = [sys.executable, "-m", "transferring", order(jobs, limits)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _obey(text: str) -> None:
    told = json.loads(text)
    jobs = [
        FileJob(
            **{
                **job,
                "digest": Digest(**job["digest"]),
                **{key: Path(job[key]) for key in ("target", "part", "lock")},
                "elsewhere": tuple(map(Path, job["elsewhere"])),
            }
        )
        for job in told["jobs"]
    ]
    transfer = CurlTransfer(
        "child",
        jobs,
        limits=TransferLimits(**told["limits"]),
        wire=WIRE,
        token_for=lambda url: None,
        verified=Memory(),
    )
    transfer.start()
    try:
        finish(transfer)
    except MlxManagerError as error:
        print(error.code)
    else:
        print()


if __name__ == "__main__":
    _obey(sys.argv[1])
