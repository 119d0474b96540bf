"""What is downloaded, over what kind of link, and what goes wrong on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

MIB = 1 << 20
SLOW_SHARD = "*-00002-of-*"

Order = Mapping[str, Any]
"""A fault as the hub's control takes it: what it does, and which requests it strikes."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The files of a model: `count` of `size` bytes each. Large ones are weights, small ones lie in the repo itself."""

    name: str
    count: int
    size: int
    is_small: bool = False

    @property
    def repo(self) -> str:
        return f"bench/{self.name}"

    @property
    def paths(self) -> list[str]:
        numbers = range(1, self.count + 1)
        if self.is_small:
            return [f"part-{number:03}.json" for number in numbers]
        return [f"model-{number:05}-of-{self.count:05}.safetensors" for number in numbers]

    def scaled(self, scale: float) -> Shape:
        """Fewer small files, or smaller large ones; never so few or small that ranges and shards lose their meaning."""
        if scale == 1:
            return self
        if self.is_small:
            return replace(self, name=f"{self.name}-x{scale:g}", count=max(4, round(self.count * scale)))
        return replace(self, name=f"{self.name}-x{scale:g}", size=max(64 << 10, round(self.size * scale)))


@dataclass(frozen=True, slots=True)
class Outage:
    """The network goes for `seconds` once `share` of all bytes have gone out."""

    seconds: float
    share: float


@dataclass(frozen=True, slots=True)
class Workload:
    """One table of the report. `bound_s`: who takes longer has hung."""

    name: str
    title: str
    shape: Shape
    faults: Sequence[Order] = ()
    outage: Outage | None = None
    tls: bool = False
    to_first_byte: bool = False
    bound_s: float = 120

    def scaled(self, scale: float) -> Workload:
        return replace(self, shape=self.shape.scaled(scale), faults=[_scaled(order, scale) for order in self.faults])

    @property
    def total_bytes(self) -> int:
        return self.shape.count * self.shape.size


OFFSETS = ("after", "offset")
"""The arguments of faults that count bytes of a file, and so shrink with it."""

FOUR = Shape("4x64MiB", 4, 64 * MIB)
EIGHT = Shape("8x256MiB", 8, 256 * MIB)
ONE = Shape("1x1GiB", 1, 1024 * MIB)
SMALL = Shape("400x20KB", 400, 20_000, is_small=True)
WARM_UP = Shape("warm-up", 4, 64 << 10)


def _fault(
    fault: str, where: str | None = None, path: str | None = None, times: int | None = None, **args: Any
) -> Order:
    order = {"fault": fault, "args": args, "where": where, "path": path, "times": times}
    return {key: value for key, value in order.items() if value is not None}


def _scaled(order: Order, scale: float) -> Order:
    args = {key: int(value * scale) if key in OFFSETS else value for key, value in order["args"].items()}
    return {**order, "args": args}


DELAY = _fault("delay", seconds=0.05)
CAP = _fault("rate", "content", bytes_per_second=20_000_000)

WORKLOADS: tuple[Workload, ...] = (
    Workload("clean-4x64", "4 × 64 MiB, clean", FOUR),
    Workload("clean-8x256", "8 × 256 MiB, clean", EIGHT),
    Workload("small", "400 × 20 KB", SMALL),
    Workload("small-50ms", "400 × 20 KB, each answer 50 ms late", SMALL, [DELAY]),
    Workload("cap-4x64", "4 × 64 MiB, 20 MB/s for each connection", FOUR, [CAP]),
    Workload("cap-1x1024", "one file of 1 GiB, 20 MB/s for each connection", ONE, [CAP]),
    Workload("latency-4x64", "4 × 64 MiB, each answer 50 ms late", FOUR, [DELAY]),
    Workload("tls-4x64", "4 × 64 MiB over TLS", FOUR, tls=True),
    Workload(
        "slow-shard",
        "4 × 64 MiB, the first answer for one shard comes at 50 kB/s",
        FOUR,
        [_fault("rate", "content", SLOW_SHARD, 1, bytes_per_second=50_000)],
        bound_s=90,
    ),
    Workload(
        "stalled-shard",
        "4 × 64 MiB, the first answer for one shard goes silent after 1 MiB",
        FOUR,
        [_fault("stall", "content", SLOW_SHARD, 1, after=MIB)],
        bound_s=90,
    ),
    Workload(
        "resets",
        "4 × 64 MiB, every connection is reset after 32 MB",
        FOUR,
        [_fault("wears_out", "content", after=32_000_000)],
        bound_s=90,
    ),
    Workload(
        "burst-503",
        "4 × 64 MiB, the first eight requests for weights get 503",
        FOUR,
        [_fault("status", "cdn", times=8, code=503)],
        bound_s=90,
    ),
    Workload(
        "rate-limited",
        "4 × 64 MiB, the first four requests for weights get 429 with Retry-After: 2",
        FOUR,
        [_fault("rate_limited", "cdn", times=4, retry_after=2)],
        bound_s=90,
    ),
    Workload(
        "network-gone",
        "4 × 64 MiB, connections are reset and refused for 5 s after a quarter of the bytes",
        FOUR,
        outage=Outage(5, 0.25),
        bound_s=90,
    ),
    Workload(
        "flipped-bit",
        "4 × 64 MiB, one bit of one shard is wrong the first time",
        FOUR,
        [_fault("flip", "content", SLOW_SHARD, 1, offset=8 * MIB)],
    ),
    Workload("first-byte", "4 × 64 MiB, from the request to the first byte on the disk", FOUR, to_first_byte=True),
)
