"""Hundreds of small files: few connections, nothing on the disk before they are whole, and nothing lost for that."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.hub_server import Fault, HubServer
from mlx_manager.services.transfer.gathering import SMALL, Gathering
from mlx_manager.services.transfer.part import Part, SmallPart
from mlx_manager.services.transfer.publishing import publish
from transferring import FAST, KIB, PATIENT, Bench, in_a_process, journaled, until

SIZE = 200 * KIB
HALF = 100 * KIB
WHOLE = replace(PATIENT, connections=1, piece_bytes=SIZE)
NEVER = replace(WHOLE, sync_every_s=3600.0, first_sync_s=3600.0)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Bench]:
    with HubServer() as hub:
        bench = Bench(hub, tmp_path)
        yield bench
        bench.close()


def test_many_come_over_few_connections_that_are_kept(desk: Bench) -> None:
    jobs = desk.add({f"part-{n}.json": 5 * KIB + n for n in range(60)}, lfs=False)
    sample = desk.pull(jobs)
    assert sample.received_bytes == sum(job.size for job in jobs)
    assert desk.hub.connections_made <= FAST.connections
    assert len(desk.hub.requests("content")) == len(jobs)
    assert not list(desk.folder.glob("**/*.part*"))


def test_nothing_is_on_the_disk_before_it_is_whole(desk: Bench) -> None:
    (job,) = desk.add({"a.json": SIZE}, lfs=False)
    desk.hub.fault(Fault.stall(after=HALF), where="content")
    transfer = desk.start([job], NEVER)
    until(lambda: transfer.sample().downloaded_bytes == HALF)
    assert not job.part.exists()


def test_a_stop_keeps_what_was_in_memory(desk: Bench) -> None:
    (job,) = desk.add({"a.json": SIZE}, lfs=False)
    desk.hub.fault(Fault.stall(after=HALF), where="content")
    transfer = desk.start([job], NEVER)
    until(lambda: transfer.sample().downloaded_bytes == HALF)
    transfer.stop()
    assert list(journaled(job)) == [(0, HALF)]
    desk.hub.clear_faults()
    desk.hub.wait_no_connections()
    desk.hub.clear_log()
    sample = desk.pull([job], WHOLE)
    assert (sample.reused_bytes, sample.received_bytes) == (HALF, SIZE - HALF)
    assert desk.hub.ranges() == [(HALF, SIZE)]


def test_one_that_takes_long_is_as_safe_from_a_kill_as_a_large_one(desk: Bench) -> None:
    (job,) = desk.add({"a.json": SIZE}, lfs=False)
    desk.hub.fault(Fault.stall(after=HALF), where="content")
    with in_a_process([job], WHOLE) as process:
        until(lambda: list(journaled(job)) == [(0, HALF)])
        process.kill()
        process.wait()
    desk.hub.clear_faults()
    desk.hub.wait_no_connections()
    sample = desk.pull([job])
    assert (sample.reused_bytes, sample.received_bytes) == (HALF, SIZE - HALF)


def test_a_part_that_an_earlier_run_left_is_taken_up(tmp_path: Path) -> None:
    part = Part(tmp_path / "a.part", "e" * 40, SIZE)
    part.open()
    part.write([b"x" * HALF], 0)
    part.sync(list(part.have), part.changes)
    part.close()
    again = SmallPart(tmp_path / "a.part", "e" * 40, SIZE)
    again.open()
    assert list(again.have) == [(0, HALF)]
    again.write([b"y" * (SIZE - HALF)], HALF)
    assert again.content() == b"x" * HALF + b"y" * (SIZE - HALF)
    again.close()


def test_ranges_in_any_order_end_as_the_file(tmp_path: Path) -> None:
    content = os.urandom(SIZE)
    part = SmallPart(tmp_path / "a.part", "e" * 40, SIZE)
    part.open()
    for start, end in ((HALF, SIZE), (10, 2000), (0, 10), (500, HALF)):
        part.write([content[start:end]], start)
    assert part.content() == content
    assert not part.path.exists()
    part.make_durable()
    part.publish(tmp_path / "a")
    part.close()
    assert (tmp_path / "a").read_bytes() == content


def test_a_folder_that_is_gone_is_the_disk_s_error(tmp_path: Path) -> None:
    part = SmallPart(tmp_path / "gone" / "a.part", "e" * 40, SIZE)
    part.open()
    part.write([b"x" * SIZE], 0)
    with pytest.raises(OSError, match="No such file") as caught:
        part.make_durable()
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("sizes", [(SIZE,), (5 * KIB, SIZE, 7 * KIB), (SMALL + 1,)], ids=["one", "some", "a large one"])
def test_what_the_disk_could_not_make_durable_gets_no_name(desk: Bench, sizes: tuple[int, ...]) -> None:
    """Nor do those that came with it. The kernel refuses to sync a pipe, which stands in for a disk that fails."""
    jobs = desk.add({f"{n}.json": size for n, size in enumerate(sizes)}, lfs=False)
    files = [Gathering(job, FAST, lambda url: None) for job in jobs]
    for file in files:
        file.part.open()
        file.part.write([b"x" * file.job.size], 0)
        file.part.settle()
    unsyncable, other = os.pipe()
    os.dup2(unsyncable, files[len(files) // 2].part.fd)
    os.close(unsyncable)
    os.close(other)
    with ThreadPoolExecutor(2) as pool, pytest.raises(OSError, match="Invalid argument"):
        publish(files, desk.verified, pool)
    assert [job.target for job in jobs if job.target.exists()] == []
    assert all(job.part.exists() for job in jobs)
    assert desk.verified.known == []
    for file in files:
        file.part.close()


@pytest.mark.parametrize("size", [0, 1, SMALL - 1, SMALL, SMALL + 1])
@pytest.mark.parametrize("lfs", [False, True])
def test_around_the_border_every_size_arrives(desk: Bench, size: int, lfs: bool) -> None:
    desk.pull(desk.add({"a.bin": size}, lfs=lfs))
