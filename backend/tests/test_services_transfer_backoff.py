"""How long is waited between two tries."""

from __future__ import annotations

from mlx_manager.services.transfer.backoff import Backoff


def test_each_wait_in_a_row_is_longer_and_a_byte_makes_all_good() -> None:
    backoff = Backoff(0.5, 60.0)
    waits = [backoff.failed() for _ in range(30)]
    assert 0.25 <= waits[0] <= 0.5
    assert all(30.0 <= wait <= 60.0 for wait in waits[15:])
    backoff.worked()
    assert backoff.failed() <= 0.5


def test_who_cannot_be_reached_is_asked_often_for_a_minute_and_seldom_after_it() -> None:
    backoff = Backoff(0.5, 60.0)
    waits = [backoff.failed(2.0) for _ in range(60)]
    assert max(waits[:40]) <= 2.0
    assert 30.0 < sum(waits[:40]) < 80.0, "about a minute"
    assert all(5.0 <= wait <= 10.0 for wait in waits[40:])
