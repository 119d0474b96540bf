"""A file whose hash is wrong: what of it is fetched again, and when that ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.hub_server import Fault, HubServer
from mlx_manager.errors import HashMismatch
from mlx_manager.services.transfer.extents import Extents
from mlx_manager.services.transfer.repair import SHARES, Repair
from transferring import KIB, MIB, ONE, Bench, finish, until

SIZE = 2 * MIB
SHARE = SIZE // SHARES


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Bench]:
    with HubServer() as hub:
        bench = Bench(hub, tmp_path)
        yield bench
        bench.close()


def sent(desk: Bench) -> int:
    """Bytes of files that the hub sent."""
    return sum(record.sent for record in desk.hub.requests("content"))


@pytest.mark.parametrize("share", [0, 3, SHARES - 1])
def test_of_a_wrong_file_only_what_lies_before_the_wrong_bit_comes_again(desk: Bench, share: int) -> None:
    (job,) = desk.add({"a.bin": SIZE})
    flip = desk.hub.fault(Fault.flip(share * SHARE + 1000), where="content", times=1)
    desk.pull([job], ONE)
    assert flip.hits == 1
    assert sent(desk) == SIZE + (share + 1) * SHARE


def test_two_wrong_places_are_both_found(desk: Bench) -> None:
    (job,) = desk.add({"a.bin": SIZE})
    desk.hub.fault(Fault.flip(SHARE + 5), where="content", times=1)
    desk.hub.fault(Fault.flip(4 * SHARE + 5), where="content", times=1)
    desk.pull([job], ONE)
    assert sent(desk) == SIZE + 5 * SHARE


def test_a_second_reading_may_be_wrong_too_and_a_third_makes_it_good(desk: Bench) -> None:
    (job,) = desk.add({"a.bin": SIZE})
    flip = desk.hub.fault(Fault.flip(2 * SHARE), where="content", times=2)
    desk.pull([job], ONE)
    assert flip.hits == 2
    assert sent(desk) == SIZE + SIZE + 3 * SHARE


def test_each_reading_is_from_a_fresh_address(desk: Bench) -> None:
    (job,) = desk.add({"a.bin": SIZE})
    desk.hub.fault(Fault.flip(2 * SHARE), where="content")
    with pytest.raises(HashMismatch, match="3 times"):
        finish(desk.start([job], ONE))
    assert len(desk.hub.requests("resolve")) == 3
    assert sent(desk) == 3 * SIZE
    desk.close()
    assert desk.left() == []


def test_stopped_in_the_middle_it_goes_on_with_what_was_doubted(desk: Bench) -> None:
    (job,) = desk.add({"a.bin": SIZE})
    desk.hub.fault(Fault.flip(2 * SHARE), where="content", times=1)
    # The first piece of the second reading, and so before the wrong one is found.
    held = desk.hub.fault(Fault.stall(after=10), where="content", nth=(SIZE // ONE.piece_bytes + 1,))
    transfer = desk.start([job], replace(ONE, stall_s=30, stall_max_s=60))
    held.wait_hit()
    until(lambda: transfer.sample().downloaded_bytes == SIZE - SHARE + 10)
    transfer.stop()
    desk.hub.clear_faults()
    desk.hub.wait_no_connections()
    desk.pull([job], ONE)


@pytest.mark.parametrize(("size", "least"), [(0, 10), (1, 10), (10, 10), (11, 10), (1000, 10), (1003, 1), (8, 1)])
def test_a_reading_covers_the_file_once_in_order(size: int, least: int) -> None:
    repair = Repair(size, least)
    shares = []
    while (share := repair.next_share()) is not None:
        shares.append(share)
    assert sum(end - start for start, end in shares) == size
    assert list(Extents(shares)) == ([(0, size)] if size else [])
    assert shares == sorted(shares)
    assert len(shares) <= SHARES
    assert all(end - start >= least for start, end in shares[:-1])


def test_extents_lose_a_range() -> None:
    have = Extents([(0, 10), (20, 30), (40, 50)])
    have.remove(5, 45)
    assert list(have) == [(0, 5), (45, 50)]
    assert have.total == 10
    have.remove(0, 100 * KIB)
    assert (list(have), have.total) == ([], 0)
