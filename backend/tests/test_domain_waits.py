"""What a server asks its clients to wait."""

from __future__ import annotations

import httpx2
import pytest

from mlx_manager.domain.waits import asked_wait_s

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": " 7 "}, 7),
        ({"Retry-After": "Fri, 15 Jan 2027 08:01:30 GMT"}, 90),
        ({"Retry-After": "Fri, 15 Jan 2027 07:00:00 GMT"}, 0),
        ({"Retry-After": "999999999999"}, 86_400),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "soon"}, None),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"RateLimit": '"api"; r=0; t=55'}, 55),
        ({"RateLimit": '"api";r=12;t=55'}, None),
        ({"RateLimit": '"api";r=3;t=200, "resolvers";r=0;t=40'}, 40),
        ({"RateLimit": "nonsense"}, None),
        ({"Retry-After": "10", "RateLimit": '"api";r=0;t=55'}, 55),
        ({"Retry-After": "60", "RateLimit": '"api";r=0;t=55'}, 60),
    ],
)
def test_the_wait_that_was_asked_for(headers: dict[str, str], wait: float | None) -> None:
    assert asked_wait_s(httpx2.Headers(headers), NOW) == wait
