"""The Hub's list of models, page by page, with all that decides about each in the same answer."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

from mlx_manager.domain.discovery import read_entry
from mlx_manager.domain.search import Page, Question
from mlx_manager.errors import InvalidRequest
from mlx_manager.services.hf_asking import HubAsker

WITHIN_S = 12.0
PAGE = 100
LONGEST_CURSOR = 4000
EXPAND = [
    "cardData",
    "config",
    "createdAt",
    "downloads",
    "gated",
    "lastModified",
    "library_name",
    "likes",
    "pipeline_tag",
    "safetensors",
    "tags",
    "trendingScore",
]
"""Without these the Hub tells hardly more than names, and each model would cost a question of its own."""


class HubSearch:
    """Asks through ``hub``. The library's own `list_models` walks over all pages and never tells where it stands, so
    that nobody could go on from there later; the address and its words are the same."""

    def __init__(self, hub: HubAsker) -> None:
        self._hub = hub

    async def page(self, question: Question, cursor: str | None = None) -> Page:
        """One request, up to 100 models; ``cursor``: of the page before. Raises HubError and its kinds."""
        if cursor is not None and len(cursor) > LONGEST_CURSOR:
            raise InvalidRequest("cursor: It is none that a search has answered.", advice="Begin again without it.")
        return await self._hub.ask(lambda token: self._page(question, cursor, token), WITHIN_S)

    def _page(self, question: Question, cursor: str | None, token: str | None) -> Page:
        params: dict[str, Any] = {"sort": question.sort, "limit": PAGE, "expand": EXPAND}
        if question.filters:
            params["filter"] = list(question.filters)
        for name, value in (
            ("search", question.text),
            ("author", question.author),
            ("pipeline_tag", question.task),
            ("cursor", cursor),
        ):
            if value:
                params[name] = value
        if question.gated is not None:
            params["gated"] = "true" if question.gated else "false"
        response = self._hub.get(f"{self._hub.endpoint}/api/models", token, params=params)
        listed = response.json()
        if not isinstance(listed, list):
            raise TypeError("not a list of models")
        entries = tuple(entry for entry in map(read_entry, listed) if entry is not None)
        return Page(entries, _next_cursor(response.links.get("next", {}).get("url")))


def _next_cursor(url: str | None) -> str | None:
    """Only the cursor of the address: what is asked next, and whom, stays ours to say."""
    found = parse_qs(urlsplit(url).query).get("cursor") if url else None
    return found[0] if found else None
