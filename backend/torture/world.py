"""What is downloaded under torture, and the hub's faults while it is."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

MB = 1_000_000
CRUMBS = 200

ENGINES = ("auto", "http", "auto", "xet")
"""Of the rounds, in turn."""

KEPT = ("torture/Shards-4bit", "torture/Single-8bit", "torture/Crumbs", "torture/Flips-4bit")
"""Downloaded to their end, whatever happens."""
WITHDRAWN = "torture/Withdrawn-4bit"
"""Asked for and cancelled, again and again: nothing of it may be left."""

LIES = KEPT[3]
LYING_FILE = "model-00002-of-00002.safetensors"
"""One of its bits is wrong the first time, once a round, so all of it comes again."""


def models(total: int) -> dict[str, Mapping[str, Any]]:
    """As the hub's models file wants them: few large files, one large one, many small ones, one that comes wrong. About
    ``total`` bytes are kept."""
    shards, single, crumbs, flips = KEPT
    return {
        shards: {"size": total // 2, "shards": 3, "seed": 1},
        single: {"size": total // 3, "seed": 11},
        crumbs: {"size": 2 * MB, "seed": 21, "files": _crumbs()},
        flips: {"size": total // 6, "shards": 2, "seed": 31},
        # By ranges alone, which can be held up.
        WITHDRAWN: {"size": 60 * MB, "shards": 2, "seed": 41, "xet": False},
    }


def _crumbs() -> dict[str, Mapping[str, int]]:
    """Empty and tiny files, some of them in LFS, in folders, with names that few would choose."""
    sizes = random.Random(7)
    suffixes = (".json", ".txt", ".bin", " & co.md")
    return {
        f"tokens/{n % 7}/ünïcode {n:03}{suffixes[n % len(suffixes)]}": {
            "size": sizes.choice((0, 1, 900, 7_000, 40_000)) + (n if n % 5 else 0),
            "seed": 100 + n,
        }
        for n in range(CRUMBS)
    }


def faults(dice: random.Random, line_bps: int) -> Sequence[Mapping[str, Any]]:
    """Everything at once, each at places that the dice choose. ``line_bps``: bytes per second of all answers together.

    Only what passes by itself: with these on, every download must come to its end.
    """

    def now_and_then(every: int) -> list[int]:
        """The numbers of the requests that it strikes, among those that the fault can strike."""
        return list(range(dice.randint(2, every), 20_000, every))

    def fault(name: str, where: str, **more: Any) -> dict[str, Any]:
        rule: dict[str, Any] = {key: more.pop(key) for key in ("path", "repo", "nth", "times") if key in more}
        return {"fault": name, "where": where, "args": more} | rule

    content = "content"
    return [
        fault("rate", content, bytes_per_second=line_bps, shared=True),
        fault("rate", content, bytes_per_second=line_bps // 8, repo=KEPT[1]),
        # Too slow to be there before its cancel comes.
        fault("rate", content, bytes_per_second=200_000, shared=True, repo=WITHDRAWN),
        fault("delay", content, seconds=0.01),
        fault("reset", content, after=300_000, nth=now_and_then(9)),
        fault("reset", content, after=0, nth=now_and_then(31)),
        fault("short_body", content, after=200_000, nth=now_and_then(11)),
        fault("stall", content, after=100_000, nth=now_and_then(17)),
        fault("status", content, code=503, nth=now_and_then(13)),
        fault("expired_url", "cdn", nth=now_and_then(23)),
        fault("status", "info", code=503, nth=now_and_then(3)),
        fault("drop", "tree", nth=now_and_then(4)),
        fault("black_hole", "info", nth=now_and_then(7)),
        fault("status", "xorb", code=503, nth=now_and_then(9)),
        fault("flip", content, repo=LIES, path=LYING_FILE, offset=MB, times=1),
    ]
