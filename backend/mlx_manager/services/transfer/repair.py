"""Finding the wrong bytes of a file whose hash is wrong.

One hash cannot tell which bytes lie. A second reading can: the file is asked for once more, from a fresh address or the
next source, a share at a time, and compared with what is here. Where the two differ the new bytes are taken and the
hash is asked again; as soon as it is right, the rest need not come. A wrong bit costs half of the file on average, and
never the bytes that were right.
"""

from __future__ import annotations

SHARES = 8


class Repair:
    """One reading of a file of ``size`` bytes, in order. ``least``: no share is smaller, as each may cost a hash of the
    whole file."""

    def __init__(self, size: int, least: int) -> None:
        self._size = size
        self._step = max(least, -(-size // SHARES))
        self._at = 0

    def next_share(self) -> tuple[int, int] | None:
        """The range to read now; None when all were read."""
        if self._at >= self._size:
            return None
        start, self._at = self._at, min(self._size, self._at + self._step)
        return start, self._at
