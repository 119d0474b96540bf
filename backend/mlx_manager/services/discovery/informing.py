"""One model in full: what the Hub knows, what is here of it, whether it runs, and its sisters that do."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from mlx_manager.domain.discovery import Entry, read_entry
from mlx_manager.domain.facts import LARGEST_CARD, LARGEST_CONFIG, Access, Facts
from mlx_manager.domain.fit import Fit, Weights, judge
from mlx_manager.domain.library import LocalModel
from mlx_manager.domain.machine import Machine
from mlx_manager.domain.presets import is_chosen
from mlx_manager.domain.safetensors import PREFIX, dtype_bytes_of, header_length, tensor_bytes
from mlx_manager.domain.search import Found, Sort, Wish
from mlx_manager.domain.snapshot import moment
from mlx_manager.errors import DiskError, HubError, HubOffline, HubTrouble, ModelNotFound
from mlx_manager.services.discovery.searching import Searcher
from mlx_manager.services.ports import LocalModels, Memory

FRESH_S = 60.0
KIND = "model"
MOST_VARIANTS = 30
RenderCard = Callable[[str, str], str]
"""``render(text, base_url)``: HTML that may be shown."""


@dataclass(frozen=True, slots=True)
class Told:
    """``at``: when it was said; ``trouble``: why nobody says it now; ``known``: to the Hub, not to our disk alone."""

    facts: Facts
    at: float
    trouble: str | None = None
    known: bool = True


class Informer:
    """``ask(model_id, revision)``: the Hub's facts."""

    def __init__(
        self,
        ask: Callable[[str, str], Awaitable[Facts]],
        memory: Memory,
        local: LocalModels,
        searcher: Searcher,
        machine: Machine,
        render: RenderCard,
        hub_url: str,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ask = ask
        self._memory = memory
        self._local = local
        self._searcher = searcher
        self._machine = machine
        self._render = render
        self._hub_url = hub_url
        self._clock = clock

    async def info(self, model_id: str, revision: str = "main", context: int | None = None) -> dict[str, Any]:
        """Everything, as the API tells of it. Raises HubError and its kinds where neither the Hub, nor what it said
        before, nor the disk knows the model."""
        told = await self._told(model_id, revision)
        local = await asyncio.to_thread(self._model_here, model_id)
        variants, here, card = await asyncio.gather(
            self._variants(told.facts, known=told.known),
            asyncio.to_thread(self._files_here, model_id, told.facts.commit),
            asyncio.to_thread(self._card, told.facts),
        )
        return self._shown(told, local, variants, here, card, context)

    async def fit(self, model_id: str, revision: str = "main", context: int | None = None) -> Fit:
        """The verdict alone: one question to the Hub, mostly none."""
        return self._fit((await self._told(model_id, revision)).facts, context)

    async def entry(self, model_id: str) -> Entry:
        """The model as a list would tell of it. Raises HubError and its kinds."""
        return (await self._told(model_id, "main")).facts.entry

    async def _told(self, model_id: str, revision: str) -> Told:
        key = f"{model_id}@{revision}"
        kept = await asyncio.to_thread(self._memory.get, KIND, key)
        before = _facts_from(kept.document) if kept else None
        # Of a closed gate nothing is kept: whoever looks again has just been let in.
        fresh = kept is not None and 0 <= self._clock() - kept.at < FRESH_S
        if fresh and kept and before and before.access in (Access.OPEN, Access.GRANTED):
            return Told(before, kept.at)
        try:
            facts = await self._ask(model_id, revision)
        except (HubTrouble, HubOffline, ModelNotFound) as error:
            gone = isinstance(error, ModelNotFound)
            if kept is not None and before is not None and not gone:
                return Told(before, kept.at, error.detail)
            here = await asyncio.to_thread(self._facts_here, model_id, revision)
            if here is None:
                raise
            return Told(here, self._clock(), error.detail, known=False)
        put = await asyncio.to_thread(self._memory.put, KIND, key, facts.to_json())
        return Told(facts, put.at)

    def _fit(self, facts: Facts, context: int | None) -> Fit:
        return judge(self._machine, facts.best_weights, facts.form, params=facts.entry.params, context=context)

    async def _variants(self, facts: Facts, *, known: bool) -> tuple[Found, ...]:
        """Models made from the same one, in MLX's format, the largest that run first; none where nobody can tell."""
        if not known:
            return ()
        base = next(iter(facts.entry.base_models), facts.entry.model_id)
        try:
            found = await self._searcher.search(Wish(base_model=base, sort=Sort.DOWNLOADS), MOST_VARIANTS)
        except HubError:
            return ()  # it is a help; the model itself is told all the same
        others = [hit for hit in found.hits if hit.entry.model_id != facts.entry.model_id]
        return tuple(sorted(others, key=lambda hit: (not hit.fit.runs, -(hit.entry.size_bytes or 0))))

    # -- what the disk knows; these block

    def _model_here(self, model_id: str) -> LocalModel | None:
        try:
            return next((one for one in self._local.library().models if one.model_id == model_id), None)
        except DiskError:
            return None  # told where the library is asked for

    def _files_here(self, model_id: str, commit: str) -> dict[str, int]:
        try:
            return self._local.files(model_id, commit)
        except DiskError:
            return {}

    def _facts_here(self, model_id: str, revision: str) -> Facts | None:
        """Of a model that only the cache knows."""
        model = self._model_here(model_id)
        if model is None:
            return None
        named = next((one for one in model.revisions if revision in (*one.refs, one.commit)), None)
        commit = named.commit if named else model.commit
        files = self._files_here(model_id, commit) if commit else {}
        if commit is None:
            return None
        config = _json(self._local.content(model_id, commit, "config.json", LARGEST_CONFIG))
        tokenizer = _json(self._local.content(model_id, commit, "tokenizer_config.json", 1 << 20))
        entry = read_entry({"id": model_id, "config": {**config, "tokenizer_config": tokenizer}})
        if entry is None:
            return None
        card = self._local.content(model_id, commit, "README.md", LARGEST_CARD)
        return Facts(
            entry=replace(entry, is_mlx="quantization" in config),
            revision=revision,
            commit=commit,
            files=tuple(sorted(files.items())),
            refs=(),
            config=config,
            card=card.decode("utf-8", "replace") if card is not None else None,
            card_note=None if card is not None else "The card is not on this machine.",
            weights=self._weights_here(model_id, commit, files),
            access=Access.OPEN,
        )

    def _weights_here(self, model_id: str, commit: str, files: dict[str, int]) -> Weights | None:
        total, dtypes = 0, frozenset[str]()
        for path, size in files.items():
            if not path.endswith(".safetensors") or "/" in path:
                continue
            start = self._local.content(model_id, commit, path, PREFIX) or b""
            length = header_length(start)
            header = self._local.content(model_id, commit, path, PREFIX + length) if length else None
            told = tensor_bytes(header[PREFIX:], size) if header else None
            if told is None:
                return Weights(sum(s for p, s in files.items() if p.endswith(".safetensors")), exact=False)
            total, dtypes = total + told[0], dtypes | told[1]
        return Weights(total, dtype_bytes_of(dtypes)) if total else None

    def _card(self, facts: Facts) -> str | None:
        return None if facts.card is None else self._render(facts.card, f"{self._hub_url}/{facts.entry.model_id}")

    # -- for the API

    def _shown(
        self,
        told: Told,
        local: LocalModel | None,
        variants: tuple[Found, ...],
        here: dict[str, int],
        card: str | None,
        context: int | None,
    ) -> dict[str, Any]:
        facts, entry, form = told.facts, told.facts.entry, told.facts.form
        quant = form.quant or entry.quant
        weights = facts.best_weights
        page = f"{self._hub_url}/{entry.model_id}"
        note = None
        if told.trouble:
            what = "This is what the Hub said before." if told.known else "This is what the disk knows of it."
            note = f"{told.trouble} {what}"
        return {
            "model_id": entry.model_id,
            "revision": facts.revision,
            "commit": facts.commit,
            "hub_url": page,
            "author": entry.author,
            "name": entry.name,
            "task": entry.task,
            "family": entry.family,
            "architecture": form.architecture,
            "params": entry.params,
            "quant": quant.shown() if quant else None,
            "context_length": form.context_length,
            "licence": entry.licence,
            "licence_url": facts.licence_url,
            "gated": entry.gated,
            "access": facts.access.value,
            "access_url": page if entry.gated else None,
            "downloads": entry.downloads,
            "likes": entry.likes,
            "updated_at": entry.updated_at,
            "created_at": entry.created_at,
            "capabilities": list(entry.capabilities),
            "is_mlx": entry.is_mlx,
            "size_bytes": facts.size_bytes,
            "weights_bytes": weights.size if weights else None,
            "files": [
                {"path": path, "size": size, "chosen": is_chosen(path), "here": here.get(path) == size}
                for path, size in facts.files
            ],
            "revisions": [{"name": one.name, "kind": one.kind, "commit": one.commit} for one in facts.refs],
            "card_html": card,
            "card_note": facts.card_note,
            "fit": self._fit(facts, context).shown(),
            "variants": [
                {
                    key: value
                    for key, value in hit.shown().items()
                    if key in ("model_id", "quant", "params", "size_bytes", "size_is_estimate", "gated", "fit", "local")
                }
                for hit in variants
            ],
            "local": local.shown() if local else None,
            "use": _uses(entry.model_id),
            "as_of": moment(told.at),
            "age_s": round(max(0.0, self._clock() - told.at), 1),
            "stale": told.trouble is not None,
            "note": note,
        }


def _uses(model_id: str) -> dict[str, str]:
    """Lines to paste. An id holds nothing that a shell or Python would read otherwise."""
    return {
        "mlx_lm": f"mlx_lm.chat --model {model_id}",
        "python": f'from mlx_lm import load, generate\nmodel, tokenizer = load("{model_id}")',
        "hf": f"hf download {model_id}",
    }


def _facts_from(document: Any) -> Facts | None:
    try:
        return Facts.from_json(document)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _json(content: bytes | None) -> dict[str, Any]:
    try:
        document = json.loads(content) if content is not None else {}
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
