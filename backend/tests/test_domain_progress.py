"""Rate, ETA and percent: calm, and never a full bar before the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_manager.domain.progress import RATE_POINTS, RATE_STEP_S, WINDOW_S, RateCurve, RateWindow, calm, percent


def test_a_steady_stream_has_its_rate() -> None:
    window = RateWindow()
    for second in range(30):
        window.add(float(second), second * 1000)
    assert window.speed_bps == pytest.approx(1000)
    assert window.eta_s(60_000) == 60


def test_the_rate_is_of_the_last_seconds() -> None:
    window = RateWindow()
    for second in range(10):
        window.add(float(second), second * 1_000_000)
    for second in range(10, 10 + int(WINDOW_S) + 1):
        window.add(float(second), 9_000_000)
    assert window.speed_bps == 0
    assert window.eta_s(5) is None


def test_no_figure_before_it_means_something() -> None:
    window = RateWindow()
    assert window.speed_bps == 0
    window.add(0.0, 0)
    assert (window.speed_bps, window.eta_s(10)) == (0, None)
    window.add(1.0, 100)
    assert window.speed_bps == 100
    assert window.eta_s(10) is None, "one second is too short to promise anything"
    assert window.eta_s(0) == 0


def test_a_total_that_falls_or_a_clock_that_turns_back_begins_anew() -> None:
    window = RateWindow()
    window.add(10.0, 100)
    window.add(11.0, 50)
    assert (window.speed_bps, window.span_s) == (0, 0)
    window.add(12.0, 60)
    window.add(5.0, 70)
    assert (window.speed_bps, window.span_s) == (0, 0)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 10**15)), max_size=50))
def test_a_rate_is_never_negative(samples: list[tuple[float, int]]) -> None:
    window = RateWindow()
    for at, total in samples:
        window.add(at, total)
        assert window.speed_bps >= 0
        eta = window.eta_s(1000)
        assert eta is None or eta >= 0


def test_a_curve_has_a_point_for_each_step_and_forgets_what_is_old() -> None:
    curve = RateCurve()
    assert curve.points(100.0) == []
    curve.add(100.0, 5.4)
    curve.add(101.9, 7.6)
    assert curve.points(101.9) == [8], "what was told last of a step stays"
    curve.add(102.0, 9)
    curve.add(106.1, 4)
    assert curve.points(107.0) == [8, 9, 0, 4], "of two seconds nobody told: no byte came"
    for at in range(108, 400, RATE_STEP_S):
        curve.add(at, at)
    points = curve.points(399.0)
    assert (len(points), points[-1]) == (RATE_POINTS, 398)
    curve.add(1e6, 3)
    assert curve.points(1e6) == [0] * (RATE_POINTS - 1) + [3]


def test_a_curve_that_nobody_adds_to_falls_to_nothing() -> None:
    curve = RateCurve()
    curve.add(100.0, 9)
    assert curve.points(103.9) == [9], "the step that runs may still be told of"
    assert curve.points(108.0) == [9, 0, 0, 0]
    assert curve.points(3700.0) == [0] * RATE_POINTS
    curve.add(3700.0, 5)
    assert curve.points(3700.0) == [0] * (RATE_POINTS - 1) + [5]


@given(st.floats(0, 10**7))
def test_a_calm_figure_is_above_the_true_one_and_near_it(seconds: float) -> None:
    shown = calm(seconds)
    assert seconds <= shown <= max(seconds * 1.2, seconds + 1)


@given(st.integers(0, 10**15), st.integers(-1, 10**15))
def test_only_the_end_is_a_hundred(done: int, total: int) -> None:
    assert 0 <= percent(done, total) <= 99.9
    assert percent(done, total, finished=True) == 100


@pytest.mark.parametrize(("done", "shown"), [(0, 0.0), (1, 0.1), (500, 50.0), (999, 99.9), (1000, 99.9), (2000, 99.9)])
def test_percent_has_one_decimal(done: int, shown: float) -> None:
    assert percent(done, 1000) == shown
