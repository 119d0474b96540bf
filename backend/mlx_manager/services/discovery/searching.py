"""A search: the Hub's pages, looked through for what only we can tell, kept for later, and found again offline."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mlx_manager.domain import words
from mlx_manager.domain.discovery import Entry
from mlx_manager.domain.fit import Fit, judge
from mlx_manager.domain.machine import Machine
from mlx_manager.domain.search import Found, Page, Place, Question, SearchResult, Sort, Wish
from mlx_manager.errors import HubOffline, HubTrouble
from mlx_manager.services.ports import Memory

FRESH_S = 300.0
"""The Hub is not asked again for what it said so lately."""
MOST_PAGES = 5
"""So many pages of 100 models are looked through for one answer."""
KIND = "search"


@dataclass(frozen=True, slots=True)
class _Told:
    """A page, when the Hub told it, and why it is not asked now, where it does not answer."""

    page: Page
    at: float
    trouble: str | None


class Searcher:
    """``ask``: one page of the Hub's list. ``here``: model id → "complete" or "partial", of what is in the cache."""

    def __init__(
        self,
        ask: Callable[[Question, str | None], Awaitable[Page]],
        memory: Memory,
        machine: Machine,
        here: Callable[[], Awaitable[Mapping[str, str]]],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ask = ask
        self._memory = memory
        self._machine = machine
        self.here = here
        self._clock = clock

    async def search(self, wish: Wish, limit: int, place: Place | None = None) -> SearchResult:
        """At most ``limit`` hits, and where to go on. Raises HubError and its kinds when the Hub does not answer and
        nothing that it said before would do."""
        place = place or Place()
        here = await self.here()
        try:
            if wish.sort is Sort.SIZE:
                return await self._by_size(wish, limit, place, here)
            return await self._in_order(wish, limit, place, here)
        except (HubTrouble, HubOffline) as error:
            found = await self._remembered(wish, limit, place, here, error.detail)
            if found is None:
                raise
            return found

    def found(self, entry: Entry, here: Mapping[str, str]) -> Found:
        """A model with what this machine says of it."""
        return Found(entry, self._fit(entry), here.get(entry.model_id))

    async def _in_order(self, wish: Wish, limit: int, place: Place, here: Mapping[str, str]) -> SearchResult:
        hits: list[Found] = []
        told: list[_Told] = []
        looked = 0
        following: Place | None = place
        while following is not None and len(hits) < limit and len(told) < MOST_PAGES:
            told.append(await self._page(wish.question(), following.cursor))
            page, at = told[-1].page, following
            following = Place(page.cursor) if page.cursor else None
            for number, entry in enumerate(page.entries[at.offset :], at.offset + 1):
                looked += 1
                fit = self._fit(entry)
                if wish.answers(entry, fit):
                    hits.append(Found(entry, fit, here.get(entry.model_id)))
                    if len(hits) == limit:
                        if number < len(page.entries):
                            following = Place(at.cursor, number)
                        break
        note = None
        if len(hits) < limit and following is not None:
            note = f"{words.count(looked, 'model')} were looked through; the next page looks further."
        elif not hits:
            note = _nothing(wish)
        return _result(hits, following, told, note)

    async def _by_size(self, wish: Wish, limit: int, place: Place, here: Mapping[str, str]) -> SearchResult:
        told: list[_Told] = []
        cursor: str | None = None
        while len(told) < MOST_PAGES and (not told or cursor):
            told.append(await self._page(wish.question(), cursor))
            cursor = told[-1].page.cursor
        listed = [entry for one in told for entry in one.page.entries]
        found = [Found(one, self._fit(one), here.get(one.model_id)) for one in wish.ordered(listed)]
        hits = [one for one in found if wish.answers(one.entry, one.fit)]
        page = hits[place.offset : place.offset + limit]
        more = Place(None, place.offset + limit) if place.offset + limit < len(hits) else None
        note = None if hits else _nothing(wish)
        if cursor and hits:
            note = f"Ordered by size among the {len(listed)} most downloaded of them: the Hub has no such order."
        return _result(page, more, told, note)

    async def _remembered(
        self, wish: Wish, limit: int, place: Place, here: Mapping[str, str], why: str
    ) -> SearchResult | None:
        """Out of everything that the Hub told before; None when it never told anything."""
        kept = await asyncio.to_thread(lambda: list(self._memory.all(KIND)))
        if not kept:
            return None
        known: dict[str, Entry] = {}
        for one in kept:
            for entry in _page_from(one.document).entries:
                known.setdefault(entry.model_id, entry)
        found = [Found(one, self._fit(one), here.get(one.model_id)) for one in wish.ordered(known.values())]
        hits = [one for one in found if wish.answers_alone(one.entry) and wish.answers(one.entry, one.fit)]
        page = hits[place.offset : place.offset + limit]
        more = Place(None, place.offset + limit) if place.offset + limit < len(hits) else None
        note = f"{why} Looked for in the {words.count(len(known), 'model')} that the Hub told of before."
        return SearchResult(tuple(page), more.to_text() if more else None, min(one.at for one in kept), True, note)

    async def _page(self, question: Question, cursor: str | None) -> _Told:
        key = json.dumps([asdict(question), cursor])
        kept = await asyncio.to_thread(self._memory.get, KIND, key)
        if kept is not None and 0 <= self._clock() - kept.at < FRESH_S:
            return _Told(_page_from(kept.document), kept.at, None)
        try:
            page = await self._ask(question, cursor)
        except (HubTrouble, HubOffline) as error:
            if kept is None:
                raise
            return _Told(_page_from(kept.document), kept.at, error.detail)
        document = {"entries": [entry.to_json() for entry in page.entries], "cursor": page.cursor}
        put = await asyncio.to_thread(self._memory.put, KIND, key, document)
        return _Told(page, put.at, None)

    def _fit(self, entry: Entry) -> Fit:
        return judge(self._machine, entry.weights, params=entry.params)


def _result(hits: Iterable[Found], following: Place | None, told: list[_Told], note: str | None) -> SearchResult:
    trouble = next((one.trouble for one in told if one.trouble), None)
    if trouble:
        note = f"{trouble} This is what the Hub said before."
    as_of = min(one.at for one in told)
    return SearchResult(tuple(hits), following.to_text() if following else None, as_of, trouble is not None, note)


def _nothing(wish: Wish) -> str:
    if wish.is_narrowed_here:
        return "No model answers to all of this: leave one of the filters out."
    if wish.mlx:
        return "The Hub has no MLX model like this: try fewer words, or look beyond MLX."
    return "The Hub has no model like this: try fewer words."


def _page_from(document: Any) -> Page:
    """What was kept; nothing where a kept page is none of ours."""
    try:
        return Page(tuple(map(Entry.from_json, document["entries"])), document["cursor"])
    except (KeyError, TypeError, AttributeError):
        return Page((), None)
