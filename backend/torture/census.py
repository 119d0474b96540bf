"""What a process holds, seen from outside: descriptors, threads, connections, memory."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from statistics import median

import psutil

from mlx_manager.services.event_bus import KEPT_ENDED

POOL_THREADS = min(32, (os.cpu_count() or 1) + 4)
POOL_DESCRIPTORS = 9
"""asyncio's pool for what blocks grows to so many threads as they are needed, and so does the database's: three more
connections to it, three descriptors each. They stay, and are fewer than the smallest leak of one for each download."""

GROWTH_MB = 20
"""What comes and goes between rounds, as it was seen; in the usual ten, of 200 downloads each, less than 15 kB of each
can be kept."""
COMPARED = 3
"""Rounds at the beginning and as many at the end."""


@dataclass(frozen=True, slots=True)
class Census:
    """``descriptors``: all but those of ``kept``, connections to others that are kept for reuse; ``connections``: those
    that others have made to it. ``rss``: bytes of memory. Memory and what is kept are no leak by themselves, so they
    are left out when two are compared."""

    descriptors: int
    threads: int
    connections: int
    children: int
    kept: int
    rss: int

    def beyond(self, before: Census) -> list[str]:
        """What there is more of than there was, in words."""
        room = {"descriptors": POOL_DESCRIPTORS, "threads": POOL_THREADS, "connections": 0, "children": 0}
        return [
            f"{getattr(self, name)} {name}, {getattr(before, name)} before"
            for name, more in room.items()
            if getattr(self, name) > getattr(before, name) + more
        ]


def census(pid: int) -> Census:
    """Of one process."""
    process = psutil.Process(pid)
    with process.oneshot():
        sockets = process.net_connections("tcp")
        listening = {one.laddr for one in sockets if one.status == psutil.CONN_LISTEN}
        connections = sum(one.laddr in listening for one in sockets) - len(listening)
        kept = len(sockets) - connections - len(listening)
        return Census(
            descriptors=process.num_fds() - kept,
            threads=process.num_threads(),
            connections=connections,
            children=len(process.children()),
            kept=kept,
            rss=process.memory_info().rss,
        )


def settled(pid: int, before: Census, within_s: float) -> Census:
    """Wait until it holds no more than before, or for so long: what is kept for reuse ends after a while."""
    give_up_at = time.monotonic() + within_s
    while (now := census(pid)).beyond(before) and time.monotonic() < give_up_at:
        time.sleep(0.1)
    return now


def slope(values: list[float]) -> float:
    """How much they grow from one to the next, by least squares."""
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    spread = sum((n - middle) ** 2 for n in range(len(values)))
    return sum((n - middle) * (value - mean) for n, value in enumerate(values)) / spread if spread else 0.0


def judged(memory: list[float], downloads: int) -> tuple[str, list[str]]:
    """What is to be said of the memory after each round (MB), and of that what is wrong. ``downloads``: of each round,
    and of the one before the first. Only rounds count that began with the bus's story of ended downloads full; of three
    the middle one does, since memory comes and goes by more than a leak adds to a round."""
    counted = [mb for number, mb in enumerate(memory, 1) if number * downloads >= KEPT_ENDED]
    if len(counted) < 2 * COMPARED:
        needed = 2 * COMPARED - 1 + math.ceil(KEPT_ENDED / downloads)
        return f"memory is not judged: that takes {needed} rounds of {downloads} downloads", []
    early, late = median(counted[:COMPARED]), median(counted[-COMPARED:])
    said = f"memory at the end {late:.0f} MB, early on {early:.0f} MB; {GROWTH_MB} MB are allowed between them"
    return said, [said] if late - early > GROWTH_MB else []
