"""Ranges and Xet as one: who begins, who takes over, what is kept, and what the watchers are told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.hub_server import Fault
from mlx_manager.domain.states import Phase
from mlx_manager.errors import HashMismatch, SourceRejected
from mlx_manager.services.ports import FileJob
from mlx_manager.services.transfer import Policy
from mlx_manager.services.transfer.part import xet_part
from transferring import FAST, KIB, MIB, PATIENT, told, until
from xet_bench import HASTY, XetBench, finish, parts, xet_bench

SIZE = 2 * MIB + 7
XET_FIRST = Policy(xet_first=True)
NO_XET = Policy(xet=False)
HURRIED = Policy(trouble_s=0.3)
LIMITS = replace(FAST, refusals=1)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[XetBench]:
    with xet_bench(tmp_path) as made:
        yield made


def half_by_ranges(desk: XetBench, job: FileJob) -> int:
    """Leave a part and its journal, as a stop in the middle does; how many bytes are kept."""
    stall = desk.hub.fault(Fault.stall(after=1000), where="cdn", nth=5)
    transfer = desk.desk.start([job], replace(PATIENT, connections=1, first_connections=1))
    stall.wait_hit()
    until(lambda: transfer.sample().downloaded_bytes == 4 * FAST.piece_bytes + 1000)
    transfer.stop()
    desk.hub.clear_faults()
    desk.hub.wait_no_connections()
    desk.hub.clear_log()
    return 4 * FAST.piece_bytes + 1000


def test_ranges_come_first_and_xet_is_not_asked(desk: XetBench) -> None:
    jobs = desk.add({"a.safetensors": SIZE, "b.txt": b"text"}, lfs={"a.safetensors": True, "b.txt": False})
    sample = finish(desk.both(jobs))
    desk.desk.check(jobs)
    assert desk.hub.requests("cas") == desk.hub.requests("xet-token") == []
    total = sum(job.size for job in jobs)
    assert (sample.downloaded_bytes, sample.received_bytes, sample.files_done) == (total, total, 2)


def test_xet_comes_first_when_it_is_asked_for(desk: XetBench) -> None:
    """A file that Xet does not have comes by ranges after it."""
    jobs = desk.add({"a.safetensors": SIZE, "b.txt": b"text"}, lfs={"a.safetensors": True, "b.txt": False})
    sample = finish(desk.both(jobs, XET_FIRST))
    desk.desk.check(jobs)
    assert desk.hub.requests("cdn") == []
    assert desk.by_xet() >= SIZE
    total = sum(job.size for job in jobs)
    assert (sample.downloaded_bytes, sample.received_bytes, sample.files_done) == (total, total, 2)


def test_what_ranges_cannot_have_comes_by_xet(desk: XetBench) -> None:
    refused, fine = desk.add({"refused.safetensors": SIZE, "fine.safetensors": SIZE + 1})
    desk.hub.fault(Fault.unsatisfiable(), "cdn", "refused.*")
    slow = desk.hub.fault(Fault.stall(), "xorb")
    transfer = desk.both([refused, fine], limits=LIMITS)
    slow.wait_hit()
    message = transfer.sample().message
    assert "refused.safetensors by Xet" in message
    assert "Before that, by ranges: refused.safetensors: " in message and "(416)" in message
    slow.clear()
    sample = finish(transfer)
    desk.desk.check([refused, fine])
    assert {record.file for record in desk.hub.requests("xorb")} == {"refused.safetensors"}
    assert sample.files_done == 2
    assert sample.downloaded_bytes == refused.size + fine.size
    assert "Before that" not in sample.message


def test_what_came_by_ranges_stays_until_xet_is_through(desk: XetBench) -> None:
    (job,) = desk.add({"a.safetensors": SIZE})
    kept = half_by_ranges(desk, job)
    desk.hub.fault(Fault.unsatisfiable(), "cdn")
    slow = desk.hub.fault(Fault.stall(), "xorb", nth=3)
    transfer = desk.both([job], limits=LIMITS)
    slow.wait_hit()
    assert parts(job) == {"ranges", "xet"}
    assert kept <= transfer.sample().downloaded_bytes <= job.size
    slow.clear()
    finish(transfer)
    # Nothing but the file: neither part, neither journal.
    desk.desk.check([job])


def test_when_xet_stalls_ranges_go_on_from_their_journal(desk: XetBench) -> None:
    (job,) = desk.add({"a.safetensors": SIZE})
    kept = half_by_ranges(desk, job)
    desk.hub.fault(Fault.stall(), "xorb")
    transfer = desk.both([job], XET_FIRST, HASTY)
    sample = finish(transfer)
    desk.desk.check([job])
    assert desk.by_ranges() == job.size - kept
    assert sample.received_bytes == job.size - kept
    assert sample.reused_bytes == kept


def test_the_watchers_hear_why_xet_was_left(desk: XetBench) -> None:
    (job,) = desk.add({"a.safetensors": SIZE})
    desk.hub.fault(Fault.status(404), "reconstruction")
    held = desk.hub.fault(Fault.stall(after=1000), "cdn")
    transfer = desk.both([job], XET_FIRST, HASTY, PATIENT)
    held.wait_hit()
    until(lambda: "Before that, by Xet: a.safetensors: " in transfer.sample().message)
    held.clear()
    finish(transfer)
    desk.desk.check([job])


def test_after_a_failure_xet_is_left_for_all_that_is_to_come(desk: XetBench) -> None:
    """A store that is down is waited for once, not once for each file."""
    jobs = desk.add({f"{n}.safetensors": 100 * KIB + n for n in range(5)})
    desk.hub.fault(Fault.status(503), "reconstruction")
    finish(desk.both(jobs, XET_FIRST, HASTY))
    desk.desk.check(jobs)
    assert len({record.path for record in desk.hub.requests("reconstruction")}) == 1


def test_wrong_bytes_by_xet_come_again_by_ranges(desk: XetBench) -> None:
    """And only they do: the next file is right."""
    bad, good = desk.add({"bad.safetensors": SIZE, "good.safetensors": SIZE + 1})
    desk.hub.fault(Fault.flip(1000), "xorb", "bad.*")
    sample = finish(desk.both([bad, good], XET_FIRST))
    desk.desk.check([bad, good])
    assert {record.file for record in desk.hub.requests("cdn")} == {"bad.safetensors"}
    assert sample.downloaded_bytes == bad.size + good.size


def test_wrong_bytes_by_ranges_come_by_xet(desk: XetBench) -> None:
    (job,) = desk.add({"a.safetensors": SIZE})
    desk.hub.fault(Fault.flip(1000), "cdn")
    finish(desk.both([job]))
    desk.desk.check([job])


def test_when_both_lie_nothing_is_published(desk: XetBench) -> None:
    (job,) = desk.add({"a.safetensors": SIZE})
    desk.hub.fault(Fault.flip(1000), "content")
    with pytest.raises(HashMismatch):
        finish(desk.both([job], XET_FIRST))
    assert not job.target.exists()
    assert parts(job) == set()


def test_when_both_refuse_it_ends_with_what_ranges_said(desk: XetBench) -> None:
    (job,) = desk.add({"a.safetensors": SIZE})
    desk.hub.fault(Fault.unsatisfiable(), "cdn")
    desk.hub.fault(Fault.status(404), "reconstruction")
    with pytest.raises(SourceRejected, match="416"):
        finish(desk.both([job], options=HASTY, limits=LIMITS))


@pytest.mark.parametrize("why", ["not on Xet", "Xet is off"])
def test_without_xet_a_refusal_is_the_end(desk: XetBench, why: str) -> None:
    (job,) = desk.add({"a.safetensors": SIZE})
    desk.hub.fault(Fault.unsatisfiable(), "cdn")
    job = replace(job, xet=None) if why == "not on Xet" else job
    with pytest.raises(SourceRejected):
        finish(desk.both([job], NO_XET if why == "Xet is off" else Policy(), limits=LIMITS))
    assert desk.hub.requests("cas") == []


def test_when_no_byte_comes_for_long_xet_takes_over(desk: XetBench) -> None:
    (job,) = desk.add({"a.safetensors": SIZE})
    desk.hub.fault(Fault.status(500), "cdn")
    transfer = desk.both([job], HURRIED)
    finish(transfer)
    desk.desk.check([job])
    assert desk.by_xet() >= SIZE


def test_an_outage_of_everything_is_survived(desk: XetBench) -> None:
    """Each way fails in turn; the one that is up again first has it."""
    (job,) = desk.add({"a.safetensors": SIZE})
    cdn = desk.hub.fault(Fault.status(500), "cdn")
    desk.hub.fault(Fault.status(503), "reconstruction")
    transfer = desk.both([job], HURRIED, HASTY)
    until(lambda: len(desk.hub.requests("reconstruction")) >= 1)
    until(lambda: "Before that, by Xet" in transfer.sample().message)
    cdn.clear()
    finish(transfer)
    desk.desk.check([job])


def test_a_rate_limit_is_waited_for_and_not_gone_round(desk: XetBench) -> None:
    (job,) = desk.add({"a.safetensors": SIZE})
    limited = desk.hub.fault(Fault.rate_limited(retry_after=1), "cdn", times=1)
    finish(desk.both([job], HURRIED))
    desk.desk.check([job])
    assert limited.hits == 1
    assert desk.hub.requests("cas") == []


@pytest.mark.parametrize("policy", [XET_FIRST, Policy()], ids=["by Xet", "by ranges"])
def test_a_stop_ends_it_at_once_and_keeps_all(desk: XetBench, policy: Policy) -> None:
    (job,) = desk.add({"a.safetensors": SIZE})
    held = desk.hub.fault(Fault.stall(), "content", nth=range(4, 1000))
    transfer = desk.both([job], policy, limits=PATIENT)
    until(lambda: transfer.sample().downloaded_bytes > 0 and held.hits > 0)
    transfer.stop()
    desk.hub.wait_no_connections()
    kept = transfer.sample().downloaded_bytes
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(transfer.finished())
    desk.hub.clear_faults()
    sample = finish(desk.both([job], policy))
    desk.desk.check([job])
    assert sample.reused_bytes == kept
    assert sample.received_bytes == job.size - kept


def test_what_one_engine_left_goes_when_the_other_is_through(desk: XetBench) -> None:
    (job,) = desk.add({"a.safetensors": SIZE})
    xet_part(job.part).write_bytes(b"of yesterday")
    finish(desk.both([job], NO_XET))
    desk.desk.check([job])


def test_it_is_told_before_it_begins(desk: XetBench) -> None:
    jobs = desk.add({"a.safetensors": SIZE})
    hole = desk.hub.fault(Fault.black_hole(), "xet-token")
    transfer = desk.both(jobs, XET_FIRST, limits=replace(FAST, told_after_s=30))
    hole.wait_hit()
    sample = told(transfer, Phase.CONNECTING)  # type: ignore[arg-type]
    assert sample.message == "Connecting to fetch a.safetensors by Xet."
    assert (sample.downloaded_bytes, sample.files[0].path) == (0, "a.safetensors")
    transfer.stop()
