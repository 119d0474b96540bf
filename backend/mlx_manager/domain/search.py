"""What somebody looks for: which part of it the Hub answers, and which part is looked for in its answers here."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mlx_manager.domain.discovery import Entry
from mlx_manager.domain.fit import Fit
from mlx_manager.errors import InvalidRequest

LONGEST_TEXT = 200


class Sort(StrEnum):
    TRENDING = "trending"
    DOWNLOADS = "downloads"
    LIKES = "likes"
    UPDATED = "updated"
    SIZE = "size"


# The Hub knows no order by size: that one is made here.
HUB_SORTS = {
    Sort.TRENDING: "trendingScore",
    Sort.DOWNLOADS: "downloads",
    Sort.LIKES: "likes",
    Sort.UPDATED: "lastModified",
    Sort.SIZE: "downloads",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """Everything that a search may ask for; None and empty: anything will do."""

    text: str = ""
    author: str | None = None
    task: str | None = None
    sort: Sort = Sort.TRENDING
    mlx: bool = True
    family: str | None = None
    quants: tuple[str, ...] = ()
    min_params: int | None = None
    max_params: int | None = None
    max_size_bytes: int | None = None
    fits: bool = False
    licence: str | None = None
    gated: bool | None = None
    capabilities: tuple[str, ...] = ()
    base_model: str | None = None
    """Only what was made from this model."""

    def question(self) -> Question:
        """What the Hub is asked: the part that it can answer."""
        filters = ["mlx"] if self.mlx else []
        if self.licence:
            filters.append(f"license:{self.licence.lower()}")
        if self.base_model:
            filters.append(f"base_model:{self.base_model}")
        return Question(
            text=" ".join(self.text.split())[:LONGEST_TEXT],
            author=self.author,
            task=self.task,
            sort=HUB_SORTS[self.sort],
            filters=tuple(filters),
            gated=self.gated,
        )

    @property
    def is_narrowed_here(self) -> bool:
        """Some of it the Hub cannot answer, so that its answers are looked through."""
        return bool(
            self.family or self.quants or self.min_params or self.max_params or self.max_size_bytes or self.fits
        ) or bool(self.capabilities)

    def answers(self, entry: Entry, fit: Fit) -> bool:
        """Whether a model that the Hub has named is what was looked for. What is not known is no match."""
        if self.family and not _is_family(entry, self.family):
            return False
        if self.quants and not (entry.quant and any(entry.quant.answers_to(one) for one in self.quants)):
            return False
        if not _within(entry.params, self.min_params, self.max_params):
            return False
        if not _within(entry.size_bytes, None, self.max_size_bytes):
            return False
        if self.fits and not fit.runs:
            return False
        return set(self.capabilities) <= set(entry.capabilities)

    def answers_alone(self, entry: Entry) -> bool:
        """The part that is the Hub's to answer, for when it does not: looked for in what it told before."""
        words = self.text.lower().split()
        return (
            all(word in entry.model_id.lower() for word in words)
            and self.author in (None, entry.author)
            and self.task in (None, entry.task)
            and (not self.mlx or entry.is_mlx)
            and (self.licence is None or self.licence.lower() == (entry.licence or "").lower())
            and (self.gated is None or self.gated == bool(entry.gated))
            and (self.base_model is None or self.base_model in entry.base_models)
        )

    def ordered(self, entries: Iterable[Entry]) -> list[Entry]:
        """In the order that was asked for, as far as the entries tell it."""
        keys = {
            Sort.TRENDING: lambda one: (-one.trending, -one.downloads),
            Sort.DOWNLOADS: lambda one: -one.downloads,
            Sort.LIKES: lambda one: -one.likes,
            Sort.UPDATED: lambda one: _Reversed(one.updated_at or ""),
            Sort.SIZE: lambda one: one.size_bytes if one.size_bytes is not None else float("inf"),
        }
        return sorted(entries, key=keys[self.sort])


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the Hub's list of models."""

    text: str = ""
    author: str | None = None
    task: str | None = None
    sort: str = "trendingScore"
    filters: tuple[str, ...] = ()
    gated: bool | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the Hub's answer, and where the next part begins; None at the end."""

    entries: tuple[Entry, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a search goes on: after ``offset`` entries of the Hub's page at ``cursor``."""

    cursor: str | None = None
    offset: int = 0

    def to_text(self) -> str:
        return base64.urlsafe_b64encode(json.dumps([self.cursor, self.offset]).encode()).decode().rstrip("=")

    @staticmethod
    def from_text(text: str) -> Place:
        """Raises InvalidRequest for what `to_text` did not make."""
        try:
            cursor, offset = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except (ValueError, TypeError, binascii.Error, RecursionError):
            cursor, offset = None, None
        if not (cursor is None or isinstance(cursor, str)) or type(offset) is not int or not 0 <= offset <= 1_000_000:
            raise InvalidRequest("cursor: It is none that a search has answered.", advice="Begin again without it.")
        return Place(cursor, offset)


@dataclass(frozen=True, slots=True)
class Found:
    """One hit, with what this machine says of it. ``local``: "complete", "partial" or None."""

    entry: Entry
    fit: Fit
    local: str | None

    def shown(self) -> dict[str, Any]:
        """As the API tells of it."""
        entry = self.entry
        return {
            "model_id": entry.model_id,
            "author": entry.author,
            "name": entry.name,
            "task": entry.task,
            "family": entry.family,
            "params": entry.params,
            "quant": entry.quant.shown() if entry.quant else None,
            "size_bytes": entry.size_bytes,
            "size_is_estimate": entry.size_bytes is not None and entry.weights_bytes is None,
            "downloads": entry.downloads,
            "likes": entry.likes,
            "updated_at": entry.updated_at,
            "created_at": entry.created_at,
            "licence": entry.licence,
            "gated": entry.gated,
            "capabilities": list(entry.capabilities),
            "fit": self.fit.shown(),
            "local": self.local,
        }


@dataclass(frozen=True, slots=True)
class SearchResult:
    """``as_of``: when the Hub said it, in seconds since 1970; ``stale``: it does not answer now."""

    hits: tuple[Found, ...]
    next_cursor: str | None
    as_of: float
    stale: bool = False
    note: str | None = None
    seen: tuple[Entry, ...] = field(default=(), repr=False)


class _Reversed(str):
    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)


def _is_family(entry: Entry, wanted: str) -> bool:
    word = wanted.strip().lower()
    return word == (entry.family or "").lower() or (entry.model_type or "").lower().startswith(word.replace("-", "_"))


def _within(value: int | None, least: int | None, most: int | None) -> bool:
    if least is None and most is None:
        return True
    return value is not None and (least is None or value >= least) and (most is None or value <= most)
