"""The models that are on this machine's disk, whoever fetched them, and when one of them is whole."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from mlx_manager.domain.plan import is_wanted

# What mlx-lm fetches of a repository, and so all that it needs; its own downloads leave out the rest.
LOADER_PATTERNS = (
    "*.json",
    "model*.safetensors",
    "*.py",
    "tokenizer.model",
    "*.tiktoken",
    "tiktoken.model",
    "*.txt",
    "*.jsonl",
    "*.jinja",
)
WEIGHT_SUFFIXES = (".safetensors", ".npz", ".gguf", ".bin", ".pt", ".pth", ".onnx", ".msgpack", ".h5")


@dataclass(frozen=True, slots=True)
class LocalRevision:
    """One commit of a model on the disk. ``refs``: the branches and tags that stood for it when they were last asked
    for. ``files_total`` is None where the commit's listing is not known. Sizes in bytes."""

    commit: str
    refs: tuple[str, ...]
    files: int
    files_total: int | None
    size_bytes: int
    complete: bool


@dataclass(frozen=True, slots=True)
class LocalModel:
    """One model in the cache. ``size_bytes``: all that it takes on the disk, content that commits share once;
    ``partial_bytes`` of them are room for files that are not whole, taken before their bytes come. ``modified_at``:
    seconds since 1970."""

    model_id: str
    path: str
    size_bytes: int
    partial_bytes: int
    modified_at: float
    revisions: tuple[LocalRevision, ...]
    """Newest first."""

    @property
    def complete(self) -> bool:
        """At least one of its commits can be used."""
        return any(revision.complete for revision in self.revisions)

    @property
    def commit(self) -> str | None:
        """The commit to speak of: the newest that is complete, or else the newest."""
        chosen = next((r for r in self.revisions if r.complete), next(iter(self.revisions), None))
        return chosen.commit if chosen else None


def is_complete(present: Collection[str], missing: Collection[str], *, listed: bool, interrupted: bool) -> bool:
    """Whether a commit's files can be used as a model.

    ``present`` and ``missing`` are paths; ``listed`` says that ``missing`` comes from the commit's own listing and not
    from broken links and an index alone; ``interrupted``, that one of them is half here. Missing files that no loader
    asks for (a README) do not count: whoever fetched the model left them out. Unlisted, there must be weights.
    """
    if not present or interrupted:
        return False
    if listed:
        return not any(is_wanted(path, LOADER_PATTERNS, None) for path in missing)
    return not missing and any(path.endswith(WEIGHT_SUFFIXES) for path in present)
