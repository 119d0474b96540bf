"""All that is known of one model at one commit, wherever it was told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mlx_manager.domain.discovery import Entry
from mlx_manager.domain.fit import Weights
from mlx_manager.domain.model_config import ModelConfig, read_config

LARGEST_CONFIG = 256 << 10
LARGEST_CARD = 400 << 10


class Access(StrEnum):
    """Whether the files may be fetched: by everybody, by this account, after asking, after logging in, or when a wish
    that was sent is granted."""

    OPEN = "open"
    GRANTED = "granted"
    ASK = "ask"
    LOGIN = "login"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Ref:
    """``kind``: branch or tag."""

    name: str
    kind: str
    commit: str


@dataclass(frozen=True, slots=True)
class Facts:
    """``files``: path and size of each; ``config``: what ``config.json`` says; ``card``: the README as it is;
    ``card_note``: why there is none; ``weights``: what the files themselves say of them."""

    entry: Entry
    revision: str
    commit: str
    files: tuple[tuple[str, int], ...]
    refs: tuple[Ref, ...]
    config: Mapping[str, Any]
    card: str | None
    card_note: str | None
    weights: Weights | None
    access: Access
    licence_url: str | None = None

    @property
    def form(self) -> ModelConfig:
        return read_config(self.config, self.entry.name)

    @property
    def size_bytes(self) -> int:
        return sum(size for _, size in self.files)

    @property
    def best_weights(self) -> Weights | None:
        """Out of the files, or else as the list of models tells."""
        return self.weights or self.entry.weights

    def to_json(self) -> dict[str, Any]:
        weights = self.weights
        return {
            "entry": self.entry.to_json(),
            "revision": self.revision,
            "commit": self.commit,
            "files": [list(one) for one in self.files],
            "refs": [[one.name, one.kind, one.commit] for one in self.refs],
            "config": dict(self.config),
            "card": self.card,
            "card_note": self.card_note,
            "weights": None if weights is None else [weights.size, weights.dtype_bytes, weights.exact],
            "access": self.access.value,
            "licence_url": self.licence_url,
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Facts:
        """Raises KeyError, TypeError, ValueError for what `to_json` did not make."""
        return Facts(
            entry=Entry.from_json(document["entry"]),
            revision=document["revision"],
            commit=document["commit"],
            files=tuple((path, size) for path, size in document["files"]),
            refs=tuple(Ref(*one) for one in document["refs"]),
            config=document["config"],
            card=document["card"],
            card_note=document["card_note"],
            weights=None if document["weights"] is None else Weights(*document["weights"]),
            access=Access(document["access"]),
            licence_url=document["licence_url"],
        )
