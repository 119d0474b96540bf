"""The models that are on this machine's disk, whoever fetched them, and when one of them is whole."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from mlx_manager.domain.plan import is_wanted
from mlx_manager.domain.snapshot import moment

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


MOST_MISSING = 20
"""So many missing files are named; the rest are counted."""


@dataclass(frozen=True, slots=True)
class LocalRevision:
    """One commit of a model on the disk. ``refs``: the branches and tags that stood for it when they were last asked
    for. ``files_total`` and ``missing_bytes`` are None where the commit's listing is not known. ``missing``: the first
    of the ``missing_files`` files that are not whole here, by name. Sizes in bytes."""

    commit: str
    refs: tuple[str, ...]
    files: int
    files_total: int | None
    size_bytes: int
    complete: bool
    missing: tuple[str, ...] = ()
    missing_files: int = 0
    missing_bytes: int | None = None

    def shown(self) -> dict[str, Any]:
        """As the API and `ls --json` tell of it."""
        return {
            "commit": self.commit,
            "refs": list(self.refs),
            "files": self.files,
            "files_total": self.files_total,
            "size_bytes": self.size_bytes,
            "complete": self.complete,
            "missing": list(self.missing),
            "missing_files": self.missing_files,
            "missing_bytes": self.missing_bytes,
        }


@dataclass(frozen=True, slots=True)
class LocalModel:
    """One model in the cache. ``size_bytes``: all that it takes on the disk, content that commits share once;
    ``partial_bytes`` of them are room for files that are not whole, taken before their bytes come. ``modified_at`` and
    ``last_used_at`` (when its content was last read, as far as the disk notes it): seconds since 1970."""

    model_id: str
    path: str
    size_bytes: int
    partial_bytes: int
    modified_at: float
    revisions: tuple[LocalRevision, ...]
    """Newest first."""
    last_used_at: float | None = None

    @property
    def complete(self) -> bool:
        """At least one of its commits can be used."""
        return any(revision.complete for revision in self.revisions)

    @property
    def commit(self) -> str | None:
        """The commit to speak of: the newest that is complete, or else the newest."""
        chosen = next((r for r in self.revisions if r.complete), next(iter(self.revisions), None))
        return chosen.commit if chosen else None

    @property
    def repo_id(self) -> str:
        """How `hf cache ls` calls it, and `hf cache rm` wants it."""
        return f"model/{self.model_id}"

    def shown(self) -> dict[str, Any]:
        """As the API and `ls --json` tell of it."""
        return {
            "repo_id": self.repo_id,
            "model_id": self.model_id,
            "commit": self.commit,
            "size_bytes": self.size_bytes,
            "partial_bytes": self.partial_bytes,
            "complete": self.complete,
            "path": self.path,
            "modified_at": moment(self.modified_at),
            "last_used_at": moment(self.last_used_at),
            "revisions": [revision.shown() for revision in self.revisions],
        }


@dataclass(frozen=True, slots=True)
class Library:
    """All models in the cache, by name. ``size_bytes``: what they take together, content that models share once;
    ``read_at``: seconds since 1970."""

    models: tuple[LocalModel, ...]
    size_bytes: int
    read_at: float


@dataclass(frozen=True, slots=True)
class DeletePlan:
    """What a deletion removes, or has removed. ``revisions``: commits; ``freed_bytes`` go, ``shared_bytes`` of the same
    files stay because another commit or model needs them; ``files``: contents that go. ``blocked`` says why it must not
    be done now, ``note`` what else there is to know."""

    model_id: str
    revisions: tuple[str, ...]
    freed_bytes: int
    shared_bytes: int
    files: int
    whole_model: bool
    blocked: str | None = None
    note: str | None = None


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


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something in the cache that nobody is going to use. ``size``: bytes on the disk. ``model_id``: whose unfinished
    file it is, where all that is unfinished of that model may go."""

    path: str
    size: int
    model_id: str | None = None
