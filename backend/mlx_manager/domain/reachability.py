"""Whether the Hub answers, as the system page shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reachability:
    """``latency_ms``: from the question to the whole answer, None without one. ``error``: why not, for people."""

    reachable: bool
    latency_ms: float | None = None
    error: str | None = None
