"""One model of the Hub in full: its files, branches, card, config, and what its weights take.

One question for what the Hub knows, then the rest side by side: two round trips, whatever the model.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from huggingface_hub.errors import EntryNotFoundError, GatedRepoError

from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.discovery import Entry, read_entry
from mlx_manager.domain.facts import LARGEST_CARD, LARGEST_CONFIG, Access, Facts, Ref
from mlx_manager.domain.fit import Weights
from mlx_manager.domain.safetensors import FIRST_LOOK, PREFIX, dtype_bytes_of, header_length, tensor_bytes
from mlx_manager.errors import HubBadAnswer
from mlx_manager.services.hf_asking import HubAsker

WITHIN_S = 12.0
INDEX = "model.safetensors.index.json"
LARGEST_INDEX = 16 << 20
LARGEST_HEADER = 4 << 20
MOST_HEADERS = 4
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WEIGHTS = re.compile(r"(?:model|weights)[^/]*\.safetensors")
T = TypeVar("T")
Files = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Barred:
    """The files are not for this account. ``pending``: it has asked for them."""

    pending: bool


class HubInfo:
    """Asks through ``hub``."""

    def __init__(self, hub: HubAsker) -> None:
        self._hub = hub

    async def facts(self, model_id: str, revision: str) -> Facts:
        """Raises HubError and its kinds. What only the card or the config lacks is left out."""
        about = ModelRequest(model_id, revision)
        told, known = await self._hub.ask(lambda token: (self._model(about, token), token is not None), WITHIN_S, about)
        entry, commit, files = read_entry(told), told.get("sha"), _files(told)
        if entry is None or files is None or not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
            raise HubBadAnswer(f"The Hub's answer about {model_id} is not one about a model.")

        def at(path: str, most: int) -> Callable[[str | None], bytes | None]:
            return lambda token: self._content(about, commit, path, files, most, token)

        refs, card, config, weights = await asyncio.gather(
            self._hub.ask(lambda token: self._refs(about, token), WITHIN_S, about),
            self._look(at("README.md", LARGEST_CARD), about),
            self._look(at("config.json", LARGEST_CONFIG), about),
            self._look(lambda token: self._weights(about, commit, entry, files, token), about),
        )
        access = Access.OPEN
        barred = next((one for one in (card, config, weights) if isinstance(one, _Barred)), None)
        if barred is not None:
            access = Access.PENDING if barred.pending else Access.ASK if known else Access.LOGIN
        elif entry.gated:
            access = Access.GRANTED if known else Access.LOGIN
        card_note = None
        if isinstance(card, _Barred):
            card_note = "The card is shown to those who have access."
        elif card is None:
            card_note = "This model has no card."
        elif files.get("README.md", 0) > LARGEST_CARD:
            card_note = "The card is very long: this is its beginning."
        return Facts(
            entry=entry,
            revision=revision,
            commit=commit,
            files=tuple(sorted(files.items())),
            refs=refs,
            config=_config(config if isinstance(config, bytes) else None, told),
            card=card.decode("utf-8", "replace") if isinstance(card, bytes) else None,
            card_note=card_note,
            weights=weights if isinstance(weights, Weights) else None,
            access=access,
            licence_url=self._licence_url(told, model_id, files),
        )

    # -- each runs inside of a question

    def _model(self, about: ModelRequest, token: str | None) -> Mapping[str, Any]:
        return self._hub.model(about, token, sizes=True)

    def _refs(self, about: ModelRequest, token: str | None) -> tuple[Ref, ...]:
        told = self._hub.get(f"{self._hub.endpoint}/api/models/{about.model_id}/refs", token).json()
        named = [("branch", one) for one in told["branches"]] + [("tag", one) for one in told["tags"]]
        return tuple(Ref(one["name"], kind, one["targetCommit"]) for kind, one in named)

    def _content(
        self, about: ModelRequest, commit: str, path: str, files: Files, most: int, token: str | None
    ) -> bytes | None:
        """The first ``most`` bytes of a file; None where there is none."""
        if not files.get(path):
            return None
        try:
            return self._range(self._hub.resolve_url(about.model_id, commit, path), token, 0, most)
        except EntryNotFoundError:
            return None

    def _weights(
        self, about: ModelRequest, commit: str, entry: Entry, files: Files, token: str | None
    ) -> Weights | None:
        """Of the weight files, by what costs least and is exact: what the Hub read out of their headers, the headers
        themselves, the index. Each must agree with the sizes of the files."""
        shards = {path: size for path, size in files.items() if _WEIGHTS.fullmatch(path)}
        if not shards:
            return None
        if entry.weights_bytes is not None and _agrees(entry.weights_bytes, shards):
            return Weights(entry.weights_bytes, entry.dtype_bytes)
        if len(shards) <= MOST_HEADERS and (found := self._headers(about, commit, shards, token)):
            return found
        index = self._content(about, commit, INDEX, files, LARGEST_INDEX, token)
        size = _total_size(index)
        if size is not None and _agrees(size, shards):
            return Weights(size, entry.dtype_bytes)
        return Weights(sum(shards.values()), entry.dtype_bytes, exact=False)

    def _headers(self, about: ModelRequest, commit: str, shards: Files, token: str | None) -> Weights | None:
        total, dtypes = 0, frozenset[str]()
        for path, size in shards.items():
            url = self._hub.resolve_url(about.model_id, commit, path)
            start = self._range(url, token, 0, min(size, FIRST_LOOK))
            length = header_length(start)
            if length is None:
                return None
            header = start[PREFIX : PREFIX + length]
            if len(header) < length:
                header = self._range(url, token, PREFIX, length)
            told = tensor_bytes(header, size)
            if told is None:
                return None
            total, dtypes = total + told[0], dtypes | told[1]
        return Weights(total, dtype_bytes_of(dtypes))

    def _range(self, url: str, token: str | None, start: int, most: int) -> bytes:
        """At most ``most`` bytes from ``start`` on."""
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-{start + most - 1}"}
        content: bytes = self._hub.get(url, token, headers=headers).content
        return content[:most]

    async def _look(self, call: Callable[[str | None], T], about: ModelRequest) -> T | _Barred:
        """What ``call`` finds in a file, or that the files are not for us."""

        def unless_barred(token: str | None) -> T | _Barred:
            try:
                return call(token)
            except GatedRepoError as error:
                # Not a failure here: it is what there is to know.
                said = (error.server_message or str(error)).lower()
                return _Barred(pending="awaiting" in said or "pending" in said)

        return await self._hub.ask(unless_barred, WITHIN_S, about)

    def _licence_url(self, told: Mapping[str, Any], model_id: str, files: Files) -> str | None:
        card = told.get("cardData")
        link = card.get("license_link") if isinstance(card, Mapping) else None
        if isinstance(link, str) and re.fullmatch(r"https?://[\x21-\x7e]{3,300}", link):
            return link
        for name in files:
            if name.upper().partition(".")[0] in ("LICENSE", "LICENCE"):
                return f"{self._hub.endpoint}/{model_id}/blob/main/{quote(name)}"
        return None


def _files(told: Mapping[str, Any]) -> dict[str, int] | None:
    """Path → size; None where the listing is none: an entry without a usable size makes it of no use."""
    found = {}
    try:
        for one in told.get("siblings") or ():
            path = one["rfilename"]
            size = (one.get("lfs") or {}).get("size", one.get("size"))
            if not isinstance(path, str) or type(size) is not int or size < 0:
                return None
            found[path] = size
    except (KeyError, TypeError, AttributeError):
        return None
    return found


def _config(content: bytes | None, told: Mapping[str, Any]) -> Mapping[str, Any]:
    """What ``config.json`` says; where there is none, or none of use, what the Hub has read out of it."""
    try:
        config = json.loads(content) if content is not None else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        config = told.get("config")
    return config if isinstance(config, dict) else {}


def _total_size(index: bytes | None) -> int | None:
    try:
        size = json.loads(index)["metadata"]["total_size"] if index else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return size if type(size) is int else None


def _agrees(size: int, shards: Files) -> bool:
    """The files hold the weights and a header each, and such a header has kilobytes, at most a few megabytes."""
    files = sum(shards.values())
    return files - len(shards) * LARGEST_HEADER <= size <= files
