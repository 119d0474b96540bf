"""Three models to begin with: small, middle and as large as this machine carries."""

from __future__ import annotations

import asyncio

from mlx_manager.domain.discovery import Entry, read_entry
from mlx_manager.domain.fit import Verdict, judge
from mlx_manager.domain.machine import Machine
from mlx_manager.domain.search import Found, Sort, Wish
from mlx_manager.errors import HubError, ModelNotFound
from mlx_manager.services.discovery.informing import Informer
from mlx_manager.services.discovery.searching import Searcher

COUNT = 3
PATIENCE_S = 4.0
# From small to large; each is known to be good for its size. Their figures follow from their names until the Hub tells.
CANDIDATES = (
    ("mlx-community/Qwen3-0.6B-4bit", "qwen3"),
    ("mlx-community/Llama-3.2-1B-Instruct-4bit", "llama"),
    ("mlx-community/Qwen3-4B-4bit", "qwen3"),
    ("mlx-community/gemma-3-4b-it-4bit", "gemma3"),
    ("mlx-community/Qwen3-8B-4bit", "qwen3"),
    ("mlx-community/Qwen3-14B-4bit", "qwen3"),
    ("mlx-community/Qwen3-30B-A3B-4bit", "qwen3_moe"),
    ("mlx-community/Llama-3.3-70B-Instruct-4bit", "llama"),
)


class Starter:
    """Works without the Hub; with it the figures are the Hub's."""

    def __init__(self, informer: Informer, searcher: Searcher, machine: Machine) -> None:
        self._informer = informer
        self._searcher = searcher
        self._machine = machine

    async def starters(self) -> list[Found]:
        """From small to large; fewer than three only where nothing else fits."""
        fitting = [entry for entry in map(_entry, CANDIDATES) if self._fits(entry)] or [_entry(CANDIDATES[0])]
        middle = fitting[len(fitting) // 2]
        chosen = list(dict.fromkeys([fitting[0], middle, fitting[-1]]))
        told = [one for one in await asyncio.gather(*map(self._told, chosen)) if one is not None]
        here = await self._searcher.here()
        if told:
            return [self._searcher.found(entry, here) for entry in told]
        # A Hub that has none of them: a mirror, or one of a company.
        try:
            found = await self._searcher.search(Wish(fits=True, sort=Sort.DOWNLOADS), COUNT)
        except HubError:
            return []
        return sorted(found.hits, key=lambda hit: hit.entry.size_bytes or 0)

    def _fits(self, entry: Entry) -> bool:
        return judge(self._machine, entry.weights, params=entry.params).verdict is Verdict.FITS

    async def _told(self, entry: Entry) -> Entry | None:
        """As the Hub tells of it, as we do when it does not answer, or None when it does not have it."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._informer.entry(entry.model_id)
        except ModelNotFound:
            return None
        except (HubError, TimeoutError):
            return entry


def _entry(candidate: tuple[str, str]) -> Entry:
    model_id, model_type = candidate
    entry = read_entry(
        {
            "id": model_id,
            "config": {"model_type": model_type, "quantization": {"bits": 4, "group_size": 64}},
            "pipeline_tag": "text-generation",
            "tags": ["mlx"],
        }
    )
    assert entry is not None
    return entry
