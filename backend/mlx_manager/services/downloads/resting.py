"""Models that must not be downloaded for a moment, because their files are being removed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Resting:
    """By the model's id in any case: some disks take names for the same that differ in no more."""

    def __init__(self) -> None:
        self._held: dict[str, asyncio.Event] = {}

    @contextmanager
    def hold(self, model_id: str) -> Iterator[bool]:
        """Whether it is ours to hold; False when somebody else holds it already."""
        name = model_id.casefold()
        if name in self._held:
            yield False
            return
        free = self._held[name] = asyncio.Event()
        try:
            yield True
        finally:
            del self._held[name]
            free.set()

    async def until_free(self, model_id: str) -> None:
        """Returns when nobody holds it."""
        while (free := self._held.get(model_id.casefold())) is not None:
            await free.wait()
