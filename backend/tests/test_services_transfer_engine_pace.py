"""Slow connections, the tail, shared connections and caps on a real hub, decided by what was asked of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.hub_server import Fault, HubServer, Record
from mlx_manager.services.ports import FileJob
from mlx_manager.services.transfer import CurlTransfer
from mlx_manager.services.transfer.sharing import ConnectionPool, Throttle
from transferring import FAST, KIB, MIB, WIRE, Bench, finish, until

# The watchdog would take minutes: what ends these tests in time is the judgement by siblings.
LIMITS = replace(
    FAST,
    stall_s=120.0,
    stall_max_s=120.0,
    piece_bytes=512 * KIB,
    lag_least_s=0.3,
    connections=8,
    first_connections=4,
    split_bytes=128 * KIB,
)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Bench]:
    with HubServer() as hub:
        bench = Bench(hub, tmp_path)
        yield bench
        bench.close()


def _most_at_once(records: list[Record]) -> int:
    """How many answers were under way at the same time."""
    moments = [(record.at, 1) for record in records] + [(record.ended_at or record.at, -1) for record in records]
    count = most = 0
    for _, step in sorted(moments):
        count += step
        most = max(most, count)
    return most


@pytest.mark.parametrize(
    "fault",
    [Fault.stall(after=64 * KIB), Fault.rate(20_000), Fault.trickle(1, 1.0)],
    ids=["stalls", "crawls", "trickles"],
)
def test_a_piece_on_a_bad_connection_is_taken_over_by_another(desk: Bench, fault: Fault) -> None:
    jobs = desk.add({"model.safetensors": 24 * MIB})
    desk.hub.fault(Fault.rate(8 * MIB), where="cdn")
    bad = desk.hub.fault(fault, where="cdn", nth=3)
    transfer = desk.transfer(jobs, LIMITS)
    transfer.start()
    finish(transfer, 30)
    assert bad.hits == 1
    assert desk.hub.bytes_sent() < 24 * MIB * 1.25


def test_the_last_piece_is_shared_with_connections_that_have_nothing_to_do(desk: Bench) -> None:
    jobs = desk.add({"model.safetensors": 4 * MIB})
    desk.hub.fault(Fault.rate(2 * MIB), where="cdn")
    transfer = desk.transfer(jobs, replace(LIMITS, piece_bytes=16 * MIB))
    transfer.start()
    finish(transfer)
    ranges = desk.hub.ranges("model.safetensors")
    assert len(ranges) > 2, "one range for the whole file, and nobody helped"
    assert desk.hub.bytes_sent() < 4 * MIB * 1.5


def test_a_rest_is_shared_while_its_connection_is_young(desk: Bench) -> None:
    """Half a second in all: who waited for a long look at the rate would share nothing."""
    jobs = desk.add({"model.safetensors": 4 * MIB})
    desk.hub.fault(Fault.rate(8 * MIB), where="cdn")
    transfer = desk.transfer(jobs, replace(LIMITS, piece_bytes=16 * MIB, split_worth_s=0.1))
    transfer.start()
    finish(transfer)
    assert len(desk.hub.ranges("model.safetensors")) > 2, "the question where it is, the file, and nobody helped"


def test_a_line_that_dies_every_few_bytes_gets_to_the_end_with_hardly_a_byte_twice(desk: Bench) -> None:
    jobs = desk.add({"model.safetensors": 24 * MIB})
    desk.hub.fault(Fault.reset(after=MIB), where="cdn")
    # A wait after a break would last longer than the test may.
    limits = replace(LIMITS, piece_bytes=8 * MIB, backoff_first_s=60.0, backoff_max_s=60.0)
    transfer = desk.transfer(jobs, limits)
    transfer.start()
    sample = finish(transfer)
    assert sample.received_bytes < 24 * MIB * 1.05


def test_small_files_are_asked_for_side_by_side_over_kept_connections(desk: Bench) -> None:
    jobs = desk.add({f"part-{number}.json": b"%d" % number * 2000 for number in range(60)}, lfs=False)
    desk.hub.fault(Fault.delay(0.02))
    transfer = desk.transfer(jobs, LIMITS)
    transfer.start()
    finish(transfer)
    assert desk.hub.connections_made <= LIMITS.connections
    assert _most_at_once(desk.hub.requests(where="content")) >= LIMITS.first_connections


def test_two_transfers_never_have_more_connections_than_the_pool(desk: Bench) -> None:
    jobs = desk.add({"a.safetensors": 6 * MIB, "b.safetensors": 6 * MIB})
    desk.hub.fault(Fault.rate(4 * MIB), where="cdn")
    pool = ConnectionPool(3)
    transfers = [_sharing(desk, [job], pool) for job in jobs]
    for transfer in transfers:
        transfer.start()
    for transfer in transfers:
        finish(transfer)
    # One that begins finds the other's share taken until a piece of it ends.
    assert _most_at_once(desk.hub.requests(where="cdn")) <= 3 + 2


def _sharing(desk: Bench, jobs: list[FileJob], pool: ConnectionPool, *caps: Throttle) -> CurlTransfer:
    transfer = CurlTransfer(
        "shared",
        jobs,
        limits=LIMITS,
        wire=WIRE,
        token_for=lambda url: None,
        verified=desk.verified,
        pool=pool,
        throttles=caps,
    )
    desk.keep(transfer)
    return transfer


def test_a_cap_holds(desk: Bench) -> None:
    """Never more than the cap lets through; less, on a machine that is busy, is none of its doing."""
    jobs = desk.add({"model.safetensors": 64 * MIB})
    transfer = _sharing(desk, list(jobs), ConnectionPool(8), Throttle(16 * MIB))
    begun = time.monotonic()
    transfer.start()
    until(lambda: transfer.sample().received_bytes >= 12 * MIB)
    received = transfer.sample().received_bytes
    seconds = time.monotonic() - begun
    # What the connections have read when they are told to wait comes on top, once.
    assert received <= 16 * MIB * seconds * 1.05 + 1.5 * MIB


def test_a_cap_can_be_lifted_while_bytes_flow(desk: Bench) -> None:
    jobs = desk.add({"model.safetensors": 8 * MIB})
    cap = Throttle(256 * KIB)  # half a minute of it
    transfer = _sharing(desk, list(jobs), ConnectionPool(8), cap)
    transfer.start()
    until(lambda: transfer.sample().received_bytes >= 64 * KIB)
    assert not jobs[0].target.exists()
    cap.set_rate(None)
    finish(transfer)


def test_a_cap_can_be_set_while_bytes_flow(desk: Bench) -> None:
    jobs = desk.add({"model.safetensors": 64 * MIB})
    desk.hub.fault(Fault.rate(4 * MIB), where="cdn")
    cap = Throttle()
    transfer = _sharing(desk, list(jobs), ConnectionPool(8), cap)
    transfer.start()
    until(lambda: transfer.sample().received_bytes >= MIB)
    cap.set_rate(2 * MIB)
    until(lambda: transfer.sample().connections == 2)
    before, begun = transfer.sample().received_bytes, time.monotonic()
    until(lambda: transfer.sample().received_bytes >= before + MIB)
    received = transfer.sample().received_bytes - before
    # The sample may be a tenth of a second old, twice.
    assert received <= 2 * MIB * (time.monotonic() - begun + 0.3)
