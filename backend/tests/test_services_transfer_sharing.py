"""What downloads share: connections evenly, and caps that hold."""

from __future__ import annotations

from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_manager.services.transfer.sharing import BURST_S, Caps, ConnectionPool, Throttle


def test_one_alone_has_all_that_it_wants() -> None:
    pool = ConnectionPool(32)
    assert pool.share("a", 16) == 16
    assert pool.share("a", 64) == 32


def test_many_share_evenly_and_what_one_leaves_the_others_have() -> None:
    pool = ConnectionPool(32)
    for who in "abc":
        pool.share(who, 16)
    assert [pool.share(who, 16) for who in "abc"] == [10, 11, 11]
    pool.share("a", 2)
    assert [pool.share(who, want) for who, want in (("a", 2), ("b", 16), ("c", 16))] == [2, 15, 15]
    pool.leave("c")
    assert pool.share("b", 16) == 16


@given(st.integers(1, 64), st.dictionaries(st.integers(0, 9), st.integers(1, 64), min_size=1))
def test_it_is_never_more_than_there_are(total: int, wants: dict[int, int]) -> None:
    pool = ConnectionPool(total)
    for who, want in wants.items():
        pool.share(who, want)
    shares = {who: pool.share(who, want) for who, want in wants.items()}
    # Nobody is left without any, whatever the total.
    assert sum(shares.values()) <= max(total, len(wants))
    assert all(1 <= share <= wants[who] for who, share in shares.items())


def test_without_a_cap_nobody_waits() -> None:
    throttle = Throttle()
    assert throttle.took(10**12) == 0.0
    assert throttle.wait_s() == 0.0


def test_who_took_more_than_its_share_waits_until_the_average_is_right() -> None:
    throttle = Throttle(1000)
    assert throttle.took(2000) == pytest.approx(2.0 - BURST_S, abs=0.5)
    assert throttle.took(1000) == pytest.approx(3.0 - BURST_S, abs=0.5)


def test_a_changed_cap_holds_for_what_is_owed_too() -> None:
    throttle = Throttle(1000)
    throttle.took(10_000)
    throttle.set_rate(10_000)
    assert throttle.wait_s() == pytest.approx(1.0, abs=0.5)
    throttle.set_rate(None)
    assert throttle.wait_s() == 0.0


def test_each_download_has_a_cap_of_its_own() -> None:
    caps = Caps(5.0)
    caps.limit("a", 7.0)
    assert (caps.all.rate_bps, caps.of("a").rate_bps, caps.of("b").rate_bps) == (5.0, 7.0, None)


def test_the_cap_of_a_download_that_has_ended_is_forgotten() -> None:
    caps = Caps()
    caps.limit("a", 7.0)
    throttle = ref(caps.of("a"))
    caps.forget("a")
    assert (throttle(), caps.of("a").rate_bps) == (None, None)
    caps.forget("never heard of")


def test_a_cap_reaches_whoever_has_begun_without_one_and_is_lifted_again() -> None:
    caps = Caps()
    used = caps.of("a")
    told = []
    for rate in (7.0, None):
        caps.limit("a", rate)
        told.append((used.rate_bps, caps.of("a").rate_bps))
    assert told == [(7.0, 7.0), (None, None)]
