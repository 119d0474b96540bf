"""How many connections there are, on a real hub: more where each brings its own, fewer where it is too much."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.hub_server import Fault, HubServer, Record
from mlx_manager.services.transfer import CurlTransfer
from mlx_manager.services.transfer.sharing import ConnectionPool
from transferring import FAST, KIB, MIB, WIRE, Bench, finish, until

# No watchdog and no sharing of rests: what changes the number of connections here is what it is about.
LIMITS = replace(
    FAST, stall_s=120.0, stall_max_s=120.0, piece_bytes=64 * KIB, split_bytes=64 * MIB, connections=8, lag_share=0.0
)
EIGHT = replace(LIMITS, first_connections=8)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Bench]:
    with HubServer() as hub:
        bench = Bench(hub, tmp_path)
        yield bench
        bench.close()


def _most_at_once(records: list[Record]) -> int:
    """How many answers were under way at the same time; one that ends makes room for one that begins then."""
    moments = [(record.at, 1) for record in records] + [(record.ended_at or record.at, -1) for record in records]
    count = most = 0
    for _, step in sorted(moments):
        count += step
        most = max(most, count)
    return most


def test_where_each_connection_brings_its_own_there_are_more_and_more(desk: Bench) -> None:
    jobs = desk.add({"model.safetensors": 4 * MIB})
    desk.hub.fault(Fault.rate(MIB), where="cdn")
    transfer = desk.start(jobs, replace(LIMITS, first_connections=2))
    finish(transfer)
    assert _most_at_once(desk.hub.requests(where="cdn")) >= 4


def test_a_step_that_brought_nothing_is_taken_back(desk: Bench) -> None:
    """The line is full with two already. On a busy machine a step may seem to pay; the next one is taken back then."""
    jobs = desk.add({"model.safetensors": 64 * MIB})
    desk.hub.fault(Fault.rate(4 * MIB, shared=True), where="cdn")
    transfer = desk.start(jobs, replace(LIMITS, first_connections=2, connections=64))
    most = 2

    def taken_back() -> bool:
        nonlocal most
        now = transfer.sample().connections
        most = max(most, now)
        return most > 2 and now == most // 2

    until(taken_back)


@pytest.mark.parametrize("fault", [Fault.status(503), Fault.rate_limited()], ids=["503", "429"])
def test_a_source_that_says_it_is_too_much_is_asked_half_as_much(desk: Bench, fault: Fault) -> None:
    jobs = desk.add({"model.safetensors": 4 * MIB})
    desk.hub.fault(Fault.rate(MIB), where="cdn")
    desk.hub.fault(fault, where="cdn", nth=20)
    finish(desk.start(jobs, EIGHT))
    records = sorted(desk.hub.requests(where="cdn"), key=lambda record: record.at)
    refused = next(number for number, record in enumerate(records) if record.status in (429, 503))
    # Eight were perhaps on their way when it was said; and the hub may note an end when the next has begun.
    assert _most_at_once(records[:refused]) >= 7
    assert _most_at_once(records[refused + 8 :]) <= 6


def test_where_the_rate_collapses_there_are_half_as_many(desk: Bench) -> None:
    jobs = desk.add({"model.safetensors": 48 * MIB})
    desk.hub.fault(Fault.rate(2 * MIB), where="cdn")
    transfer = desk.start(jobs, EIGHT)
    until(lambda: transfer.sample().received_bytes >= 6 * MIB)
    assert transfer.sample().connections == 8
    desk.hub.clear_faults()
    desk.hub.fault(Fault.rate(400 * KIB), where="cdn")
    until(lambda: transfer.sample().connections == 4)


def test_two_downloads_have_half_of_the_connections_each(desk: Bench) -> None:
    jobs = desk.add({"a.safetensors": 32 * MIB, "b.safetensors": 32 * MIB})
    desk.hub.fault(Fault.rate(MIB), where="cdn")
    pool = ConnectionPool(8)
    first, second = (
        CurlTransfer(
            job.path,
            [job],
            limits=EIGHT,
            wire=WIRE,
            token_for=lambda url: None,
            verified=desk.verified,
            pool=pool,
        )
        for job in jobs
    )
    desk.keep(first)
    desk.keep(second)
    first.start()
    until(lambda: first.sample().connections == 8)
    second.start()
    until(lambda: (first.sample().connections, second.sample().connections) == (4, 4))
    second.stop()
    until(lambda: first.sample().connections == 8)
