"""One model to be fetched by one contender, in a folder that is thrown away afterwards."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.landing import Landing, hub_cache
from benchmarks.measure import Cost

ROOT = Path(__file__).resolve().parent.parent
KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Job:
    """`sums`: the SHA-256 of each file. `folder` is empty and the contender's own."""

    endpoint: str
    repo: str
    commit: str
    sums: Mapping[str, str]
    ca_file: Path | None
    folder: Path
    bound_s: float
    to_first_byte: bool = False

    @property
    def paths(self) -> list[str]:
        return list(self.sums)

    def url(self, path: str) -> str:
        return f"{self.endpoint}/{self.repo}/resolve/{self.commit}/{path}"

    @property
    def hf_home(self) -> Path:
        return self.folder / "huggingface"

    @property
    def snapshot(self) -> Path:
        """Where the standard cache shows the model's files."""
        return self.hf_home / "hub" / f"models--{self.repo.replace('/', '--')}" / "snapshots" / self.commit

    @property
    def cache_landing(self) -> Landing:
        return hub_cache(self.hf_home / "hub", self.repo)

    @property
    def plain(self) -> Path:
        """Where a program that knows no cache puts the files."""
        return self.folder / "files"

    def environment(self, **more: str) -> dict[str, str]:
        """The same for everybody: nothing of this person's settings, proxies or tokens, and no calls home."""
        env = {name: value for name in KEPT_VARIABLES if (value := os.environ.get(name)) is not None}
        env |= {
            "HOME": str(self.folder),
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.hf_home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "NO_COLOR": "1",
        }
        if self.ca_file is not None:
            env["SSL_CERT_FILE"] = str(self.ca_file)
        return env | more


class Contender(Protocol):
    """Somebody who fetches models. `checks_hash`: it compares what it received with a hash, on its own account."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def checks_hash(self) -> bool: ...

    @property
    def is_optional(self) -> bool:
        """Takes part only when it is asked for by its name."""

    def missing(self, job: Job) -> str | None:
        """Why it cannot take part here; None when nothing is known that stands in the way."""

    def version(self) -> str: ...

    def run(self, job: Job) -> Cost:
        """Fetch the model, and say what that cost. Never raises because of what the contender does."""

    def files(self, job: Job) -> Path:
        """The folder that holds the model's files after `run`."""
