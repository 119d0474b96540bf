"""The hash goes beside the bytes: it waits for none that are still to come, and none of them waits for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from fakes.hub_server import Fault, FaultHandle
from mlx_manager.services.ports import FileJob
from mlx_manager.services.transfer import CurlTransfer
from mlx_manager.services.transfer.hashing import BLOCK, FrontHash
from transferring import FAST, KIB, MIB, PATIENT, Bench, bench, finish, until

SIZE = 2 * MIB
PIECE = FAST.piece_bytes
BEGUN = 10 * KIB
FRONT = 20 * PIECE + BEGUN
"""Where the hub stops in the middle of a piece; more than a block of the hash, less than the file."""


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        yield made


def hash_of(transfer: CurlTransfer, job: FileJob) -> FrontHash | None:
    return next(file.hash for file in transfer.files if file.job is job)


def hashed(transfer: CurlTransfer, job: FileJob) -> int:
    """How many bytes of a file the hash has consumed."""
    item = hash_of(transfer, job)
    return item.hashed if item is not None else 0


def stall_at_front(desk: Bench) -> FaultHandle:
    piece = f"bytes={20 * PIECE}-{21 * PIECE - 1}"
    return desk.hub.fault(Fault.stall(after=BEGUN), where="cdn", when=lambda request: request.range == piece)


def stop_at_front(desk: Bench, job: FileJob) -> None:
    """Leave a part and its journal as a stop on the way does."""
    stall_at_front(desk)
    transfer = desk.start([job], replace(PATIENT, connections=1))
    until(lambda: transfer.sample().downloaded_bytes == FRONT)
    transfer.stop()
    desk.hub.clear_faults()
    desk.hub.wait_no_connections()


def endless(job: FileJob) -> FileJob:
    """Another file, which the cache holds already and which takes minutes to hash; it takes no room on the disk."""
    target = job.target.with_name("endless")
    size = 1 << 40
    target.touch()
    os.truncate(target, size)
    return replace(
        job,
        path="endless.bin",
        size=size,
        target=target,
        part=target.with_name("endless.part"),
        lock=job.lock.with_name("endless.lock"),
    )


def test_a_file_is_hashed_while_its_bytes_still_come(desk: Bench) -> None:
    """Read a second time when all is there, a large model takes minutes longer."""
    (job,) = desk.add({"model.safetensors": SIZE})
    stall = stall_at_front(desk)
    # The watchdog must not give the rest of the piece to another connection.
    transfer = desk.start([job], replace(PATIENT, lag_least_s=30.0, lag_most_s=30.0))
    # All else comes, what lies behind the hole too, and the hash stands at the hole.
    until(lambda: transfer.sample().downloaded_bytes == SIZE - PIECE + BEGUN)
    until(lambda: hashed(transfer, job) >= FRONT)
    assert hashed(transfer, job) == FRONT
    assert transfer.sample().files[0].state == "transferring"
    stall.clear()
    finish(transfer)
    desk.check([job])


def test_what_was_kept_is_hashed_before_the_first_byte_of_the_rest(desk: Bench) -> None:
    (job,) = desk.add({"model.safetensors": SIZE})
    stop_at_front(desk, job)
    hole = desk.hub.fault(Fault.black_hole())
    transfer = desk.start([job], PATIENT)
    hole.wait_hit()
    until(lambda: hashed(transfer, job) >= FRONT)
    assert hashed(transfer, job) == FRONT
    assert transfer.sample().received_bytes == 0
    hole.clear()
    finish(transfer)
    desk.check([job])


def test_the_rest_comes_before_what_was_kept_is_hashed(desk: Bench) -> None:
    """A line that lies idle while gigabytes from before are read again looks like a download that hangs."""
    (job,) = desk.add({"model.safetensors": SIZE})
    stop_at_front(desk, job)
    other = endless(job)
    with FileLock(job.lock) as theirs:
        transfer = desk.start([other, job], PATIENT)
        until(lambda: hashed(transfer, other) > 0)
        busy = hash_of(transfer, other)
        assert busy is not None
        # The thread that hashes cannot read on while this is held: it takes up one more block at the most.
        with busy.guard:
            theirs.release()
            until(lambda: transfer.sample().received_bytes >= SIZE - FRONT)
            assert hashed(transfer, job) <= BLOCK < FRONT
    until(lambda: transfer.sample().files_done == 1)
    transfer.stop()
    other.target.unlink()
    desk.check([job])
