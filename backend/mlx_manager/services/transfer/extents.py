"""Which bytes of a file are here: sorted, disjoint, half-open ranges."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Extents:
    """A set of byte offsets kept as ranges ``[start, end)``. Not thread-safe: one owner."""

    __slots__ = ("_ends", "_starts", "total")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.total = 0
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, start: int, end: int) -> None:
        """Add a range; what overlaps or touches becomes one."""
        if start >= end:
            return
        low = bisect_left(self._ends, start)
        high = bisect_right(self._starts, end)
        if low < high:
            self.total -= sum(self._ends[i] - self._starts[i] for i in range(low, high))
            start = min(start, self._starts[low])
            end = max(end, self._ends[high - 1])
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]
        self.total += end - start

    def remove(self, start: int, end: int) -> None:
        """Take a range out."""
        kept = [part for a, b in self for part in ((a, min(b, start)), (max(a, end), b)) if part[0] < part[1]]
        self._starts = [a for a, _ in kept]
        self._ends = [b for _, b in kept]
        self.total = sum(b - a for a, b in kept)

    @property
    def front(self) -> int:
        """All bytes before this offset are here."""
        return self._ends[0] if self._starts and self._starts[0] == 0 else 0

    def gaps(self, size: int) -> list[tuple[int, int]]:
        """The ranges of ``[0, size)`` that are not here."""
        return self.holes(0, size)

    def holes(self, start: int, end: int) -> list[tuple[int, int]]:
        """The ranges of ``[start, end)`` that are not here."""
        low = bisect_right(self._ends, start)
        high = bisect_left(self._starts, end)
        inside = (edge for i in range(low, high) for edge in (self._starts[i], self._ends[i]))
        edges = [start, *inside, end]
        return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]


class WorkList:
    """The ranges of a file that nobody is fetching yet, lowest first."""

    __slots__ = ("_gaps",)

    def __init__(self, gaps: Iterable[tuple[int, int]]) -> None:
        self._gaps = sorted(gaps)

    def __bool__(self) -> bool:
        return bool(self._gaps)

    def take(self, most: int) -> tuple[int, int]:
        """The lowest range, ``most`` bytes at most. A rest too small to be worth a request goes with it."""
        start, end = self._gaps[0]
        if end - start > most + most // 4:
            self._gaps[0] = (start + most, end)
            return start, start + most
        del self._gaps[0]
        return start, end
