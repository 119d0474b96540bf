"""The engine against a real hub: whole pulls, stops, kills, and what each of them fetches again."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from fakes.hub_server import Fault
from fakes.proxy import LoopbackProxy
from mlx_manager.domain.states import Phase
from mlx_manager.services.transfer import CurlTransfer
from transferring import FAST, KIB, MIB, ONE, PATIENT, WIRE, Bench, bench, finish, in_a_process, journaled, told, until


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        yield made


MANY: dict[str, int | bytes] = {
    "empty.txt": b"",
    "empty.bin": b"",
    "tiny.json": b"{}",
    "one-byte.bin": b"x",
    "one-piece.bin": 64 * KIB,
    "a-little-more.bin": 64 * KIB + 1,
    "many.safetensors": MIB + 12_345,
    "git.txt": 300 * KIB,
    **{f"small-{n}.json": b"%d" % n for n in range(40)},
}
SMALL = {path: not path.endswith((".json", ".txt")) for path in MANY}


def test_many_files_of_every_kind(desk: Bench) -> None:
    # The two empty ones are one blob if both are of the same kind of hash; here they are not.
    jobs = desk.add(MANY, lfs=SMALL)
    sample = desk.pull(jobs)
    assert desk.sent_beyond(jobs) == 0
    assert sample.downloaded_bytes == sample.received_bytes == sum(job.size for job in jobs)
    assert sample.reused_bytes == 0
    assert sample.files_done == len(jobs)
    assert {file.state for file in sample.files} == {"done"}
    assert (sample.last_byte_age_s, sample.eta_s, sample.connections) == (None, 0.0, 0)
    assert sample.phase is Phase.HASHING
    assert set(desk.verified.known) == {job.target for job in jobs}


def test_nothing_to_do_is_done(desk: Bench) -> None:
    assert finish(desk.start([])).files_done == 0


def test_ranges_go_side_by_side_and_connections_are_used_again(desk: Bench) -> None:
    jobs = desk.add({"model.safetensors": 4 * MIB})
    desk.pull(jobs)
    assert len(desk.hub.ranges()) == 64
    assert sorted(desk.hub.ranges()) == [(n * 64 * KIB, (n + 1) * 64 * KIB) for n in range(64)]
    # One to the Hub for the address; those to the CDN take one range after the other.
    assert desk.hub.connections_made <= 1 + FAST.connections
    assert len(desk.hub.requests("resolve")) == 1


def test_the_listing_is_asked_in_order_so_that_the_first_is_ready_first(desk: Bench) -> None:
    jobs = desk.add({f"{n}.bin": 200 * KIB for n in range(6)})
    desk.pull(jobs, ONE)
    begun = [record.file for record in desk.hub.requests("cdn")]
    assert begun == sorted(begun)


def test_no_more_files_are_open_than_may_be(desk: Bench) -> None:
    jobs = desk.add({f"{n}.bin": 2 * KIB for n in range(12)}, lfs=False)
    hole = desk.hub.fault(Fault.black_hole())
    transfer = desk.start(jobs, replace(PATIENT, connections=4, open_files=2))
    hole.wait_hit(2)
    sample = told(transfer, Phase.STALLED)
    assert [file.state for file in sample.files] == ["transferring"] * 2 + ["waiting"] * 10
    assert sample.connections == 2
    hole.clear()
    finish(transfer)
    desk.verified.known.clear()
    desk.pull(jobs, replace(FAST, open_files=1))  # to be hashed, one after the other
    assert desk.sent_beyond(jobs) == 0


def test_through_a_proxy(desk: Bench) -> None:
    jobs = desk.add({"model.safetensors": 100 * KIB})
    with LoopbackProxy() as proxy:
        desk.pull(jobs, wire=replace(WIRE, proxy_for=lambda url: f"http://{proxy.address}"))
        assert len(proxy.asked) == len(desk.hub.requests())


# -- stopping


def test_a_stop_keeps_every_byte_and_the_next_run_fetches_the_rest_alone(desk: Bench) -> None:
    jobs = desk.add({"a.safetensors": MIB, "b.safetensors": 512 * KIB, "c.json": b"{}"})
    held = [desk.hub.fault(Fault.stall(after=30 * KIB), where="cdn", nth=n) for n in (4, 9)]
    transfer = desk.start(jobs, PATIENT)
    for fault in held:
        fault.wait_hit()
    until(lambda: transfer.sample().downloaded_bytes >= 900 * KIB)
    transfer.stop()
    sample = transfer.sample()
    assert sample.phase is Phase.CONNECTING  # not that it were hashing what is not here
    assert sum(journaled(job).total for job in jobs if job.part.exists()) == sum(
        file.done_bytes for file in sample.files if file.state != "done"
    )
    desk.hub.clear_faults()
    desk.hub.wait_no_connections()
    desk.hub.clear_log()
    again = desk.pull(jobs)
    assert again.reused_bytes == sample.downloaded_bytes
    assert desk.hub.bytes_sent() == sum(job.size for job in jobs) - sample.downloaded_bytes
    assert again.received_bytes == desk.hub.bytes_sent()


def test_a_stop_while_all_stalls_is_quick_and_closes_the_connections(desk: Bench) -> None:
    jobs = desk.add({"model.safetensors": 2 * MIB})
    held = desk.hub.fault(Fault.stall(after=10), where="cdn")
    transfer = desk.start(jobs, PATIENT)
    held.wait_hit()
    begun = time.monotonic()
    transfer.stop()
    assert time.monotonic() - begun < 1
    desk.hub.wait_no_connections(timeout=1)
    transfer.stop()


@pytest.mark.parametrize("where", ["hub", "cdn"])
def test_a_stop_while_nobody_answers(desk: Bench, where: str) -> None:
    jobs = desk.add({"model.safetensors": MIB})
    hole = desk.hub.fault(Fault.black_hole(), where=where)
    transfer = desk.start(jobs, PATIENT)
    hole.wait_hit()
    transfer.stop()
    desk.hub.wait_no_connections(timeout=1)


def test_a_stop_is_no_success(desk: Bench) -> None:
    jobs = desk.add({"model.safetensors": MIB})
    hole = desk.hub.fault(Fault.black_hole(), where="hub")
    transfer = desk.start(jobs, PATIENT)
    hole.wait_hit()
    transfer.stop()
    with pytest.raises(asyncio.CancelledError):
        finish(transfer)


def stands(transfer: CurlTransfer, received: int) -> bool:
    sample = transfer.sample()
    return sample.received_bytes >= received or sample.files_done == len(sample.files) > 0


def test_a_stop_at_every_stage_leaves_what_the_next_run_needs(desk: Bench) -> None:
    """Before the first byte, while it fetches, hashes, publishes: stopped after each few milliseconds of the way."""
    jobs = desk.add({"a.bin": 600 * KIB, "b.txt": 50 * KIB, "c.txt": b"", "d.bin": 3 * KIB})
    ends = 0
    for n in range(60):
        transfer = desk.transfer(jobs, replace(FAST, connections=2))
        transfer.start()
        until(partial(stands, transfer, n * 3 * KIB))
        transfer.stop()
        ends += transfer.sample().files_done == len(jobs)
        if ends:
            break
    assert ends
    desk.check(jobs)


def test_a_stop_before_the_start(desk: Bench) -> None:
    jobs = desk.add({"model.safetensors": MIB})
    transfer = desk.transfer(jobs)
    transfer.stop()
    transfer.start()
    with pytest.raises(asyncio.CancelledError):
        finish(transfer)
    assert desk.hub.requests() == []


def test_somebody_who_waits_may_go_away(desk: Bench) -> None:
    jobs = desk.add({"model.safetensors": MIB})
    held = desk.hub.fault(Fault.stall(after=10), where="cdn")
    transfer = desk.start(jobs, PATIENT)

    async def come_and_go() -> None:
        waiting = asyncio.ensure_future(transfer.finished())
        await asyncio.to_thread(held.wait_hit)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(come_and_go())
    desk.hub.clear_faults()
    finish(transfer)
    desk.check(jobs)


# -- killing


@pytest.mark.parametrize("at", [0, 1, 2])
def test_after_a_kill_only_what_came_since_the_last_sync_is_fetched_again(desk: Bench, at: int) -> None:
    jobs = desk.add({"a.safetensors": MIB, "b.safetensors": MIB})
    line = desk.hub.fault(Fault.rate(4 * MIB, shared=True), where="cdn")
    with in_a_process(jobs) as process:
        desk.hub.wait_sent(at * 400 * KIB + 1)
        if at:
            until(lambda: sum(journaled(job).total for job in jobs) >= at * 200 * KIB)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    line.clear()
    desk.hub.wait_no_connections()
    durable = sum(journaled(job).total for job in jobs)
    assert durable >= at * 200 * KIB
    desk.hub.clear_log()
    sample = desk.pull(jobs)
    assert sample.reused_bytes == durable
    assert desk.hub.bytes_sent() == 2 * MIB - durable


def test_it_journals_while_it_fetches(desk: Bench) -> None:
    """What a crash can cost is bounded by time: bytes are durable soon after they came, also where no piece ended."""
    (job,) = desk.add({"model.safetensors": MIB})
    desk.hub.fault(Fault.stall(after=300 * KIB), where="cdn")
    transfer = desk.start([job], replace(PATIENT, connections=1, piece_bytes=MIB))
    until(lambda: journaled(job).total == 300 * KIB)
    told(transfer, Phase.STALLED)
    assert transfer.sample().downloaded_bytes == 300 * KIB
