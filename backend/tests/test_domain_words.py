"""Figures as people say them."""

from __future__ import annotations

import pytest

from mlx_manager.domain import words


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (351_400_000, "351.4 MB"),
        (17_200_000_000, "17.2 GB"),
        (1_340_000_000_000, "1.34 TB"),
        (2_000_000_000_000_000, "2000.00 TB"),
    ],
)
def test_size(count: int, said: str) -> None:
    assert words.size(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3, "less than a second"),
        (0.4, "less than a second"),
        (0.6, "1 s"),
        (42, "42 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.9, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_duration(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


def test_count() -> None:
    assert [words.count(n, "file") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1, "1st"),
        (2, "2nd"),
        (3, "3rd"),
        (4, "4th"),
        (11, "11th"),
        (12, "12th"),
        (13, "13th"),
        (21, "21st"),
        (111, "111th"),
    ],
)
def test_ordinal(number: int, said: str) -> None:
    assert words.ordinal(number) == said
