"""The engine and the disk: what is here already, what others are doing, what has no room."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from fakes.hub_server import Fault
from mlx_manager.domain.states import Phase
from mlx_manager.errors import CacheGone, CacheNotWritable, DiskFull
from mlx_manager.services.ports import FileJob
from mlx_manager.services.transfer.journal import FORMAT, Journal, journal_path
from transferring import (
    FAST,
    KIB,
    MIB,
    ONE,
    PATIENT,
    Bench,
    Memory,
    bench,
    finish,
    in_a_process,
    journaled,
    told,
    until,
)

SIZE = 700 * KIB


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        yield made


def content(desk: Bench, job: FileJob) -> bytes:
    return desk.hub.content("org/model", job.path)


def half_way(desk: Bench, job: FileJob) -> int:
    """Leave a part and its journal as a stop in the middle does; how many bytes are kept."""
    stall = desk.hub.fault(Fault.stall(after=1000), where="cdn", nth=5)
    transfer = desk.start([job], replace(PATIENT, connections=1))
    stall.wait_hit()
    until(lambda: transfer.sample().downloaded_bytes == 4 * FAST.piece_bytes + 1000)
    transfer.stop()
    desk.hub.clear_faults()
    desk.hub.wait_no_connections()
    desk.hub.clear_log()
    return 4 * FAST.piece_bytes + 1000


# -- what is here already


def test_what_is_here_and_right_is_hashed_and_not_fetched(desk: Bench) -> None:
    jobs = desk.add({"a.bin": SIZE, "b.json": 10 * KIB, "c.txt": b""}, lfs={"a.bin": True})
    for job in jobs:
        job.target.write_bytes(content(desk, job))
    sample = desk.pull(jobs)
    assert desk.hub.requests() == []
    assert set(desk.verified.known) == {job.target for job in jobs}
    assert sample.reused_bytes == sample.downloaded_bytes == sum(job.size for job in jobs)
    assert sample.received_bytes == 0


def test_what_was_verified_before_is_not_hashed_again(desk: Bench) -> None:
    (job,) = desk.add({"a.bin": SIZE})
    # Wrong bytes of the right size: only a hash could tell, so this shows that there was none.
    job.target.write_bytes(bytes(SIZE))
    desk.verified.known.append(job.target)
    finish(desk.start([job]))
    assert desk.hub.requests() == []
    assert job.target.read_bytes() == bytes(SIZE)


@pytest.mark.parametrize("wrong", [bytes(SIZE), b"too short", bytes(SIZE + 1), b""])
def test_what_is_here_and_wrong_is_fetched(desk: Bench, wrong: bytes) -> None:
    (job,) = desk.add({"a.bin": SIZE})
    job.target.write_bytes(wrong)
    sample = desk.pull([job])
    assert sample.reused_bytes == 0
    assert sample.received_bytes == SIZE


def test_a_part_beside_a_blob_that_is_right_is_put_away(desk: Bench) -> None:
    """Another program fetched it meanwhile; a partial file of many gigabytes must not stay for ever."""
    (job,) = desk.add({"a.bin": SIZE})
    half_way(desk, job)
    job.target.write_bytes(content(desk, job))
    desk.pull([job])
    assert desk.hub.requests() == []


def test_a_link_in_the_place_of_the_blob_is_not_written_through(desk: Bench, tmp_path: Path) -> None:
    (job,) = desk.add({"a.bin": SIZE})
    shared = tmp_path / "shared"
    shared.write_bytes(b"of others")
    job.target.symlink_to(shared)
    desk.pull([job])
    assert shared.read_bytes() == b"of others"
    assert not job.target.is_symlink()


# -- what a former run left


def test_it_goes_on_from_where_it_stood(desk: Bench) -> None:
    (job,) = desk.add({"a.bin": SIZE})
    kept = half_way(desk, job)
    assert journaled(job).total == kept
    sample = desk.pull([job])
    assert sample.reused_bytes == kept
    assert desk.hub.bytes_sent() == SIZE - kept


def test_all_was_here_but_the_publication(desk: Bench) -> None:
    (job,) = desk.add({"a.bin": SIZE})
    half_way(desk, job)
    job.part.write_bytes(content(desk, job))
    journal_path(job.part).unlink()
    Journal(job.part, job.target.name, job.size).append([(0, SIZE)])
    desk.pull([job])
    assert desk.hub.requests() == []


@pytest.mark.parametrize("at", [0, 200 * KIB])
def test_a_part_that_somebody_edited_is_found_out(desk: Bench, at: int) -> None:
    (job,) = desk.add({"a.bin": SIZE})
    half_way(desk, job)
    with job.part.open("r+b") as part:
        part.seek(at)
        part.write(b"not what was there")
    desk.pull([job])


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE + 1])
def test_a_part_of_a_wrong_size_begins_anew(desk: Bench, size: int) -> None:
    (job,) = desk.add({"a.bin": SIZE})
    half_way(desk, job)
    os.truncate(job.part, size)
    sample = desk.pull([job])
    assert sample.reused_bytes == 0


def test_a_part_that_was_removed_and_then_a_kill(desk: Bench) -> None:
    """The journal of the old part must not be believed beside the new one."""
    (job,) = desk.add({"a.bin": SIZE})
    half_way(desk, job)
    job.part.unlink()
    hole = desk.hub.fault(Fault.black_hole())
    with in_a_process([job], PATIENT) as process:
        hole.wait_hit()
        process.kill()
    desk.hub.clear_faults()
    desk.hub.wait_no_connections()
    desk.hub.clear_log()
    sample = desk.pull([job])
    assert sample.reused_bytes == 0
    assert desk.hub.bytes_sent() == SIZE


@pytest.mark.parametrize("damage", ["gone", "empty", "noise", "newer", "other"])
def test_a_journal_that_says_nothing_costs_bytes_and_no_more(desk: Bench, damage: str) -> None:
    (job,) = desk.add({"a.bin": SIZE})
    half_way(desk, job)
    path = journal_path(job.part)
    text = path.read_bytes()
    match damage:
        case "gone":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "noise":
            path.write_bytes(os.urandom(5000))
        case "newer":
            path.write_bytes(text.replace(b'"format":%d' % FORMAT, b'"format":%d' % (FORMAT + 1)))
        case "other":
            path.write_bytes(text.replace(job.target.name.encode(), b"f" * 64))
    sample = desk.pull([job])
    assert sample.reused_bytes == 0
    assert desk.hub.bytes_sent() == SIZE


class Forgetful(Memory):
    """A memory that has a bug."""

    def remember(self, paths: Sequence[Path]) -> None:
        raise LookupError("a bug")


@pytest.mark.parametrize("present", [False, True])
def test_a_bug_on_the_disk_thread_ends_the_transfer_and_does_not_hang_it(desk: Bench, present: bool) -> None:
    (job,) = desk.add({"a.bin": SIZE})
    if present:
        job.target.write_bytes(content(desk, job))
    desk.verified = Forgetful()
    with pytest.raises(LookupError, match="a bug"):
        finish(desk.start([job]))


# -- others


def test_the_lock_of_another_is_waited_for(desk: Bench) -> None:
    first, second = desk.add({"a.bin": SIZE, "b.bin": SIZE})
    first.lock.parent.mkdir(parents=True)
    with FileLock(first.lock):
        transfer = desk.start([first, second])
        sample = told(transfer, Phase.WAITING_FOR_LOCK)
        assert "a.bin" in sample.message
        assert sample.last_byte_age_s is None
        assert transfer.sample().files_done == 1  # the other one did not wait
        assert desk.hub.requests(path="a.bin") == []
    finish(transfer)
    desk.check([first, second])


def test_what_the_other_published_meanwhile_is_used(desk: Bench) -> None:
    (job,) = desk.add({"a.bin": SIZE})
    job.lock.parent.mkdir(parents=True)
    with FileLock(job.lock):
        transfer = desk.start([job])
        told(transfer, Phase.WAITING_FOR_LOCK)
        job.target.write_bytes(content(desk, job))
    finish(transfer)
    assert desk.hub.requests() == []


def test_a_stop_while_it_waits_for_a_lock(desk: Bench) -> None:
    (job,) = desk.add({"a.bin": SIZE})
    job.lock.parent.mkdir(parents=True)
    with FileLock(job.lock):
        transfer = desk.start([job])
        told(transfer, Phase.WAITING_FOR_LOCK)
        transfer.stop()


def test_the_lock_is_given_back(desk: Bench) -> None:
    jobs = desk.add({"a.bin": SIZE, "b.bin": SIZE})
    stall = desk.hub.fault(Fault.stall(), where="cdn", path="b.bin")
    transfer = desk.start(jobs, PATIENT)
    stall.wait_hit()
    until(lambda: transfer.sample().files_done == 1)
    with FileLock(jobs[0].lock, timeout=0):
        pass
    with pytest.raises(TimeoutError), FileLock(jobs[1].lock, timeout=0):
        pass
    transfer.stop()
    with FileLock(jobs[1].lock, timeout=0):
        pass


def test_two_processes_fetch_a_file_once(desk: Bench) -> None:
    jobs = desk.add({"a.bin": MIB, "b.bin": MIB, "c.json": b"{}"})
    desk.hub.fault(Fault.rate(8 * MIB, shared=True), where="cdn")
    with in_a_process(jobs) as one, in_a_process(jobs) as two:
        assert one.communicate(timeout=20)[0] == "\n"
        assert two.communicate(timeout=20)[0] == "\n"
    desk.check(jobs)
    assert desk.sent_beyond(jobs) == 0


def test_two_transfers_of_one_process_fetch_a_file_once(desk: Bench) -> None:
    jobs = desk.add({"a.bin": MIB, "b.bin": MIB})
    transfers = [desk.start(jobs), desk.start(jobs[::-1])]
    for transfer in transfers:
        finish(transfer)
    desk.check(jobs)
    assert desk.sent_beyond(jobs) == 0


def test_one_that_is_killed_is_taken_over(desk: Bench) -> None:
    (job,) = desk.add({"a.bin": SIZE})
    stall = desk.hub.fault(Fault.stall(after=1000), where="cdn", nth=5)
    with in_a_process([job], replace(PATIENT, connections=1)) as process:
        stall.wait_hit()
        transfer = desk.start([job])
        told(transfer, Phase.WAITING_FOR_LOCK)
        until(lambda: journaled(job).total == 4 * FAST.piece_bytes + 1000)
        process.kill()
        stall.clear()
        sample = finish(transfer)
    desk.check([job])
    assert sample.reused_bytes == 4 * FAST.piece_bytes + 1000


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A real file system of this size, mounted over the folder."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no small file system can be mounted here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_said_and_costs_no_byte(desk: Bench) -> None:
    small, large = desk.add({"small.bin": 200 * KIB, "large.bin": 2 * MIB})
    with small_disk(desk.folder / "blobs", MIB):
        held = desk.hub.fault(Fault.stall(after=1000), where="cdn", nth=3)
        transfer = desk.start([small], ONE)
        held.wait_hit()
        transfer.stop()
        kept = transfer.sample().downloaded_bytes
        assert kept == journaled(small).total > 0
        with pytest.raises(DiskFull, match=r"2\.1 MB"):
            finish(desk.start([large, small], PATIENT))
        assert journaled(small).total >= kept
        # What was found of room for the large one is given back: the small one can be finished.
        desk.close()
        large.part.unlink(missing_ok=True)
        desk.hub.clear_faults()
        desk.pull([small])


def fill(path: Path) -> None:
    """Take what room there is."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def test_a_disk_that_fills_up_on_the_way(desk: Bench) -> None:
    """Room was promised to the file when it was begun; the journal finds none."""
    (job,) = desk.add({"a.bin": 768 * KIB})
    with small_disk(desk.folder / "blobs", MIB):
        held = desk.hub.fault(Fault.stall(after=1000), where="cdn", nth=(2, 5))
        transfer = desk.start([job], replace(PATIENT, connections=1, sync_every_s=30))
        held.wait_hit()
        fill(desk.folder / "blobs" / "filler")
        transfer.stop()  # nothing can be journaled, and that is no reason to hang or to hide it
        (desk.folder / "blobs" / "filler").unlink()
        desk.hub.clear_faults()
        desk.pull([job])


def test_a_folder_that_may_not_be_written(desk: Bench) -> None:
    (job,) = desk.add({"a.bin": SIZE})
    blobs = desk.folder / "blobs"
    with read_only(blobs):
        with pytest.raises(CacheNotWritable):
            finish(desk.start([job]))
        desk.close()
        assert desk.hub.requests() == []
    desk.pull([job])


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """By its mode for a person, by its mount for root, whom no mode stops."""
    if os.geteuid() == 0:
        with small_disk(folder, MIB):
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
            yield
        return
    folder.chmod(0o500)
    try:
        yield
    finally:
        folder.chmod(0o700)


def test_a_folder_that_is_gone(desk: Bench) -> None:
    (job,) = desk.add({"a.bin": SIZE})
    (desk.folder / "blobs").rmdir()
    with pytest.raises(CacheGone):
        finish(desk.start([job]))


def test_a_journal_that_was_begun_in_time_takes_a_line_on_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path, MIB):
        journal = Journal(tmp_path / "a.part", "e" * 64, MIB)
        journal.begin()
        fill(tmp_path / "others")
        journal.append([(0, 1000)])
        journal.append([(0, 2000)])
        assert list(Journal(tmp_path / "a.part", "e" * 64, MIB).load()) == [(0, 2000)]
